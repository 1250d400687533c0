"""Where a solution goes wrong: bisection with rollouts, for one solution or a whole pool.

- a prefix is alive if one of K rollouts from it ends right; a prefix of value V is missed with
  chance (1 - V)**K
- bisection assumes that a prefix that cannot be completed stays so: log2 T probes instead of T
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from meristem_core import wilson_interval
from meristem_testtime._nodes import Node
from meristem_testtime._records import Correct, StepLabel
from meristem_testtime._task import Algorithm, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstError:
    """The first step of a wrong solution after which no rollout ends right.

    Attributes
    ----------
    question, text
        Its question and the wrong solution.
    step
        Number of the step, the first is 1.
    steps
        Steps of the solution.
    alive
        Share of right rollouts from the prefix before it; None where it was not probed, that is
        for the first step.
    missed
        Chance (1 - alive)**K of missing a prefix as good as that one.
    rollouts
        Samples that were drawn for it.
    """

    question: str
    text: str
    step: int
    steps: int
    alive: float | None
    missed: float | None
    rollouts: int


def first_error(
    steps: Algorithm, correct: Correct, rollouts: int, into: list[FirstError]
) -> Algorithm:
    """Return an algorithm that runs `steps`, then bisects each wrong solution for its first error.

    Parameters
    ----------
    steps
        Makes the solutions, such as `beam(4)`; they need several steps to say anything.
    correct
        Takes the question's name and a whole solution's text.
    rollouts
        Whole samples from each probed prefix; the probes of all solutions share one request.
    into
        Results are appended here, in the order of the solutions.

    References
    ----------
    arXiv 2406.06592 (OmegaPRM), the binary search of its Monte-Carlo method.
    """
    if rollouts < 1:
        raise ValueError(f"rollouts ({rollouts}) must be at least 1")

    async def algorithm(task: Task) -> None:
        await steps(task)
        searches = [
            _Bisection(node.path())
            for node in task.result(exhausted=False).solutions
            if not correct(node.question, node.text)
        ]
        known: dict[Node, float] = {}
        while open_ones := [each for each in searches if each.high - each.low > 1]:
            probes = {each.middle(): None for each in open_ones}
            fresh = [node for node in probes if node not in known]
            for node, ends in zip(
                fresh, await task.expand(fresh, rollouts, whole=True), strict=True
            ):
                known[node] = sum(correct(end.question, end.text) for end in ends) / rollouts
            for each in open_ones:
                each.judge(known[each.middle()], rollouts if each.middle() in fresh else 0)
        into.extend(each.result(rollouts) for each in searches)

    return algorithm


@dataclass(slots=True)
class _Bisection:
    """Prefix `low` is alive (0 is assumed to be), prefix `high` is not."""

    path: list[Node]
    low: int = 0
    high: int = field(init=False)
    alive: float | None = None
    drawn: int = 0

    def __post_init__(self) -> None:
        self.high = len(self.path)

    def middle(self) -> Node:
        return self.path[(self.low + self.high) // 2 - 1]

    def judge(self, share: float, drawn: int) -> None:
        self.drawn += drawn
        middle = (self.low + self.high) // 2
        if share > 0:
            self.low, self.alive = middle, share
        else:
            self.high = middle

    def result(self, rollouts: int) -> FirstError:
        return FirstError(
            question=self.path[-1].question,
            text=self.path[-1].text,
            step=self.high,
            steps=len(self.path),
            alive=self.alive,
            missed=None if self.alive is None else (1 - self.alive) ** rollouts,
            rollouts=self.drawn,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class PoolState:
    """A prefix with its rollouts; `wrong` are those that were not searched yet."""

    node: Node
    share: float
    wrong: list[Node]
    visits: int = 0


Priority = Callable[[PoolState, int, int], float]


def omega_priority(
    *, alpha: float = 0.5, beta: float = 0.9, length: int = 500, c: float = 0.125
) -> Priority:
    """Return Q + U of OmegaPRM: alpha**(1 - MC) beta**(tokens / length) + c sqrt(sum N) / (1 + N).

    References
    ----------
    arXiv 2406.06592, the selection rule; defaults from there.
    """

    def priority(state: PoolState, tokens: int, visits: int) -> float:
        quality = alpha ** (1 - state.share) * beta ** (tokens / length)
        return quality + c * math.sqrt(visits) / (1 + state.visits)

    return priority


def omega_prm(
    correct: Correct,
    rollouts: int,
    searches: int,
    into: list[StepLabel],
    *,
    segment: int = 16,
    priority: Priority | None = None,
) -> Algorithm:
    """Return the tree search of OmegaPRM: labels of prefixes, many from few rollouts.

    Each search takes the wrong rollout of largest priority from a prefix that is sometimes
    completed right, bisects its tokens down to `segment`, and puts every probed prefix with its
    rollouts into the pool.

    Parameters
    ----------
    correct
        Takes the question's name and a whole solution's text.
    rollouts
        Whole samples from the prompt, and from each probed prefix.
    searches
        Most bisections of a question; it ends earlier when no wrong rollout is left to search.
    into
        Labels of the probed prefixes are appended here.
    segment
        Tokens at which a bisection ends, at least 1.
    priority
        By default `omega_priority()`.

    References
    ----------
    arXiv 2406.06592 (OmegaPRM).
    """
    if rollouts < 1 or searches < 1 or segment < 1:
        raise ValueError(
            f"rollouts ({rollouts}), searches ({searches}) and segment ({segment}) must be at "
            "least 1"
        )
    judge = omega_priority() if priority is None else priority

    async def algorithm(task: Task) -> None:
        pool = [await _state(task, task.root, correct, rollouts)]
        for _ in range(searches):
            choices = [
                (judge(state, len(end.ids), sum(each.visits for each in pool)), state, end)
                for state in pool
                if 0 < state.share < 1
                for end in state.wrong
            ]
            if not choices:
                break
            _, state, end = max(choices, key=lambda choice: choice[0])
            state.wrong.remove(end)
            state.visits += 1
            low, high = 0, len(end.ids)
            while high - low > segment:
                middle = (low + high) // 2
                probed = await _state(task, task.prefix(end, middle), correct, rollouts)
                pool.append(probed)
                into.append(_label(probed, rollouts))
                low, high = (middle, high) if probed.share > 0 else (low, middle)

    return algorithm


async def _state(task: Task, node: Node, correct: Correct, rollouts: int) -> PoolState:
    (ends,) = await task.expand([node], rollouts, whole=True)
    right = [correct(end.question, end.text) for end in ends]
    for end in ends:
        task.finish(end)
    return PoolState(
        node=node,
        share=sum(right) / rollouts,
        wrong=[end for end, good in zip(ends, right, strict=True) if not good],
    )


def _label(state: PoolState, rollouts: int) -> StepLabel:
    share = wilson_interval(round(state.share * rollouts), rollouts)
    return StepLabel(
        question=state.node.question, prefix_ids=state.node.path_ids(), rollouts=rollouts,
        soft=share.estimate, hard=share.estimate > 0, low=share.low, high=share.high,
    )  # fmt: skip
