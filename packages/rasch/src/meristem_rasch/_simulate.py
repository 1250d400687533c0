"""Answers drawn from a calibration."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.special import expit, softmax

from meristem_rasch._calibration import Calibration
from meristem_rasch._errors import DataError
from meristem_rasch._responses import Responses

CELLS = 2_000_000  # of cumulative probabilities held at once


def simulate(
    cal: Calibration,
    theta: ArrayLike,
    *,
    seed: int,
    mask: Bool[np.ndarray, "N I"] | None = None,
    persons: Sequence[object] | None = None,
) -> Responses:
    """Return one draw of the answers of persons with abilities `theta`.

    Parameters
    ----------
    theta
        Finite abilities in logits, shape (N,).
    mask
        True where an answer is given; default everywhere. The mask does not change the draws.
    persons
        Labels; default "1", "2", ...

    Raises
    ------
    DataError
        If an ability is not finite, the mask has another shape, or an item has no answer.

    Examples
    --------
    >>> items = Calibration.from_parameters("rasch", [[-9.0], [9.0]])
    >>> simulate(items, [0.0, 0.0], seed=1).scores.tolist()
    [[1, 0], [1, 0]]
    """
    ability = np.asarray(theta, dtype=float)
    if ability.ndim != 1 or not len(ability) or not np.isfinite(ability).all():
        raise DataError("abilities must be finite, in one row, and at least one")
    shape = (len(ability), len(cal.items))
    if mask is not None and mask.shape != shape:
        raise DataError(f"the mask has shape {mask.shape}; give persons x items, {shape}")
    rng, below = np.random.default_rng(seed), cumulative(cal)
    scores = np.empty(shape)
    size = max(1, CELLS // (shape[1] * int(cal.max_score.max())))
    for at in range(0, shape[0], size):
        part = ability[at : at + size]
        u = rng.random((len(part), shape[1]))
        items = np.tile(np.arange(shape[1]), len(part))
        chances = below(np.repeat(part, shape[1]), items)
        scores[at : at + size] = (u.reshape(-1, 1) >= chances).sum(axis=1).reshape(u.shape)
    return Responses.from_wide(
        scores if mask is None else np.where(mask, scores, np.nan),
        persons=persons,
        items=cal.items,
        max_score=cal.max_score,
    )


def cumulative(
    bank: Calibration,
) -> Callable[[np.ndarray, np.ndarray], Float[np.ndarray, "m K"]]:
    """Return the function from abilities and items to P(x <= h), h = 0 ... K - 1."""
    inside = np.arange(int(bank.max_score.max())) < bank.max_score[:, None]
    tau = np.full(inside.shape, np.inf)
    tau[inside] = bank.threshold
    beta = np.cumsum(np.where(inside, tau, 0.0), axis=1)
    h = np.arange(1.0, inside.shape[1] + 1)

    def graded(theta: np.ndarray, items: np.ndarray) -> np.ndarray:
        return 1 - expit(bank.slope[items, None] * (theta[:, None] - tau[items]))

    def divided(theta: np.ndarray, items: np.ndarray) -> np.ndarray:
        exponent = bank.slope[items, None] * (h * theta[:, None] - beta[items])
        exponent = np.where(inside[items], exponent, -np.inf)
        p = softmax(np.hstack([np.zeros((len(items), 1)), exponent]), axis=1)
        return (1 - bank.guess[items, None]) * p.cumsum(axis=1)[:, :-1]

    return graded if bank.model == "grm" else divided
