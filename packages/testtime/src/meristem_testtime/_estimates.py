"""Intervals over questions, curves of several rules, and the law of coverage.

- questions are the unit: a bootstrap resamples them, or whole clusters of them
- differences are paired: one resample serves both sides
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from meristem_core import clustered_standard_error, stream

CHUNK = 4_000_000  # resampled cells held at once
DETECTABLE = 2.8  # standard errors: two-sided 5 % level with 80 % power, 1.96 + 0.84


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanInterval:
    """A mean over questions, or a paired difference of means.

    Attributes
    ----------
    mean, low, high
        The estimate and its percentile bootstrap bounds.
    se
        Standard error, clustered if clusters were given; nan-free: 0 for a single constant value.
    minimal_detectable
        True difference that a test at 5 % would find with 80 % power: 2.8 standard errors.
    n_questions, n_clusters
        Rows and independent units.
    level
        Nominal coverage.
    """

    mean: float
    low: float
    high: float
    se: float
    minimal_detectable: float
    n_questions: int
    n_clusters: int
    level: float


def interval(
    values: Float[np.ndarray, " q"],
    *,
    minus: Float[np.ndarray, " q"] | None = None,
    clusters: Int[np.ndarray, " q"] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> MeanInterval:
    """Return the mean of per-question values and its interval over questions.

    Parameters
    ----------
    values
        One value a question, such as a column of `pass_at_k`.
    minus
        Values of another rule on the same questions; the result is the paired difference.
    clusters
        Label of each row; rows of one label are resampled together, for instance one question
        answered by several models. At least two labels.
    resamples, seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, or there are fewer than two clusters.

    Examples
    --------
    >>> import numpy as np
    >>> same = np.array([0.2, 0.9, 0.4])
    >>> found = interval(same, minus=same)
    >>> found.mean, found.low, found.high
    (0.0, 0.0, 0.0)
    """
    if not 0 < level < 1:
        raise ValueError(f"level ({level}) must lie strictly between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"resamples ({resamples}) must be at least 1")
    if minus is not None and minus.shape != values.shape:
        raise ValueError(f"minus has shape {minus.shape}, values {values.shape}; pair them")
    each = values if minus is None else values - minus
    if not np.isfinite(each).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(each)))} is not finite; drop it")
    labels = np.arange(each.size) if clusters is None else clusters
    if labels.shape != each.shape:
        raise ValueError(f"clusters has shape {labels.shape}; it must label each of {each.size}")
    order = np.lexsort((each, labels))  # the order of questions must not matter
    each, labels = each[order], labels[order]
    _, label = np.unique(labels, return_inverse=True)
    sums, sizes = np.bincount(label, weights=each), np.bincount(label)
    if sums.size < 2:
        raise ValueError(f"there is {sums.size} independent question; an interval needs 2")
    if clusters is None:
        sums = np.sort(sums)
    means = _resampled(sums, sizes, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    se = clustered_standard_error(each, label)
    return MeanInterval(
        mean=float(sums.sum() / sizes.sum()),
        low=float(low),
        high=float(high),
        se=se,
        minimal_detectable=DETECTABLE * se,
        n_questions=each.size,
        n_clusters=sums.size,
        level=level,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageLaw:
    """c(k) = exp(a k**b) fitted to coverage; `max_residual` is the largest |error| of ln(-ln c)."""

    a: float
    b: float
    max_residual: float


def fit_coverage(ks: Sequence[int], coverage: Sequence[float]) -> CoverageLaw:
    """Return the law of repeated sampling, by least squares of ln(-ln c) on ln k.

    Parameters
    ----------
    ks
        At least two different numbers of samples.
    coverage
        Mean pass@k, strictly between 0 and 1.

    Raises
    ------
    ValueError
        If a coverage is 0 or 1, where the law is undefined.

    References
    ----------
    arXiv 2407.21787.
    """
    k, c = np.asarray(ks, np.float64), np.asarray(coverage, np.float64)
    if k.shape != c.shape or np.unique(k).size < 2:
        raise ValueError(f"give one coverage for each of two or more ks, not {c.size} for {k.size}")
    bad = np.flatnonzero(~((c > 0) & (c < 1)))
    if bad.size:
        raise ValueError(
            f"coverage at k = {k[bad[0]]:g} is {c[bad[0]]:g}; the law needs 0 < c < 1, so drop it"
        )
    x, y = np.log(k), np.log(-np.log(c))
    slope, level = np.polyfit(x, y, 1)
    return CoverageLaw(
        a=float(-np.exp(level)),
        b=float(slope),
        max_residual=float(np.abs(y - level - slope * x).max()),
    )


def _resampled(sums: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = stream(seed, "interval")
    step = max(CHUNK // sums.size, 1)
    means: list[np.ndarray] = []
    for start in range(0, resamples, step):
        drawn = rng.integers(sums.size, size=(min(step, resamples - start), sums.size))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)
