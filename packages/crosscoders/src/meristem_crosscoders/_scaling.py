"""Is a small norm a missing feature, or one that sparsity has shrunk? Ask the activations.

- d is a feature's direction at its peak snapshot, f its code where it is open at any snapshot
- beta says how much of f d a snapshot's activations hold, whatever the decoder row there says
- a small norm with a large beta is shrinkage; other features may hold the same (decoupling)

Shape letters: B tokens, F features, S snapshots, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meristem_core import Interval
from meristem_crosscoders._blocks import code_blocks, normalised_rows
from meristem_crosscoders._correlation import rank_correlation
from meristem_crosscoders._entries import OpenCodes, rebuilt
from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._model import Crosscoder

PAIRS = 2**16  # (token, feature) pairs whose inner products are formed at once


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentScaling:
    """How much of each feature the snapshots hold; 0 for features that never fired."""

    tokens: int
    steps: tuple[int, ...]
    peak: Int[Tensor, " F"]  # snapshot that gives the direction
    firings: Int[Tensor, " F"]  # tokens at which the feature is open at any snapshot
    beta_error: Float[Tensor, "F S"]  # against what the other features leave
    beta_reconstruction: Float[Tensor, "F S"]  # against what all features rebuild

    def ratio_error(self) -> Float[Tensor, "F S"]:
        """Return beta_error over its value at the peak, nu; 0 where that is not positive."""
        return self._ratio(self.beta_error)

    def ratio_reconstruction(self) -> Float[Tensor, "F S"]:
        """Return beta_reconstruction over its value at the peak; 0 where that is not positive."""
        return self._ratio(self.beta_reconstruction)

    def shrunk(
        self, norms_FS: Float[Tensor, "F S"], *, norm_below: float = 0.1, ratio_above: float = 0.5
    ) -> Bool[Tensor, "F S"]:
        """Return where the norm says absent and the activations say present."""
        relative_FS = norms_FS / norms_FS.amax(1, keepdim=True).clamp_min(_tiny(norms_FS))
        return (relative_FS < norm_below) & (self.ratio_error() > ratio_above)

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each feature and step."""
        return long_frame(
            {"feature": range(len(self.peak)), "step": self.steps},
            {
                "beta_error": self.beta_error,
                "beta_reconstruction": self.beta_reconstruction,
                "ratio_error": self.ratio_error(),
                "ratio_reconstruction": self.ratio_reconstruction(),
            },
        )

    def _ratio(self, beta_FS: Float[Tensor, "F S"]) -> Float[Tensor, "F S"]:
        at_peak_F1 = beta_FS.gather(1, self.peak[:, None])
        return torch.where(at_peak_F1 > 0, beta_FS / at_peak_F1.clamp_min(_tiny(beta_FS)), 0)


@torch.no_grad()
def latent_scaling(
    crosscoder: Crosscoder, batches: Iterable[Float[Tensor, "_ S D"]]
) -> LatentScaling:
    """Return how much of each feature the activations of each snapshot hold.

    Parameters
    ----------
    crosscoder
        Trained, folded or not.
    batches
        What it reads; one pass.

    Raises
    ------
    ValueError
        If an activation is not finite or there is none.

    Notes
    -----
    beta_i^s = argmin_b sum_t |Y^s - b f_i d_i|^2 = sum_t f_i <Y^s, d_i> / (sum_t f_i^2 |d_i|^2), in
    normalised space. For beta_error Y^s = x^s - x̂^s + f_i^s W_dec,i^s: what the other features
    leave. Without adding the feature's own part back, beta would be near 0 at the very snapshots
    that are rebuilt well. For beta_reconstruction Y^s = x̂^s - b_dec^s.

    References
    ----------
    Minder et al. 2025, arXiv 2504.02922, for two models; a latent counts as specific
    there if ratios are below 0.2 (error) and 0.5 (reconstruction).
    """
    F, S = crosscoder.config.n_features, len(crosscoder.config.steps)
    rows_FSD = normalised_rows(crosscoder)
    peak_F = crosscoder.norms().argmax(1)
    d_FD = rows_FSD[torch.arange(F, device=peak_F.device), peak_F]
    error_FS, rebuilt_FS, own_FS = torch.zeros(3, F, S, dtype=torch.float64, device=d_FD.device)
    square_F, firings_F, tokens = own_FS[:, 0].clone(), torch.zeros_like(peak_F), 0
    for x_BSD, codes in code_blocks(crosscoder, batches):
        part_BSD = rebuilt(codes, crosscoder.W_dec).transpose(0, 1).reshape(x_BSD.shape)
        left_BSD = (x_BSD - crosscoder.b_dec - part_BSD) * crosscoder.scale[:, None]
        square_n = codes.value.double().square()
        own_FS.index_add_(0, codes.feature, square_n[:, None] * codes.is_open.expand(-1, S))
        square_F.index_add_(0, codes.feature, square_n)
        firings_F += codes.feature.bincount(minlength=F)
        for target_BSD, sums_FS in (
            (left_BSD, error_FS),
            (part_BSD * crosscoder.scale[:, None], rebuilt_FS),
        ):
            _add_inner_products(sums_FS, codes, target_BSD, d_FD)
        tokens += len(x_BSD)
    error_FS += own_FS * torch.einsum("fsd,fd->fs", rows_FSD, d_FD)
    weight_F1 = (square_F * d_FD.square().sum(1))[:, None]
    beta = [torch.where(weight_F1 > 0, sums / weight_F1, 0) for sums in (error_FS, rebuilt_FS)]
    return LatentScaling(
        tokens=tokens,
        steps=crosscoder.config.steps,
        peak=peak_F,
        firings=firings_F,
        beta_error=beta[0],
        beta_reconstruction=beta[1],
    )


def norm_agreement(
    norms_FS: Float[Tensor, "F S"],
    scores_FS: Float[Tensor, "F S"],
    *,
    alive: Bool[Tensor, " F"],
    rng: np.random.Generator,
) -> tuple[Interval, ...]:
    """Return, at each snapshot, how well norms rank features as another measure does.

    Parameters
    ----------
    norms_FS
        Decoder norms; each feature's are divided by its largest.
    scores_FS
        Such as ``separability(...).auc`` or ``latent_scaling(...).ratio_error()``.
    alive
        Features that count.
    rng
        Draws the bootstrap over features.

    Returns
    -------
    Spearman's rank correlation, one interval a snapshot.

    Raises
    ------
    ValueError
        If fewer than 3 features are alive or a value is not finite.
    """
    relative_FS = norms_FS / norms_FS.amax(1, keepdim=True).clamp_min(_tiny(norms_FS))
    pairs = zip(relative_FS[alive].T, scores_FS[alive].T, strict=True)
    return tuple(rank_correlation(a, b, rng=rng) for a, b in pairs)


def _add_inner_products(
    sums_FS: Tensor, codes: OpenCodes, target_BSD: Tensor, direction_FD: Tensor
) -> None:
    """Add sum_b code <target, direction> over the open codes."""
    parts = (each.split(PAIRS) for each in (codes.token, codes.feature, codes.value))
    for b, i, f in zip(*parts, strict=True):
        products_PS = torch.einsum("psd,pd->ps", target_BSD[b], direction_FD[i])
        sums_FS.index_add_(0, i, (products_PS * f[:, None]).double())


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
