"""Systems and items on one scale, with errors and fit."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import chi2, norm

from meristem_exam._choice import Choice, choose
from meristem_exam._sources import Evidence
from meristem_rasch import (
    CML,
    MML,
    Calibration,
    DataError,
    FitTable,
    Fractional,
    Responses,
    benjamini_hochberg,
    drop_extreme,
    item_fit,
    person_fit,
    score_persons,
)

LOWEST, HIGHEST = 0.7, 1.3  # mean squares outside are worth a look where they are significant


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Mean squares around 1, their p-values adjusted for many tests; NaN: nothing informative."""

    infit: Float[np.ndarray, " n"]
    outfit: Float[np.ndarray, " n"]
    p: Float[np.ndarray, " n"]  # of the outfit, Benjamini and Hochberg

    @property
    def noisy(self) -> Bool[np.ndarray, " n"]:
        """Where answers are less predictable than the scale expects."""
        return (self.outfit > HIGHEST) & (self.p < 0.05)

    @property
    def flat(self) -> Bool[np.ndarray, " n"]:
        """Where answers are more predictable: the item or system repeats the ranking."""
        return (self.outfit < LOWEST) & (self.p < 0.05)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """The measures, in logits; items average 0."""

    choice: Choice
    systems: tuple[str, ...]
    ability: Float[np.ndarray, " V"]
    ability_se: Float[np.ndarray, " V"]
    low: Float[np.ndarray, " V"]  # 95 %
    high: Float[np.ndarray, " V"]
    rank: Int[np.ndarray, "V 2"]  # best and worst rank that the errors allow
    rate: Float[np.ndarray, " V"]  # share of the possible points
    system_fit: Fit
    items: tuple[str, ...]
    difficulty: Float[np.ndarray, " I"]
    difficulty_se: Float[np.ndarray, " I"]
    item_rate: Float[np.ndarray, " I"]
    item_fit: Fit
    discrimination: Float[np.ndarray, " I"]  # correlation with the rest score; NaN: no variance
    reversed: Bool[np.ndarray, " I"]  # where it is surely negative: one-sided, adjusted p < 0.05
    reliability: float
    loglik: float | None  # None for quasi-likelihood
    n_parameters: int | None
    dispersion: float | None  # of fractional scores
    set_aside: tuple[str, ...]  # items or systems without a finite measure
    responses: Responses | None = None
    calibration: Calibration | None = None  # of the responses, or of their dual
    scored: Float[np.ndarray, "V I"] = field(default_factory=lambda: np.zeros((0, 0)))


def measure(evidence: Evidence, *, model: str | None, method: str | None, seed: int) -> Scale:
    """Return the scale of the evidence.

    Raises
    ------
    DataError, ExistenceError, ConvergenceError
        If the scores do not allow it; the messages name items or systems.
    """
    values = evidence.matrix.values
    empty = np.isnan(values).all(axis=1)
    if empty.any():
        raise DataError(f"{evidence.matrix.persons[int(np.argmax(empty))]} has no score; drop it")
    if (values < 0).any():
        v, i = np.argwhere(values < 0)[0]
        raise DataError(
            f"{evidence.matrix.persons[v]} scores {values[v, i]:g} on {evidence.matrix.items[i]}; "
            "scores are non-negative: recode it or mark it missing"
        )
    choice = choose(values, model=model, method=method)  # type: ignore[arg-type]
    if choice.method == "fractional":
        return _fractional(evidence, choice, seed)
    return _dual(evidence, choice) if choice.method == "dual" else _direct(evidence, choice)


def rates(evidence: Evidence) -> Float[np.ndarray, "V I"]:
    """Return scores as shares of the largest possible score.

    Raises
    ------
    DataError
        If a score exceeds it.
    """
    values = evidence.matrix.values
    top = evidence.max_score
    if top is None:
        top = np.nanmax(values, axis=0)
        whole = bool((values[~np.isnan(values)] % 1 == 0).all())
        if not whole and (top > 1).any():
            item = evidence.matrix.items[int(np.argmax(top))]
            raise DataError(
                f"item {item} has scores up to {top.max():g} and fractions; name the largest "
                "possible score with --max-score"
            )
        top = np.maximum(top, 1)
    over = ~np.isnan(values) & ((values > top + 1e-9) | (values < 0))
    if over.any():
        v, i = np.argwhere(over)[0]
        raise DataError(
            f"{evidence.matrix.persons[v]} scores {values[v, i]:g} on {evidence.matrix.items[i]}, "
            f"outside 0 to {top[i]:g}; correct the score or --max-score"
        )
    return np.minimum(values / top, 1.0)


