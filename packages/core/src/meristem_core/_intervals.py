"""Intervals: bootstrap over independent units or clusters of them, and Wilson's for proportions.

- one matrix of resampled units can serve many statistics, so that their differences are paired
- with clusters whole clusters are drawn: tokens of one document, samples of one question
- the result says what its interval covers
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

Statistic = Callable[[Int[np.ndarray, " m"]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate, its bounds, and what they cover."""

    estimate: float
    low: float
    high: float
    level: float  # nominal coverage, in (0, 1)
    covers: str


def resample_indices(
    n: int,
    n_resamples: int,
    *,
    rng: np.random.Generator,
    clusters: Int[np.ndarray, " n"] | None = None,
) -> list[Int[np.ndarray, " m"]]:
    """Return `n_resamples` arrays of row numbers drawn with replacement.

    Parameters
    ----------
    n
        Number of rows.
    n_resamples
        Number of resamples.
    clusters
        Label of each row, shape (n,); whole clusters are drawn, as many as there are, so the
        resamples differ in length. Default: every row is its own cluster.

    Raises
    ------
    ValueError
        If there is no row, no resample, or the labels do not match the rows.

    Examples
    --------
    >>> labels = np.array([7, 7, 7])
    >>> resample_indices(3, 1, rng=np.random.default_rng(0), clusters=labels)
    [array([0, 1, 2])]
    """
    if n < 1 or n_resamples < 1:
        raise ValueError(f"n ({n}) and n_resamples ({n_resamples}) must be at least 1")
    if clusters is None:
        return list(rng.integers(n, size=(n_resamples, n)))
    if clusters.shape != (n,):
        raise ValueError(f"clusters has shape {clusters.shape}; it must label each of {n} rows")
    order = np.argsort(clusters, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    drawn = rng.integers(len(members), size=(n_resamples, len(members)))
    return [np.concatenate([members[cluster] for cluster in row]) for row in drawn]


def bootstrap_interval(
    statistic: Statistic,
    n: int,
    *,
    rng: np.random.Generator,
    clusters: Int[np.ndarray, " n"] | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return a percentile bootstrap interval of a statistic of n rows.

    Parameters
    ----------
    statistic
        Takes row numbers, shape (m,), and returns a finite number. Paired quantities share the
        row numbers: `lambda rows: a[rows].mean() - b[rows].mean()`.
    n
        Number of rows.
    clusters
        Label of each row, shape (n,); rows of one label are drawn together.

    Raises
    ------
    ValueError
        If the level is not in (0, 1) or the statistic is not finite.

    References
    ----------
    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.

    Examples
    --------
    >>> x = np.full(10, 3.0)
    >>> found = bootstrap_interval(lambda rows: x[rows].mean(), 10, rng=np.random.default_rng(0))
    >>> found.low, found.high
    (3.0, 3.0)
    """
    _check_level(level)
    resamples = resample_indices(n, n_resamples, rng=rng, clusters=clusters)
    values = np.array([_finite(statistic(rows), "a resample") for rows in resamples])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        estimate=_finite(statistic(np.arange(n)), "all rows"),
        low=float(low),
        high=float(high),
        level=level,
        covers=_covers(n, clusters),
    )


def bca_interval(
    statistic: Statistic,
    n: int,
    *,
    rng: np.random.Generator,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return a bias-corrected and accelerated bootstrap interval of a statistic of n rows.

    Better than the percentile interval for skewed statistics of few rows; costs n more
    evaluations. Parameters and errors as for `bootstrap_interval`; at least two rows.

    References
    ----------
    Efron 1987, "Better bootstrap confidence intervals", equations 2.3 and 6.6.
    """
    _check_level(level)
    if n < 2:
        raise ValueError(f"n ({n}) must be at least 2; leaving out the only row leaves nothing")
    rows = np.arange(n)
    estimate = _finite(statistic(rows), "all rows")
    resamples = resample_indices(n, n_resamples, rng=rng)
    values = np.array([_finite(statistic(each), "a resample") for each in resamples])
    left_out = np.array(
        [_finite(statistic(np.delete(rows, row)), f"all but {row}") for row in rows]
    )
    low, high = np.quantile(values, _bca_levels(estimate, values, left_out, level))
    return Interval(
        estimate=estimate, low=float(low), high=float(high), level=level, covers=_covers(n, None)
    )


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion.

    Parameters
    ----------
    successes, trials
        Whole numbers, 0 <= successes <= trials, trials >= 1.

    Raises
    ------
    ValueError
        If the numbers or the level are out of range.

    References
    ----------
    Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Examples
    --------
    >>> found = wilson_interval(0, 10)
    >>> found.low, round(found.high, 4)
    (0.0, 0.2775)
    """
    _check_level(level)
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"successes ({successes}) must lie in [0, trials] and trials ({trials}) be at least 1"
        )
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return Interval(
        estimate=share,
        low=0.0 if successes == 0 else middle - half,
        high=1.0 if successes == trials else middle + half,
        level=level,
        covers=f"binomial sampling of {trials} trials",
    )


def clustered_standard_error(
    values: Float[np.ndarray, " n"], clusters: Int[np.ndarray, " n"]
) -> float:
    """Return the standard error of the mean when values of one cluster depend on each other.

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or there are fewer than two clusters.

    Notes
    -----
    sqrt(G / (G - 1) * sum_g (sum_{i in g} (x_i - mean))**2) / n for G clusters; with clusters of
    one it is the usual standard error.

    References
    ----------
    Liang and Zeger 1986; Miller 2024 (arXiv 2411.00640), equation 4, without its small-sample
    factor G / (G - 1).
    """
    if values.shape != clusters.shape:
        raise ValueError(f"values ({values.shape}) and clusters ({clusters.shape}) must be as long")
    if not np.isfinite(values).all():
        raise ValueError(f"values[{int(np.argmin(np.isfinite(values)))}] is not finite; drop it")
    _, label = np.unique(clusters, return_inverse=True)
    sums = np.bincount(label, weights=values - values.mean())
    count = sums.size
    if count < 2:
        raise ValueError(f"there is {count} cluster; a standard error needs at least 2")
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / values.size)


def _bca_levels(
    estimate: float, values: np.ndarray, left_out: np.ndarray, level: float
) -> list[float]:
    normal = NormalDist()
    below = float(np.mean(values < estimate) + np.mean(values == estimate) / 2)
    edge = 0.5 / values.size
    bias = normal.inv_cdf(min(max(below, edge), 1 - edge))
    spread = left_out.mean() - left_out
    square = float((spread**2).sum())
    acceleration = float((spread**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
    shifted = [bias + normal.inv_cdf((1 + side * level) / 2) for side in (-1, 1)]
    return [normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted]


def _covers(n: int, clusters: np.ndarray | None) -> str:
    if clusters is None:
        return f"sampling of {n} independent rows"
    return f"sampling of {np.unique(clusters).size} clusters of rows"


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level ({level}) must lie strictly between 0 and 1, such as 0.95")


def _finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise ValueError(
            f"the statistic of {where} is {value}; drop non-finite rows, or choose a statistic "
            "that is defined for every resample"
        )
    return float(value)
