"""Kappa, one-way intraclass correlation with gaps, and inconsistent scores beside their baselines.

- cohen_kappa: two raters, unweighted, linear or quadratic weights (Cohen 1960, 1968)
- fleiss_kappa: any number of raters, equally many per unit (Fleiss 1971)
- icc_one_way: ICC(1) where units have different raters and numbers of them (k0 of Donner 1986)
- rater_agreement: all of these, Krippendorff's alpha and the inconsistent score rate of one table,
  the latter beside a Gaussian
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from meristem_rasch._agreement import IsrReport, Level, isr, krippendorff_alpha
from meristem_rasch._errors import DataError

Weights = Literal["none", "linear", "quadratic"]


def cohen_kappa(first: ArrayLike, second: ArrayLike, *, weights: Weights = "none") -> float:
    """Return Cohen's kappa of two raters' scores of the same units.

    Parameters
    ----------
    weights
        Disagreement of two categories: 0 or 1, their distance in score, or its square.

    Raises
    ------
    DataError
        If lengths differ, a score is not finite or both raters give one category only.

    Examples
    --------
    >>> round(cohen_kappa([0, 0, 1, 1], [0, 1, 1, 1]), 3)
    0.5
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not len(a) or not np.isfinite([a, b]).all():
        raise DataError(f"scores of shape {a.shape} and {b.shape}; give finite pairs")
    values = np.unique([a, b])
    if len(values) < 2:
        raise DataError(f"both raters give {values[0]} only, so that kappa is not defined")
    gap = np.abs(values[:, None] - values)
    cost = {"none": (gap > 0).astype(float), "linear": gap, "quadratic": gap**2}[weights]
    rows, columns = (np.searchsorted(values, x) for x in (a, b))
    shares = [np.bincount(x, minlength=len(values)) / len(a) for x in (rows, columns)]
    return 1 - float(cost[rows, columns].mean()) / float(shares[0] @ cost @ shares[1])


def fleiss_kappa(counts: ArrayLike) -> float:
    """Return Fleiss's kappa of a units x categories table of how many raters chose each.

    Raises
    ------
    DataError
        If units have different numbers of raters, fewer than 2, or all ratings are equal.

    References
    ----------
    Fleiss 1971, Psychological Bulletin 76, 378.
    """
    n = np.asarray(counts, dtype=float)
    raters = n.sum(axis=1) if n.ndim == 2 else np.zeros(1)
    if n.ndim != 2 or (n < 0).any() or raters[0] < 2 or (raters != raters[0]).any():
        raise DataError(
            f"units have {sorted(set(raters.tolist()))[:4]} raters; Fleiss's kappa needs one "
            "number >= 2: use krippendorff_alpha(level='nominal')"
        )
    k = raters[0]
    expected = float(((n.sum(axis=0) / n.sum()) ** 2).sum())
    if expected == 1:
        raise DataError("all ratings fall into one category, so that kappa is not defined")
    observed = float(((n**2).sum(axis=1) - k).mean()) / (k * (k - 1))
    return (observed - expected) / (1 - expected)


def icc_one_way(table: ArrayLike) -> float:
    """Return ICC(1) of a units x ratings table with gaps (NaN); units rated once are left out.

    Raises
    ------
    DataError
        If fewer than 2 units are rated twice, or all ratings are equal.

    References
    ----------
    Donner 1986, International Statistical Review 54, 67.
    """
    x = _rated_twice(table)
    n = (~np.isnan(x)).sum(axis=1)
    means = np.nansum(x, axis=1) / n
    total = float(n.sum())
    within = float(np.nansum((x - means[:, None]) ** 2)) / (total - len(x))
    between = float(n @ (means - np.nansum(x) / total) ** 2) / (len(x) - 1)
    k0 = (total - float((n**2).sum()) / total) / (len(x) - 1)
    if between == 0 and within == 0:
        raise DataError("all ratings are equal, so that no correlation is defined")
    return (between - within) / (between + (k0 - 1) * within)


def _rated_twice(table: ArrayLike) -> Float[np.ndarray, "n k"]:
    x = np.asarray(table, dtype=float)
    if x.ndim != 2 or np.isinf(x).any():
        raise DataError(f"the table of shape {x.shape} must be units x raters without infinities")
    x = x[(~np.isnan(x)).sum(axis=1) >= 2]
    if len(x) < 2:
        raise DataError(f"{len(x)} units are rated twice; agreement needs at least 2")
    return x


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterAgreement:
    """What a table of ratings says about its raters."""

    units: int  # rated at least twice
    ratings: int  # of these units
    alpha: float  # Krippendorff
    alpha_low: float  # 95 %, resampling units
    alpha_high: float
    icc: float  # ICC(1)
    exact: float  # share of pairs of ratings that are equal
    within_one: float  # or differ by at most one step of the score grid
    isr: IsrReport  # inconsistent score rate, and what a Gaussian on the same grid would give


def rater_agreement(
    table: ArrayLike,
    *,
    by: Sequence[object] | None = None,
    level: Level = "interval",
    bootstrap: int = 1000,
    seed: int = 0,
) -> RaterAgreement:
    """Return agreement statistics of a units x raters table; NaN = no rating.

    Parameters
    ----------
    by
        Group of each unit within which a score counts as inconsistent; default the unit itself.
    level
        Scale of measurement for alpha.

    Raises
    ------
    DataError
        If fewer than 2 units are rated twice.
    ValueError
        If all ratings are equal.
    """
    raw = np.asarray(table, dtype=float)
    x = _rated_twice(raw)
    kept = (~np.isnan(raw)).sum(axis=1) >= 2
    label = np.arange(len(x)) if by is None else np.asarray(by, dtype=str)[kept]
    unit, _ = np.nonzero(~np.isnan(x))
    grid = np.unique(x[~np.isnan(x)])
    rng = np.random.default_rng(seed)
    alphas: list[float] = []
    for _ in range(bootstrap):
        sample = x[rng.integers(len(x), size=len(x))]
        # a resample of equal ratings shows no disagreement
        several = len(np.unique(sample[~np.isnan(sample)])) > 1
        alphas.append(krippendorff_alpha(sample, level=level) if several else 1.0)
    low, high = np.quantile(alphas, [0.025, 0.975])
    exact, near = _pairs(x, float(np.diff(grid).min()) if len(grid) > 1 else 0.0)
    return RaterAgreement(
        units=len(x),
        ratings=len(unit),
        alpha=krippendorff_alpha(x, level=level),
        alpha_low=float(low),
        alpha_high=float(high),
        icc=icc_one_way(x),
        exact=exact,
        within_one=near,
        isr=isr(x[~np.isnan(x)], label[unit], grid=grid, rng=rng),
    )


def _pairs(x: Float[np.ndarray, "n k"], step: float) -> tuple[float, float]:
    equal = near = count = 0
    for k in range(1, x.shape[1]):
        gap = np.abs(x[:, k:] - x[:, :-k])
        gap = gap[~np.isnan(gap)]
        count += len(gap)
        equal += int((gap == 0).sum())
        near += int((gap <= step * (1 + 1e-9)).sum())
    return equal / count, near / count
