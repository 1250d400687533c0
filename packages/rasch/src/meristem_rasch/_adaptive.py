"""Adaptive tests of many examinees at once.

- the next item is the best by a rule, or one of the best k (`randomesque`)
- the estimate is the posterior mean on equally spaced nodes ("eap"), its error the posterior SD; or
  Warm's weighted likelihood estimate ("wle"), without a prior, its error 1 / sqrt(information)
- a test ends at `max_items`, at the error `max_se`, or when no item is left within the quotas
- each examinee has a Philox stream of its own, so that a batch equals single runs bit for bit

Legend: n examinees, I items, Q nodes, T places of the test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_rasch._calibration import Calibration
from meristem_rasch._cat_ranking import Rule, nth_free, ranking_of
from meristem_rasch._curves import curves
from meristem_rasch._errors import DataError
from meristem_rasch._persons import roots
from meristem_rasch._responses import Responses
from meristem_rasch._simulate import cumulative

Estimate = Literal["eap", "wle"]
REACH = 6.0  # logits or latent SDs from the middle to the outermost node
NODES = 121

Areas = tuple[Int[np.ndarray, " I"], Int[np.ndarray, " A"]]  # area of each item, most per area

Measures = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]  # and their errors
Measure = Callable[[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]], Measures]
Answer = Callable[[Int[np.ndarray, " n"], Int[np.ndarray, " n"], int], Int[np.ndarray, " n"]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CatRun:
    """The tests that the examinees took; -1 after a test has ended."""

    items: Int[np.ndarray, "n T"]  # item numbers in order of administration
    scores: Int[np.ndarray, "n T"]
    theta: Float[np.ndarray, "n T"]  # estimate after each answer; NaN after the end
    se: Float[np.ndarray, "n T"]
    length: Int[np.ndarray, " n"]

    @property
    def final(self) -> Float[np.ndarray, " n"]:
        """The last estimate of every examinee."""
        return np.take_along_axis(self.theta, self.length[:, None] - 1, axis=1)[:, 0]

    @property
    def final_se(self) -> Float[np.ndarray, " n"]:
        """Its standard error; of "eap" the posterior standard deviation."""
        return np.take_along_axis(self.se, self.length[:, None] - 1, axis=1)[:, 0]

    def responses(self, bank: Calibration) -> Responses:
        """Return the answers as responses, items not given missing: for measures of any kind.

        `score_persons(bank, run.responses(bank), method="wle")` has no prior, for example.

        Raises
        ------
        DataError
            If the run has an item that the bank lacks.
        """
        if int(self.items.max()) >= len(bank.items):
            raise DataError(
                f"item number {int(self.items.max())} was given, and the bank has "
                f"{len(bank.items)} items; give the bank of this run"
            )
        scores = np.full((len(self.items), len(bank.items)), -1, dtype=np.int64)
        person, place = np.nonzero(self.items >= 0)
        scores[person, self.items[person, place]] = self.scores[person, place]
        return Responses(
            scores=scores,
            persons=tuple(f"{k + 1}" for k in range(len(scores))),
            items=bank.items,
            max_score=bank.max_score,
            weight=np.ones(len(scores)),
        )


def simulate_cat(
    bank: Calibration,
    theta: Float[np.ndarray, " n"],
    *,
    max_items: int,
    seed: int,
    rule: Rule = "information",
    estimate: Estimate = "eap",
    max_se: float | int | None = None,
    randomesque: int = 1,
    content: Sequence[str] | None = None,
    quota: Mapping[str, int] | None = None,
    mean: float | int = 0.0,
    sd: float | int = 1.0,
) -> CatRun:
    """Return adaptive tests of examinees with true abilities `theta`.

    Parameters
    ----------
    bank
        Calibrated items.
    max_items
        Length at which a test ends.
    estimate
        "eap", or "wle", for which the prior gives the first item only.
    max_se
        Error of the estimate at which it ends before.
    randomesque
        Number of best items among which one is drawn.
    content, quota
        Area of each item, and the most items of each area in one test.
    mean, sd
        Normal prior where the bank has no latent distribution.

    Raises
    ------
    DataError
        If a number is out of range, an ability is not finite, or a quota names no area.
    """
    if not np.isfinite(theta).all() or not len(theta):
        raise DataError("abilities must be finite and at least one")
    draws = _draws(seed, len(theta), max_items, bank)
    below = cumulative(bank)

    def answer(rows: np.ndarray, items: np.ndarray, place: int) -> np.ndarray:
        return (draws[rows, place, 0, None] >= below(theta[rows], items)).sum(axis=1)

    free = np.ones((len(theta), len(bank.items)), dtype=bool)
    areas = _areas(bank, content, quota)
    rules = (rule, estimate, max_se, randomesque, areas, _prior(bank, mean, sd))
    return _administer(bank, answer, draws, free, *rules)


def replay_cat(
    bank: Calibration,
    data: Responses,
    *,
    max_items: int,
    seed: int,
    rule: Rule = "information",
    estimate: Estimate = "eap",
    max_se: float | int | None = None,
    randomesque: int = 1,
    content: Sequence[str] | None = None,
    quota: Mapping[str, int] | None = None,
    mean: float | int = 0.0,
    sd: float | int = 1.0,
) -> CatRun:
    """Return adaptive tests of the persons of `data`, whose recorded answers are looked up.

    A missing answer cannot be administered. Parameters and errors as `simulate_cat`.
    """
    if data.items != bank.items:
        raise DataError("the items of the data are not those of the bank; select and order them")
    draws = _draws(seed, len(data.persons), max_items, bank)
    areas = _areas(bank, content, quota)
    rules = (rule, estimate, max_se, randomesque, areas, _prior(bank, mean, sd))

    def answer(rows: np.ndarray, items: np.ndarray, place: int) -> np.ndarray:
        return data.scores[rows, items].astype(np.int64)

    return _administer(bank, answer, draws, data.mask.copy(), *rules)


def _draws(seed: int, n: int, max_items: int, bank: Calibration) -> Float[np.ndarray, "n T 2"]:
    """Return uniforms: one for the answer and one for the choice, from a stream per examinee."""
    if max_items < 1:
        raise DataError(f"max_items ({max_items}) must be at least 1")
    out = np.empty((n, min(max_items, len(bank.items)), 2))
    for row in range(n):
        key = np.array([seed & (2**64 - 1), row], dtype=np.uint64)
        np.random.Generator(np.random.Philox(key=key)).random(out=out[row])
    return out


def _prior(bank: Calibration, mean: float, sd: float) -> tuple[float, float]:
    if np.isfinite(bank.latent_mean) and np.isfinite(bank.latent_sd):
        return bank.latent_mean, bank.latent_sd
    if not sd > 0:
        raise DataError(f"the prior's sd ({sd}) must be positive")
    return float(mean), float(sd)


def _areas(
    bank: Calibration, content: Sequence[str] | None, quota: Mapping[str, int] | None
) -> Areas | None:
    if quota is None:
        return None
    if content is None or len(content) != len(bank.items):
        raise DataError(f"quotas need the area of each of {len(bank.items)} items in `content`")
    unknown = [area for area in quota if area not in content]
    if unknown:
        raise DataError(f"quota names {unknown}; the areas are {sorted(set(content))}")
    names = sorted(set(content))
    most = np.array([quota.get(name, len(bank.items)) for name in names])
    return np.array([names.index(area) for area in content]), most


def _administer(
    bank: Calibration,
    answer: Answer,
    draws: Float[np.ndarray, "n T 2"],
    free: Bool[np.ndarray, "n I"],
    rule: Rule,
    estimate: Estimate,
    max_se: float | int | None,
    randomesque: int,
    areas: Areas | None,
    prior: tuple[float, float],
) -> CatRun:
    if randomesque < 1 or (max_se is not None and not max_se > 0):
        raise DataError(f"randomesque ({randomesque}) and max_se ({max_se}) must be positive")
    n, places = draws.shape[:2]
    run = _empty_run(n, places)
    measure = _warm(bank, n) if estimate == "wle" else _posterior_mean(bank, n, prior)
    ranking, place_of = ranking_of(bank, rule)
    if rule == "random":
        randomesque = len(bank.items)
    theta, left = np.full(n, prior[0]), free.sum(axis=1)
    used = np.zeros((n, 0 if areas is None else len(areas[1])), dtype=np.int64)
    active: Int[np.ndarray, " m"] = np.flatnonzero(left > 0)
    if len(active) < n:
        raise DataError(f"examinee {int(np.argmin(left))} has no item that can be given")
    for place in range(places):
        k = np.minimum(left[active], randomesque)
        rank = (draws[active, place, 1] * k).astype(np.int64)
        at, order = place_of(theta[active]), ranking(place)
        chosen = nth_free(order, at, free, active, rank, place + randomesque)
        scores = answer(active, chosen, place)
        free[active, chosen] = False
        left[active] -= 1
        if areas is not None:
            _close_areas(free, left, used, areas, active, chosen)
        theta[active], se = measure(active, chosen, scores)
        run.items[active, place], run.scores[active, place] = chosen, scores
        run.theta[active, place], run.se[active, place] = theta[active], se
        run.length[active] = place + 1
        active = active[(se > (0.0 if max_se is None else max_se)) & (left[active] > 0)]
        if not len(active):
            break
    return run


def _posterior_mean(bank: Calibration, n: int, prior: tuple[float, float]) -> Measure:
    """Return the function that takes answers in and gives posterior means and SDs."""
    nodes = prior[0] + prior[1] * np.linspace(-REACH, REACH, NODES)
    p = curves(bank, nodes)[0]
    log_p = np.log(np.where(p > 0, p, 1e-300)).transpose(1, 2, 0)  # item, score, node
    posterior = np.tile(-(((nodes - prior[0]) / prior[1]) ** 2) / 2, (n, 1))

    def measure(rows: np.ndarray, items: np.ndarray, scores: np.ndarray) -> Measures:
        posterior[rows] += log_p[items, scores]
        weights = np.exp(posterior[rows] - posterior[rows].max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * nodes).sum(axis=1)  # a matrix product would depend on the batch's size
        return mean, np.sqrt(np.maximum((weights * nodes**2).sum(axis=1) - mean**2, 0))

    return measure


def _warm(bank: Calibration, n: int) -> Measure:
    """Return the function that takes answers in and gives Warm's estimates and their errors."""
    table = np.full((n, len(bank.items)), -1, dtype=np.int64)

    def measure(rows: np.ndarray, items: np.ndarray, scores: np.ndarray) -> Measures:
        table[rows, items] = scores
        return roots(bank, table[rows], "wle", 0.0, 1.0)

    return measure


def _empty_run(n: int, places: int) -> CatRun:
    return CatRun(
        items=np.full((n, places), -1),
        scores=np.full((n, places), -1),
        theta=np.full((n, places), np.nan),
        se=np.full((n, places), np.nan),
        length=np.zeros(n, dtype=np.int64),
    )


def _close_areas(
    free: Bool[np.ndarray, "n I"],
    left: Int[np.ndarray, " n"],
    used: Int[np.ndarray, "n A"],
    areas: Areas,
    active: Int[np.ndarray, " m"],
    chosen: Int[np.ndarray, " m"],
) -> None:
    area, most = areas
    used[active, area[chosen]] += 1
    full = used[active, area[chosen]] >= most[area[chosen]]
    rows = active[full]
    free[rows] &= area[None, :] != area[chosen[full]][:, None]
    left[rows] = free[rows].sum(axis=1)