def weights(evidence: Evidence) -> Float[np.ndarray, " I"] | int:
    """Return the trials behind each score: samples if given, else points, else 1."""
    if evidence.weight is not None:
        return evidence.weight
    if evidence.max_score is not None:
        return np.maximum(np.round(evidence.max_score), 1.0)
    return 1


def _fractional(evidence: Evidence, choice: Choice, seed: int) -> Scale:
    y, w = rates(evidence), weights(evidence)
    fit = Fractional(bootstrap=400 if y.size < 50_000 else 100).fit(y, w, rng=seed)
    cell = np.broadcast_to(np.asarray(w, dtype=float), y.shape)
    seen, spread = ~np.isnan(y), np.maximum(fit.fitted * (1 - fit.fitted), 1e-9)
    square = np.where(seen, cell * (y - fit.fitted) ** 2 / fit.dispersion, 0.0)
    information = np.where(seen, spread, 0.0)

    def table(axis: int) -> Fit:
        infit = square.sum(axis=axis) / information.sum(axis=axis)
        outfit = np.where(seen, square / spread, 0.0).sum(axis=axis) / seen.sum(axis=axis)
        n = seen.sum(axis=axis)  # sum of squares / phi, about chi-squared
        p = 2 * np.minimum(chi2.sf(outfit * n, n), chi2.cdf(outfit * n, n))
        return Fit(infit=infit, outfit=outfit, p=benjamini_hochberg(np.minimum(p, 1.0)))

    variance = float(np.var(fit.ability, ddof=1))
    return _scale(
        choice,
        evidence,
        y,
        (fit.ability, fit.ability_se, fit.interval[:, 0], fit.interval[:, 1]),
        (fit.difficulty, fit.difficulty_se),
        (table(1), table(0)),
        reliability=1 - float(np.mean(fit.ability_se**2)) / variance if variance else 0.0,
        dispersion=fit.dispersion,
    )


def _direct(evidence: Evidence, choice: Choice) -> Scale:
    values, top = evidence.matrix.values, evidence.max_score
    whole = Responses.from_wide(
        values,
        persons=evidence.matrix.persons,
        items=evidence.matrix.items,
        max_score=None if top is None else top.astype(np.int64),
    )
    data, aside = drop_extreme(whole)
    estimator = CML(model=choice.model) if choice.method == "cml" else MML(model=choice.model)
    cal = estimator.fit(data).renormalise(data.items)
    people = score_persons(cal, data)
    kind = "conditional" if choice.method == "cml" else "person"
    half = norm.ppf(0.975) * people.se
    back = np.flatnonzero(~np.isin(whole.items, aside))
    return _scale(
        choice,
        evidence,
        rates(evidence),
        (people.theta, people.se, people.theta - half, people.theta + half),
        (
            _placed(cal.difficulty, back, len(whole.items)),
            _placed(cal.difficulty_se, back, len(whole.items)),
        ),
        (
            _fit(person_fit(cal, data, residuals=kind), np.arange(len(data.persons)), len(values)),
            _fit(item_fit(cal, data, residuals=kind), back, len(whole.items)),
        ),
        reliability=people.reliability,
        set_aside=aside,
        calibration=cal,
        responses=data,
    )


def _dual(evidence: Evidence, choice: Choice) -> Scale:
    values = evidence.matrix.values
    whole = Responses.from_wide(
        values,
        persons=evidence.matrix.persons,
        items=evidence.matrix.items,
        max_score=np.ones(len(evidence.matrix.items), dtype=np.int64),
    ).transpose()
    dual, aside = drop_extreme(whole)
    cal = CML().fit(dual)
    items = score_persons(cal, dual)
    shift = float(items.theta.mean())  # items average 0
    back = np.flatnonzero(~np.isin(whole.items, aside))
    ability, se = cal.difficulty - shift, cal.difficulty_se
    half = norm.ppf(0.975) * se
    variance = float(np.var(ability, ddof=1))
    return _scale(
        choice,
        evidence,
        values,
        tuple(_placed(x, back, len(values)) for x in (ability, se, ability - half, ability + half)),
        (items.theta - shift, items.se),
        (
            _fit(item_fit(cal, dual), back, len(values)),
            _fit(person_fit(cal, dual), np.arange(len(dual.persons)), len(dual.persons)),
        ),
        reliability=1 - float(np.mean(se**2)) / variance if variance else 0.0,
        set_aside=aside,
        calibration=cal,
        responses=dual,
    )


