"""Differential item functioning: items harder for one group than its ability explains.

- mantel_haenszel: common odds ratio over raw scores, variance of Robins, Breslow & Greenland 1986;
  Delta = -2.35 log alpha; ETS classes A, B, C (Dorans & Holland 1993)
- logistic_dif: logit = c0 + c1 raw + c2 group + c3 raw x group (Swaminathan & Rogers 1990), classes
  by Nagelkerke's Delta R^2 (Jodoin & Gierl 2001)
- rasch_dif: difference of difficulties estimated by conditional likelihood in each group; the
  scales are aligned on an anchor item chosen by the Gini index (Strobl et al. 2021); classes are
  those of ETS in logits, |Delta| / 2.35

The first group in sorted order is the reference; positive = harder for the other, the focal group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import chi2, norm

from meristem_rasch._calibration import Calibration
from meristem_rasch._cml import CML
from meristem_rasch._errors import ConvergenceError, DataError
from meristem_rasch._frames import Tabular
from meristem_rasch._multiple import holm
from meristem_rasch._responses import Responses
from meristem_rasch._tests import WaldTest, wald_test
from meristem_rasch._two_way import logistic

DELTA = 2.35  # logits to the ETS delta scale
UNTESTED = (np.nan, np.nan, np.nan, np.nan)
MODERATE, LARGE = 1.0, 1.5  # |Delta| of classes B and C


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DifTable(Tabular):
    """One row an item; a positive effect is harder for the focal group."""

    items: tuple[str, ...]
    reference: str
    focal: str
    effect: Float[np.ndarray, " I"]  # logits; NaN where the item could not be tested
    se: Float[np.ndarray, " I"]
    statistic: Float[np.ndarray, " I"]  # chi-squared
    df: int | Int[np.ndarray, " I"]  # of each item where they may differ
    p: Float[np.ndarray, " I"]
    p_holm: Float[np.ndarray, " I"]
    size: Float[np.ndarray, " I"]  # what the classes are made of: Delta, or Delta R^2
    classes: tuple[str, ...]  # "A" negligible, "B" moderate, "C" large, "-" not tested
    anchors: tuple[str, ...]  # items that align the groups; empty where the raw score does
    method: str


def mantel_haenszel(data: Responses, group: Sequence[object]) -> DifTable:
    """Return the Mantel-Haenszel test of every 0/1 item, matched on the raw score.

    Raises
    ------
    DataError
        If scores exceed 1, an answer is missing, or there are not two groups.

    References
    ----------
    Holland & Thayer 1988; the statistic has the continuity correction of 1/2.
    """
    focal, names = two_groups(data, group)
    table = _tables(data, focal)  # raw score, item, group, right
    a, b = table[:, :, 0, 1], table[:, :, 0, 0]
    c, d = table[:, :, 1, 1], table[:, :, 1, 0]
    total = a + b + c + d
    n = np.where(total > 0, total, 1.0)  # an empty table adds 0
    r, s = a * d / n, b * c / n
    big_r, big_s = r.sum(axis=0), s.sum(axis=0)
    tested = (big_r > 0) & (big_s > 0)
    log_alpha = np.log(np.where(tested, big_r, 1)) - np.log(np.where(tested, big_s, 1))
    se = _breslow(a, b, c, d, n, np.where(tested, big_r, 1), np.where(tested, big_s, 1))
    expected = ((a + b) * (a + c) / n).sum(axis=0)
    variance = ((a + b) * (c + d) * (a + c) * (b + d) / (n**2 * np.maximum(n - 1, 1))).sum(axis=0)
    excess = np.maximum(np.abs(a.sum(axis=0) - expected) - 0.5, 0)
    statistic = excess**2 / np.where(variance > 0, variance, np.inf)
    return dif_table(data.items, names, tested, log_alpha, se, statistic, method="Mantel-Haenszel")


def _breslow(
    a: Float[np.ndarray, "R I"],
    b: Float[np.ndarray, "R I"],
    c: Float[np.ndarray, "R I"],
    d: Float[np.ndarray, "R I"],
    n: Float[np.ndarray, "R I"],
    big_r: Float[np.ndarray, " I"],
    big_s: Float[np.ndarray, " I"],
) -> Float[np.ndarray, " I"]:
    same, cross = (a + d) / n, (b + c) / n
    r, s = a * d / n, b * c / n
    first = (same * r).sum(axis=0) / (2 * big_r**2)
    second = (same * s + cross * r).sum(axis=0) / (2 * big_r * big_s)
    return np.sqrt(first + second + (cross * s).sum(axis=0) / (2 * big_s**2))


def logistic_dif(
    data: Responses, group: Sequence[object], *, kind: Literal["uniform", "any"] = "any"
) -> DifTable:
    """Return the likelihood ratio test of logistic regressions on raw score and group.

    Parameters
    ----------
    kind
        "uniform": the group shifts the item (1 df); "any": or turns its slope as well (2 df).
        The effect is the shift at the mean raw score, in logits.

    Raises
    ------
    DataError
        If scores exceed 1, an answer is missing, or there are not two groups.
    """
    focal, names = two_groups(data, group)
    table = _tables(data, focal)
    raw = np.repeat(np.arange(len(table), dtype=float), 2)
    g = np.tile([0.0, 1.0], len(table))
    centred = raw - np.average(data.raw, weights=data.weight)
    full = np.column_stack([np.ones(len(raw)), centred, g, centred * g])
    if kind == "uniform":
        full = full[:, :3]
    rows = [_logistic_item(table[:, i], full) for i in range(len(data.items))]
    effect, se, statistic, size = np.array(rows).T
    return dif_table(
        data.items,
        names,
        np.isfinite(effect),
        effect,
        se,
        statistic,
        df=full.shape[1] - 2,
        size=size,
        edges=(0.035, 0.07),
        method="logistic",
    )


def _logistic_item(
    table: Float[np.ndarray, "R 2 2"], full: Float[np.ndarray, "n p"]
) -> tuple[float, float, float, float]:
    """Return effect, standard error, LR statistic and Nagelkerke's Delta R^2 of one item."""
    right, n = table[:, :, 1].ravel(), table.sum(axis=2).ravel()
    keep = n > 0
    y, w, x = right[keep] / n[keep], n[keep], full[keep]
    try:
        small, large = logistic(x[:, :2], y, w), logistic(x, y, w)
    except ConvergenceError:  # an item answered alike by a whole group separates them
        return UNTESTED
    p = 1 / (1 + np.exp(-x @ large))
    info = np.asarray((x.T * (w * p * (1 - p))) @ x, dtype=float)
    if np.linalg.cond(info) > 1e12:
        return UNTESTED
    values = [_loglik(np.asarray(x[:, : len(beta)] @ beta), y, w) for beta in (small, large)]
    share = float(w @ y / w.sum())  # strictly inside (0, 1), or the fit had not ended
    total = float(w.sum())
    null = total * (share * np.log(share) + (1 - share) * np.log(1 - share))
    r2 = [(1 - np.exp(2 * (null - v) / total)) / (1 - np.exp(2 * null / total)) for v in values]
    se = float(np.sqrt(cho_solve(cho_factor(info), np.eye(len(info)))[2, 2]))
    return -float(large[2]), se, 2 * (values[1] - values[0]), float(r2[1] - r2[0])


