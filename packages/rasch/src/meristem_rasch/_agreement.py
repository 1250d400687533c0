"""Do raters agree? Statistics that measure agreement, beside one that does not.

- icc: Shrout & Fleiss 1979, McGraw & Wong 1996; two-way analysis of variance of a full table
- krippendorff_alpha: 1 - observed / expected disagreement over pairs of ratings of one unit
- isr, the inconsistent score rate of GAOKAO-Eval (arXiv 2412.10056, Eq. 4): share of scores further
  than one standard deviation from their group's mean. It depends on the shape of a distribution
  only (Gaussian 0.3173, uniform 0.4226), so it is returned beside what a Gaussian on the same score
  grid with the same mean and deviation would give
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import f as f_distribution

Level = Literal["nominal", "ordinal", "interval", "ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IccTable:
    """Intraclass correlations of single ratings and of the mean of all k raters."""

    one_way: float  # ICC(1): raters differ from unit to unit
    agreement: float  # ICC(A,1): the same raters, severity counts as error
    consistency: float  # ICC(C,1): the same raters, severity is forgiven
    one_way_mean: float
    agreement_mean: float
    consistency_mean: float
    intervals: Mapping[str, tuple[float, float]]  # 95 %, of each by its name, from F distributions


def icc(table: ArrayLike) -> IccTable:
    """Return the intraclass correlations of a complete units x raters table.

    Raises
    ------
    ValueError
        If the table has fewer than 2 rows or columns, a value is not finite, or each rater gives
        all units one rating.

    Examples
    --------
    >>> round(icc([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8]]).consistency, 3)
    0.673
    """
    x = np.asarray(table, dtype=float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(
            f"the table of shape {x.shape} must be complete, finite and at least 2 x 2; "
            "with missing ratings use krippendorff_alpha"
        )
    if not np.ptp(x, axis=0).any():
        raise ValueError("each rater gives all units one rating, so that no correlation is defined")
    n, k = x.shape
    rows, columns = x.mean(axis=1), x.mean(axis=0)
    between = k * float(rows.var(ddof=1))
    raters = n * float(columns.var(ddof=1))
    error = float(((x - rows[:, None] - columns + x.mean()) ** 2).sum()) / ((n - 1) * (k - 1))
    within = float(((x - rows[:, None]) ** 2).sum()) / (n * (k - 1))
    severity = (raters - error) / n
    total = between + (k - 1) * error + k * severity
    agreement = (between - error) / total if total > 0 else -np.inf
    singles = {
        "one_way": _interval(between, within, n - 1, n * (k - 1), k),
        "agreement": _agreement_interval(agreement, between, raters, error, n, k),
        "consistency": _interval(between, error, n - 1, (n - 1) * (k - 1), k),
    }
    means = {
        f"{name}_mean": (_of_mean(low, k), _of_mean(high, k))
        for name, (low, high) in singles.items()
    }
    return IccTable(
        intervals=singles | means,
        one_way=(between - within) / (between + (k - 1) * within),
        agreement=agreement,
        consistency=(between - error) / (between + (k - 1) * error),
        one_way_mean=(between - within) / between if between else -np.inf,
        agreement_mean=_of_mean(agreement, k),
        consistency_mean=(between - error) / between if between else -np.inf,
    )


def _quantile(first: float | int, second: float | int) -> float:
    return float(f_distribution.ppf(0.975, first, second))


def _interval(between: float, within: float, above: int, below: int, k: int) -> tuple[float, float]:
    """Return bounds of (F - 1) / (F + k - 1), F = between / within."""
    if between == 0:
        return -1 / (k - 1), -1 / (k - 1)
    low, high = (
        (1 - ratio) / (1 + (k - 1) * ratio)
        for ratio in (
            within / between * _quantile(above, below),
            within / between / _quantile(below, above),
        )
    )
    return low, high


def _agreement_interval(
    value: float, between: float, raters: float, error: float, n: int, k: int
) -> tuple[float, float]:
    """Return McGraw & Wong's bounds of ICC(A,1), with Satterthwaite's degrees of freedom."""
    if value == 1 or not between:
        return value, value
    a = k * value / (n * (1 - value)) * raters
    b = (1 + k * value * (n - 1) / (n * (1 - value))) * error
    v = (a + b) ** 2 / (a**2 / (k - 1) + b**2 / ((n - 1) * (k - 1)))
    rest = k * raters + (k * n - k - n) * error
    low, high = _quantile(n - 1, v), _quantile(v, n - 1)
    return (
        n * (between - low * error) / (low * rest + n * between),
        n * (high * between - error) / (rest + n * high * between),
    )


def _of_mean(single: float, k: int) -> float:
    """Return the correlation of the mean of k raters from that of one (Spearman & Brown)."""
    return k * single / (1 + (k - 1) * single) if single > -1 / (k - 1) else -np.inf


def krippendorff_alpha(table: ArrayLike, *, level: Level = "interval") -> float:
    """Return Krippendorff's alpha of a units x raters table; NaN = no rating.

    Parameters
    ----------
    level
        Scale of measurement, which sets the distance of two ratings: "nominal", "ordinal",
        "interval" or "ratio" (non-negative ratings).

    Raises
    ------
    ValueError
        If no unit has two ratings, all ratings are equal, a rating is infinite, a ratio scale has
        negative ratings, or the level is unknown.

    References
    ----------
    Hayes & Krippendorff (2007), Communication Methods and Measures 1, 77.
    """
    if level not in get_args(Level):
        raise ValueError(f"level {level!r} must be one of {get_args(Level)}")
    x = np.asarray(table, dtype=float)
    if x.ndim != 2 or np.isinf(x).any():
        raise ValueError(f"the table of shape {x.shape} must be units x raters without infinities")
    x = x[(~np.isnan(x)).sum(axis=1) >= 2]
    values = np.unique(x[~np.isnan(x)])
    if len(values) < 2:
        raise ValueError("alpha needs two different ratings in units that are rated twice")
    if level == "ratio" and values[0] < 0:
        raise ValueError(f"rating {values[0]} is negative; use level 'interval'")
    counts = (x[:, :, None] == values).sum(axis=1).astype(float)  # unit, value
    size = counts.sum(axis=1)
    total = counts.sum(axis=0)
    coincidences = (counts / (size - 1)[:, None]).T @ counts
    coincidences -= np.diag((counts / (size - 1)[:, None]).sum(axis=0))
    distance = _distance(values, total, level)
    expected = float((np.outer(total, total) * distance).sum()) / (total.sum() - 1)
    return 1 - float((coincidences * distance).sum()) / expected


def _distance(
    values: Float[np.ndarray, " v"], total: Float[np.ndarray, " v"], level: Level
) -> Float[np.ndarray, "v v"]:
    gap = values[:, None] - values
    if level == "nominal":
        return (gap != 0).astype(float)
    if level == "interval":
        return gap**2
    if level == "ratio":
        sums = values[:, None] + values
        return (gap / np.where(sums == 0, 1.0, sums)) ** 2
    middle = np.cumsum(total) - total / 2
    return (middle[:, None] - middle) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class IsrReport:
    """The inconsistent score rate and what chance alone would give."""

    rate: float
    gaussian: float  # expected rate of Gaussian scores rounded and clipped to the same grid
    count: int


def isr(
    scores: Float[np.ndarray, " n"],
    by: ArrayLike,
    *,
    grid: Float[np.ndarray, " g"],
    rng: np.random.Generator,
    draws: int = 10_000,
) -> IsrReport:
    """Return the share of scores more than one standard deviation from their group's mean.

    Parameters
    ----------
    scores
        Finite scores.
    by
        Group label of each score. Groups of equal scores contribute 0.
    grid
        The scores that can be given; baseline draws are rounded to the nearest of them.
    draws
        Gaussian scores drawn per group for the baseline.

    Raises
    ------
    ValueError
        If a score or a score of the grid is not finite, lengths differ, or there is no score, grid
        or draw.
    """
    label = np.unique(np.asarray(by), return_inverse=True)[1].ravel()
    if len(label) != len(scores) or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(
            f"{len(scores)} scores and {len(label)} labels; give one label to each finite score"
        )
    if draws < 1 or not len(grid) or not np.isfinite(grid).all():
        raise ValueError(f"draws ({draws}) must be at least 1, and grid {grid} finite scores")
    levels = np.sort(grid)
    middles = (levels[1:] + levels[:-1]) / 2
    outside = expected = 0.0
    for group in range(int(label.max()) + 1):
        part = scores[label == group]
        mean, sd = float(part.mean()), float(part.std())
        if np.ptp(part) == 0:
            continue
        outside += float((np.abs(part - mean) > sd * (1 + 1e-12)).sum())  # ties are inside
        drawn = levels[np.searchsorted(middles, rng.normal(mean, sd, size=draws))]
        expected += len(part) * _rate(drawn)
    return IsrReport(rate=outside / len(scores), gaussian=expected / len(scores), count=len(scores))


def _rate(x: Float[np.ndarray, " n"]) -> float:
    return float((np.abs(x - x.mean()) > x.std() * (1 + 1e-12)).mean())
