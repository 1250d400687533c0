"""What a crosscoder is trained on.

- the reconstruction error is a mean over tokens and snapshots, a sum over the width
- penalties act on the strengths y = f n, which no rescaling of encoder against decoder can shrink
- AuxK lets dead features rebuild what is left of the error

Shape letters: B tokens, F features, S snapshots, D width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meristem_crosscoders._model import Codes, Crosscoder


def reconstruction_error(
    rebuilt_BSD: Float[Tensor, "B S D"], x_BSD: Float[Tensor, "B S D"]
) -> Float[Tensor, ""]:
    """Return the squared error, summed over the width, mean over tokens and snapshots."""
    return (rebuilt_BSD - x_BSD).square().sum(-1).mean()


def strengths(crosscoder: Crosscoder, codes: Codes) -> Float[Tensor, "B F S"]:
    """Return y = f n, how much of a snapshot's activation a feature is, in normalised space."""
    return codes.value * crosscoder.norms()


def tanh_penalty(y_BFS: Float[Tensor, "B F S"], *, slope: float = 4.0) -> Float[Tensor, ""]:
    """Return sum_i tanh(slope y_i), mean over tokens and snapshots: a smooth L0."""
    return (slope * y_BFS).tanh().sum(1).mean()


def tanh_quad_penalty(
    y_BFS: Float[Tensor, "B F S"], *, slope: float = 4.0, rate: float = 0.01
) -> Float[Tensor, ""]:
    """Return sum_i p_i (1 + p_i / rate), p_i the mean of tanh(slope y_i) over tokens and snapshots.

    Features that fire more often than `rate` pay more than in proportion.

    References
    ----------
    The script of arXiv 2509.17196: slope 4, rate 0.01.
    """
    p_F = (slope * y_BFS).tanh().mean((0, 2))
    return (p_F * (1 + p_F / rate)).sum()


def l1_penalty(y_BFS: Float[Tensor, "B F S"]) -> Float[Tensor, ""]:
    """Return the sum of strengths over features and snapshots, mean over tokens.

    References
    ----------
    Lindsey et al. 2024, "Sparse crosscoders for cross-layer features and model diffing".
    """
    return y_BFS.sum((1, 2)).mean()


def preactivation_penalty(crosscoder: Crosscoder, codes: Codes) -> Float[Tensor, ""]:
    """Return sum_i ReLU(t_i - z_i n_i) n_i, mean over tokens and gates; it revives dead features.

    References
    ----------
    Anthropic, January 2025 update; compared on one scale, z n with t, as the gate does.

    Raises
    ------
    ValueError
        If the crosscoder is not a "jumprelu".
    """
    if crosscoder.log_threshold is None:
        raise ValueError(
            f"{crosscoder.config.activation!r} has no threshold to come short of; "
            'use the preactivation penalty with activation="jumprelu"'
        )
    n_FG = crosscoder.gate_norms()
    short_BFG = crosscoder.log_threshold.exp()[:, None] - codes.preactivation[..., None] * n_FG
    return (short_BFG.relu() * n_FG).sum(1).mean()


def auxk_loss(
    crosscoder: Crosscoder,
    codes: Codes,
    error_BSD: Float[Tensor, "B S D"],
    dead_F: Bool[Tensor, " F"],
    *,
    k: int | None = None,
) -> Float[Tensor, ""]:
    """Return how badly dead features rebuild the error of the living.

    Parameters
    ----------
    crosscoder, codes
        The codes that made the error.
    error_BSD
        x - x̂, detached here.
    dead_F
        True at features that no longer fire.
    k
        How many dead features a token uses, at least 1; default half of the width.

    Returns
    -------
    The squared error of the error's reconstruction over the variance of the error, times
    min(dead / k, 1). Its gradient reaches the encoder, the encoder bias and the decoder of dead
    features with a positive pre-activation, and nothing else. It is 0 if no feature is dead or the
    error is the same for every token.

    References
    ----------
    Gao et al. 2024, arXiv 2406.04093, appendix A.2.
    """
    k = max(1, crosscoder.config.d_model // 2) if k is None else k
    if k < 1:
        raise ValueError(f"k ({k}) must be at least 1; leave it out for half of the width")
    error_BSD = error_BSD.detach()
    variance = (error_BSD - error_BSD.mean(0)).square().sum(-1).mean()
    n_dead = int(dead_F.sum())
    if n_dead == 0 or not bool(variance > 0):
        return variance.new_zeros(())
    dead = dead_F.nonzero()[:, 0]
    z_BK, chosen_BK = codes.preactivation[:, dead].topk(min(k, n_dead), dim=1)
    f_BX = torch.zeros_like(codes.preactivation[:, dead]).scatter(1, chosen_BK, z_BK.relu())
    rebuilt_BSD = torch.einsum("bx,xsd->bsd", f_BX, crosscoder.W_dec[dead])
    return reconstruction_error(rebuilt_BSD, error_BSD) / variance * min(n_dead / k, 1.0)
