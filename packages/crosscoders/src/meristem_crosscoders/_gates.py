"""Which features are open for which token.

- z are the pre-activations, n the norms that scale them, u = z n what is compared
- n has one column per snapshot, or one for all snapshots: G is S or 1
- a gate passes z itself, z 1[open]; n decides only whether it is open and gets no gradient

Shape letters: B tokens, F features, G gates per feature.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def jumprelu(
    z_BF: Float[Tensor, "B F"],
    norms_FG: Float[Tensor, "F G"],
    log_threshold_F: Float[Tensor, " F"],
    width: float,
) -> Float[Tensor, "B F G"]:
    """Return z where z n > t = exp(log_threshold), 0 elsewhere.

    Notes
    -----
    Backward, with u = z n, y = u 1[u > t], codes f = y / n and a window of width e::

        dL/dz     =  sum_g 1[u > t] dL/df
        dL/dlog t = -t^2 / e  sum_bg 1[|u - t| < e / 2, u > 0] dL/dy,    dL/dy = dL/df / n

    The window reaches below the threshold, where f is 0. Where n = 0, u = 0 lies outside of it.

    References
    ----------
    Rajamanoharan et al. 2024, arXiv 2407.14435; the gate on z n is arXiv 2509.17196's code.
    """
    return _JumpReLU.apply(z_BF, norms_FG, log_threshold_F, width)  # pyright: ignore[reportReturnType] apply has no types


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, norms: Tensor, log_threshold: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, norms, log_threshold)
        ctx.width = width
        is_open = z[..., None] * norms > log_threshold.exp()[:, None]
        return z[..., None] * is_open

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, None]:
        (grad_f,) = grads
        z, norms, log_threshold = ctx.saved_tensors
        t = log_threshold.exp()[:, None]
        u = z[..., None] * norms
        grad_z = (grad_f * (u > t)).sum(-1)
        window = ((u - t).abs() < ctx.width / 2) & (u > 0)
        grad_y = torch.where(window, grad_f / norms, 0)
        grad_log_t = -(t[:, 0] ** 2 / ctx.width) * grad_y.sum((0, 2))
        return grad_z, None, grad_log_t, None


def largest_per_token(u_BFG: Float[Tensor, "B F G"], k: int) -> Bool[Tensor, "B F G"]:
    """Return True at the k largest positive u of each token and gate; ties go to the lowest F."""
    return _largest(u_BFG, k, dim=1)


def largest_per_batch(u_BFG: Float[Tensor, "B F G"], k: int) -> Bool[Tensor, "B F G"]:
    """Return True at the k B largest positive u of each gate; ties: first token, lowest F."""
    B, F, G = u_BFG.shape
    return _largest(u_BFG.reshape(B * F, G), k * B, dim=0).reshape(B, F, G)


def _largest(u: Tensor, k: int, *, dim: int) -> Tensor:
    """Select without sorting: all above the k-th value, then the first that equal it."""
    along = u.movedim(dim, -1).contiguous()
    bar = along.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above, level = along > bar, along == bar
    left = k - above.sum(-1, keepdim=True)
    if bool((level.sum(-1, keepdim=True) > left).any()):
        level &= level.cumsum(-1) <= left
    return ((above | level) & (along > 0)).movedim(-1, dim)
