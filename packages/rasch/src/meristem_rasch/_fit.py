"""Infit and outfit mean squares of items and persons.

- outfit = mean of z^2 = (x - E)^2 / V, infit = sum (x - E)^2 / sum V
- variance of outfit sum(C / V^2) / n^2 - 1 / n, of infit sum(C - V^2) / (sum V)^2, C = E(x - E)^4
- t = (MS^(1/3) - 1) (3 / q) + q / 3, the Wilson-Hilferty transform
- residuals "conditional": moments given the raw score, free of any estimated ability and so
  unbiased (Christensen & Mueller 2020); "person": moments at the maximum likelihood measure
- both leave out persons with extreme scores, whose residuals are 0
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.special import ndtr

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._frames import Tabular
from meristem_rasch._kernel import blocks, conditional, padded
from meristem_rasch._patterns import patterns
from meristem_rasch._persons import score_persons
from meristem_rasch._responses import Responses

Residuals = Literal["conditional", "person"]
ROWS = 4096  # persons whose cells are held at once


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitTable(Tabular):
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Persons whose cells take their moments from the same table, one row per score or measure."""

    rows: Int[np.ndarray, " n"]
    items: Int[np.ndarray, " i"]
    line: Int[np.ndarray, " n"]  # row of the tables for each person
    mean: Float[np.ndarray, "S i"]
    variance: Float[np.ndarray, "S i"]
    fourth: Float[np.ndarray, "S i"]


def item_fit(
    cal: Calibration, data: Responses, *, residuals: Residuals = "conditional"
) -> FitTable:
    """Return infit and outfit of every item.

    Raises
    ------
    ValueError
        If conditional residuals are asked of a model without a sufficient raw score.
    """
    sums = np.zeros((6, len(data.items)))
    for part in _parts(cal, data, residuals):
        sums[:, part.items] += _item_sums(part, data)
    return fit_table(data.items, sums)


def person_fit(
    cal: Calibration, data: Responses, *, residuals: Residuals = "conditional"
) -> FitTable:
    """Return infit and outfit of every person; NaN for extreme raw scores."""
    sums = np.zeros((6, len(data.persons)))
    for part in _parts(cal, data, residuals):
        sums[:, part.rows] = _person_sums(part, data)
    return fit_table(data.persons, sums)


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
    out = [np.zeros(data.scores.shape) for _ in range(3)]
    used = np.zeros(data.scores.shape, dtype=bool)
    for part in _parts(cal, data, residuals):
        cells = np.ix_(part.rows, part.items)
        x = data.scores[cells]
        used[cells] = x >= 0
        tables = (part.mean, part.variance, part.fourth)
        for target, value in zip(out, tables, strict=True):
            target[cells] = np.where(x >= 0, value[part.line], 0.0)
        out[0][cells] = np.where(x >= 0, x - out[0][cells], 0.0)
    return Moments(residual=out[0], variance=out[1], fourth=out[2], used=used)


def _parts(cal: Calibration, data: Responses, residuals: Residuals) -> Iterator[Part]:
    """Yield at most `ROWS` persons with their tables; extreme persons are left out."""
    if residuals == "person":
        yield from _at_measures(cal, data)
        return
    if cal.model in ("2pl", "3pl", "gpcm", "grm"):
        raise ValueError(f"{cal.model!r} has no conditional residuals; use residuals='person'")
    logw = padded(cal.threshold, cal.max_score)
    for group in patterns(data):
        tables = [_moments(conditional(b)) for b in blocks(logw[group.items], group.scores)]
        mean, variance, fourth = (np.concatenate(t) for t in zip(*tables, strict=True))
        line = np.searchsorted(group.scores, group.raw)
        for at in range(0, len(line), ROWS):
            yield Part(
                rows=group.rows[at : at + ROWS],
                items=group.items,
                line=line[at : at + ROWS],
                mean=mean,
                variance=variance,
                fourth=fourth,
            )


