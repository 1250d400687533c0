"""Linear designs: thresholds tau = W eta + offset, one row of W per threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import qr

from meristem_rasch._errors import DataError, IdentificationError

Anchor = float | Sequence[float] | Float[np.ndarray, " m"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """Thresholds as a function of the free parameters.

    A design that only selects (`columns` of the identity) is never written out, so that a thousand
    items cost no products of dense matrices.
    """

    matrix: Float[np.ndarray, "H P"] | None
    free: Bool[np.ndarray, " H"]  # thresholds that are parameters where `matrix` is None
    offset: Float[np.ndarray, " H"]
    null: Float[np.ndarray, " P"]  # the direction that shifts all thresholds alike, or zeros

    def thresholds(self, eta: Float[np.ndarray, " P"]) -> Float[np.ndarray, " H"]:
        """Return W eta + offset."""
        return self.change(eta) + self.offset

    def change(self, eta: Float[np.ndarray, " P"]) -> Float[np.ndarray, " H"]:
        """Return W eta."""
        if self.matrix is not None:
            return self.matrix @ eta
        out = np.zeros(len(self.offset))
        out[self.free] = eta
        return out

    def gradient(self, gradient: Float[np.ndarray, " H"]) -> Float[np.ndarray, " P"]:
        """Return W' g."""
        return gradient[self.free] if self.matrix is None else self.matrix.T @ gradient

    def hessian(self, hessian: Float[np.ndarray, "H H"]) -> Float[np.ndarray, "P P"]:
        """Return W' H W."""
        if self.matrix is not None:
            return self.matrix.T @ hessian @ self.matrix
        return hessian if self.free.all() else hessian[np.ix_(self.free, self.free)]

    def covariance(self, covariance: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "H H"]:
        """Return W V W'."""
        if self.matrix is not None:
            return self.matrix @ covariance @ self.matrix.T
        if self.free.all():
            return covariance
        out = np.zeros((len(self.offset),) * 2)
        out[np.ix_(self.free, self.free)] = covariance
        return out

    def start(self, tau: Float[np.ndarray, " H"]) -> Float[np.ndarray, " P"]:
        """Return the parameters whose thresholds are nearest to `tau`."""
        if self.matrix is None:
            return tau[self.free]
        return np.linalg.lstsq(self.matrix, tau - self.offset, rcond=None)[0]


def linear(
    matrix: Float[np.ndarray, "H P"], offset: Float[np.ndarray, " H"] | None = None
) -> Linear:
    """Return the linear map of a design matrix."""
    size = len(matrix)
    return Linear(
        matrix=matrix,
        free=np.ones(size, dtype=bool),
        offset=np.zeros(size) if offset is None else offset,
        null=null_direction(matrix),
    )


def partial_credit(max_score: Int[np.ndarray, " I"]) -> Linear:
    """Return the design with one free parameter per threshold."""
    size = int(max_score.sum())
    return Linear(
        matrix=None,
        free=np.ones(size, dtype=bool),
        offset=np.zeros(size),
        null=np.ones(size),
    )


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
    max_score: Sequence[int] | Int[np.ndarray, " I"], points: int, *, groups: int = 1
) -> Float[np.ndarray, "H P"]:
    """Return the design of `points` occasions of the same items (LLTM and LPCM with change).

    Rows are the thresholds of the virtual items: occasion by occasion, within one group by group
    (a person answers only those of its group). The first columns are the thresholds at the first
    occasion without the very first (fixed at 0); the next `points` - 1 the shift of each later
    occasion in the first group; the last, group by group, what every other group's shifts add:
    effects of treatments. Positive: the items became harder.

    Raises
    ------
    ValueError
        If there are fewer than two occasions or no group.

    References
    ----------
    Fischer 1995, "Linear logistic models for change", in Rasch Models, chapter 9.

    Examples
    --------
    >>> design_repeated([1, 1], 2, groups=2)[-2:].tolist()  # second occasion, second group
    [[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    if points < 2 or groups < 1:
        raise ValueError(
            f"points is {points} and groups {groups}; change needs at least 2 occasions and 1 group"
        )
    size = int(np.sum(max_score))
    basic = np.tile(np.eye(size)[:, 1:], (points * groups, 1))
    later = np.eye(points)[:, 1:]
    # the first group's column counts in every group
    effects = [np.repeat(later, groups, axis=0)]
    effects += [np.kron(later, np.eye(groups)[:, [g]]) for g in range(1, groups)]
    return np.hstack([basic, *(np.repeat(block, size, axis=0) for block in effects)])


def anchored(
    anchors: Mapping[str, Anchor], items: tuple[str, ...], max_score: Int[np.ndarray, " I"]
) -> Linear:
    """Return the partial credit design with some items' thresholds held.

    Raises
    ------
    DataError
        If an anchor names no item, or its thresholds are not as many as the item's.
    """
    size = int(max_score.sum())
    offset, free = np.zeros(size), np.ones(size, dtype=bool)
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
    null = np.zeros(int(free.sum())) if anchors else np.ones(size)
    return Linear(matrix=None, free=free, offset=offset, null=null)


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
