"""Infit and outfit mean squares of items and persons.

- outfit = mean of z^2 = (x - E)^2 / V, infit = sum (x - E)^2 / sum V
- variance of outfit sum(C / V^2) / n^2 - 1 / n, of infit sum(C - V^2) / (sum V)^2, C = E(x - E)^4
- t = (MS^(1/3) - 1) (3 / q) + q / 3, the Wilson-Hilferty transform
- residuals "conditional": moments given the raw score, free of any estimated ability and so
  unbiased (Christensen & Mueller 2020); "person": moments at the maximum likelihood measure
- both leave out persons with extreme scores, whose residuals are 0
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._kernel import blocks, conditional, padded
from meristem_rasch._patterns import patterns
from meristem_rasch._persons import score_persons
from meristem_rasch._responses import Responses

Residuals = Literal["conditional", "person"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitTable:
    """Mean squares (expectation 1), their t statistics and two-sided p-values."""

    labels: tuple[str, ...]
    infit: Float[np.ndarray, " n"]  # NaN where nothing was informative
    outfit: Float[np.ndarray, " n"]
    infit_t: Float[np.ndarray, " n"]
    outfit_t: Float[np.ndarray, " n"]
    infit_p: Float[np.ndarray, " n"]
    outfit_p: Float[np.ndarray, " n"]
    count: Float[np.ndarray, " n"]  # weighted number of residuals


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Residual x - E, variance V and fourth moment C of every informative cell."""

    residual: Float[np.ndarray, "N I"]
    variance: Float[np.ndarray, "N I"]
    fourth: Float[np.ndarray, "N I"]
    used: Bool[np.ndarray, "N I"]


def item_fit(
    cal: Calibration, data: Responses, *, residuals: Residuals = "conditional"
) -> FitTable:
    """Return infit and outfit of every item.

    Raises
    ------
    ValueError
        If conditional residuals are asked of a model without a sufficient raw score.
    """
    m = residual_moments(cal, data, residuals=residuals)
    return _table(data.items, m, data.weight[:, None], axis=0)


def person_fit(
    cal: Calibration, data: Responses, *, residuals: Residuals = "conditional"
) -> FitTable:
    """Return infit and outfit of every person; NaN for extreme raw scores."""
    m = residual_moments(cal, data, residuals=residuals)
    return _table(data.persons, m, np.ones((1, len(data.items))), axis=1)


def q3(cal: Calibration, data: Responses) -> Float[np.ndarray, "I I"]:
    """Return Yen's Q3: correlations of the items' residuals at the persons' measures."""
    m = residual_moments(cal, data, residuals="person")
    w = np.sqrt(data.weight)[:, None]
    used = m.used.astype(float)
    n = (used * w**2).T @ used
    x = np.where(m.used, m.residual, 0.0) * w
    sums = x.T @ (used * w)  # of item i over persons who answered both
    cross = x.T @ x - sums * sums.T / np.maximum(n, 1)
    squares = (x**2).T @ used - sums**2 / np.maximum(n, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return cross / np.sqrt(squares * squares.T)


def residual_moments(cal: Calibration, data: Responses, *, residuals: Residuals) -> Moments:
    """Return residual, variance and fourth moment of every cell, 0 where unused."""
    if residuals == "person":
        return _at_measures(cal, data)
    if cal.model in ("2pl", "3pl", "gpcm", "grm"):
        raise ValueError(f"{cal.model!r} has no conditional residuals; use residuals='person'")
    out = [np.zeros(data.scores.shape) for _ in range(3)]
    used = np.zeros(data.scores.shape, dtype=bool)
    logw = padded(cal.threshold, cal.max_score)
    for group in patterns(data):
        tables = [_moments(conditional(b)) for b in blocks(logw[group.items], group.scores)]
        mean, variance, fourth = (np.concatenate(t) for t in zip(*tables, strict=True))
        row = np.searchsorted(group.scores, group.raw)
        cells = np.ix_(group.rows, group.items)
        used[cells] = True
        for target, value in zip(out, (mean, variance, fourth), strict=True):
            target[cells] = value[row]
    out[0] = np.where(used, data.scores - out[0], 0.0)
    return Moments(residual=out[0], variance=out[1], fourth=out[2], used=used)


def _at_measures(cal: Calibration, data: Responses) -> Moments:
    theta = score_persons(cal, data, method="mle").theta
    rows = np.flatnonzero(np.isfinite(theta) & (data.weight > 0))
    values, where = np.unique(theta[rows], return_inverse=True)
    mean, variance, fourth = _moments(curves(cal, values)[0])
    out = [np.zeros(data.scores.shape) for _ in range(3)]
    used = np.zeros(data.scores.shape, dtype=bool)
    used[rows] = data.mask[rows]
    for target, value in zip(out, (mean, variance, fourth), strict=True):
        target[rows] = np.where(used[rows], value[where], 0.0)
    out[0] = np.where(used, data.scores - out[0], 0.0)
    return Moments(residual=out[0], variance=out[1], fourth=out[2], used=used)


def _moments(
    p: Float[np.ndarray, "S i K"],
) -> tuple[Float[np.ndarray, "S i"], Float[np.ndarray, "S i"], Float[np.ndarray, "S i"]]:
    h: Float[np.ndarray, " K"] = np.arange(p.shape[2], dtype=float)
    mean = p @ h
    away = h - mean[:, :, None]
    return mean, (p * away**2).sum(axis=2), (p * away**4).sum(axis=2)


def _table(
    labels: tuple[str, ...], m: Moments, weight: Float[np.ndarray, "a b"], *, axis: int
) -> FitTable:
    with np.errstate(invalid="ignore", divide="ignore"):
        w = m.used * weight
        v = np.where(m.used & (m.variance > 0), m.variance, 1.0)
        n, total = w.sum(axis=axis), (w * m.variance).sum(axis=axis)
        outfit = (w * m.residual**2 / v).sum(axis=axis) / n
        infit = (w * m.residual**2).sum(axis=axis) / total
        q_out = np.sqrt((w * m.fourth / v**2).sum(axis=axis) / n**2 - 1 / n)
        q_in = np.sqrt((w * (m.fourth - m.variance**2)).sum(axis=axis)) / total
        out_t: Float[np.ndarray, " n"] = (np.cbrt(outfit) - 1) * 3 / q_out + q_out / 3
        in_t: Float[np.ndarray, " n"] = (np.cbrt(infit) - 1) * 3 / q_in + q_in / 3
    return FitTable(
        labels=labels,
        infit=infit,
        outfit=outfit,
        infit_t=in_t,
        outfit_t=out_t,
        infit_p=_two_sided(in_t),
        outfit_p=_two_sided(out_t),
        count=n,
    )


def _two_sided(t: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.asarray(2 * ndtr(-np.abs(t)), dtype=float)
