"""The whole exam: the scale, its tests, and every diagnostic whose input was given."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from meristem_exam._choice import MANY_STEPS
from meristem_exam._findings import Finding, find
from meristem_exam._scale import Scale, measure, rates, weights
from meristem_exam._sources import Evidence, Graders
from meristem_rasch import (
    CML,
    Alignment,
    ConvergenceError,
    DataError,
    DifTable,
    ExistenceError,
    Facets,
    Fractional,
    LengthStudy,
    LRTest,
    Overdispersion,
    RaterAgreement,
    Ratings,
    andersen_test,
    difficulty_alignment,
    length_as_difficulty,
    overdispersion,
    q3,
    rasch_dif,
    rater_agreement,
)

LEAST_PERSONS = 100  # for a split of the persons
LEAST_ITEMS_HALF = 10  # of the dual: items in each half
MANY_ITEMS = 300  # above this local dependence is not searched
MANY_CELLS = 60_000  # above this simulations under chance are fewer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Halves:
    """One scale or two: what differs between the two halves of a median split."""

    test: LRTest
    what: str  # measured in both halves: "items" or "systems"
    by: str  # how the halves were made
    rmsd: float  # logits, beyond what the errors explain
    correlation: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dependence:
    """Pairs of items whose answers agree beyond the scale, by Yen's Q3 over its mean."""

    pairs: tuple[tuple[str, str, float], ...]  # largest first
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RaterStudy:
    """Agreement of raters, and how severe each is."""

    agreement: RaterAgreement
    raters: tuple[str, ...]
    severity: Float[np.ndarray, " R"]  # logits, mean 0; positive = gives lower scores
    severity_se: Float[np.ndarray, " R"]
    infit: Float[np.ndarray, " R"] | None  # 1 = as consistent as the scale expects
    fair: Float[np.ndarray, " R"] | None  # mean grade the rater would give to an average unit
    separation: float  # spread of severity in units of its error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exam:
    """All results; what had no input is None."""

    evidence: Evidence
    scale: Scale
    halves: Halves | None
    dependence: Dependence | None
    alignment: Alignment | None
    overdispersion: Overdispersion | None
    length: LengthStudy | None
    length_answered: LengthStudy | None  # without cut-off and empty outputs
    dif: DifTable | None
    graders: RaterStudy | None
    human: RaterStudy | None
    warnings: tuple[str, ...]
    seed: int

    @property
    def findings(self) -> list[Finding]:
        """What a reader should take home, in plain sentences."""
        return find(self)


def sit_exam(
    evidence: Evidence, *, model: str | None = None, method: str | None = None, seed: int = 0
) -> Exam:
    """Return the exam of the evidence.

    Raises
    ------
    DataError
        If scores, labels or ratings cannot be used.
    ExistenceError, IdentificationError
        If the data do not identify the measures.
    """
    warnings: list[str] = []
    scale = measure(evidence, model=model, method=method, seed=seed)
    if scale.set_aside:
        kind = "systems" if scale.choice.method == "dual" else "items"
        warnings.append(
            f"{len(scale.set_aside)} {kind} with one score throughout (but for extreme rows) "
            "have no finite measure and were set aside: " + _listed(scale.set_aside)
        )
    y, w = rates(evidence), weights(evidence)
    long, long_answered = _length(evidence, y, w, seed)
    return Exam(
        evidence=evidence,
        scale=scale,
        halves=_halves(scale, warnings),
        dependence=_dependence(scale),
        alignment=None
        if evidence.difficulty is None
        else difficulty_alignment(
            y,
            evidence.difficulty,
            weight=w,
            groups=evidence.subject,
            systems=scale.systems,
            seed=seed,
        ),
        overdispersion=_overdispersion(y, w, seed),
        length=long,
        length_answered=long_answered,
        dif=_dif(evidence, scale, warnings),
        graders=None if evidence.graders is None else _raters(evidence.graders, seed),
        human=None if evidence.human is None else _raters(evidence.human, seed),
        warnings=tuple(warnings),
        seed=seed,
    )


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _halves(scale: Scale, warnings: list[str]) -> Halves | None:
    data = scale.responses
    if data is None or scale.choice.method == "mml":
        return None
    dual = scale.choice.method == "dual"
    if len(data.persons) < (2 * LEAST_ITEMS_HALF if dual else LEAST_PERSONS):
        return None
    try:
        test = andersen_test(CML(model=scale.choice.model), data)
    except (DataError, ExistenceError, ConvergenceError) as error:
        warnings.append(f"the halves could not be compared: {error}")
        return None
    one, two = (fit.renormalise(fit.items) for fit in test.groups)
    gap = one.difficulty - two.difficulty
    error = one.difficulty_se**2 + two.difficulty_se**2
    return Halves(
        test=test,
        what="systems" if dual else "items",
        by="easier and harder items" if dual else "weaker and stronger systems",
        rmsd=float(np.sqrt(max(float(np.mean(gap**2 - error)), 0.0))),
        correlation=float(np.corrcoef(one.difficulty, two.difficulty)[0, 1]),
    )