def _at_measures(cal: Calibration, data: Responses) -> Iterator[Part]:
    theta = score_persons(cal, data, method="mle").theta
    rows = np.flatnonzero(np.isfinite(theta) & (data.weight > 0))
    rows = rows[np.argsort(theta[rows], kind="stable")]
    for at in range(0, len(rows), ROWS):
        part = rows[at : at + ROWS]
        values, line = np.unique(theta[part], return_inverse=True)
        mean, variance, fourth = _moments(curves(cal, values)[0])
        items = np.arange(len(data.items))
        yield Part(rows=part, items=items, line=line, mean=mean, variance=variance, fourth=fourth)


def _item_sums(part: Part, data: Responses) -> Float[np.ndarray, "6 i"]:
    """Sum over persons by counting scores in each row of the tables: O(N I) additions."""
    scores = data.scores[np.ix_(part.rows, part.items)]
    shape = (len(part.mean), len(part.rows))
    columns = np.arange(len(part.rows))
    collect = csr_array((data.weight[part.rows], (part.line, columns)), shape=shape)
    if scores.min() >= 0:
        counts = np.bincount(part.line, data.weight[part.rows], len(part.mean))
        n = np.repeat(counts[:, None], len(part.items), axis=1)
    else:
        n = collect @ (scores >= 0).astype(float)
    zeros, squares = n.copy(), np.zeros(part.mean.shape)
    for h in range(1, int(data.max_score[part.items].max()) + 1):
        count = collect @ (scores == h).astype(float)
        zeros -= count
        squares += count * (h - part.mean) ** 2
    squares += zeros * part.mean**2
    return np.array(
        [column.sum(axis=0) for column in _terms(n, squares, part.variance, part.fourth)]
    )


def _person_sums(part: Part, data: Responses) -> Float[np.ndarray, "6 n"]:
    scores = data.scores[np.ix_(part.rows, part.items)]
    seen = scores >= 0
    if not seen.all():
        squares = seen * (scores - part.mean[part.line]) ** 2
        v, c = part.variance[part.line], part.fourth[part.line]
        return np.array([column.sum(axis=1) for column in _terms(1.0 * seen, squares, v, c)])
    # all but the squared residuals depend on the row of the tables alone
    n, none = np.ones(part.mean.shape), np.zeros(part.mean.shape)
    fixed = _terms(n, none, part.variance, part.fourth)
    out = np.array([column.sum(axis=1) for column in fixed])[:, part.line]
    residual = scores - part.mean[part.line]
    inverse = 1 / np.where(part.variance > 0, part.variance, 1.0)
    residual *= residual
    out[2] = residual.sum(axis=1)
    out[3] = np.einsum("ni,ni->n", residual, inverse[part.line])
    return out


def _terms(
    n: Float[np.ndarray, "a b"],
    squares: Float[np.ndarray, "a b"],
    v: Float[np.ndarray, "a b"],
    c: Float[np.ndarray, "a b"],
) -> tuple[Float[np.ndarray, "a b"], ...]:
    """Return n, n V, R, R / V, n C / V^2 and n (C - V^2), R the squared residuals."""
    safe = np.where(v > 0, v, 1.0)
    return n, n * v, squares, squares / safe, n * c / safe**2, n * (c - v**2)


def _moments(
    p: Float[np.ndarray, "S i K"],
) -> tuple[Float[np.ndarray, "S i"], Float[np.ndarray, "S i"], Float[np.ndarray, "S i"]]:
    h: Float[np.ndarray, " K"] = np.arange(p.shape[2], dtype=float)
    mean = p @ h
    away = h - mean[:, :, None]
    return mean, (p * away**2).sum(axis=2), (p * away**4).sum(axis=2)


def fit_table(labels: tuple[str, ...], sums: Float[np.ndarray, "6 n"]) -> FitTable:
    """Return mean squares and t from sums of the rows that `_terms` gives."""
    n, variance, squares, standardised, kurtosis, spread = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        outfit, infit = standardised / n, squares / variance
        q_out = np.sqrt(kurtosis / n**2 - 1 / n)
        q_in = np.sqrt(spread) / variance
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
