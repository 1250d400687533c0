"""Do raters agree? Statistics that measure agreement, beside one that does not.

- icc: Shrout & Fleiss 1979, McGraw & Wong 1996; two-way analysis of variance of a full table
- krippendorff_alpha: 1 - observed / expected disagreement over pairs of ratings of one unit
- isr, the inconsistent score rate of GAOKAO-Eval (arXiv 2412.10056, Eq. 4): share of scores further
  than one standard deviation from their group's mean. It depends on the shape of a distribution
  only (Gaussian 0.3173, uniform 0.4226), so it is returned beside what a Gaussian on the same score
  grid with the same mean and deviation would give
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

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


def icc(table: ArrayLike) -> IccTable:
    """Return the intraclass correlations of a complete units x raters table.

    Raises
    ------
    ValueError
        If the table has fewer than 2 rows or columns, a value is not finite, or all are equal.

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
    if np.ptp(x) == 0:
        raise ValueError("all ratings are equal, so that no correlation is defined")
    n, k = x.shape
    rows, columns = x.mean(axis=1), x.mean(axis=0)
    between = k * float(rows.var(ddof=1))
    raters = n * float(columns.var(ddof=1))
    error = float(((x - rows[:, None] - columns + x.mean()) ** 2).sum()) / ((n - 1) * (k - 1))
    within = float(((x - rows[:, None]) ** 2).sum()) / (n * (k - 1))
    severity = (raters - error) / n
    return IccTable(
        one_way=(between - within) / (between + (k - 1) * within),
        agreement=(between - error) / (between + (k - 1) * error + k * severity),
        consistency=(between - error) / (between + (k - 1) * error),
        one_way_mean=(between - within) / between if between else -np.inf,
        agreement_mean=(between - error) / (between + severity) if between else -np.inf,
        consistency_mean=(between - error) / between if between else -np.inf,
    )


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
        If no unit has two ratings, all ratings are equal, a rating is infinite, or a ratio scale
        has negative ratings.

    References
    ----------
    Hayes & Krippendorff (2007), Communication Methods and Measures 1, 77.
    """
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
        If a score is not finite, the lengths differ or there is no score.
    """
    label = np.unique(np.asarray(by), return_inverse=True)[1].ravel()
    if len(label) != len(scores) or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(
            f"{len(scores)} scores and {len(label)} labels; give one label to each finite score"
        )
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
