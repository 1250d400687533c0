"""Linear designs: thresholds tau = W eta + offset, one row of W per threshold."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import qr

from meristem_rasch._errors import DataError, IdentificationError

Anchor = float | Sequence[float] | Float[np.ndarray, " m"]


def partial_credit(max_score: Int[np.ndarray, " I"]) -> Float[np.ndarray, "H P"]:
    """Return the design with one free parameter per threshold."""
    return np.eye(int(max_score.sum()))


def rating_scale(max_score: Int[np.ndarray, " I"]) -> Float[np.ndarray, "H P"]:
    """Return the design tau_ih = b_i + kappa_h, sum of kappa = 0 (Andrich 1978).

    Raises
    ------
    DataError
        If the items differ in their number of categories.
    """
    m = int(max_score[0])
    if (max_score != m).any():
        raise DataError(
            f"a rating scale needs equal max_score, not {sorted(set(max_score.tolist()))}; "
            "use model 'pcm'"
        )
    steps = np.vstack([np.eye(m - 1), -np.ones(m - 1)]) if m > 1 else np.zeros((1, 0))
    items = len(max_score)
    return np.hstack([np.repeat(np.eye(items), m, axis=0), np.tile(steps, (items, 1))])


def design_repeated(
    max_score: Sequence[int] | Int[np.ndarray, " I"], points: int
) -> Float[np.ndarray, "H P"]:
    """Return the design of `points` occasions of the same items (LLTM and LPCM with change).

    Rows are the thresholds of the virtual items, occasion by occasion; the first columns are the
    thresholds at the first occasion without the very first (fixed at 0), the last `points` - 1 are
    the shifts of each later occasion, positive when the items became harder.

    Raises
    ------
    ValueError
        If there are fewer than two occasions.
    """
    if points < 2:
        raise ValueError(f"points is {points}; change needs at least 2 occasions")
    size = int(np.sum(max_score))
    basic = np.tile(np.eye(size)[:, 1:], (points, 1))
    return np.hstack([basic, np.repeat(np.eye(points)[:, 1:], size, axis=0)])


def anchored(
    design: Float[np.ndarray, "H P"],
    anchors: Mapping[str, Anchor],
    items: tuple[str, ...],
    max_score: Int[np.ndarray, " I"],
) -> tuple[Float[np.ndarray, "H Q"], Float[np.ndarray, " H"]]:
    """Return the free columns of an identity design and the offset that holds the anchors.

    Raises
    ------
    DataError
        If an anchor names no item, or its thresholds are not as many as the item's.
    """
    offset, free = np.zeros(len(design)), np.ones(len(design), dtype=bool)
    start = np.concatenate([[0], np.cumsum(max_score)])
    for label, value in anchors.items():
        if label not in items:
            raise DataError(f"anchor {label!r} is not an item; the items are {items}")
        i = items.index(label)
        fixed = np.atleast_1d(np.asarray(value, dtype=float))
        if fixed.shape != (max_score[i],) or not np.isfinite(fixed).all():
            raise DataError(f"anchor {label!r} is {value}; give {max_score[i]} finite thresholds")
        offset[start[i] : start[i + 1]] = fixed
        free[start[i] : start[i + 1]] = False
    return design[:, free], offset


def null_direction(design: Float[np.ndarray, "H P"]) -> Float[np.ndarray, " P"]:
    """Return v with W v = 1, or zeros where no common shift lies in the design.

    Raises
    ------
    IdentificationError
        If columns are linearly dependent; the message lists them.
    """
    _, triangle, pivots = qr(design, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(triangle))
    dependent = (
        pivots[len(sizes) :].tolist()
        + pivots[: len(sizes)][sizes < 1e-10 * sizes.max(initial=0)].tolist()
    )
    if dependent:
        raise IdentificationError(
            f"columns {sorted(dependent)} of the design depend linearly on the others; drop them"
        )
    ones = np.ones(len(design))
    v = np.asarray(np.linalg.lstsq(design, ones, rcond=None)[0], dtype=float)
    inside = bool(np.abs(design @ v - ones).max() < 1e-8)
    return v if inside else np.zeros_like(v)
