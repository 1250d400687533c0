"""Shifts of logits that give sets of ratings their scores: bias terms, persons given all else."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from meristem_rasch._newton_cg import distribution


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Ratings, or their kinds, with logits at which expectations are taken."""

    logit: Float[np.ndarray, " r"]
    group: Int[np.ndarray, " r"]  # whose steps apply
    weight: Float[np.ndarray, " r"]
    top: Int[np.ndarray, " G"]
    steps: Float[np.ndarray, "G m"]


def solve_terms(
    rows: Rows, where: Int[np.ndarray, " r"], score: Float[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Return the shifts of the logits that give each set of rows its score, and their errors."""
    count, h = len(score), np.arange(rows.steps.shape[1] + 1.0)
    term, information = np.zeros(count), np.ones(count)
    for _ in range(50):
        p = distribution(rows.group, rows.top, rows.logit + term[where], rows.steps)[0]
        mean = p @ h
        information = np.bincount(where, rows.weight * (p @ h**2 - mean**2), count)
        step = (score - np.bincount(where, rows.weight * mean, count)) / information
        term += step.clip(-1, 1)
        if np.abs(step).max() < 1e-8:
            break
    return term, information**-0.5