def _loglik(
    eta: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"]
) -> float:
    return float((w * (y * eta - np.logaddexp(0, eta))).sum())


def rasch_dif(
    data: Responses,
    group: Sequence[object],
    *,
    estimator: CML | None = None,
    anchors: Sequence[str] | Literal["gini", "all"] = "gini",
) -> DifTable:
    """Return differences of item difficulty between two groups, each fitted by itself.

    Parameters
    ----------
    estimator
        Default `CML()`; partial credit and missing answers are welcome.
    anchors
        Items that are taken as equal in both groups: a list, "all", or "gini", the one item whose
        alignment concentrates the differences on the fewest others.

    Raises
    ------
    DataError
        If there are not two groups, or an anchor is unknown or lacks a category in a group.
    """
    _, names = two_groups(data, group, dichotomous=False)
    test = wald_test(estimator or CML(), data, split=[str(g) for g in group])
    chosen = _anchors(test, anchors)
    first, second = (fit.renormalise(chosen) for fit in test.groups)
    effect = second.difficulty - first.difficulty
    se = np.sqrt(first.difficulty_se**2 + second.difficulty_se**2)
    alone = chosen if len(chosen) == 1 else ()
    tested = np.array([name not in alone for name in test.items])
    z = np.divide(effect, se, out=np.zeros_like(se), where=tested & (se > 0))
    place = [test.items.index(name) if name in test.items else -1 for name in data.items]
    spread = [_spread(values, place) for values in (tested.astype(float), effect, se, z**2)]
    return dif_table(
        data.items,
        names,
        spread[0] == 1,
        spread[1],
        spread[2],
        spread[3],
        anchors=chosen,
        method="Rasch, by groups",
    )


