"""Are the features of two crosscoders the same? Cosines of their decoders, against a null.

- a feature's signature is its decoder rows at the common snapshots, side by side, of length 1
- two features match if each is the other's nearest; or all are assigned one to one
- the null permutes the model's dimensions of one crosscoder: its own geometry stays, and what
  remains is the likeness of unrelated dictionaries

Shape letters: F features of a, G features of b, K coordinates of a signature, P permutations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from meristem_core import Interval, wilson_interval
from meristem_crosscoders._blocks import normalised_rows
from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._model import Crosscoder

BLOCK_COSINES = 2**25  # cosines held at once: 128 MiB in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Which feature of b each feature of a corresponds to."""

    threshold: float
    partner: Int[Tensor, " F"]  # feature of b, -1 without one
    cosine: Float[Tensor, " F"]  # with the partner, or where there is none with the nearest
    alive: Bool[Tensor, " F"]  # features of a that count
    null: Float[Tensor, " P"]  # mean cosines after permutations of the dimensions

    def matched(self) -> Bool[Tensor, " F"]:
        """Return which living features have a partner at or above the threshold."""
        return self.alive & (self.partner >= 0) & (self.cosine >= self.threshold)

    def shared(self) -> Interval:
        """Return the share of living features that are matched, with Wilson's interval."""
        return wilson_interval(int(self.matched().sum()), int(self.alive.sum()))

    def mean_cosine(self) -> float:
        """Return the mean cosine of living features: what the null is of."""
        return float(self.cosine[self.alive].double().mean())

    def p_value(self) -> float:
        """Return how often, itself included, the null is at least as large as the mean cosine."""
        return (1 + int((self.null >= self.mean_cosine()).sum())) / (1 + len(self.null))

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each feature of a."""
        values = {"partner": self.partner, "cosine": self.cosine, "matched": self.matched()}
        return long_frame({"feature": range(len(self.partner))}, values)


def match_features(
    a: Crosscoder,
    b: Crosscoder,
    *,
    rng: np.random.Generator,
    threshold: float = 0.7,
    alive_a: Bool[Tensor, " F"] | None = None,
    alive_b: Bool[Tensor, " G"] | None = None,
    n_permutations: int = 20,
) -> Matching:
    """Return mutual nearest neighbours.

    Parameters
    ----------
    a, b
        Crosscoders of one width: of two seeds, say, or of two sets of snapshots. Rows at the steps
        that both have are compared.
    rng
        Draws the permutations.
    threshold
        Cosine from which a pair counts as the same feature.
    alive_a, alive_b
        Features that fire; default those with a norm above 0.
    n_permutations
        Of the null.

    Returns
    -------
    `partner` is set where two features are each other's nearest; `cosine` is the largest with any
    feature of b, so `mean_cosine` is the mean max cosine similarity.

    Raises
    ------
    ValueError
        If widths differ, no step is common, or nothing is alive.

    References
    ----------
    Mean max cosine similarity: Sharkey et al. 2022. Paulo and Belrose 2025, arXiv 2501.16615, find
    about 30 % of features shared between seeds of sparse autoencoders.
    """
    first, second = _signatures(a, b, alive_a), _signatures(b, a, alive_b)
    largest_F, nearest_F = _nearest(first.unit, second.unit[second.alive])
    nearest_F = second.alive.nonzero()[:, 0][nearest_F]
    back_G = first.alive.nonzero()[:, 0][_nearest(second.unit, first.unit[first.alive])[1]]
    mutual_F = first.alive & (back_G[nearest_F] == torch.arange(len(nearest_F)))

    def statistic(unit_GK: Float[Tensor, "G K"]) -> float:
        return float(_nearest(first.unit[first.alive], unit_GK)[0].double().mean())

    return Matching(
        threshold=threshold,
        partner=torch.where(mutual_F, nearest_F, -1),
        cosine=largest_F,
        alive=first.alive,
        null=_null(statistic, second, b.config.d_model, rng, n_permutations),
    )


def assign_features(
    a: Crosscoder,
    b: Crosscoder,
    *,
    rng: np.random.Generator,
    threshold: float = 0.7,
    alive_a: Bool[Tensor, " F"] | None = None,
    alive_b: Bool[Tensor, " G"] | None = None,
    n_permutations: int = 20,
) -> Matching:
    """Return the one-to-one assignment with the largest sum of cosines.

    Parameters, errors and null as for `match_features`; holds all cosines at once, and its time
    grows with the cube of the number of features: for a few thousand.

    References
    ----------
    Kuhn 1955, "The Hungarian method"; SciPy's is Jonker and Volgenant's.
    """
    first, second = _signatures(a, b, alive_a), _signatures(b, a, alive_b)
    living_a, living_b = (each.alive.nonzero()[:, 0] for each in (first, second))

    def assigned(unit_GK: Float[Tensor, "G K"]) -> tuple[Tensor, Tensor, Tensor]:
        cosines = first.unit[first.alive] @ unit_GK.T
        i, j = linear_sum_assignment(cosines.numpy(), maximize=True)
        return torch.from_numpy(i), torch.from_numpy(j), cosines[i, j]

    i, j, cosine = assigned(second.unit[second.alive])
    partner_F = torch.full((len(first.alive),), -1).index_copy(0, living_a[i], living_b[j])
    cosine_F = torch.zeros(len(first.alive)).index_copy(0, living_a[i], cosine.float())
    alive_F = partner_F >= 0  # of a larger number of features the rest has none to go with

    def statistic(unit_GK: Float[Tensor, "G K"]) -> float:
        return float(assigned(unit_GK)[2].double().mean())

    return Matching(
        threshold=threshold,
        partner=partner_F,
        cosine=cosine_F,
        alive=alive_F,
        null=_null(statistic, second, b.config.d_model, rng, n_permutations),
    )


@dataclass(frozen=True, slots=True)
class _Signatures:
    """Unit rows of all features, (G, S, D) flattened, and which features are alive."""

    unit: Float[Tensor, "G K"]
    alive: Bool[Tensor, " G"]


def _signatures(one: Crosscoder, other: Crosscoder, alive: Tensor | None) -> _Signatures:
    steps = sorted(set(one.config.steps) & set(other.config.steps))
    if one.config.d_model != other.config.d_model or not steps:
        raise ValueError(
            f"crosscoders of width {one.config.d_model} and {other.config.d_model} at steps "
            f"{one.config.steps} and {other.config.steps} have no rows to compare; give two of one "
            "run's snapshots"
        )
    common = [one.config.steps.index(step) for step in steps]
    flat_GK = normalised_rows(one)[:, common].flatten(1).float().cpu()
    norm_G = flat_GK.norm(dim=1)
    living_G = norm_G > 0 if alive is None else alive.cpu() & (norm_G > 0)
    if not bool(living_G.any()):
        raise ValueError("no feature is alive; nothing can match")
    return _Signatures(
        flat_GK / norm_G.clamp_min(torch.finfo(norm_G.dtype).tiny)[:, None], living_G
    )


def _nearest(
    unit_FK: Float[Tensor, "F K"], unit_GK: Float[Tensor, "G K"]
) -> tuple[Float[Tensor, " F"], Int[Tensor, " F"]]:
    """Return each row's largest cosine with the others, and with which."""
    size = max(1, BLOCK_COSINES // len(unit_GK))
    found = [(part_CK @ unit_GK.T).max(1) for part_CK in unit_FK.split(size)]
    values, indices = zip(*found, strict=True)
    return torch.cat(values).clamp(-1, 1), torch.cat(indices)


def _null(
    statistic: Callable[[Float[Tensor, "G K"]], float],
    signatures: _Signatures,
    D: int,
    rng: np.random.Generator,
    n: int,
) -> Float[Tensor, " P"]:
    """Return the statistic after permuting the model's dimensions, the same at every snapshot."""
    unit_GSD = signatures.unit[signatures.alive].unflatten(1, (-1, D))
    orders = (torch.from_numpy(rng.permutation(D)) for _ in range(n))
    values = [statistic(unit_GSD[..., order].flatten(1)) for order in orders]
    return torch.tensor(values, dtype=torch.float64)
