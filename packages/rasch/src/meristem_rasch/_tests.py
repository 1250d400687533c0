"""Global tests of the Rasch family, all from conditional likelihoods.

- Andersen 1973: 2 (sum_g log L_c^(g) - log L_c), df (G - 1) x parameters
- Wald: (b1 - b2) / sqrt(se1^2 + se2^2), item by item, between two groups
- Martin-Loef 1973: item groups instead of person groups
- p-values come from survival functions, so that they do not underflow to 0 early
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import chi2, norm

from meristem_rasch._calibration import Calibration
from meristem_rasch._cml import CML
from meristem_rasch._errors import DataError
from meristem_rasch._responses import Labels, Responses

Split = Literal["median", "mean", "score"] | Labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LRTest:
    """A likelihood ratio test."""

    statistic: float
    df: int
    p: float
    dropped: tuple[str, ...]  # items without every category in every group
    groups: tuple[Calibration, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WaldTest:
    """Differences of threshold estimates (second minus first group) and their z statistics."""

    items: tuple[str, ...]
    difference: Float[np.ndarray, " H"]
    statistic: float  # chi-squared of all differences at once
    df: int
    p_all: float
    z: Float[np.ndarray, " H"]
    p: Float[np.ndarray, " H"]
    dropped: tuple[str, ...]
    groups: tuple[Calibration, ...]


def andersen_test(estimator: CML, data: Responses, *, split: Split = "median") -> LRTest:
    """Return Andersen's test that all groups of persons share the item parameters.

    Parameters
    ----------
    split
        "median" or "mean" of the raw score (above it is the second group), "score" (a group for
        every raw score, without the extreme ones), or one label a person.
        Items that lack a category among a group's informative persons are removed everywhere and
        listed.

    Raises
    ------
    DataError
        If fewer than two groups or items remain, or labels do not match the persons.
    """
    _plain(estimator)
    parts, dropped = _split(data, split)
    fits = tuple(estimator.fit(part) for part in parts)
    pooled = estimator.fit(_keep(data, dropped))
    statistic = 2 * (sum(fit.loglik for fit in fits) - pooled.loglik)
    df = sum(fit.n_parameters for fit in fits) - pooled.n_parameters
    return LRTest(
        statistic=statistic,
        df=df,
        p=float(chi2.sf(statistic, df)),
        dropped=dropped,
        groups=fits,
    )


def wald_test(
    estimator: CML,
    data: Responses,
    *,
    split: Split = "median",
    anchors: Sequence[str] | None = None,
) -> WaldTest:
    """Return threshold-wise Wald tests between two groups, aligned on `anchors` (default all).

    Raises
    ------
    DataError
        If there are not exactly two groups, or an anchor was dropped or is unknown.
    """
    _plain(estimator)
    parts, dropped = _split(data, split)
    if len(parts) != 2:
        raise DataError(f"the Wald test compares 2 groups, not {len(parts)}")
    names = parts[0].items
    lost = [label for label in anchors or () if label not in names]
    if lost:
        raise DataError(f"anchors {lost} are not among the tested items {names}")
    first, second = (estimator.fit(part).renormalise(anchors or names) for part in parts)
    difference = second.threshold - first.threshold
    se = np.sqrt(first.threshold_se**2 + second.threshold_se**2)
    z = np.divide(difference, se, out=np.zeros_like(se), where=se > 1e-12)
    # one direction is fixed by the anchors, more where they are held one by one
    covariance = first.vcov + second.vcov
    rank = int(np.linalg.matrix_rank(covariance, tol=1e-9 * np.trace(covariance), hermitian=True))
    inverse = np.linalg.pinv(covariance, rcond=1e-9, hermitian=True)
    statistic = float(difference @ inverse @ difference)
    return WaldTest(
        items=names,
        difference=difference,
        statistic=statistic,
        df=rank,
        p_all=float(chi2.sf(statistic, rank)),
        z=z,
        p=2 * norm.sf(np.abs(z)),
        dropped=dropped,
        groups=(first, second),
    )


def martin_loef_test(
    estimator: CML, data: Responses, *, groups: Labels | Literal["median"] = "median"
) -> LRTest:
    """Return the Martin-Loef test that groups of items measure one ability.

    2 [sum n_{r1...rK} log(n_{r1...rK} / N) + sum_k log L_c^(k) - sum_r n_r log(n_r / N) - log L_c]
    with df = prod(R_k + 1) - 1 - R + parameters of the groups - parameters of the whole.

    Parameters
    ----------
    groups
        One label an item, or "median": items with a mean score above the median against the rest.

    Raises
    ------
    DataError
        If an answer is missing, labels do not match, or a group has a single item.
    """
    _plain(estimator)
    if not data.mask.all():
        raise DataError("the Martin-Loef test needs complete data; select persons who answered all")
    label = _item_groups(data, groups)
    keys = [np.flatnonzero(label == g) for g in np.unique(label)]
    if len(keys) < 2 or min(map(len, keys)) < 2:
        raise DataError("give at least two groups of at least two items each")
    parts = [data.select(items=key) for key in keys]
    fits = tuple(estimator.fit(part) for part in parts)
    whole = estimator.fit(data)
    joint = np.column_stack([part.raw for part in parts])
    statistic = 2 * (
        _entropy(joint, data.weight)
        + sum(fit.loglik for fit in fits)
        - _entropy(data.raw[:, None], data.weight)
        - whole.loglik
    )
    cells = int(np.prod([int(part.max_score.sum()) + 1 for part in parts]))
    df = cells - 1 - int(data.max_score.sum())
    df += sum(fit.n_parameters for fit in fits) - whole.n_parameters
    return LRTest(
        statistic=statistic, df=df, p=float(chi2.sf(statistic, df)), dropped=(), groups=fits
    )


def _plain(estimator: CML) -> None:
    if estimator.design is not None or estimator.anchors:
        raise DataError("group tests take an estimator without design or anchors")


def _entropy(raw: Int[np.ndarray, "N k"], weight: Float[np.ndarray, " N"]) -> float:
    _, where = np.unique(raw, axis=0, return_inverse=True)
    n = np.bincount(where.ravel(), weights=weight)
    n = n[n > 0]
    return float(n @ np.log(n / n.sum()))


def _item_groups(data: Responses, groups: Labels | str) -> Int[np.ndarray, " I"]:
    if isinstance(groups, str):
        means = np.average(data.scores, axis=0, weights=data.weight)
        return (means > np.median(means)).astype(np.int64)
    if len(groups) != len(data.items):
        raise DataError(f"{len(groups)} group labels for {len(data.items)} items; give one each")
    return np.unique(np.array([str(g) for g in groups]), return_inverse=True)[1]


def _person_groups(data: Responses, split: Split) -> Int[np.ndarray, " N"]:
    if isinstance(split, str):
        raw = data.raw
        if split == "score":
            return np.unique(raw, return_inverse=True)[1].ravel()
        if split not in ("median", "mean"):
            raise DataError(
                f"split {split!r} is not 'median', 'mean', 'score' or one label a person"
            )
        centre = np.average(raw, weights=data.weight) if split == "mean" else _median(raw, data)
        return (raw > centre).astype(np.int64)
    if len(split) != len(data.persons):
        raise DataError(f"{len(split)} split labels for {len(data.persons)} persons")
    return np.unique(np.array([str(g) for g in split]), return_inverse=True)[1]


def _median(raw: Int[np.ndarray, " N"], data: Responses) -> float:
    """Return the weighted median; between two values, their mean."""
    order = np.argsort(raw, kind="stable")
    share = np.cumsum(data.weight[order]) / data.weight.sum()
    low = raw[order][np.searchsorted(share, 0.5 - 1e-12)]
    high = raw[order][np.searchsorted(share, 0.5 + 1e-12)]
    return float(low + high) / 2


def _split(data: Responses, split: Split) -> tuple[list[Responses], tuple[str, ...]]:
    if isinstance(split, str) and split == "score":
        data = data.select(persons=(data.raw > 0) & (data.raw < data.possible) & (data.weight > 0))
    label = _person_groups(data, split)
    parts = [data.select(persons=label == g) for g in range(int(label.max()) + 1)]
    if len(parts) < 2:
        raise DataError("all persons fall into one group; split at another value")
    dropped: tuple[str, ...] = ()
    while True:
        kept = [_keep(part, dropped) for part in parts]
        bad = np.zeros(len(kept[0].items), dtype=bool)
        for part in kept:
            bad |= _incomplete(part)
        if not bad.any():
            return kept, dropped
        dropped += tuple(kept[0].items[i] for i in np.flatnonzero(bad))
        if len(data.items) - len(dropped) < 2:
            raise DataError(f"fewer than 2 items keep every category in every group: {dropped}")


def _keep(data: Responses, dropped: tuple[str, ...]) -> Responses:
    return data.select(items=np.array([label not in dropped for label in data.items]))


def _incomplete(data: Responses) -> Bool[np.ndarray, " I"]:
    rows = (data.raw > 0) & (data.raw < data.possible) & (data.weight > 0)
    scores = data.scores[rows]
    return np.array(
        [
            any(not (scores[:, i] == h).any() for h in range(int(top) + 1))
            for i, top in enumerate(data.max_score)
        ]
    )