def _spread(values: Float[np.ndarray, " J"], place: list[int]) -> Float[np.ndarray, " I"]:
    return np.array([values[k] if k >= 0 else np.nan for k in place])


def _anchors(test: WaldTest, anchors: Sequence[str] | str) -> tuple[str, ...]:
    if anchors == "all":
        return test.items
    if anchors == "gini":
        return (test.items[int(np.argmax(gini_criterion(*test.groups)))],)
    unknown = [name for name in anchors if name not in test.items]
    if unknown or not len(anchors):
        raise DataError(f"anchors {unknown} are not among the testable items {test.items}")
    return tuple(anchors)


def gini_criterion(first: Calibration, second: Calibration) -> Float[np.ndarray, " I"]:
    """Return for each item the Gini index of the other items' |differences| aligned on it.

    References
    ----------
    Strobl, Kopf, Kohler, von Oertzen & Zeileis 2021, Educational and Psychological Measurement.
    """
    difference = second.difficulty - first.difficulty
    away = np.sort(np.abs(difference[None, :] - difference[:, None]), axis=1)
    k, total = away.shape[1], away.sum(axis=1)
    weighted = away @ np.arange(1.0, k + 1)
    flat = total <= 1e-300
    return np.where(flat, 0.0, 2 * weighted / (k * np.where(flat, 1, total)) - (k + 1) / k)


def two_groups(
    data: Responses, group: Sequence[object], *, dichotomous: bool = True
) -> tuple[Int[np.ndarray, " N"], tuple[str, str]]:
    if len(group) != len(data.persons):
        raise DataError(f"{len(group)} group labels for {len(data.persons)} persons; give one each")
    names, focal = np.unique(np.array([str(g) for g in group]), return_inverse=True)
    if len(names) != 2:
        raise DataError(f"DIF compares 2 groups, not {len(names)}; merge or select groups")
    if dichotomous and (data.max_score > 1).any():
        item = data.items[int(np.argmax(data.max_score > 1))]
        raise DataError(f"item {item} has scores above 1; use rasch_dif with CML(model='pcm')")
    if dichotomous and not data.mask.all():
        row, column = np.argwhere(~data.mask)[0]
        raise DataError(
            f"person {data.persons[row]} has no answer to {data.items[column]}: the raw score does "
            "not match persons then; use rasch_dif, which takes missing answers"
        )
    return focal.ravel(), (str(names[0]), str(names[1]))


def _tables(data: Responses, focal: Int[np.ndarray, " N"]) -> Float[np.ndarray, "R I 2 2"]:
    """Return weighted counts by raw score, item, group (0 = reference) and answer."""
    out = np.zeros((int(data.raw.max()) + 1, len(data.items), 2, 2))
    for g in (0, 1):
        for x in (0, 1):
            np.add.at(
                out[:, :, g, x],
                data.raw[focal == g],
                (data.scores[focal == g] == x) * data.weight[focal == g, None],
            )
    return out


def dif_table(
    items: tuple[str, ...],
    names: tuple[str, str],
    tested: np.ndarray,
    effect: Float[np.ndarray, " I"],
    se: Float[np.ndarray, " I"],
    statistic: Float[np.ndarray, " I"],
    *,
    method: str,
    df: int | Int[np.ndarray, " I"] = 1,
    size: Float[np.ndarray, " I"] | None = None,
    edges: tuple[float, float] = (MODERATE, LARGE),
    anchors: tuple[str, ...] = (),
) -> DifTable:
    def known(x: Float[np.ndarray, " I"]) -> Float[np.ndarray, " I"]:
        return np.where(tested, x, np.nan)

    effect, se, statistic = known(effect), known(se), known(statistic)
    p = np.asarray(chi2.sf(statistic, df), dtype=float)
    delta = size is None
    measure = known(-DELTA * effect if size is None else size)
    # an ETS class C is also significantly beyond Delta = 1
    beyond = norm.sf((np.abs(effect) - MODERATE / DELTA) / se) < 0.05 if delta else p < 0.05
    classes = tuple(
        "-"
        if not ok
        else "A"
        if q >= 0.05 or m < edges[0]
        else "C"
        if m >= edges[1] and far
        else "B"
        for ok, q, m, far in zip(tested, p, np.abs(measure), beyond, strict=True)
    )
    return DifTable(
        items=items,
        reference=names[0],
        focal=names[1],
        effect=effect,
        se=se,
        statistic=statistic,
        df=df,
        p=p,
        p_holm=holm(p),
        size=measure,
        classes=classes,
        anchors=anchors,
        method=method,
    )
