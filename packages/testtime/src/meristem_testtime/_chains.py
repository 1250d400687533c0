"""Chains times rounds: how one budget is best split between sampling and revising.

- a cell is the vote over the last answers of m chains after r revisions each: m * (r + 1) answers
- expected over all m-subsets of a question's chains; an ended chain keeps its last answer
- each cell is paired, question by question, with the vote over m * (r + 1) first answers
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from meristem_testtime._at_k import at_k
from meristem_testtime._estimates import MeanInterval, interval
from meristem_testtime._revisions import Chains, held
from meristem_testtime._rules import Rule, majority
from meristem_testtime._traces import Traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A vote over `chains` chains of `rounds` revisions each.

    Attributes
    ----------
    chains, rounds
        m and r.
    answers
        m * (r + 1), what the cell asks of an engine where no chain ends early.
    tokens
        Mean generated for a question, discarded ones included.
    accuracy
        Of the vote, with its interval over questions.
    minus_sampling
        Accuracy minus that of the vote over `answers` first answers, paired by question; None where
        a question has fewer samples, and where the cell has no revision.
    """

    chains: int
    rounds: int
    answers: int
    tokens: float
    accuracy: MeanInterval
    minus_sampling: MeanInterval | None


def chains_by_rounds(
    chains: Chains,
    samples: Traces,
    *,
    rule: Rule = majority,
    counts: Sequence[int] | None = None,
    rounds: Sequence[int] | None = None,
    seed: int = 0,
) -> tuple[Cell, ...]:
    """Return one cell for each number of chains and of rounds, by answers and then by rounds.

    Parameters
    ----------
    chains
        Of the questions of `samples`, numbered alike.
    samples
        Independent samples, which stand for spending the same number of answers on no revision.
    rule
        Votes over last answers; the length of one is what its whole chain generated.
    counts, rounds
        Numbers of chains, at least 1 and at most those of any question, and of revisions, 0 to
        those of the longest chain; by default m and r + 1 are the powers of two and the most.

    Raises
    ------
    ValueError
        If a question lacks chains or a number is out of range.

    References
    ----------
    arXiv 2408.03314, section 6: the ratio of sequential to parallel at one budget.
    """
    have = np.bincount(chains.question, minlength=len(samples.questions))
    if have.size != len(samples.questions) or not have.all():
        raise ValueError(
            f"chains name {have.size} questions, the samples {len(samples.questions)}; every "
            "question needs both"
        )
    most, last = int(have.min()), chains.answer.shape[1] - 1
    counts = _powers(most) if counts is None else tuple(counts)
    rounds = [size - 1 for size in _powers(last + 1)] if rounds is None else tuple(rounds)
    _check("counts", counts, 1, most)
    _check("rounds", rounds, 0, last)
    sampled = _sampled(samples, rule, {m * (r + 1) for m in counts for r in rounds if r}, seed)
    cells: list[Cell] = []
    for r in rounds:
        ends = _ends(chains, samples.questions, r)
        votes = at_k(ends, rule, counts, seed=seed).values
        spent = float((np.bincount(ends.question, weights=ends.tokens) / have).mean())
        for m, values in zip(counts, votes.T, strict=True):
            rival = sampled.get(m * (r + 1)) if r else None
            cells.append(
                Cell(
                    chains=m,
                    rounds=r,
                    answers=m * (r + 1),
                    tokens=m * spent,
                    accuracy=interval(values, seed=seed),
                    minus_sampling=None
                    if rival is None
                    else interval(values, minus=rival, seed=seed),
                )
            )
    return tuple(sorted(cells, key=lambda cell: (cell.answers, cell.rounds)))


def _sampled(
    samples: Traces, rule: Rule, answers: set[int], seed: int
) -> dict[int, Float[np.ndarray, " q"]]:
    """Return what a vote over so many samples earns on each question, where all have them."""
    ks = sorted(k for k in answers if k <= int(samples.sizes().min()))
    return dict(zip(ks, at_k(samples, rule, ks, seed=seed).values.T, strict=True)) if ks else {}


def _ends(chains: Chains, questions: tuple[str, ...], r: int) -> Traces:
    """Return the answers after r revisions as samples, as long as their chains until then."""
    order = np.argsort(chains.question, kind="stable")
    until = slice(r + 1)
    alive = chains.alive[order, until]
    spent = np.where(alive, chains.tokens[order, until], 0).sum(1)
    return Traces(
        question=chains.question[order],
        answer=held(chains.answer[order, until], alive)[:, -1],
        correct=held(chains.correct[order, until], alive)[:, -1],
        tokens=spent,
        questions=questions,
    )


def _powers(most: int) -> tuple[int, ...]:
    return tuple(sorted({*(2**i for i in range(most.bit_length())), most}))


def _check(name: str, values: Sequence[int], least: int, most: int) -> None:
    bad = [value for value in values if not least <= value <= most]
    if bad or not values:
        raise ValueError(f"{name} are {list(values)}; give numbers from {least} to {most}")
