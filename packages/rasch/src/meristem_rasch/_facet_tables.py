"""Tables of a many-facet fit."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from meristem_rasch._frames import Tabular


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacetTable(Tabular):
    """Measures of a facet's levels in logits, with fit and summary statistics.

    Persons count upwards (able), all other facets and interactions downwards (difficult, severe).
    """

    labels: tuple[str, ...]
    measure: Float[np.ndarray, " k"]  # of persons integrated out: posterior mean
    se: Float[np.ndarray, " k"]  # 0 where anchored
    infit: Float[np.ndarray, " k"]
    outfit: Float[np.ndarray, " k"]
    infit_t: Float[np.ndarray, " k"]  # Wilson-Hilferty; too near 0 where persons are integrated out
    outfit_t: Float[np.ndarray, " k"]
    count: Float[np.ndarray, " k"]  # weighted ratings
    observed: Float[np.ndarray, " k"]  # mean score
    fair: Float[np.ndarray, " k"]  # expected score, all other facets at their means
    separation: float
    reliability: float
    chi2: float  # of the hypothesis that all measures are equal; NaN of persons integrated out
    df: int
    p: float

    @property
    def strata(self) -> float:
        """Number of levels of performance that the measures tell apart, (4 separation + 1) / 3."""
        return (4 * self.separation + 1) / 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BiasTable(Tabular):
    """Interaction of two facets: how much more able (easy, lenient) each pair of levels was."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    bias: Float[np.ndarray, " b"]  # logits; positive: higher scores than the main model expects
    se: Float[np.ndarray, " b"]
    z: Float[np.ndarray, " b"]
    p_holm: Float[np.ndarray, " b"]  # two-sided, adjusted over all pairs of levels
    count: Float[np.ndarray, " b"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetComparison:
    """Likelihood ratio test of a model within a larger one."""

    statistic: float  # 2 (log L of the larger - log L of the smaller)
    df: int
    p: float
