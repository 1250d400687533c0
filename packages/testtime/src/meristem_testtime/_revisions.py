"""Sequential revision: what each round changes, and chains against samples at one budget.

- a chain revises its own answer; a round that could not run leaves the chain ended, not repeated
- with a = P(wrong becomes correct) and b = P(correct becomes wrong) in a round, accuracy tends to
  a / (a + b): revising helps exactly if that exceeds the accuracy of the first answers
- a budget counts generated tokens, discarded ones included
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_core import stream
from meristem_testtime._at_k import credit_of
from meristem_testtime._estimates import MeanInterval, interval
from meristem_testtime._rules import Ballots, Rule, majority
from meristem_testtime._traces import Traces, blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Chains of answers; row c is one chain, column r its answer after r revisions.

    Attributes
    ----------
    question
        Number of the question of each chain.
    answer
        Class within the question, -1 without an answer.
    correct
        Whether it is right.
    tokens
        Newly generated in the round, at least 0, discarded ones included.
    alive
        Whether the round ran; once false, always false. Round 0 ran.
    """

    question: Int[np.ndarray, " c"]
    answer: Int[np.ndarray, "c r"]
    correct: Bool[np.ndarray, "c r"]
    tokens: Int[np.ndarray, "c r"]
    alive: Bool[np.ndarray, "c r"]

    def __post_init__(self) -> None:
        if self.answer.size == 0 or not self.alive[:, 0].all():
            raise ValueError("every chain needs a first answer, so alive[:, 0] must be true")
        revived = np.argwhere(self.alive[:, 1:] & ~self.alive[:, :-1])
        if revived.size:
            raise ValueError(f"chain {revived[0][0]} runs again after it ended; mend `alive`")
        if (self.correct & (self.answer < 0)).any() or (self.tokens < 0).any():
            raise ValueError("an answer of -1 is never correct, and tokens are at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionReport:
    """What revising did; entry r concerns the answers after r revisions, ended chains keep theirs.

    Attributes
    ----------
    accuracy, coverage
        Of the answers of round r, and of any answer up to it.
    tokens
        Mean generated up to round r.
    alive
        Number of chains whose round r ran.
    mended, broken
        P(correct | wrong before) and P(wrong | correct before) in round r >= 1 over chains that
        ran; None where no chain was in that state.
    stick
        Share of the later answers of initially wrong chains that equal the initial one, or None.
    mended_rate, broken_rate
        Pooled over rounds; None where undefined.
    stationary
        mended_rate / (mended_rate + broken_rate), or None.
    """

    accuracy: Float[np.ndarray, " r"]
    coverage: Float[np.ndarray, " r"]
    tokens: Float[np.ndarray, " r"]
    alive: Int[np.ndarray, " r"]
    mended: tuple[float | None, ...]
    broken: tuple[float | None, ...]
    stick: float | None
    mended_rate: float | None
    broken_rate: float | None
    stationary: float | None


def revisions(chains: Chains) -> RevisionReport:
    """Return what each round of revision changed.

    References
    ----------
    arXiv 2502.12215.
    """
    right, ran = held(chains.correct, chains.alive), chains.alive[:, 1:]
    before, after = right[:, :-1], right[:, 1:]
    wrong_start = ran & ~right[:, :1]
    same = chains.answer[:, 1:] == chains.answer[:, :1]
    mended_rate, broken_rate = _share(after, ran & ~before), _share(~after, ran & before)
    return RevisionReport(
        accuracy=right.mean(0),
        coverage=np.logical_or.accumulate(right, 1).mean(0),
        tokens=np.cumsum(np.where(chains.alive, chains.tokens, 0), 1).mean(0),
        alive=chains.alive.sum(0),
        mended=tuple(_share(a, r & ~b) for a, b, r in zip(after.T, before.T, ran.T, strict=True)),
        broken=tuple(_share(~a, r & b) for a, b, r in zip(after.T, before.T, ran.T, strict=True)),
        stick=_share(same, wrong_start),
        mended_rate=mended_rate,
        broken_rate=broken_rate,
        stationary=stationary(mended_rate, broken_rate),
    )


def stationary(mended: float | None, broken: float | None) -> float | None:
    """Return the accuracy to which constant rates lead, or None if nothing ever changes.

    Examples
    --------
    >>> stationary(0.1, 0.3)
    0.25
    """
    if mended is None or broken is None or mended + broken == 0:
        return None
    return mended / (mended + broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetComparison:
    """Accuracy at equal generated tokens per question; rows are questions, columns budgets.

    `difference` is parallel minus sequential, one paired interval a budget.
    """

    budgets: tuple[int, ...]
    sequential: Float[np.ndarray, "q b"]
    parallel: Float[np.ndarray, "q b"]
    difference: tuple[MeanInterval, ...]


def equal_budget(
    sequential: Chains,
    parallel: Traces,
    budgets: Sequence[int],
    *,
    rule: Rule = majority,
    draws: int = 1024,
    seed: int = 0,
) -> BudgetComparison:
    """Return accuracy of revising against voting when both may generate the same tokens.

    Parameters
    ----------
    sequential
        Chains of the questions of `parallel`, numbered alike. A budget buys the rounds that fit;
        the last answer counts. Chains of one question are averaged.
    parallel
        Independent samples. A budget buys the prefix of a random order that fits; `rule` votes,
        ties shared evenly. A budget below the first sample buys nothing and earns 0, on both sides.
    budgets
        Tokens per question, at least 1.

    Raises
    ------
    ValueError
        If a question lacks chains or a budget is below 1.
    """
    bad = [budget for budget in budgets if budget < 1]
    if bad or not budgets:
        raise ValueError(f"budgets are {list(budgets)}; give numbers of at least 1 token")
    count = len(parallel.questions)
    chains = np.bincount(sequential.question, minlength=count)
    if chains.size != count or (chains == 0).any():
        raise ValueError(
            f"chains name {chains.size} questions, the samples {count}; every question needs both"
        )
    spent = np.cumsum(np.where(sequential.alive, sequential.tokens, 0), 1)
    right = held(sequential.correct, sequential.alive)
    revised, voted = np.zeros((count, len(budgets))), np.zeros((count, len(budgets)))
    for column, budget in enumerate(budgets):
        rounds = (spent <= budget).sum(1)
        last = np.take_along_axis(right, np.maximum(rounds - 1, 0)[:, None], 1)[:, 0]
        earned = np.bincount(sequential.question, weights=last & (rounds > 0), minlength=count)
        revised[:, column] = earned / chains
    for block in blocks(parallel):
        n = block.rows.shape[1]
        order = stream(seed, "equal_budget", n).random((draws, n)).argsort(1)
        for row, index in enumerate(block.index):
            cost = np.cumsum(block.tokens[row][order], 1)
            for column, budget in enumerate(budgets):
                member = np.zeros((draws, n), bool)
                np.put_along_axis(member, order, cost <= budget, 1)
                ballots = Ballots(
                    member=member,
                    answer=block.answer[row : row + 1],
                    tokens=block.tokens[row : row + 1],
                    scores={name: each[row : row + 1] for name, each in block.scores.items()},
                    classes=block.right.shape[1],
                )
                voted[index, column] = credit_of(rule(ballots), block.right[row], "uniform").mean()
    return BudgetComparison(
        budgets=tuple(budgets),
        sequential=revised,
        parallel=voted,
        difference=tuple(
            interval(voted[:, i], minus=revised[:, i], seed=seed) for i in range(len(budgets))
        ),
    )


def held(values: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return `values` with those of ended rounds replaced by the last that ran."""
    last = np.maximum.accumulate(np.where(alive, np.arange(int(alive.shape[1])), 0), 1)
    return np.take_along_axis(values, last, 1)


def _share(values: np.ndarray, among: np.ndarray) -> float | None:
    return float(values[among].mean()) if among.any() else None