def _scale(
    choice: Choice,
    evidence: Evidence,
    y: Float[np.ndarray, "V I"],
    ability: Sequence[Float[np.ndarray, " V"]],
    difficulty: Sequence[Float[np.ndarray, " I"]],
    fits: tuple[Fit, Fit],
    *,
    reliability: float,
    dispersion: float | None = None,
    set_aside: tuple[str, ...] = (),
    calibration: Calibration | None = None,
    responses: Responses | None = None,
) -> Scale:
    discrimination = _discrimination(y)
    return Scale(
        choice=choice,
        systems=evidence.matrix.persons,
        ability=ability[0],
        ability_se=ability[1],
        low=ability[2],
        high=ability[3],
        rank=_ranks(ability[0], ability[1]),
        rate=np.nanmean(y, axis=1),
        system_fit=fits[0],
        items=evidence.matrix.items,
        difficulty=difficulty[0],
        difficulty_se=difficulty[1],
        item_rate=np.nanmean(y, axis=0),
        item_fit=fits[1],
        discrimination=discrimination,
        reversed=_surely_negative(discrimination, (~np.isnan(y)).sum(axis=0)),
        reliability=reliability,
        loglik=None if calibration is None else calibration.loglik,
        n_parameters=None if calibration is None else calibration.n_parameters,
        dispersion=dispersion,
        set_aside=set_aside,
        calibration=calibration,
        responses=responses,
        scored=y,
    )


def _surely_negative(
    r: Float[np.ndarray, " I"], n: Int[np.ndarray, " I"]
) -> Bool[np.ndarray, " I"]:
    """Return where a correlation of n systems is negative beyond chance, by Fisher's z."""
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)) * np.sqrt(np.maximum(n - 3, 0))
    return np.nan_to_num(benjamini_hochberg(np.asarray(norm.cdf(z), dtype=float)), nan=1.0) < 0.05


def _placed(x: Float[np.ndarray, " k"], place: np.ndarray, n: int) -> Float[np.ndarray, " n"]:
    out = np.full(n, np.nan)
    out[place] = x
    return out


def _fit(table: FitTable, place: np.ndarray, n: int) -> Fit:
    return Fit(
        infit=_placed(table.infit, place, n),
        outfit=_placed(table.outfit, place, n),
        p=_placed(benjamini_hochberg(table.outfit_p), place, n),
    )


def _ranks(ability: Float[np.ndarray, " V"], se: Float[np.ndarray, " V"]) -> Int[np.ndarray, "V 2"]:
    """Return the best and the worst rank: how many systems differ by more than their errors."""
    z = float(norm.ppf(0.975))
    out = np.zeros((len(ability), 2), dtype=np.int64)
    total = int((~np.isnan(ability)).sum())
    for v in range(len(ability)):
        gap = (ability - ability[v]) / np.sqrt(se**2 + se[v] ** 2)
        out[v] = 1 + int((gap > z).sum()), total - int((gap < -z).sum())
    return out


def _discrimination(y: Float[np.ndarray, "V I"]) -> Float[np.ndarray, " I"]:
    """Return the correlation of each item with the mean of the system's other items."""
    seen = ~np.isnan(y)
    x = np.where(seen, y, 0.0)
    count = seen.sum(axis=1, keepdims=True)
    rest = (x.sum(axis=1, keepdims=True) - x) / np.maximum(count - seen, 1)
    n = seen.sum(axis=0)
    a = np.where(seen, x - x.sum(axis=0) / n, 0.0)
    b = np.where(seen, rest - np.where(seen, rest, 0.0).sum(axis=0) / n, 0.0)
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(spread > 1e-12, (a * b).sum(axis=0) / np.maximum(spread, 1e-12), np.nan)
