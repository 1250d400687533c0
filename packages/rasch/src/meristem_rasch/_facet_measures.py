"""From the estimates of a many-facet model to its tables.

- joint: standard errors are (sum of variances)^(-1/2), all other facets held; of cells of an
  interaction within their zero margins
- marginal: standard errors from the observed information; persons by posterior mean and sd
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import chi2

from meristem_rasch._ascent import Top, Vector
from meristem_rasch._calibration import LatentGroup
from meristem_rasch._errors import Status
from meristem_rasch._facet_design import Column, Plan, centred
from meristem_rasch._facet_marginal import Averages, Marginal, averages, fourth_moment
from meristem_rasch._facet_results import FacetCalibration
from meristem_rasch._facet_tables import FacetTable
from meristem_rasch._fit import fit_table
from meristem_rasch._newton_cg import Design, Moments, distribution, eta_of, moments, steps_of
from meristem_rasch._ratings import Ratings
from meristem_rasch._subspaces import SMALL, Directions, Margins

Levels = Float[np.ndarray, " k"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measures:
    """Measures of a facet, and the test that they are equal."""

    value: Levels
    se: Levels
    chi2: float
    df: int


def joint_calibration(
    plan: Plan,
    data: Ratings,
    design: Design,
    columns: tuple[Column, ...],
    x: Vector,
    found: Top,
    status: Status,
) -> FacetCalibration:
    """Return the calibration at joint estimates x, centred and corrected after a search."""
    at = moments(design, x)
    fit = _joint_fit(data, design, at, x)
    found_of = [_joint_measures(design, at, x, f) for f in range(len(columns))]
    tables = {
        column.name: _table(column, data, fit, measures, _fair(design, x, f, measures.value))
        for f, (column, measures) in enumerate(zip(columns, found_of, strict=True))
    }
    return FacetCalibration(
        method="jml",
        person=plan.person,
        facets={name: tables[name] for name in data.facets},
        interactions={n: table for n, table in tables.items() if n not in data.facets},
        step_groups=_step_groups(plan, data),
        steps=_inside(design, steps_of(design, x)),
        steps_se=_inside(design, _joint_step_errors(design, at)),
        latent=None,
        loglik=found.loglik,
        n_parameters=_n_parameters(design),
        n_iter=len(found.history),
        status=status,
        history=found.history,
        ratings=data,
        expected=at.mean,
        variance=at.variance,
        logit=eta_of(design, x),
        group=design.group,
        nodes=None,
        posterior=None,
    )


def marginal_calibration(
    plan: Plan,
    data: Ratings,
    surface: Marginal,
    columns: tuple[Column, ...],
    x: Vector,
    history: tuple[float, ...],
    status: Status,
) -> FacetCalibration:
    """Return the calibration at marginal estimates x."""
    design, x = surface.cells, centred(plan, surface.cells, columns, x)
    at = surface.at(x)
    half = centred(plan, design, columns, surface.covariance(x))
    vcov = centred(plan, design, columns, np.ascontiguousarray(half.T))
    se = np.sqrt(np.diag(vcov).clip(min=0))
    fit = averages(at, data.score, data.codes[plan.person])
    person = [column.name for column in columns].index(plan.person)
    mean_at = design.blocks[person].start
    latent = LatentGroup(
        label="all",
        mean=float(x[mean_at]),
        sd=at.sd,
        mean_se=float(se[mean_at]),
        sd_se=at.sd * float(se[-1]),
    )
    nodes = latent.mean + at.spread
    tables = dict[str, FacetTable]()
    for f, column in enumerate(columns):
        if f != person:
            measures = _marginal_measures(design, vcov, x, f)
            fair = _fair(design, x, f, measures.value)
            tables[column.name] = _table(column, data, fit, measures, fair)
    tables[plan.person] = _persons(
        plan, data, fit, nodes, at.posterior, lambda value: _fair(design, x, person, value)
    )
    steps = slice(design.n_levels, len(x) - 1)
    theta = tables[plan.person].measure[data.codes[plan.person]]
    return FacetCalibration(
        method="mml",
        person=plan.person,
        facets={name: tables[name] for name in data.facets},
        interactions={n: table for n, table in tables.items() if n not in data.facets},
        step_groups=_step_groups(plan, data),
        steps=_inside(design, steps_of(design, x[:-1])),
        steps_se=_inside(design, se[steps].reshape(len(design.top), -1)),
        latent=latent,
        loglik=at.loglik,
        n_parameters=_n_parameters(design) + 1,
        n_iter=len(history),
        status=status,
        history=history,
        ratings=data,
        expected=fit.mean,
        variance=fit.variance,
        logit=eta_of(design, x)[surface.cell] - latent.mean + theta,
        group=design.group[surface.cell],
        nodes=nodes,
        posterior=at.posterior,
    )


def _joint_fit(data: Ratings, design: Design, at: Moments, x: Vector) -> Averages:
    squares, v = (data.score - at.mean) ** 2, at.variance
    p = distribution(design.group, design.top, eta_of(design, x), steps_of(design, x))[0]
    c = fourth_moment(p, at.mean)
    return Averages(at.mean, v, squares, squares / v, c / v**2, c - v**2)


def _joint_measures(design: Design, at: Moments, x: Vector, f: int) -> _Measures:
    block = design.blocks[f]
    information = np.bincount(design.levels[f], design.weight * at.variance, design.sizes[f])
    free, value, space = design.free[block], x[block], _space(design, f)
    if isinstance(space, Margins):
        se = np.sqrt(space.variance(information))
        spread = float(information @ value**2)
        return _Measures(value=value, se=se, chi2=spread, df=len(value) - space.lost)
    with np.errstate(divide="ignore"):
        se = np.where(free, information**-0.5, 0.0)
    precision = np.where(free, information, 0.0)
    total, spread = float(precision.sum()), float(precision @ value**2)
    if total > 0:
        spread -= float(precision @ value) ** 2 / total
    lost = 1 if space is None else max(space.lost, 1)
    return _Measures(value=value, se=se, chi2=spread, df=max(int(free.sum()) - lost, 0))


def _marginal_measures(
    design: Design, vcov: Float[np.ndarray, "P P"], x: Vector, f: int
) -> _Measures:
    block, space = design.blocks[f], _space(design, f)
    free, value, own = design.free[block], x[block], vcov[block, block]
    se = np.sqrt(np.diag(own).clip(min=0)) * free
    tested, covariance = value[free], own[np.ix_(free, free)]
    if not isinstance(space, Margins) and len(tested):
        tested = tested - tested.mean()
        covariance = covariance - covariance.mean(axis=0)
        covariance = covariance - covariance.mean(axis=1, keepdims=True)
    lost = 1 if space is None else max(space.lost, 1)
    inverse = np.linalg.pinv(covariance, rcond=SMALL, hermitian=True)
    df = max(int(free.sum()) - lost, 0)
    return _Measures(value=value, se=se, chi2=float(tested @ inverse @ tested), df=df)


def _table(
    column: Column, data: Ratings, fit: Averages, found: _Measures, fair: Levels
) -> FacetTable:
    size = len(column.labels)
    error = float(np.mean(found.se**2))
    true = max(float(found.value.var(ddof=1)) - error, 0.0) if size > 1 else 0.0
    separation = float(np.sqrt(true / error)) if error > 0 else 0.0
    return FacetTable(
        labels=column.labels,
        measure=found.value,
        se=found.se,
        **_fit(column.level, column.labels, data, fit),
        fair=fair,
        separation=separation,
        reliability=separation**2 / (1 + separation**2),
        chi2=found.chi2,
        df=found.df,
        p=float(chi2.sf(found.chi2, found.df)) if found.df else 1.0,
    )


def _persons(
    plan: Plan,
    data: Ratings,
    fit: Averages,
    nodes: Levels,
    posterior: Float[np.ndarray, "N Q"],
    fair: Callable[[Levels], Levels],
) -> FacetTable:
    """Return posterior means and sds; reliability is the measures' share of the variance."""
    labels, value = data.facets[plan.person], posterior @ nodes
    variance = (posterior * (nodes - value[:, None]) ** 2).sum(axis=1)
    spread, error = float(value.var()), float(variance.mean())
    return FacetTable(
        labels=labels,
        measure=value,
        se=np.sqrt(variance),
        **_fit(data.codes[plan.person], labels, data, fit),
        fair=fair(value),
        separation=float(np.sqrt(spread / error)),
        reliability=spread / (spread + error),
        chi2=np.nan,
        df=0,
        p=np.nan,
    )


