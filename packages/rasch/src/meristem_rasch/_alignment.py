"""Whether difficulty labels predict scores: a ladder of models, from the literal to the honest.

- fixed: sigma(-z), z the standardised label; the reading of GAOKAO-Eval (arXiv 2412.10056, Eq. 2)
- pooled: sigma(alpha - kappa d); one curve for all systems
- system: sigma(alpha_v - kappa d); systems differ in ability
- rasch: sigma(theta_v - b_i); a free difficulty for each item, from the same scores
- loo: the same with b_i from the other systems only: difficulty as language models meet it,
  without the circle of being fitted to the predicted system

R^2 = 1 - SSE / SST over all observed cells, SST around their mean. Intervals resample items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import kendalltau, norm, rankdata

from meristem_rasch._errors import DataError
from meristem_rasch._two_way import FLOOR, ability, logistic, two_way

Cells = Float[np.ndarray, "V I"]
Weight = ArrayLike | float | int
FOLDS = 10
LEAST_ITEMS = 4  # fewer have no Fisher interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One model of the ladder and how much of the scores it explains."""

    name: str
    r2: float  # in sample, but for loo
    low: float  # 95 % over items
    high: float
    r2_held_out: float | None  # on items left out of the fit, in 10 folds; None where undefined
    slope: float | None  # kappa: logits of difficulty per unit of the label


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Label and score of one system on one group of items; negative = harder scores less."""

    system: str
    group: str
    n: int
    pearson: float
    low: float  # 95 %, Fisher's z
    high: float
    spearman: float
    kendall: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alignment:
    """How difficulty labels and scores agree."""

    rungs: tuple[Rung, ...]
    system_r2: Float[np.ndarray, "rungs V"]  # around each system's own mean; NaN: no variance
    systems: tuple[str, ...]
    difficulty: Float[np.ndarray, " I"]  # b_i from all systems
    correlations: tuple[Correlation, ...]
    undefined: tuple[tuple[str, str], ...]  # system and group without variance or enough items
    share_excluding_zero: float  # of the correlations' intervals; NaN if there are none
    items: int
    unlabelled: int  # items left out because their label is NaN

    def rung(self, name: str) -> Rung:
        """Return the rung of this name."""
        return next(rung for rung in self.rungs if rung.name == name)


def difficulty_alignment(
    scores: ArrayLike,
    difficulty: ArrayLike,
    *,
    weight: Weight | None = None,
    groups: Sequence[object] | None = None,
    systems: Sequence[str] | None = None,
    ridge: float | int = 0.3,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Alignment:
    """Return the ladder and the correlations of difficulty labels with scores.

    Parameters
    ----------
    scores
        Systems x items in [0, 1], shape (V, I), V >= 2; NaN = not observed.
    difficulty
        Label of each item, shape (I,); larger = harder; NaN = no label (left out and counted).
    weight
        Points, samples or graders behind each score, broadcast to (V, I); default 1.
    groups
        Group of each item, such as its subject, within which correlations are taken.
    systems
        Names of the rows.
    ridge
        On the free difficulties of `rasch` and `loo`; items that all systems solve need it.
    bootstrap
        Resamples of the items.

    Raises
    ------
    DataError
        If scores leave [0, 1], shapes do not match, labels are infinite or all equal, or fewer
        than two systems or items remain.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> label = np.arange(40.0)
    >>> scores = expit(rng.normal(size=(6, 1)) - (label - 20) / 10)
    >>> difficulty_alignment(scores, label, ridge=0.01).rung("system").r2 > 0.99
    True
    """
    y, w = check_scores(scores, weight)
    label = np.asarray(difficulty, dtype=float)
    kept = _labelled(label, y)
    label, y, w = label[kept], y[:, kept], w[:, kept]
    names = tuple(systems) if systems is not None else tuple(f"S{v + 1}" for v in range(len(y)))
    if len(names) != len(y):
        raise DataError(f"{len(names)} names for {len(y)} systems; give one each")
    z = (label - label.mean()) / label.std()
    rng = np.random.default_rng(seed)
    predictions = _predictions(y, w, z, ridge)
    held_out = _held_out(y, w, z, ridge, rng)
    counts = rng.multinomial(len(z), np.full(len(z), 1 / len(z)), size=bootstrap)
    slopes = {name: float(kappa / label.std()) for name, (_, kappa) in predictions.items() if kappa}
    rungs = tuple(
        _rung(name, y, w > 0, p, held_out.get(name), slopes.get(name), counts)
        for name, (p, _) in predictions.items()
    )
    group = np.full(len(kept), "all") if groups is None else np.asarray(groups, dtype=str)
    if group.shape != kept.shape:
        raise DataError(f"{len(group)} groups for {len(kept)} items; give one each")
    correlations, undefined = _correlations(y, w > 0, z, group[kept], names)
    excluded = [c.low > 0 or c.high < 0 for c in correlations]
    return Alignment(
        rungs=rungs,
        system_r2=np.array([_system_r2(y, w > 0, p) for p, _ in predictions.values()]),
        systems=names,
        difficulty=two_way(y, w, ridge=ridge)[1],
        correlations=correlations,
        undefined=undefined,
        share_excluding_zero=float(np.mean(excluded)) if excluded else float("nan"),
        items=len(z),
        unlabelled=int((~kept).sum()),
    )


def check_scores(scores: ArrayLike, weight: Weight | None) -> tuple[Cells, Cells]:
    """Return scores with 0 where missing, and weights with 0 there.

    Raises
    ------
    DataError
        If scores are not a table in [0, 1] or weights are not finite and positive.
    """
    raw = np.asarray(scores, dtype=float)
    if raw.ndim != 2 or min(raw.shape) < 2:
        raise DataError(f"scores have shape {raw.shape}; give systems x items, both at least 2")
    seen = ~np.isnan(raw)
    bad = seen & ((raw < 0) | (raw > 1))
    if bad.any():
        v, i = np.argwhere(bad)[0]
        raise DataError(
            f"system {v}, item {i}: score {raw[v, i]} is outside [0, 1]; divide by the largest "
            "possible score"
        )
    w = np.broadcast_to(np.asarray(1.0 if weight is None else weight, dtype=float), raw.shape)
    if not (np.isfinite(w) & (w > 0))[seen].all():
        raise DataError("weights must be finite and positive where a score is; mark it missing")
    for axis, kind in ((1, "system"), (0, "item")):
        empty = ~seen.any(axis=axis)
        if empty.any():
            raise DataError(f"{kind} {int(np.argmax(empty))} has no score; drop it")
    return np.where(seen, raw, 0.0), np.where(seen, w, 0.0)


def _labelled(label: Float[np.ndarray, " J"], y: Cells) -> Bool[np.ndarray, " J"]:
    if label.shape != (y.shape[1],) or np.isinf(label).any():
        raise DataError(f"{label.shape} labels for {y.shape[1]} items; give one finite label each")
    kept = ~np.isnan(label)
    if kept.sum() < LEAST_ITEMS or np.ptp(label[kept]) == 0:
        raise DataError(
            f"{int(kept.sum())} labelled items with {len(np.unique(label[kept]))} different "
            f"labels; alignment needs {LEAST_ITEMS} items and 2 labels"
        )
    return kept


def _pooled(y: Cells, w: Cells, z: Float[np.ndarray, " I"]) -> tuple[float, float]:
    """Return alpha and kappa of sigma(alpha - kappa z), from the items' mean scores."""
    total = w.sum(axis=0)
    seen = total > 0
    mean = (w * y).sum(axis=0)[seen] / total[seen]
    beta = logistic(np.column_stack([np.ones(len(mean)), -z[seen]]), mean, total[seen])
    return float(beta[0]), float(beta[1])


