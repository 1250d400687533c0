"""Reductions over groups of rows: tokens of a document, samples of a question.

- row i belongs to segment `segment_ids[i]`; the ids need not be sorted
- float64 accumulation; the result has one entry per segment, the empty ones defined or refused
"""

import numpy as np
from jaxtyping import Float, Int

Values = Float[np.ndarray, " n"]
Ids = Int[np.ndarray, " ids"]
PerSegment = Float[np.ndarray, " segments"]


def segment_sum(values: Values, segment_ids: Ids, *, n_segments: int) -> PerSegment:
    """Return the sum of each segment's values, float64; an empty segment sums to 0.

    Parameters
    ----------
    values
        Shape (n,).
    segment_ids
        Shape (n,), in [0, n_segments).

    Raises
    ------
    ValueError
        If the lengths differ or an id is out of range.

    Examples
    --------
    >>> segment_sum(np.array([1.0, 2.0, 4.0]), np.array([2, 0, 2]), n_segments=3)
    array([2., 0., 5.])
    """
    _check(values, segment_ids, n_segments)
    return np.bincount(segment_ids, weights=values, minlength=n_segments)


def segment_mean(
    values: Values, segment_ids: Ids, *, n_segments: int, empty: float | None = None
) -> PerSegment:
    """Return the mean of each segment's values, float64.

    Parameters are those of `segment_sum`; `empty` is the mean of an empty segment, which is
    an error without it.
    """
    total = segment_sum(values, segment_ids, n_segments=n_segments)
    count = _counts(segment_ids, n_segments, refuse_empty=empty is None)
    return np.where(count > 0, total / np.maximum(count, 1), 0.0 if empty is None else empty)


def segment_max(
    values: Values, segment_ids: Ids, *, n_segments: int, empty: float | None = None
) -> PerSegment:
    """Return the largest value of each segment, float64; `empty` as for `segment_mean`."""
    _check(values, segment_ids, n_segments)
    _counts(segment_ids, n_segments, refuse_empty=empty is None)
    top = np.full(n_segments, 0.0 if empty is None else empty)
    if values.size:
        order = np.argsort(segment_ids, kind="stable")
        present, start = np.unique(segment_ids[order], return_index=True)
        top[present] = np.maximum.reduceat(values[order].astype(np.float64), start)
    return top


def segment_logsumexp(values: Values, segment_ids: Ids, *, n_segments: int) -> PerSegment:
    """Return log(sum(exp(values))) of each segment, float64; an empty segment gives -inf.

    Examples
    --------
    >>> segment_logsumexp(np.array([0.0, 0.0, 1000.0]), np.array([0, 0, 1]), n_segments=2)
    array([6.93147181e-01, 1.00000000e+03])
    """
    top = segment_max(values, segment_ids, n_segments=n_segments, empty=-np.inf)
    shift = np.where(np.isfinite(top), top, 0.0)
    total = segment_sum(np.exp(values - shift[segment_ids]), segment_ids, n_segments=n_segments)
    return np.where(total > 0, np.log(np.where(total > 0, total, 1.0)) + shift, -np.inf)


def _counts(segment_ids: Ids, n_segments: int, *, refuse_empty: bool) -> np.ndarray:
    count = np.bincount(segment_ids, minlength=n_segments)
    if refuse_empty and (count == 0).any():
        raise ValueError(
            f"segment {int(np.argmin(count))} has no values; give empty= or drop the segment"
        )
    return count


def _check(values: Values, segment_ids: Ids, n_segments: int) -> None:
    if values.shape != segment_ids.shape:
        raise ValueError(
            f"values ({values.shape}) and segment_ids ({segment_ids.shape}) must be as long"
        )
    if n_segments < 1:
        raise ValueError(f"n_segments ({n_segments}) must be at least 1")
    if values.size and not 0 <= segment_ids.min() <= segment_ids.max() < n_segments:
        raise ValueError(
            f"segment_ids lie in [{segment_ids.min()}, {segment_ids.max()}]; they must lie in "
            f"[0, {n_segments})"
        )
