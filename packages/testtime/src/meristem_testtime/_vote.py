"""The vote of every question, its tie rule stated, and when the Shortest Majority Vote differs.

- "first": the tied class whose first sample was launched first; "shortest": the least mean length
- "random": one of the tied classes, from the seed; "none": no answer
- a question in which no sample has an answer is wrong, not missing
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_core import stream
from meristem_testtime._rules import Ballots, Rule, majority, shortest_majority
from meristem_testtime._traces import Block, Traces, blocks

TIE = 1e-12  # relative difference below which two sums of the same terms are equal

Ties = Literal["first", "shortest", "random", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The decision of each question.

    Attributes
    ----------
    answer
        The winning class, or -1.
    score, runner_up
        Its score, and the best score of another class; -inf where there is none.
    tied
        Number of classes at the top; 0 without any answer.
    correct
        Whether the winner is right.
    ties
        The rule that settled ties.
    """

    answer: Int[np.ndarray, " q"]
    score: Float[np.ndarray, " q"]
    runner_up: Float[np.ndarray, " q"]
    tied: Int[np.ndarray, " q"]
    correct: Bool[np.ndarray, " q"]
    ties: Ties


@dataclass(frozen=True, slots=True, kw_only=True)
class SmvExplanation:
    """How the Shortest Majority Vote relates to majority, as shares of the questions.

    Attributes
    ----------
    same
        One class is the most frequent, and it wins.
    tie_break
        Several classes are the most frequent, and one of them wins.
    overturn
        A less frequent class wins.
    unanswered
        No sample has an answer.
    overturned
        Names of the questions of the third kind.
    """

    same: float
    tie_break: float
    overturn: float
    unanswered: float
    overturned: tuple[str, ...]


def vote(
    traces: Traces, rule: Rule, *, ties: Ties = "first", rng: np.random.Generator | int = 0
) -> Vote:
    """Return the winner of every question.

    Parameters
    ----------
    rule
        Such as `majority`, `shortest_majority` or `weighted("reward")`.
    ties
        How equal scores are settled, see the top of the module.
    rng
        For ties="random".

    Raises
    ------
    ValueError
        If the tie rule is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from meristem_testtime import Traces, majority, shortest_majority, vote
    >>> traces = Traces(
    ...     question=np.zeros(4, int), answer=np.array([1, 1, 0, 0]),
    ...     tokens=np.array([900, 700, 300, 350]), correct=np.array([False, False, True, True]),
    ...     questions=("q",),
    ... )
    >>> vote(traces, majority).answer, vote(traces, shortest_majority).answer
    (array([1]), array([0]))
    """
    if ties not in ("first", "shortest", "random", "none"):
        raise ValueError(f"ties is {ties!r}; choose 'first', 'shortest', 'random' or 'none'")
    generator = stream(rng, "vote") if isinstance(rng, int) else rng
    count = len(traces.questions)
    answer = np.full(count, -1, np.int64)
    score, runner_up = np.full(count, -np.inf), np.full(count, -np.inf)
    tied, correct = np.zeros(count, np.int64), np.zeros(count, bool)
    for block in blocks(traces):
        ballots = whole(block)
        scores = rule(ballots)
        top = winners(scores)
        chosen = _settle(ballots, top, ties, generator)
        held = np.flatnonzero((top.sum(1) > 0) & (chosen >= 0))
        rows = block.index[held]
        answer[rows] = block.label[held, chosen[held]]
        correct[rows] = block.right[held, chosen[held]]
        ranked = np.sort(scores, 1)
        tied[block.index], score[block.index] = top.sum(1), ranked[:, -1]
        if ranked.shape[1] > 1:
            runner_up[block.index] = ranked[:, -2]
    return Vote(
        answer=answer, score=score, runner_up=runner_up, tied=tied, correct=correct, ties=ties
    )


def explain_smv(traces: Traces) -> SmvExplanation:
    """Return how often the Shortest Majority Vote only breaks a tie of majority.

    Notes
    -----
    Class b beats a of a strict plurality, c_a > c_b, exactly if ln l_a / ln l_b > c_a / c_b, that
    is l_a > l_b ** (c_a / c_b): at l_b = 3000 two against one needs 9 000 000 tokens.
    """
    same, tie_break, unanswered = 0, 0, 0
    overturned: list[int] = []
    for block in blocks(traces):
        ballots = whole(block)
        most, short = winners(majority(ballots)), winners(shortest_majority(ballots))
        answered = most.any(1)
        inside = ~(short & ~most).any(1)
        unanswered += int((~answered).sum())
        same += int((answered & inside & (most.sum(1) == 1)).sum())
        tie_break += int((answered & inside & (most.sum(1) > 1)).sum())
        overturned += block.index[answered & ~inside].tolist()
    count = len(traces.questions)
    return SmvExplanation(
        same=same / count,
        tie_break=tie_break / count,
        overturn=len(overturned) / count,
        unanswered=unanswered / count,
        overturned=tuple(traces.questions[i] for i in sorted(overturned)),
    )


def whole(block: Block) -> Ballots:
    """Return one ballot a question, with all of its samples."""
    return Ballots(
        member=np.ones(block.answer.shape, bool),
        answer=block.answer,
        tokens=block.tokens,
        scores=block.scores,
        classes=block.right.shape[1],
    )


def winners(scores: Float[np.ndarray, "b r"]) -> Bool[np.ndarray, "b r"]:
    """Return which classes of a ballot share the largest score; none where there is no class."""
    best = np.asfortranarray(scores).max(1, keepdims=True)  # 10 times as fast over few classes
    with np.errstate(invalid="ignore"):
        return np.isfinite(scores) & (scores >= best - TIE * np.abs(best))


def _settle(
    ballots: Ballots, top: np.ndarray, ties: Ties, rng: np.random.Generator
) -> Int[np.ndarray, " b"]:
    if ties == "none":
        return np.where(top.sum(1) == 1, top.argmax(1), -1)
    if ties == "random":
        return np.where(top, rng.random(top.shape), -1.0).argmax(1)
    launch = np.arange(ballots.member.shape[1], dtype=np.float64)[None]
    first = -ballots.maxima(np.broadcast_to(-launch, ballots.member.shape).copy())
    if ties == "shortest":
        length = ballots.sums(ballots.tokens) / np.maximum(ballots.counts(), 1)
        shortest = np.where(top, length, np.inf)
        top = top & (shortest <= shortest.min(1, keepdims=True))
    return np.where(top, first, np.inf).argmin(1)