def _by_system(
    y: Cells, w: Cells, z: Float[np.ndarray, " I"]
) -> tuple[Float[np.ndarray, " V"], float]:
    """Return alpha_v and kappa; alpha's Hessian is diagonal and is eliminated."""
    alpha, kappa = ability(y, w, np.zeros(len(z))), 0.0
    for _ in range(100):
        p = expit(alpha[:, None] - kappa * z)
        info, residual = w * p * (1 - p), w * (y - p)
        d, cross = info.sum(axis=1) + FLOOR, -(info @ z)
        g_alpha = residual.sum(axis=1) - FLOOR * alpha
        g_kappa = -float((residual @ z).sum())
        curve = float((info @ z**2).sum() - (cross**2 / d).sum())
        step = (g_kappa - float((cross * g_alpha / d).sum())) / max(curve, 1e-12)
        move = (g_alpha - cross * step) / d
        size = max(abs(step), float(np.abs(move).max()))
        scale = min(1.0, 2.0 / max(size, 1e-12))
        alpha, kappa = alpha + scale * move, kappa + scale * step
        if size < 1e-9:
            break
    return alpha, kappa


def _predictions(
    y: Cells, w: Cells, z: Float[np.ndarray, " I"], ridge: float | int
) -> dict[str, tuple[Cells, float | None]]:
    level, slope = _pooled(y, w, z)
    alpha, kappa = _by_system(y, w, z)
    theta, b = two_way(y, w, ridge=ridge)
    flat = np.zeros_like(y)
    return {
        "fixed": (flat + expit(-z), None),
        "pooled": (flat + expit(level - slope * z), slope),
        "system": (expit(alpha[:, None] - kappa * z), kappa),
        "rasch": (expit(theta[:, None] - b), None),
        "loo": (left_out_prediction(y, w, ridge=ridge), None),
    }


