"""What a search teaches: solutions to imitate, pairs to prefer, labels of steps.

- records are plain frozen dataclasses; `dataclasses.asdict` makes them JSON
- a step's value is the guide's, or the share of rollouts from it that end right
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meristem_core import wilson_interval
from meristem_testtime._nodes import Node, SearchResult
from meristem_testtime._task import Algorithm, Task

Correct = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionRecord:
    """A right solution of `question`; `tokens` is its length."""

    question: str
    text: str
    completion_ids: tuple[int, ...]
    tokens: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPair:
    """Two continuations of one prefix, the first valued higher by at least the margin."""

    question: str
    prefix_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_value: float
    rejected_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLabel:
    """The share of rollouts from a prefix that end right, with Wilson's interval."""

    question: str
    prefix_ids: tuple[int, ...]
    rollouts: int
    soft: float
    hard: bool
    low: float
    high: float


def expert_iteration_records(
    results: Sequence[SearchResult],
    correct: Correct,
    *,
    per_question: int = 10,
    shortest_first: bool = False,
) -> list[SolutionRecord]:
    """Return right solutions to imitate, at most `per_question` each, no text twice.

    Parameters
    ----------
    correct
        Takes the question's name and a solution's text.
    shortest_first
        Whether short solutions are taken before those found first. Cut solutions never are.

    References
    ----------
    arXiv 2203.14465 (STaR); arXiv 2401.08967.
    """
    if per_question < 1:
        raise ValueError(f"per_question ({per_question}) must be at least 1")
    records: list[SolutionRecord] = []
    for result in results:
        unique = {" ".join(node.text.split()): node for node in reversed(result.solutions)}
        nodes = [node for node in result.solutions if node in set(unique.values())]
        right = [n for n in nodes if not n.truncated and correct(result.question, n.text)]
        if shortest_first:
            right.sort(key=lambda node: len(node.path_ids()))
        records += [_solution(node) for node in right[:per_question]]
    return records


def step_pairs(results: Sequence[SearchResult], *, margin: float) -> list[StepPair]:
    """Return, for each prefix with several children, every pair whose values differ by `margin`.

    Nodes with the same tokens before them share a prefix; equal continuations are one.

    Parameters
    ----------
    margin
        Least difference of values, above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin ({margin}) must be above 0, or equal steps would be ranked")
    pairs: list[StepPair] = []
    for result in results:
        families: dict[tuple[int, ...], dict[tuple[int, ...], Node]] = {}
        for node in result.nodes:
            if node.parent is not None and node.depth > node.parent.depth:
                families.setdefault(node.parent.path_ids(), {}).setdefault(node.ids, node)
        for prefix, children in families.items():
            ranked = sorted(children.values(), key=lambda node: -node.value)
            pairs += [
                StepPair(
                    question=result.question,
                    prefix_ids=prefix,
                    chosen_ids=high.ids,
                    rejected_ids=low.ids,
                    chosen_value=high.value,
                    rejected_value=low.value,
                )
                for i, high in enumerate(ranked)
                for low in ranked[i + 1 :]
                if high.value - low.value >= margin
            ]
    return pairs


def process_labels(
    steps: Algorithm, correct: Correct, rollouts: int, into: list[StepLabel]
) -> Algorithm:
    """Return an algorithm that runs `steps`, then labels every open node by rollouts.

    Parameters
    ----------
    steps
        Makes the nodes, such as `beam(4)`.
    correct
        Takes the question's name and a whole solution's text.
    rollouts
        Whole samples from each node (Math-Shepherd uses 8); all nodes share one request.
    into
        Labels are appended here.

    References
    ----------
    arXiv 2312.08935 (Math-Shepherd).
    """
    if rollouts < 1:
        raise ValueError(f"rollouts ({rollouts}) must be at least 1")

    async def algorithm(task: Task) -> None:
        await steps(task)
        nodes = [node for node in task.result(exhausted=False).nodes if not node.finished]
        for node, ends in zip(nodes, await task.expand(nodes, rollouts, whole=True), strict=True):
            right = sum(correct(node.question, end.text) for end in ends)
            share = wilson_interval(right, rollouts)
            into.append(
                StepLabel(
                    question=node.question,
                    prefix_ids=node.path_ids(),
                    rollouts=rollouts,
                    soft=share.estimate,
                    hard=right > 0,
                    low=share.low,
                    high=share.high,
                )
            )

    return algorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeTarget:
    """What a search teaches at one node.

    Attributes
    ----------
    question, prefix_ids
        The node.
    children
        Tokens of each continuation under which there are solutions.
    policy
        Its share of the solutions' weights, raised to 1 / temperature; sums to 1.
    value
        Mean reward of the solutions under the node, weighted.
    weight
        Their weight; with `mcts` the visits of finished leaves.
    """

    question: str
    prefix_ids: tuple[int, ...]
    children: tuple[tuple[int, ...], ...]
    policy: tuple[float, ...]
    value: float
    weight: float


def tree_targets(
    results: Sequence[SearchResult],
    reward: Callable[[str, str], float],
    *,
    temperature: float = 1.0,
) -> list[TreeTarget]:
    """Return the policy and value that a search found, at each inner node above a solution.

    Nodes with the same tokens before them are one, and so are equal continuations.

    Parameters
    ----------
    reward
        Takes the question's name and a solution's text.
    temperature
        Above 0; towards 0 all weight goes to the heaviest child.

    References
    ----------
    arXiv 1712.01815 (AlphaZero): pi(a) proportional to N(a)**(1 / temperature).
    """
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")
    targets: list[TreeTarget] = []
    for result in results:
        weight: dict[tuple[int, ...], float] = {}
        total: dict[tuple[int, ...], float] = {}
        children: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
        for node, share in zip(result.solutions, result.weights, strict=True):
            gain = share * reward(result.question, node.text)
            for each in node.path():
                before = each.parent.path_ids() if each.parent is not None else ()
                family = children.setdefault(before, {})
                family[each.ids] = family.get(each.ids, 0.0) + share
                weight[before] = weight.get(before, 0.0) + share
                total[before] = total.get(before, 0.0) + gain
        targets += [
            TreeTarget(
                question=result.question,
                prefix_ids=before,
                children=tuple(family),
                policy=_sharpened(tuple(family.values()), temperature),
                value=total[before] / weight[before],
                weight=weight[before],
            )
            for before, family in children.items()
            if weight[before] > 0
        ]
    return targets


def _sharpened(weights: Sequence[float], temperature: float) -> tuple[float, ...]:
    largest = max(weights)
    raised = [(weight / largest) ** (1 / temperature) for weight in weights]
    return tuple(each / sum(raised) for each in raised)


def _solution(node: Node) -> SolutionRecord:
    ids = node.path_ids()
    return SolutionRecord(
        question=node.question, text=node.text, completion_ids=ids, tokens=len(ids),
        value=node.value,
    )  # fmt: skip
