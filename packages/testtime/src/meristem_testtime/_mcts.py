"""Monte-Carlo tree search with UCT or PUCT.

- a node is expanded once, into `branch` children; its value is the guide's, backed up as a mean
- first-play value of a child is its own guide value
- solutions are the finished leaves, weighted by their visits
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from meristem_testtime._nodes import Node
from meristem_testtime._task import Algorithm, Task

PUCT_BASE, PUCT_INIT = 19652, 1.25  # AlphaZero's, arXiv 1712.01815


@dataclass(slots=True, kw_only=True, eq=False)
class Branch:
    """A node with its statistics; `prior` is normalised over siblings."""

    node: Node
    prior: float
    visits: int = 0
    total: float = 0.0
    children: list["Branch"] = field(default_factory=list["Branch"])

    def mean(self) -> float:
        """Return the mean of what was backed up, or the guide's value before the first visit."""
        return self.total / self.visits if self.visits else self.node.value


Rule = Callable[[Branch, Branch], float]


def uct(c: float = 1.4) -> Rule:
    """Return Q + c sqrt(ln N / n); a child without visits counts as visited once.

    References
    ----------
    Kocsis and Szepesvari 2006, "Bandit based Monte-Carlo planning".
    """

    def score(parent: Branch, child: Branch) -> float:
        n = max(child.visits, 1)
        return child.mean() + c * math.sqrt(math.log(max(parent.visits, 1)) / n)

    return score


def puct() -> Rule:
    """Return Q + P (ln((1 + N + 19652) / 19652) + 1.25) sqrt(N) / (1 + n).

    References
    ----------
    arXiv 1712.01815, supplement.
    """

    def score(parent: Branch, child: Branch) -> float:
        rate = math.log((1 + parent.visits + PUCT_BASE) / PUCT_BASE) + PUCT_INIT
        return child.mean() + child.prior * rate * math.sqrt(parent.visits) / (1 + child.visits)

    return score


def mcts(simulations: int, branch: int = 4, rule: Rule | None = None) -> Algorithm:
    """Return Monte-Carlo tree search.

    Parameters
    ----------
    simulations
        Descents from the root.
    branch
        Children that an expansion samples.
    rule
        `uct()` (default) or `puct()`; the prior of a child is the exponential of its mean token
        log-probability, normalised over its siblings.
    """
    if simulations < 1 or branch < 1:
        raise ValueError(f"simulations ({simulations}) and branch ({branch}) must be at least 1")
    choose = uct() if rule is None else rule

    async def algorithm(task: Task) -> None:
        root = Branch(node=task.root, prior=1.0)
        try:
            for _ in range(simulations):
                await _simulate(task, root, branch, choose)
        finally:
            _give(task, root)

    return algorithm


async def _simulate(task: Task, root: Branch, branch: int, choose: Rule) -> None:
    path = [root]
    while path[-1].children:
        parent = path[-1]
        path.append(max(parent.children, key=lambda child: choose(parent, child)))
    leaf = path[-1]
    if not leaf.node.finished and (leaf.visits > 0 or leaf is root):
        (nodes,) = await task.expand([leaf.node], branch)
        priors = [math.exp(sum(n.logprobs) / max(len(n.logprobs), 1)) for n in nodes]
        leaf.children = [
            Branch(node=node, prior=prior / sum(priors))
            for node, prior in zip(nodes, priors, strict=True)
        ]
        path.append(max(leaf.children, key=lambda child: choose(leaf, child)))
    for each in path:
        each.visits += 1
        each.total += path[-1].node.value


def _give(task: Task, root: Branch) -> None:
    stack = [root]
    while stack:
        each = stack.pop()
        if each.node.finished and each.visits:
            task.finish(each.node, float(each.visits))
        stack += reversed(each.children)