def left_out_prediction(
    y: Cells, w: Cells, *, ridge: float | int, fitted: Bool[np.ndarray, " I"] | None = None
) -> Cells:
    """Return sigma(theta_v - b_i) with b from other systems and theta_v from the `fitted` items.

    Up to 40 systems are left out one by one, more in 40 groups.
    """
    out = np.zeros_like(y)
    part = np.arange(len(y)) % 40
    use = np.ones(y.shape[1], dtype=bool) if fitted is None else fitted
    for k in range(int(part.max()) + 1):
        gone = part == k
        _, b = two_way(y[~gone], w[~gone], ridge=ridge)
        theta = ability(y[gone][:, use], w[gone][:, use], b[use])
        out[gone] = expit(theta[:, None] - b)
    return out


def _held_out(
    y: Cells, w: Cells, z: Float[np.ndarray, " I"], ridge: float | int, rng: np.random.Generator
) -> dict[str, float | None]:
    fold: Int[np.ndarray, " I"] = rng.permutation(len(z)) % min(FOLDS, len(z))
    out = {name: np.zeros_like(y) for name in ("pooled", "system", "loo")}
    few = len(y) * y.shape[1] <= 200_000  # refitting difficulty in every fold costs folds x systems
    for k in range(int(fold.max()) + 1):
        test, train = fold == k, fold != k
        if np.ptp(z[train]) == 0:
            return {}
        ys, ws, zs = y[:, train], w[:, train], z[train]
        level, slope = _pooled(ys, ws, zs)
        out["pooled"][:, test] = expit(level - slope * z[test])
        alpha, kappa = _by_system(ys, ws, zs)
        out["system"][:, test] = expit(alpha[:, None] - kappa * z[test])
        if few:
            out["loo"][:, test] = left_out_prediction(y, w, ridge=ridge, fitted=train)[:, test]
    if not few:
        del out["loo"]
    out["fixed"] = np.zeros_like(y) + expit(-z)
    return {name: _r2(y, w > 0, p) for name, p in out.items()}


def _sums(y: Cells, seen: Bool[np.ndarray, "V I"], p: Cells) -> Float[np.ndarray, "4 I"]:
    """Return per item: squared error, squares, sum and count of the observed cells."""
    cells = ((y - p) ** 2, y**2, y, np.ones_like(y))
    return np.array([(seen * each).sum(axis=0) for each in cells])


def _r2_of(sums: Float[np.ndarray, "4 *n"]) -> Float[np.ndarray, "*n"]:
    error, squares, total, n = sums
    return np.asarray(1 - error / np.maximum(squares - total**2 / n, 1e-300))


def _r2(y: Cells, seen: Bool[np.ndarray, "V I"], p: Cells) -> float:
    return float(_r2_of(_sums(y, seen, p).sum(axis=1)))


def _system_r2(y: Cells, seen: Bool[np.ndarray, "V I"], p: Cells) -> Float[np.ndarray, " V"]:
    error, squares, total, n = _sums(y.T, seen.T, p.T)
    spread = squares - total**2 / n
    return np.where(spread > 1e-12, 1 - error / np.maximum(spread, 1e-12), np.nan)


def _rung(
    name: str,
    y: Cells,
    seen: Bool[np.ndarray, "V I"],
    p: Cells,
    held_out: float | None,
    slope: float | None,
    counts: Int[np.ndarray, "B I"],
) -> Rung:
    sums = _sums(y, seen, p)
    low, high = np.quantile(_r2_of(sums @ counts.T), [0.025, 0.975])
    return Rung(
        name=name,
        r2=float(_r2_of(sums.sum(axis=1))),
        low=float(low),
        high=float(high),
        r2_held_out=held_out,
        slope=slope,
    )


def _correlations(
    y: Cells,
    seen: Bool[np.ndarray, "V I"],
    z: Float[np.ndarray, " I"],
    group: np.ndarray,
    names: tuple[str, ...],
) -> tuple[tuple[Correlation, ...], tuple[tuple[str, str], ...]]:
    found: list[Correlation] = []
    undefined: list[tuple[str, str]] = []
    for label in dict.fromkeys(group.tolist()):
        for v, name in enumerate(names):
            rows = (group == label) & seen[v]
            a, x = z[rows], y[v, rows]
            if len(a) < LEAST_ITEMS or np.ptp(a) == 0 or np.ptp(x) == 0:
                undefined.append((name, str(label)))
            else:
                found.append(_correlation(name, str(label), a, x))
    return tuple(found), tuple(undefined)


def _correlation(
    name: str, group: str, a: Float[np.ndarray, " n"], x: Float[np.ndarray, " n"]
) -> Correlation:
    r = float(np.corrcoef(a, x)[0, 1])
    inside = float(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    half = float(norm.ppf(0.975)) / np.sqrt(len(a) - 3)
    return Correlation(
        system=name,
        group=group,
        n=len(a),
        pearson=r,
        low=float(np.tanh(np.arctanh(inside) - half)),
        high=float(np.tanh(np.arctanh(inside) + half)),
        spearman=float(np.corrcoef(rankdata(a), rankdata(x))[0, 1]),
        kendall=float(kendalltau(a, x).statistic),
    )
