"""What a many-facet fit returns: measures by facet, and what the main model leaves over."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from meristem_rasch._errors import DataError
from meristem_rasch._multiple import holm
from meristem_rasch._newton_cg import Design, moments_at
from meristem_rasch._ratings import Ratings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacetTable:
    """Measures of a facet's levels in logits, with fit and summary statistics.

    Persons count upwards (able), all other facets downwards (difficult, severe).
    """

    labels: tuple[str, ...]
    measure: Float[np.ndarray, " k"]
    se: Float[np.ndarray, " k"]  # 0 where anchored
    infit: Float[np.ndarray, " k"]
    outfit: Float[np.ndarray, " k"]
    count: Float[np.ndarray, " k"]  # weighted ratings
    observed: Float[np.ndarray, " k"]  # mean score
    fair: Float[np.ndarray, " k"]  # expected score, all other facets at their means
    separation: float
    reliability: float
    chi2: float  # of the hypothesis that all measures are equal
    df: int
    p: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BiasTable:
    """Interaction of two facets: how much more able (easy, lenient) each pair of levels was."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    bias: Float[np.ndarray, " b"]  # logits; positive: higher scores than the main model expects
    se: Float[np.ndarray, " b"]
    z: Float[np.ndarray, " b"]
    p_holm: Float[np.ndarray, " b"]  # two-sided, adjusted over all pairs of levels
    count: Float[np.ndarray, " b"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacetCalibration:
    """Measures of all facets and the steps of the rating scale."""

    facets: Mapping[str, FacetTable]
    step_groups: tuple[str, ...]  # whose steps; ("all",) where they are shared
    steps: Float[np.ndarray, "G m"]  # sum to 0; NaN beyond a group's last step
    loglik: float
    n_parameters: int
    n_iter: int
    history: tuple[float, ...]
    ratings: Ratings
    expected: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    logit: Float[np.ndarray, " n"]  # person minus all other facets
    group: Int[np.ndarray, " n"]  # whose steps apply

    def bias(self, first: str, second: str) -> BiasTable:
        """Return the interaction of two facets, one term a pair, the main model held.

        Terms solve sum (x - E) = 0 within the pair; extreme pairs are finite by the same
        adjustment of 0.3 points as extreme scores.

        Raises
        ------
        DataError
            If a facet is unknown.
        """
        data = self.ratings
        for name in (first, second):
            if name not in data.facets:
                raise DataError(f"{name!r} is no facet; the facets are {list(data.facets)}")
        width = len(data.facets[second])
        pair = data.codes[first] * width + data.codes[second]
        cells, where = np.unique(pair, return_inverse=True)
        value, se = _pair_terms(self, where, len(cells))
        return BiasTable(
            first=tuple(data.facets[first][c // width] for c in cells),
            second=tuple(data.facets[second][c % width] for c in cells),
            bias=value,
            se=se,
            z=value / se,
            p_holm=holm(2 * norm.sf(np.abs(value / se))),
            count=np.bincount(where, data.weight),
        )

    def unexpected(self, z: float | int = 3.0) -> Int[np.ndarray, " u"]:
        """Return the rows whose standardised residual is beyond z, largest first."""
        residual = np.abs(self.ratings.score - self.expected) / np.sqrt(self.variance)
        rows = np.flatnonzero(residual >= z)
        return rows[np.argsort(-residual[rows], kind="stable")]


def _pair_terms(
    cal: FacetCalibration, where: Int[np.ndarray, " n"], count: int
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    data, w = cal.ratings, cal.ratings.weight
    top = (~np.isnan(cal.steps)).sum(axis=1)
    most = np.bincount(where, w * top[cal.group], count)
    margin = np.minimum(0.3, most / 4)
    score = np.bincount(where, w * data.score, count).clip(min=margin, max=most - margin)
    design = Design(
        levels=(where,),
        sizes=(count,),
        signs=(1.0,),
        group=cal.group,
        top=top,
        weight=w,
        target=data.score.astype(float),
        passed=np.zeros(cal.steps.shape),
        free=np.ones(count, dtype=bool),
    )
    term, steps = np.zeros(count), np.nan_to_num(cal.steps)
    information = np.ones(count)
    for _ in range(50):
        at = moments_at(design, cal.logit + term[where], steps)
        information = np.bincount(where, w * at.variance, count)
        step = (score - np.bincount(where, w * at.mean, count)) / information
        term += step.clip(-1, 1)
        if np.abs(step).max() < 1e-8:
            break
    return term, information**-0.5
