"""Corrections of the bias of joint estimates, which is of order 1 / ratings a person.

- "wright": times (L - 1) / L, exact for two dichotomous items (Wright & Douglas 1977)
- "jackknife": half of each person's ratings has twice the bias (Dhaene & Jochmans 2015)
- the persons' measures then follow from the corrected others
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_rasch._ascent import Top, Vector
from meristem_rasch._connected import check_connected
from meristem_rasch._errors import ExistenceError, IdentificationError
from meristem_rasch._facet_design import Plan, build, centred, level_names
from meristem_rasch._facet_terms import Rows, solve_terms
from meristem_rasch._newton_cg import Design, by_level, eta_of, steps_of
from meristem_rasch._ratings import Ratings

INSIDE = 0.3  # points: how far inside its range an extreme score is measured, as in Winsteps

Others = Float[np.ndarray, " O"]  # all but the persons
Fit = Callable[[Design, Vector, str], Top]


def corrected(
    plan: Plan, data: Ratings, design: Design, fit: Fit, *, halves: bool
) -> tuple[Vector, Top]:
    """Return centred estimates corrected by the jackknife (`halves`) or by (L - 1) / L.

    Persons with extreme scores are left out, and measured in the end with all others. Which half a
    rating falls into is drawn once, with a fixed seed. Also returns the search on all the ratings
    used.

    Raises
    ------
    ExistenceError
        If the ratings used, or a half of them, have no finite estimates.
    """
    used = _without_extremes(plan, data, design, np.ones(len(data.score), dtype=bool))
    value, found = _estimates(plan, used, design, fit, "")
    if halves:
        value = 2 * value - _mean_of_halves(plan, used, design, fit)
    else:
        ratings = np.bincount(used.codes[plan.person], used.weight)
        mean = float(ratings[ratings > 0].mean())
        value = value * (mean - 1) / mean
    return _with_persons(plan, data, design, value), found


def _mean_of_halves(plan: Plan, data: Ratings, whole: Design, fit: Fit) -> Others:
    first, parts = _first_half(data.codes[plan.person]), list[Others]()
    for number, rows in enumerate((first, ~first), start=1):
        half = _without_extremes(plan, data, whole, rows)
        try:
            parts.append(_estimates(plan, half, whole, fit, f"half {number} ")[0])
        except (ExistenceError, IdentificationError) as error:
            raise ExistenceError(
                f"jackknife, half {number} of each person's ratings: {error} (or use correction "
                "'epsilon')"
            ) from error
    return (parts[0] + parts[1]) / 2


def _estimates(
    plan: Plan, data: Ratings, whole: Design, fit: Fit, label: str
) -> tuple[Others, Top]:
    """Return the centred estimates of all but the persons, and the search."""
    design, start, columns = build(plan, data)
    names = level_names(columns)
    ratings = by_level(design, np.ones(len(data.score)), signed=False)
    if (ratings == 0).any():
        raise ExistenceError(f"no rating is left of {names[int(np.argmin(ratings))]}")
    f = list(data.facets).index(plan.person)
    if _shape(design, f) != _shape(whole, f):
        raise ExistenceError("a score or a combination of levels is left without ratings")
    check_connected(design, names)
    found = fit(design, start, label)
    return np.delete(centred(plan, design, columns, found.x), design.blocks[f]), found


def _shape(design: Design, person: int) -> tuple[list[int], list[int], list[int]]:
    sizes = [size for f, size in enumerate(design.sizes) if f != person]
    return sizes, design.top.tolist(), [space.lost for _, space in design.constrained]


def _first_half(person: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return half of each person's ratings; of an odd number, the larger part half of the time."""
    rng = np.random.default_rng(0)
    order = np.lexsort([rng.random(len(person)), person])
    count = np.bincount(person)
    place = np.empty(len(person), dtype=np.int64)
    place[order] = np.arange(len(person)) - np.repeat(np.cumsum(count) - count, count)
    return (place + rng.integers(0, 2, len(count))[person]) % 2 == 0


def _without_extremes(
    plan: Plan, data: Ratings, whole: Design, rows: Bool[np.ndarray, " n"]
) -> Ratings:
    """Return the rows of persons whose score there is neither the lowest nor the highest."""
    person, w = data.codes[plan.person], data.weight * rows
    group = data.codes[plan.steps] if plan.steps else np.zeros(len(w), dtype=np.int64)
    score = np.bincount(person, w * data.score)
    most = np.bincount(person, w * whole.top[group])
    keep = rows & ((score > 0) & (score < most))[person]
    present, code = np.unique(person[keep], return_inverse=True)
    names = data.facets[plan.person]
    return Ratings(
        score=data.score[keep],
        facets={**data.facets, plan.person: tuple(names[k] for k in present)},
        codes={name: level[keep] for name, level in data.codes.items()} | {plan.person: code},
        weight=data.weight[keep],
    )


def _with_persons(plan: Plan, data: Ratings, design: Design, others: Others) -> Vector:
    """Return all measures: the persons' by maximum likelihood given the others."""
    person = data.codes[plan.person]
    block = design.blocks[list(data.facets).index(plan.person)]
    out = np.insert(others, block.start, np.zeros(block.stop - block.start))
    rows = Rows(
        logit=eta_of(design, out),
        group=design.group,
        weight=design.weight,
        top=design.top,
        steps=steps_of(design, out),
    )
    score = np.bincount(person, design.weight * data.score)
    most = np.bincount(person, design.weight * design.top[design.group])
    out[block] = solve_terms(rows, person, score.clip(min=INSIDE, max=most - INSIDE))[0]
    return out