def _dependence(scale: Scale) -> Dependence | None:
    cal, data = scale.calibration, scale.responses
    if cal is None or data is None or scale.choice.method == "dual":
        return None
    if not 3 <= len(data.items) <= MANY_ITEMS or len(data.persons) < LEAST_PERSONS:
        return None
    values = q3(cal, data)
    first, second = np.triu_indices(len(data.items), k=1)
    pairs = values[first, second]
    known = np.isfinite(pairs)
    mean = float(pairs[known].mean())
    order = np.argsort(-np.where(known, pairs, -np.inf))[:10]
    return Dependence(
        pairs=tuple(
            (data.items[int(first[k])], data.items[int(second[k])], float(pairs[k] - mean))
            for k in order
            if known[k]
        ),
        mean=mean,
    )


def _overdispersion(
    y: Float[np.ndarray, "V I"], w: Float[np.ndarray, " I"] | int, seed: int
) -> Overdispersion | None:
    if not np.any(np.asarray(w) > 1):
        return None  # the variance of a single trial follows from its mean
    return overdispersion(y, weight=w, bootstrap=100 if y.size < MANY_CELLS else 20, seed=seed)


def _length(
    evidence: Evidence,
    y: Float[np.ndarray, "V I"],
    w: Float[np.ndarray, " I"] | int,
    seed: int,
) -> tuple[LengthStudy | None, LengthStudy | None]:
    if evidence.length is None:
        return None, None
    length = evidence.length
    seen = np.where(np.isnan(length), np.nan, y)
    points = evidence.max_score

    def study(answered: np.ndarray | None) -> LengthStudy:
        return length_as_difficulty(
            seen,
            length,
            weight=w,
            subject=evidence.subject,
            points=points,
            answered=answered,
            systems=evidence.matrix.persons,
            seed=seed,
        )

    without = None if evidence.answered is None else study(evidence.answered)
    return study(None), without


def _dif(evidence: Evidence, scale: Scale, warnings: list[str]) -> DifTable | None:
    if evidence.group is None:
        return None
    if scale.responses is None or scale.choice.method == "dual":
        warnings.append(
            "groups were not compared: that needs whole scores of many persons on fewer items"
        )
        return None
    return rasch_dif(scale.responses, evidence.group, estimator=CML(model=scale.choice.model))


def _raters(graders: Graders, seed: int) -> RaterStudy:
    table = graders.table
    agreement = rater_agreement(table, bootstrap=200 if len(table) < 3000 else 50, seed=seed)
    unit, rater = np.nonzero(~np.isnan(table))
    scores = table[unit, rater]
    values = np.unique(scores)
    if len(values) > MANY_STEPS or (np.diff(values) != 1).any():
        return _fractional_raters(graders, agreement, seed)
    found = Facets(person="unit").fit(
        Ratings.from_long(
            (scores - values[0]).astype(np.int64),
            {
                "unit": [graders.units[u] for u in unit],
                "rater": [graders.raters[r] for r in rater],
            },
        )
    )
    facet = found.facets["rater"]
    return RaterStudy(
        agreement=agreement,
        raters=facet.labels,
        severity=facet.measure,
        severity_se=facet.se,
        infit=facet.infit,
        fair=facet.fair + values[0],
        separation=facet.separation,
    )


def _fractional_raters(graders: Graders, agreement: RaterAgreement, seed: int) -> RaterStudy:
    """Return severities of grades without steps: the dual of units and raters as fractions."""
    low, high = float(np.nanmin(graders.table)), float(np.nanmax(graders.table))
    fit = Fractional(bootstrap=1).fit((graders.table - low) / (high - low), rng=seed)
    spread = float(np.var(fit.difficulty, ddof=1))
    error = float(np.mean(fit.difficulty_se**2))
    return RaterStudy(
        agreement=agreement,
        raters=graders.raters,
        severity=fit.difficulty,
        severity_se=fit.difficulty_se,
        infit=None,
        fair=None,
        separation=float(np.sqrt(max(spread - error, 0.0) / error)) if error else 0.0,
    )
