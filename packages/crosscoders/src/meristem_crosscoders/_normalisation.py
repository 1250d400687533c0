"""Bring the snapshots to one scale for training, and fold that into the weights afterwards.

- x^s = alpha_s (a^s - mu_s): after it the mean norm at every snapshot is sqrt(D)
- folding moves alpha and mu into the weights, so that the crosscoder reads and writes raw a
- decoder norms keep counting in normalised space: gates, ranks and penalties do not move

Shape letters: B tokens, F features, S snapshots, D width.
"""

import copy
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_crosscoders._model import Crosscoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """A scale and a shift per snapshot."""

    scale: Float[Tensor, " S"]  # alpha, > 0
    mean: Float[Tensor, "S D"]  # mu

    def apply(self, raw_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        """Return alpha (a - mu)."""
        return (raw_BSD - self.mean) * self.scale[:, None]


def estimate_normalisation(
    raw_BSD: Float[Tensor, "B S D"], *, center: bool = False
) -> Normalisation:
    """Return the normalisation that gives these activations a mean norm of sqrt(D).

    Parameters
    ----------
    raw_BSD
        Activations of many tokens, 65,536 or more, without the first position of a text: its
        norm is a giant's.
    center
        Whether to subtract each snapshot's mean first; the authors' code does not.

    Raises
    ------
    ValueError
        If an activation is not finite, or all activations of a snapshot are equal to mu.
    """
    mean_SD = raw_BSD.mean(0) if center else torch.zeros_like(raw_BSD[0])
    size_S = (raw_BSD - mean_SD).norm(dim=-1).mean(0)
    bad = (~(size_S > 0) | ~size_S.isfinite()).nonzero()
    if bad.numel():
        s = int(bad[0])
        raise ValueError(
            f"the mean norm at snapshot {s} is {float(size_S[s])}; it must be positive and finite, "
            "so leave that snapshot out or drop its broken tokens"
        )
    return Normalisation(scale=math.sqrt(raw_BSD.shape[-1]) / size_S, mean=mean_SD)


@torch.no_grad()
def fold_normalisation(crosscoder: Crosscoder, normalisation: Normalisation) -> Crosscoder:
    """Return a crosscoder for raw activations with the same codes, gates and penalties.

    Its reconstruction is the old one, mapped back to raw space.

    Raises
    ------
    ValueError
        If it has been folded already, the snapshots do not agree or a scale is not positive.

    Notes
    -----
    W_enc' = alpha W_enc;  b_enc' = b_enc - sum_s <W_enc'^s, mu_s>;
    W_dec' = W_dec / alpha;  b_dec' = b_dec / alpha + mu.
    Stored row norms shrink by alpha, so ``norms()`` multiplies by it again. Seen from outside, a
    snapshot gate's thresholds have become t / alpha: ``thresholds()``. Dividing the norms without
    either would open other gates.
    """
    alpha_S, mean_SD = normalisation.scale, normalisation.mean
    if crosscoder.config.raw:
        raise ValueError("this crosscoder reads raw activations already; fold the trained one once")
    if mean_SD.shape != crosscoder.b_dec.shape or alpha_S.shape != mean_SD.shape[:1]:
        raise ValueError(
            f"the normalisation is for (snapshots, width) {tuple(mean_SD.shape)}, the crosscoder "
            f"for {tuple(crosscoder.b_dec.shape)}; estimate it on the same activations"
        )
    if not bool(((alpha_S > 0) & alpha_S.isfinite()).all() & mean_SD.isfinite().all()):
        raise ValueError("scales must be positive and finite, means finite; estimate them again")
    folded = copy.deepcopy(crosscoder)
    folded.config = replace(crosscoder.config, raw=True)
    alpha_S1 = alpha_S.to(folded.W_enc)[:, None]
    encoded = list(crosscoder.config.encoded)
    folded.W_enc.mul_(alpha_S1[encoded])
    folded.b_enc.sub_(torch.einsum("fsd,sd->f", folded.W_enc, mean_SD[encoded].to(folded.W_enc)))
    folded.W_dec.div_(alpha_S1)
    folded.b_dec.div_(alpha_S1).add_(mean_SD.to(folded.W_dec))
    folded.scale.copy_(alpha_S)
    return folded
