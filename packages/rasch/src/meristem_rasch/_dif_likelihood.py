"""Likelihood ratio test of item bias: one item at a time gets a difficulty in each group.

- the item becomes two virtual items, each answered by one group; all others align the groups
- 2 (log L_c of the split item - log L_c of the whole), df = the item's steps; conditional
  likelihood, so that the groups' abilities play no part (Thissen, Steinberg & Wainer 1993)
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from meristem_rasch._cml import CML
from meristem_rasch._dif import UNTESTED, DifTable, dif_table, two_groups
from meristem_rasch._errors import DataError, ExistenceError
from meristem_rasch._responses import Responses


def likelihood_ratio_dif(
    data: Responses, group: Sequence[object], *, estimator: CML | None = None
) -> DifTable:
    """Return the likelihood ratio test of every item, all others taken as equal in both groups.

    Parameters
    ----------
    estimator
        Default `CML()`; partial credit and missing answers are welcome. The effect is the
        difference of the locations, in logits; its error is that of the split fit.

    Raises
    ------
    DataError
        If there are not two groups, or the estimator has a design, anchors or a rating scale.

    Notes
    -----
    One fit an item. An item that lacks a category in a group is not tested ("-").
    """
    chosen = estimator or CML()
    if chosen.design is not None or chosen.anchors or chosen.model == "rsm":
        raise DataError("the likelihood ratio test takes CML of 'rasch' or 'pcm' without anchors")
    focal, names = two_groups(data, group, dichotomous=False)
    whole = chosen.fit(data).loglik
    rows = [_split_item(chosen, data, focal, i, whole) for i in range(len(data.items))]
    effect, se, statistic, _ = np.array(rows).T
    return dif_table(
        data.items,
        names,
        np.isfinite(effect),
        effect,
        se,
        statistic,
        df=data.max_score,
        method="likelihood ratio",
    )


def _split_item(
    estimator: CML, data: Responses, focal: Int[np.ndarray, " N"], i: int, whole: float
) -> tuple[float, float, float, float]:
    split = _virtual(data, focal == 1, i)
    try:
        fit = replace(estimator, reference=None).fit(split)
    except ExistenceError:
        return UNTESTED
    m = int(data.max_score[i])
    contrast = np.zeros(len(fit.threshold))
    contrast[fit.item_of == i] = -1 / m
    contrast[-m:] = 1 / m
    effect, variance = float(contrast @ fit.threshold), float(contrast @ fit.vcov @ contrast)
    return effect, float(np.sqrt(variance)), 2 * (fit.loglik - whole), np.nan


def _virtual(data: Responses, focal: Bool[np.ndarray, " N"], i: int) -> Responses:
    """Return the responses with item i of the focal group as a further item at the end."""
    scores = np.hstack([data.scores, np.where(focal, data.scores[:, i], -1)[:, None]])
    scores[focal, i] = -1
    return Responses(
        scores=scores.astype(data.scores.dtype),
        persons=data.persons,
        items=(*data.items, f"{data.items[i]} of the focal group"),
        max_score=np.append(data.max_score, data.max_score[i]),
        weight=data.weight,
    )