def _fit(
    level: Int[np.ndarray, " n"], labels: tuple[str, ...], data: Ratings, fit: Averages
) -> dict[str, Levels]:
    """Return mean squares with their t, counts and mean scores of the levels."""
    terms = (np.ones(len(level)), fit.variance, fit.squares, fit.outfit, fit.kurtosis, fit.spread)
    sums = np.stack([np.bincount(level, data.weight * term, len(labels)) for term in terms])
    found = fit_table(labels, sums)
    with np.errstate(invalid="ignore"):
        observed = np.bincount(level, data.weight * data.score, len(labels)) / found.count
    return {
        "infit": found.infit,
        "outfit": found.outfit,
        "infit_t": found.infit_t,
        "outfit_t": found.outfit_t,
        "count": found.count,
        "observed": observed,
    }


def _fair(design: Design, x: Vector, f: int, value: Levels) -> Levels:
    """Return E x at each value, other facets at their means, averaged over step groups."""
    means = [float(x[block].mean()) for block in design.blocks]
    base = sum(
        sign * m for g, (sign, m) in enumerate(zip(design.signs, means, strict=True)) if g != f
    )
    eta = base + design.signs[f] * value
    steps = x[design.n_levels :][: design.passed.size].reshape(design.passed.shape)
    out = np.zeros(len(eta))
    for g in range(len(steps)):
        p = distribution(np.full(len(eta), g), design.top, eta, steps)[0]
        out += p @ np.arange(p.shape[1]) / len(steps)
    return out


def _space(design: Design, f: int) -> Directions | Margins | None:
    return design.spaces[f] if design.spaces else None


def _n_parameters(design: Design) -> int:
    lost = sum(space.lost for _, space in design.constrained) + max(len(design.loose) - 1, 0)
    return int(design.free.sum()) + int((design.top - 1).sum()) - lost


def _step_groups(plan: Plan, data: Ratings) -> tuple[str, ...]:
    return data.facets[plan.steps] if plan.steps else ("all",)


def _inside(design: Design, steps: Float[np.ndarray, "G m"]) -> Float[np.ndarray, "G m"]:
    return np.where(np.arange(1, steps.shape[1] + 1) <= design.top[:, None], steps, np.nan)


def _joint_step_errors(design: Design, at: Moments) -> Float[np.ndarray, "G m"]:
    """Return errors of each group's steps, which sum to 0, all measures held."""
    out = np.zeros(at.passed.shape)
    for row, block, m in zip(out, at.steps, design.top, strict=True):
        centre = np.eye(m) - 1 / m
        inverse = np.linalg.pinv(centre @ block[:m, :m] @ centre, rcond=SMALL, hermitian=True)
        row[:m] = np.sqrt(np.diag(inverse).clip(min=0))
    return out
