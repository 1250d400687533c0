"""Monte-Carlo tree search with UCT or PUCT.

- a node is expanded once, into `branch` children; its value is the guide's, or the mean of the
  guide's over rollouts, and is backed up as a mean
- first-play value of a child is its own guide value
- children with equal tokens are one child, whose prior is the sum of theirs
- solutions are the finished leaves, weighted by their visits
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from meristem_testtime._nodes import Node
from meristem_testtime._siblings import merged
from meristem_testtime._task import Algorithm, Task

PUCT_BASE, PUCT_INIT = 19652, 1.25  # AlphaZero's, arXiv 1712.01815
NOISE_CONCENTRATION = 0.3  # of the Dirichlet noise; AlphaZero's for chess


@dataclass(slots=True, kw_only=True, eq=False)
class Branch:
    """A node with its statistics; `prior` is normalised over siblings, None if it is not known."""

    node: Node
    prior: float | None
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
        if child.prior is None:
            raise ValueError(
                "puct needs the log-probabilities of steps; search with logprobs=True, or by uct"
            )
        rate = math.log((1 + parent.visits + PUCT_BASE) / PUCT_BASE) + PUCT_INIT
        return child.mean() + child.prior * rate * math.sqrt(parent.visits) / (1 + child.visits)

    return score


def mcts(
    simulations: int,
    branch: int = 4,
    rule: Rule | None = None,
    *,
    rollouts: int = 0,
    noise: float = 0.0,
) -> Algorithm:
    """Return Monte-Carlo tree search.

    Parameters
    ----------
    simulations
        Descents from the root.
    branch
        Children that an expansion samples; those with equal tokens are one.
    rule
        `uct()` (default) or `puct()`; the prior of a child is the exponential of its mean token
        log-probability, once for each time it was drawn, normalised over its siblings.
    rollouts
        Whole samples from a new leaf whose mean value stands for it, for guides that can judge only
        whole solutions; 0 takes the guide's value of the leaf. Rollouts are no solutions.
    noise
        Share, in [0, 1], of Dirichlet(0.3) noise in the priors below the root; for `puct`.

    References
    ----------
    arXiv 1712.01815 for the noise, with a share of 0.25.
    """
    if simulations < 1 or branch < 1 or rollouts < 0:
        raise ValueError(
            f"simulations ({simulations}) and branch ({branch}) must be at least 1, rollouts "
            f"({rollouts}) at least 0"
        )
    if not 0 <= noise <= 1:
        raise ValueError(f"noise ({noise}) must lie in [0, 1]")
    choose = uct() if rule is None else rule

    async def algorithm(task: Task) -> None:
        root = Branch(node=task.root, prior=1.0)
        try:
            for _ in range(simulations):
                path = await _descend(task, root, branch, choose, noise)
                value = await _worth(task, path[-1].node, rollouts)
                for each in path:
                    each.visits += 1
                    each.total += value
        finally:
            _give(task, root)

    return algorithm


async def _descend(
    task: Task, root: Branch, branch: int, choose: Rule, noise: float
) -> list[Branch]:
    """Return the path to the leaf that a simulation values, expanding one that was valued."""
    path = [root]
    while path[-1].children:
        parent = path[-1]
        path.append(max(parent.children, key=lambda child: choose(parent, child)))
    leaf = path[-1]
    if not leaf.node.finished and (leaf.visits > 0 or leaf is root):
        copies = merged((await task.expand([leaf.node], branch))[0])
        priors = _priors(copies, noise if leaf is root else 0.0, task.rng)
        leaf.children = [
            Branch(node=node, prior=prior) for node, prior in zip(copies, priors, strict=True)
        ]
        path.append(max(leaf.children, key=lambda child: choose(leaf, child)))
    return path


def _priors(
    copies: Mapping[Node, int], noise: float, rng: np.random.Generator
) -> list[float] | list[None]:
    if not all(node.logprobs for node in copies):
        return [None] * len(copies)
    means = [sum(node.logprobs) / len(node.logprobs) for node in copies]
    priors = np.exp(means) * np.array(list(copies.values()))
    priors /= priors.sum()
    if noise:
        drawn = rng.dirichlet(np.full(len(copies), NOISE_CONCENTRATION))
        priors = (1 - noise) * priors + noise * drawn
    return priors.tolist()


async def _worth(task: Task, node: Node, rollouts: int) -> float:
    if node.finished or not rollouts:
        return node.value
    (ends,) = await task.expand([node], rollouts, whole=True)
    return sum(end.value for end in ends) / rollouts


def _give(task: Task, root: Branch) -> None:
    stack = [root]
    while stack:
        each = stack.pop()
        if each.node.finished and each.visits:
            task.finish(each.node, float(each.visits))
        stack += reversed(each.children)
