"""Samples of many questions as columns: answer class, correctness, length, scores.

- one row a sample; rows of one question keep their launch order
- an answer is a class within its question, -1 where the sample gave none
- questions of one size form a rectangle, so that votes are a few array operations
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

MARKERS = ("wait", "alternatively")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Samples as columns; row i is a sample of question `questions[question[i]]`.

    Attributes
    ----------
    question
        Number of the question, in [0, Q); every question has at least one row.
    answer
        Class within the question, at least 0, or -1 without an answer.
    tokens
        Length, at least 0; the unit is the engine's tokens unless the source says otherwise.
    correct
        Whether the answer is right; one verdict a class, False without an answer.
    questions
        The Q names.
    scores
        Named finite scores, one a sample.
    markers
        Named counts, such as how often "wait" occurs.
    capped
        Whether the sample ended at the token cap.

    Raises
    ------
    ValueError
        If a column breaks its rule; names question and value.
    """

    question: Int[np.ndarray, " s"]
    answer: Int[np.ndarray, " s"]
    tokens: Int[np.ndarray, " s"]
    correct: Bool[np.ndarray, " s"]
    questions: tuple[str, ...]
    scores: Mapping[str, Float[np.ndarray, " s"]] = field(default_factory=dict[str, np.ndarray])
    markers: Mapping[str, Int[np.ndarray, " s"]] = field(default_factory=dict[str, np.ndarray])
    capped: Bool[np.ndarray, " s"] | None = None

    def __post_init__(self) -> None:
        _check(self)

    def take(self, rows: Bool[np.ndarray, " s"]) -> "Traces":
        """Return the samples where `rows` is true; questions left without one are dropped."""
        kept, question = np.unique(self.question[rows], return_inverse=True)
        return Traces(
            question=question.astype(np.int64),
            answer=self.answer[rows],
            tokens=self.tokens[rows],
            correct=self.correct[rows],
            questions=tuple(self.questions[int(i)] for i in kept.tolist()),
            scores={name: column[rows] for name, column in self.scores.items()},
            markers={name: column[rows] for name, column in self.markers.items()},
            capped=None if self.capped is None else self.capped[rows],
        )

    def sizes(self) -> Int[np.ndarray, " q"]:
        """Return the number of samples of each question."""
        return np.bincount(self.question, minlength=len(self.questions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The questions that have n samples each, as rectangles; classes are 0 to r - 1."""

    index: Int[np.ndarray, " q"]  # numbers of the questions in the traces
    rows: Int[np.ndarray, "q n"]  # rows of the traces, in launch order
    answer: Int[np.ndarray, "q n"]
    tokens: Float[np.ndarray, "q n"]
    scores: Mapping[str, Float[np.ndarray, "q n"]]
    right: Bool[np.ndarray, "q r"]  # verdict of each class
    label: Int[np.ndarray, "q r"]  # the class in the traces; -1 where there is none


def blocks(traces: Traces) -> Iterator[Block]:
    """Yield the questions grouped by their number of samples."""
    order = np.argsort(traces.question, kind="stable")
    sizes = traces.sizes()
    starts = np.cumsum(sizes) - sizes
    for n in np.unique(sizes):
        index = np.flatnonzero(sizes == n)
        rows = order[starts[index][:, None] + np.arange(n)]
        answer, label = _dense(traces.answer[rows])
        right = np.zeros(label.shape, bool)
        question, sample = np.nonzero(answer >= 0)
        right[question, answer[question, sample]] = traces.correct[rows[question, sample]]
        yield Block(
            index=index,
            rows=rows,
            answer=answer,
            tokens=traces.tokens[rows].astype(np.float64),
            scores={name: column[rows] for name, column in traces.scores.items()},
            right=right,
            label=label,
        )


def count_markers(text: str, markers: Sequence[str] = MARKERS) -> dict[str, int]:
    """Return how often each lower-case marker occurs in `text`, case ignored.

    Examples
    --------
    >>> count_markers("Wait, no. WAIT!")
    {'wait': 2, 'alternatively': 0}
    """
    lowered = text.lower()
    return {marker: lowered.count(marker) for marker in markers}


def _dense(answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of each row renumbered from 0 in increasing order, and their labels."""
    order = np.argsort(answer, axis=1, kind="stable")
    ranked = np.take_along_axis(answer, order, 1)
    new = ranked[:, 1:] != ranked[:, :-1]
    rank = np.concatenate([np.zeros((len(answer), 1), np.int64), np.cumsum(new, 1)], 1)
    rank -= (ranked[:, :1] == -1).astype(np.int64)
    label = np.full((len(answer), max(int(rank.max()) + 1, 1)), -1, np.int64)
    question, place = np.nonzero(rank >= 0)
    label[question, rank[question, place]] = ranked[question, place]
    dense = np.empty_like(rank)
    np.put_along_axis(dense, order, rank, 1)
    return dense, label


def _check(traces: Traces) -> None:
    question, count = traces.question, len(traces.questions)
    if question.size == 0:
        raise ValueError("there is no sample; give at least one row")
    if question.min() < 0 or question.max() >= count:
        raise ValueError(f"question must lie in [0, {count}); it holds {question.max()}")
    empty = np.flatnonzero(np.bincount(question, minlength=count) == 0)
    if empty.size:
        raise ValueError(
            f"question {traces.questions[empty[0]]!r} has no sample; drop it or add one"
        )
    for name, column, least in (("answer", traces.answer, -1), ("tokens", traces.tokens, 0)):
        low = np.flatnonzero(column < least)
        if low.size:
            where = traces.questions[question[low[0]]]
            raise ValueError(
                f"{name} of question {where!r} is {column[low[0]]}; it must be at least {least}"
            )
    for name, column in traces.scores.items():
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            where = traces.questions[question[bad[0]]]
            raise ValueError(
                f"score {name!r} of question {where!r} is {column[bad[0]]}; drop the sample"
            )
    _check_verdicts(traces)


def _check_verdicts(traces: Traces) -> None:
    wrong = np.flatnonzero(traces.correct & (traces.answer < 0))
    if wrong.size:
        where = traces.questions[traces.question[wrong[0]]]
        raise ValueError(f"question {where!r}: a sample without an answer is marked correct")
    order = np.lexsort((traces.answer, traces.question))
    question, answer = traces.question[order], traces.answer[order]
    same = (question[1:] == question[:-1]) & (answer[1:] == answer[:-1])
    mixed = np.flatnonzero(same & (traces.correct[order][1:] != traces.correct[order][:-1]))
    if mixed.size:
        where = traces.questions[question[mixed[0]]]
        raise ValueError(
            f"question {where!r}: class {answer[mixed[0]]} is marked both right and wrong; "
            "give one verdict a class"
        )
