"""What a many-facet fit returns: measures by facet, and what the model leaves over."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.stats import chi2, norm

from meristem_rasch._calibration import LatentGroup
from meristem_rasch._errors import DataError
from meristem_rasch._facet_store import restored, stored
from meristem_rasch._facet_tables import BiasTable, FacetComparison, FacetTable
from meristem_rasch._facet_terms import Rows, solve_terms
from meristem_rasch._multiple import holm
from meristem_rasch._ratings import Ratings, joint_codes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacetCalibration:
    """Measures of all facets and the steps of the rating scale."""

    method: str
    person: str
    facets: Mapping[str, FacetTable]
    interactions: Mapping[str, FacetTable]  # "rater:item", of cells "A:1"; margins are 0
    step_groups: tuple[str, ...]  # whose steps; ("all",) where they are shared
    steps: Float[np.ndarray, "G m"]  # sum to 0; NaN beyond a group's last step
    steps_se: Float[np.ndarray, "G m"]
    latent: LatentGroup | None  # distribution of persons integrated out
    loglik: float  # before "wright" or "jackknife"
    n_parameters: int
    n_iter: int
    status: str
    history: tuple[float, ...]
    ratings: Ratings
    expected: Float[np.ndarray, " n"]  # (posterior mean of the) expected score
    variance: Float[np.ndarray, " n"]
    logit: Float[np.ndarray, " n"]  # (posterior mean of the) person minus all other facets
    group: Int[np.ndarray, " n"]  # whose steps apply
    nodes: Float[np.ndarray, " Q"] | None  # abilities of the posterior of persons integrated out
    posterior: Float[np.ndarray, "N Q"] | None

    def bias(self, first: str, second: str) -> BiasTable:
        """Return the interaction of two facets, one term a pair, the fitted model held.

        Terms solve sum (x - E) = 0 within the pair; extreme pairs are finite by the same
        adjustment of 0.3 points as extreme scores. Posteriors of persons integrated out are held.

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
        rows, at = self._rows(where)
        most = np.bincount(where, data.weight * rows.top[self.group])
        margin = np.minimum(0.3, most / 4)
        score = np.bincount(where, data.weight * data.score).clip(min=margin, max=most - margin)
        value, se = solve_terms(rows, at, score)
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

    def compare(self, smaller: "FacetCalibration") -> FacetComparison:
        """Return the likelihood ratio test of a model that this one contains, on the same ratings.

        Joint likelihoods ("jml") are only about chi-squared: the more ratings a person has, the
        better. Adjusted ones (correction "epsilon") must be compared with the same epsilon.

        Raises
        ------
        DataError
            If ratings or methods differ, or the other model is not smaller.
        """
        mine, theirs = self.ratings, smaller.ratings
        same = np.array_equal(mine.score, theirs.score) and mine.facets == theirs.facets
        same = same and all(np.array_equal(mine.codes[f], theirs.codes[f]) for f in mine.facets)
        if not same or self.method != smaller.method:
            raise DataError("compare takes two fits of the same ratings by the same method")
        df = self.n_parameters - smaller.n_parameters
        if df <= 0 or not set(smaller.interactions) <= set(self.interactions):
            raise DataError(
                f"a model with {smaller.n_parameters} parameters and interactions "
                f"{list(smaller.interactions)} is not within one with {self.n_parameters} and "
                f"{list(self.interactions)}; call compare of the larger one"
            )
        statistic = 2 * (self.loglik - smaller.loglik)
        return FacetComparison(statistic=statistic, df=df, p=float(chi2.sf(statistic, df)))

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON takes it; a number that is not finite is its name.

        `from_dict` gives back the same to the bit.
        """
        return {field.name: stored(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "FacetCalibration":
        """Return the calibration that `to_dict` wrote.

        Raises
        ------
        DataError
            If a field is missing or unknown.
        """
        wrong = plain.keys() ^ {field.name for field in fields(cls)}
        if wrong:
            raise DataError(f"{sorted(wrong)}: missing or unknown; give what to_dict returned")
        return cls(**{name: restored(name, value) for name, value in plain.items()})

    def summary(self) -> str:
        """Return the facets, interactions and steps as text, one line each."""
        head = (
            f"many-facet Rasch by {self.method}: {len(self.ratings.score)} ratings, "
            f"log-likelihood {self.loglik:.4f}, {self.n_parameters} parameters"
        )
        lines = [head]
        for name, table in (*self.facets.items(), *self.interactions.items()):
            low, high = float(table.measure.min()), float(table.measure.max())
            test = "" if np.isnan(table.chi2) else f"  chi2({table.df}) {table.chi2:.2f}"
            lines.append(
                f"{name:>16} {len(table.labels):6d} levels {low:8.3f} to {high:6.3f}  "
                f"reliability {table.reliability:.3f}{test}"
            )
        if self.latent is not None:
            q = self.latent
            lines.append(
                f"{self.person:>16} normal, mean {q.mean:.3f} ({q.mean_se:.3f}), sd {q.sd:.3f} "
                f"({q.sd_se:.3f})"
            )
        for name, row in zip(self.step_groups, self.steps, strict=True):
            steps = " ".join(f"{step:8.3f}" for step in row[~np.isnan(row)])
            lines.append(f"{name:>16} steps {steps}")
        return "\n".join(lines)

    def _rows(self, where: Int[np.ndarray, " n"]) -> tuple[Rows, Int[np.ndarray, " r"]]:
        """Return what expectations within pairs need, and the pair of each row.

        Where persons are integrated out, a row is a kind of rating at a node.
        """
        steps, data = np.nan_to_num(self.steps), self.ratings
        top = (~np.isnan(self.steps)).sum(axis=1)
        if self.posterior is None or self.nodes is None:
            logit, weight, group, at = self.logit, data.weight, self.group, where
        else:
            others = [code for name, code in data.codes.items() if name != self.person]
            kind = joint_codes([*others, where])
            first = np.unique(kind, return_index=True)[1]
            person = data.codes[self.person]
            shape = (len(first), len(self.posterior))
            weight = csr_array((data.weight, (kind, person)), shape=shape) @ self.posterior
            rest = self.logit - (self.posterior @ self.nodes)[person]
            logit = (rest[first][:, None] + self.nodes).ravel()
            group, at = (np.repeat(code[first], len(self.nodes)) for code in (self.group, where))
        rows = Rows(logit=logit, group=group, weight=weight.ravel(), top=top, steps=steps)
        return rows, at
