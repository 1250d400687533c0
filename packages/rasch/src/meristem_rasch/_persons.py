"""Person measures from a calibration.

- mle: the root of the score function s; infinite at extreme scores, and flagged
- wle (Warm 1989): s + J / (2 I) = 0, J = sum P' P'' / P; finite everywhere
- map: s - (theta - mean) / sd^2 = 0
- eap: posterior mean on equally spaced nodes; se is the posterior standard deviation
- eap_sum: the same given the raw score alone, which under the Rasch family loses nothing
- the root search is vectorised bisection-safeguarded Newton; equal answers are solved once
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._errors import DataError
from meristem_rasch._frames import Tabular
from meristem_rasch._patterns import distinct_rows
from meristem_rasch._responses import Responses
from meristem_rasch._sum_scores import sum_score_eap

Method = Literal["wle", "mle", "map", "eap", "eap_sum"]
SLOPED = ("2pl", "3pl", "gpcm", "grm")
POSTERIOR = ("map", "eap", "eap_sum")
BOUND = 60.0  # logits around the items; no root of a finite measure lies beyond
CHUNK = 4_000_000  # cells of a probability array held at once


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PersonScores(Tabular):
    """Measures in logits with their standard errors, person by person."""

    persons: tuple[str, ...]
    theta: Float[np.ndarray, " N"]  # NaN only for a person without an answer; mle: +-inf
    se: Float[np.ndarray, " N"]
    raw: Int[np.ndarray, " N"]
    possible: Int[np.ndarray, " N"]
    extreme: Bool[np.ndarray, " N"]
    method: str
    reliability: float

    @property
    def separation(self) -> float:
        """Spread of the measures in units of their error, sqrt(rel / (1 - rel))."""
        return float(np.sqrt(max(self.reliability, 0.0) / (1 - self.reliability)))

    @property
    def strata(self) -> float:
        """Number of levels that lie three errors apart, (4 separation + 1) / 3."""
        return (4 * self.separation + 1) / 3


def score_persons(
    cal: Calibration,
    data: Responses,
    *,
    method: Method = "wle",
    mean: float | None = None,
    sd: float | None = None,
    n_nodes: int = 161,
) -> PersonScores:
    """Return the measures of the persons of `data` on the scale of `cal`.

    Parameters
    ----------
    method
        "wle", "mle", "map", "eap" or "eap_sum".
    mean, sd
        The normal prior of "map", "eap" and "eap_sum"; default the calibration's latent
        distribution, or the standard normal where it has none.
    n_nodes
        Nodes of "eap" and "eap_sum", equally spaced within 6 sd of the mean.

    Raises
    ------
    DataError
        If the items or their largest scores differ from the calibration's.
    """
    _check_items(cal, data)
    mean, sd = _prior(cal, method, mean, sd)
    keys, where = _distinct(cal, data, by_score=method == "eap_sum")
    if method == "eap":
        theta, se = _eap(cal, keys, mean, sd, n_nodes)
    elif method == "eap_sum":
        theta, se = sum_score_eap(cal, keys, mean, sd, n_nodes)
    else:
        theta, se = roots(cal, keys, method, mean, sd)
    theta, se = theta[where], se[where]
    raw, possible = data.raw, data.possible
    extreme = (raw == 0) | (raw == possible)
    none = possible == 0
    if method in ("wle", "mle"):
        theta, se = np.where(none, np.nan, theta), np.where(none, np.nan, se)
    return PersonScores(
        persons=data.persons,
        theta=theta,
        se=se,
        raw=raw,
        possible=possible,
        extreme=extreme,
        method=method,
        reliability=_reliability(theta, se, data.weight, method),
    )


def _prior(
    cal: Calibration, method: str, mean: float | None, sd: float | None
) -> tuple[float, float]:
    if method in POSTERIOR and len(cal.latent) > 1 and (mean is None or sd is None):
        names = [group.label for group in cal.latent]
        raise DataError(f"groups {names} have different priors; score each with its mean and sd")
    known = np.isfinite(cal.latent_sd)
    return (
        (cal.latent_mean if known else 0.0) if mean is None else mean,
        (cal.latent_sd if known else 1.0) if sd is None else sd,
    )


def score_table(cal: Calibration, *, method: Method = "wle") -> PersonScores:
    """Return the measure of every raw score 0...R on all items.

    Raises
    ------
    ValueError
        If the model has slopes or guessing: the raw score is then sufficient for "eap_sum" only.
    """
    if cal.model in SLOPED and method != "eap_sum":
        raise ValueError(
            f"the raw score does not determine the measure under {cal.model!r}; take 'eap_sum'"
        )
    total = int(cal.max_score.sum())
    before = np.concatenate([[0], np.cumsum(cal.max_score)[:-1]])
    rows = np.clip(np.arange(total + 1)[:, None] - before, 0, cal.max_score)
    data = Responses.from_wide(
        rows, persons=range(total + 1), items=cal.items, max_score=cal.max_score
    )
    return score_persons(cal, data, method=method)


def _check_items(cal: Calibration, data: Responses) -> None:
    if data.items != cal.items:
        raise DataError(
            f"the responses' items {data.items[:3]}... are not the calibration's "
            f"{cal.items[:3]}...; select and order them alike"
        )
    if (data.scores > cal.max_score).any():
        i = int(np.argmax((data.scores > cal.max_score).any(axis=0)))
        raise DataError(
            f"item {data.items[i]} has a score above {cal.max_score[i]}, the largest calibrated"
        )


def _distinct(
    cal: Calibration, data: Responses, *, by_score: bool = False
) -> tuple[Int[np.ndarray, "n I"], Int[np.ndarray, " N"]]:
    """Return one row per distinct estimation problem, and each person's row in them."""
    if cal.model in SLOPED and not by_score:
        first, where = distinct_rows(data.scores)
        return data.scores[first], where
    # under the Rasch family the answered items and the raw score are sufficient
    mask, raw = data.mask, data.raw
    if mask.all():
        _, first, where = np.unique(raw, return_index=True, return_inverse=True)
        return data.scores[first], where
    score = np.ascontiguousarray(raw[:, None]).view(np.uint8)
    first, where = distinct_rows(np.hstack([np.packbits(mask, axis=1), score]))
    return data.scores[first], where


