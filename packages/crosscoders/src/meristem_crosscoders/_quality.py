"""How well a crosscoder rebuilds a stream of activations; sums, never means of batch ratios.

Shape letters: B tokens, F features, S snapshots, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_crosscoders._entries import rebuilt
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._select import open_codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Reconstruction and sparsity over a stream."""

    tokens: int
    explained_variance: Float[Tensor, " S"]  # 1 - squared error / squared distance from the mean
    l0: Float[Tensor, " S"]  # open features per token
    l0_union: float  # features open at any snapshot, per token
    frequency: Float[Tensor, " F"]  # share of tokens at which a feature is open at any snapshot


@torch.no_grad()
def evaluate(crosscoder: Crosscoder, batches: Iterable[Float[Tensor, "_ S D"]]) -> Quality:
    """Return the quality over all batches, accumulated in float64.

    Raises
    ------
    ValueError
        If there is no token, an activation is not finite, or a snapshot is constant.
    """
    n, mean_SD, total_S = 0, torch.zeros(()), torch.zeros(())
    error_S, open_S, fired_F = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for x_BSD in batches:
        if not bool(x_BSD.isfinite().all()):
            raise ValueError(f"a batch after token {n} holds NaN or infinity; drop such tokens")
        codes, x = open_codes(crosscoder, x_BSD), x_BSD.double()
        found = rebuilt(codes, crosscoder.W_dec).transpose(0, 1).reshape(x.shape)
        error = (found + crosscoder.b_dec - x).square().sum((0, 2))
        B, batch_mean = x.shape[0], x.mean(0)
        shift = batch_mean - mean_SD.to(x)  # Chan, Golub and LeVeque's update
        total_S = total_S.to(x) + (x - batch_mean).square().sum((0, 2))
        total_S = total_S + shift.square().sum(-1) * (n * B / (n + B))
        mean_SD = mean_SD.to(x) + shift * (B / (n + B))
        error_S, open_S = error_S.to(x) + error, open_S.to(x) + codes.is_open.sum(0)
        fired = codes.feature[codes.is_open.any(1)].bincount(minlength=len(crosscoder.b_enc))
        fired_F, n = fired_F.to(x) + fired, n + B
    if n == 0:
        raise ValueError("there is no batch to evaluate; the iterator was empty or used up")
    if not bool((total_S > 0).all()):
        raise ValueError("a snapshot's activations are all equal; they have no variance to explain")
    return Quality(
        tokens=n,
        explained_variance=1 - error_S / total_S,
        l0=(open_S / n).expand(len(error_S)),
        l0_union=float(fired_F.sum() / n),
        frequency=fired_F / n,
    )
