"""Answers drawn from a calibration."""

import numpy as np
from jaxtyping import Bool, Float

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._errors import DataError
from meristem_rasch._responses import Labels, Responses

CELLS = 4_000_000  # of a probability array held at once


def simulate(
    cal: Calibration,
    theta: Float[np.ndarray, " N"],
    *,
    seed: int,
    mask: Bool[np.ndarray, "N I"] | None = None,
    persons: Labels | None = None,
) -> Responses:
    """Return one answer of each person to each item, by the model of the calibration.

    Parameters
    ----------
    theta
        Abilities in logits, on the scale of `cal`.
    mask
        False where an answer is missing; default all are given.
    persons
        Labels; default "1", "2", ...

    Raises
    ------
    DataError
        If an ability is not finite, the mask has another shape, or an item has no answer.

    Examples
    --------
    >>> cal = Calibration.from_parameters("pcm", [[-1.0], [0.0, 1.0]])
    >>> simulate(cal, np.array([-9.0, 9.0]), seed=0).scores
    array([[0, 0],
           [1, 2]], dtype=int8)
    """
    if not np.isfinite(theta).all():
        raise DataError(f"theta[{int(np.argmin(np.isfinite(theta)))}] must be finite")
    shape = len(theta), len(cal.items)
    if mask is not None and mask.shape != shape:
        raise DataError(f"mask has shape {mask.shape}; give persons x items, {shape}")
    u = np.random.default_rng(seed).random(shape)
    table = np.empty(shape)
    size = max(1, CELLS // (shape[1] * (int(cal.max_score.max()) + 1)))
    for at in range(0, len(theta), size):
        rows = slice(at, at + size)
        below = np.cumsum(curves(cal, theta[rows])[0], axis=2)[:, :, :-1]
        table[rows] = (u[rows, :, None] >= below).sum(axis=2)
    np.minimum(table, cal.max_score, out=table)  # where the probabilities sum to a little below 1
    if mask is not None:
        table[~mask] = np.nan
    return Responses.from_wide(table, persons=persons, items=cal.items, max_score=cal.max_score)
