"""Any rule at k: exact over all subsets of at most 16 samples, else by shared random orders.

- all 2**n - 1 subsets of a question are judged together, and averaged by size
- above MAX_EXACT samples, prefixes of random orders stand for the subsets; rules and questions of
  one size share the orders, so that differences between rules are paired
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from meristem_core import stream
from meristem_testtime._counting import check_ks
from meristem_testtime._majority import Credit
from meristem_testtime._rules import Ballots, Rule
from meristem_testtime._traces import Block, Traces, blocks
from meristem_testtime._vote import winners

MAX_EXACT = 16
CHUNK = 8192  # ballots judged at once


@dataclass(frozen=True, slots=True, kw_only=True)
class AtK:
    """Expected accuracy of a rule on k samples.

    Attributes
    ----------
    values
        One row a question, one column a k.
    mc_se
        Monte-Carlo standard error of `values`; 0 where exact.
    exact
        Whether every question was enumerated.
    """

    values: Float[np.ndarray, "q k"]
    mc_se: Float[np.ndarray, "q k"]
    exact: bool


def at_k(
    traces: Traces,
    rule: Rule,
    ks: Sequence[int],
    *,
    ties: Credit = "uniform",
    draws: int = 4096,
    seed: int = 0,
) -> AtK:
    """Return the expected accuracy of `rule` on a random k-subset of each question's samples.

    Parameters
    ----------
    rule
        Such as `shortest_majority`.
    ks
        Numbers of samples, 1 <= k <= n for every question.
    ties
        As for `maj_at_k`.
    draws, seed
        Random orders of a question with more than 16 samples.

    Raises
    ------
    ValueError
        If a k is out of range or the tie rule is unknown.
    """
    check_ks(traces, ks)
    if ties not in ("uniform", "loss", "win"):
        raise ValueError(f"ties is {ties!r}; choose 'uniform', 'loss' or 'win'")
    values = np.zeros((len(traces.questions), len(ks)))
    errors = np.zeros_like(values)
    exact = True
    for block in blocks(traces):
        n = block.rows.shape[1]
        members = _subsets(n, ks) if n <= MAX_EXACT else _prefixes(n, ks, draws, seed)
        for row, index in enumerate(block.index):
            for column, member in enumerate(members):
                credit = _credits(block, row, member, rule, ties)
                values[index, column] = credit.mean()
                if n > MAX_EXACT:
                    errors[index, column] = credit.std() / np.sqrt(draws)
        exact &= n <= MAX_EXACT
    return AtK(values=values, mc_se=errors, exact=exact)


def credit_of(
    scores: Float[np.ndarray, "b r"], right: Bool[np.ndarray, " r"], ties: Credit
) -> Float[np.ndarray, " b"]:
    """Return what each ballot earns: the right share of the classes at the top, or its bounds."""
    top = winners(scores)
    count, correct = (top @ np.stack([np.ones(len(right)), right], 1)).T
    share = correct / np.maximum(count, 1)
    if ties == "win":
        return (share > 0).astype(np.float64)
    return share if ties == "uniform" else (share == 1).astype(np.float64)


def _credits(block: Block, row: int, member: np.ndarray, rule: Rule, ties: Credit) -> np.ndarray:
    parts: list[np.ndarray] = []
    for start in range(0, len(member), CHUNK):
        ballots = Ballots(
            member=member[start : start + CHUNK],
            answer=block.answer[row : row + 1],
            tokens=block.tokens[row : row + 1],
            scores={name: column[row : row + 1] for name, column in block.scores.items()},
            classes=block.right.shape[1],
        )
        parts.append(credit_of(rule(ballots), block.right[row], ties))
    return np.concatenate(parts)


def _subsets(n: int, ks: Sequence[int]) -> list[np.ndarray]:
    codes = np.arange(1, 2**n, dtype=np.uint32)
    bits = (codes[:, None] >> np.arange(n, dtype=np.uint32) & 1).astype(bool)
    size = bits.sum(1)
    return [bits[size == k] for k in ks]


def _prefixes(n: int, ks: Sequence[int], draws: int, seed: int) -> list[np.ndarray]:
    if draws < 2:
        raise ValueError(f"draws ({draws}) must be at least 2 for a standard error")
    keys = stream(seed, "at_k", n).random((draws, n))
    rank = keys.argsort(1).argsort(1)
    return [rank < k for k in ks]