def roots(
    cal: Calibration, rows: Int[np.ndarray, "n I"], method: str, mean: float, sd: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the measures by "wle", "mle" or "map", and their errors; a row knows no other row."""
    size = max(1, CHUNK // (rows.shape[1] * int(cal.max_score.max() + 1)))
    parts = [
        _roots_of(cal, rows[k : k + size], method, mean, sd) for k in range(0, len(rows), size)
    ]
    return np.concatenate([t for t, _ in parts]), np.concatenate([s for _, s in parts])


def _roots_of(
    cal: Calibration, rows: Int[np.ndarray, "n I"], method: str, mean: float, sd: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    low = np.full(len(rows), float(cal.threshold.min()) - BOUND)
    high = np.full(len(rows), float(cal.threshold.max()) + BOUND)
    raw = np.maximum(rows, 0).sum(axis=1) + 0.3
    possible = np.where(rows >= 0, cal.max_score, 0).sum(axis=1) + 0.6
    theta = np.log(raw / (possible - raw)) + float(cal.threshold.mean())
    if method == "mle":
        theta = _infinite(cal, rows, theta)
        finite = np.isfinite(theta)
        if not finite.all():
            se = np.full(len(rows), np.nan)
            theta[finite], se[finite] = _roots_of(cal, rows[finite], method, mean, sd)
            return theta, se
    todo: Int[np.ndarray, " m"] = np.arange(len(rows))
    for _ in range(200):
        old = theta[todo]
        value, info = _equation(cal, rows[todo], old, method, mean, sd)
        low[todo] = np.where(value > 0, old, low[todo])
        high[todo] = np.where(value > 0, high[todo], old)
        new = old + value / np.maximum(info, 1e-12)
        inside = (new > low[todo]) & (new < high[todo])
        theta[todo] = np.where(inside, new, (low[todo] + high[todo]) / 2)
        todo = todo[np.abs(theta[todo] - old) >= 1e-11]
        if not len(todo):
            break
    _, info = _equation(cal, rows, theta, method, mean, sd)
    return theta, np.where(info > 0, info, np.nan) ** -0.5


def _infinite(
    cal: Calibration, rows: Int[np.ndarray, "n I"], theta: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    mask = rows >= 0
    lowest = np.where(mask, rows, 0).sum(axis=1) == 0
    highest = (np.where(mask, rows, cal.max_score) == cal.max_score).all(axis=1)
    return np.where(lowest, -np.inf, np.where(highest, np.inf, theta))


def _equation(
    cal: Calibration,
    rows: Int[np.ndarray, "n I"],
    theta: Float[np.ndarray, " n"],
    method: str,
    mean: float,
    sd: float,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the left side of the estimating equation and the (Fisher) information."""
    score, info, third = _derivatives(cal, rows, theta)
    if method == "map":
        return score - (theta - mean) / sd**2, info + sd**-2
    if method == "wle":
        score = score + third / (2 * np.maximum(info, 1e-300))
    return score, info


def _derivatives(
    cal: Calibration, rows: Int[np.ndarray, "n I"], theta: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return d log L / d theta, the information and J = sum P' P'' / P."""
    mask = rows >= 0
    if not (cal.slope != 1).any() and not cal.guess.any() and (cal.max_score == 1).all():
        p = expit(theta[:, None] - cal.threshold)
        v = p * (1 - p) * mask
        score = np.maximum(rows, 0).sum(axis=1) - (p * mask).sum(axis=1)
        return score, v.sum(axis=1), (v * (1 - 2 * p)).sum(axis=1)
    p, first, second = curves(cal, theta)
    safe = np.where(p > 0, p, 1.0)
    at = np.where(mask, rows, 0)[:, :, None].astype(np.int64)
    ratio = np.take_along_axis(first / safe, at, axis=2)[:, :, 0]
    info = ((first**2 / safe).sum(axis=2) * mask).sum(axis=1)
    third = ((first * second / safe).sum(axis=2) * mask).sum(axis=1)
    return (ratio * mask).sum(axis=1), info, third


def plausible_values(
    cal: Calibration,
    data: Responses,
    draws: int,
    *,
    rng: np.random.Generator,
    mean: float | None = None,
    sd: float | None = None,
    n_nodes: int = 161,
) -> Float[np.ndarray, "N D"]:
    """Return draws from each person's posterior: inverse cdf, linear between the nodes.

    Parameters
    ----------
    draws
        Plausible values a person, at least 1.
    mean, sd
        As in `score_persons`.

    Raises
    ------
    DataError
        If the items differ from the calibration's, or `draws` is below 1.
    """
    _check_items(cal, data)
    if draws < 1:
        raise DataError(f"draws is {draws}; give at least 1")
    mean, sd = _prior(cal, "eap", mean, sd)
    keys, where = _distinct(cal, data)
    nodes, post = _posterior(cal, keys, mean, sd, n_nodes)
    # a node's mass lies evenly within half a spacing of it
    edges = nodes[0] + (nodes[1] - nodes[0]) * (np.arange(n_nodes + 1) - 0.5)
    cdf = np.column_stack([np.zeros(len(post)), np.cumsum(post, axis=1)])
    u = rng.random((len(where), draws))
    out = np.empty_like(u)
    for kind in range(len(keys)):
        persons = where == kind
        out[persons] = np.interp(u[persons], cdf[kind], edges)
    return out


def _posterior(
    cal: Calibration, rows: Int[np.ndarray, "n I"], mean: float, sd: float, n_nodes: int
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, "n Q"]]:
    z = np.linspace(-6, 6, n_nodes)
    nodes = mean + sd * z
    p, _, _ = curves(cal, nodes)
    log_p = np.log(np.where(p > 0, p, 1e-300))
    log_post = np.tile(-(z**2) / 2, (len(rows), 1))
    for h in range(log_p.shape[2]):
        log_post += (rows == h) @ log_p[:, :, h].T
    post = np.exp(log_post - log_post.max(axis=1, keepdims=True))
    return nodes, post / post.sum(axis=1, keepdims=True)


def _eap(
    cal: Calibration, rows: Int[np.ndarray, "n I"], mean: float, sd: float, n_nodes: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    nodes, post = _posterior(cal, rows, mean, sd, n_nodes)
    theta = post @ nodes
    return theta, np.sqrt(np.einsum("nq,nq->n", post, (nodes - theta[:, None]) ** 2))


def _reliability(
    theta: Float[np.ndarray, " N"],
    se: Float[np.ndarray, " N"],
    weight: Float[np.ndarray, " N"],
    method: str,
) -> float:
    keep = np.isfinite(theta) & (weight > 0)
    t, e, w = theta[keep], se[keep], weight[keep]
    if w.sum() <= 1:
        return float("nan")
    variance = float(w @ (t - np.average(t, weights=w)) ** 2) / float(w.sum() - 1)
    error = float(np.average(e**2, weights=w))
    if method in POSTERIOR:
        return variance / (variance + error)
    return 1 - error / variance if variance > 0 else float("nan")
