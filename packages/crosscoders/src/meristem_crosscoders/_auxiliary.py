"""AuxK on lists: what the largest dead features of each token add to loss and gradients.

Shape letters: B tokens, F features, S snapshots, D width, m entries of dead features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_crosscoders._bags import bag_dots, bag_sums, offsets_of
from meristem_crosscoders._mesh import Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._products import rows_product
from meristem_crosscoders._select import over_features


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    """What dead features add; gradients carry the weight of the loss."""

    loss: Float[Tensor, ""]
    token: Int[Tensor, " m"]
    feature: Int[Tensor, " m"]
    value: Float[Tensor, " m"]
    grad_value: Float[Tensor, " m"]
    grad_rebuilt: Float[Tensor, "B SD"]


def auxiliary(
    crosscoder: Crosscoder,
    x_BSD: Float[Tensor, "B S D"],
    error: Callable[[], Float[Tensor, "B S D"]],
    dead_F: Tensor,
    *,
    weight: float,
    batch: int,
    mesh: Mesh,
) -> Auxiliary | None:
    """Return what `auxk_loss` and its gradients are made of; None if they are 0.

    `error` returns x - x^; `batch` counts the tokens of all processes.
    """
    n_dead = int(mesh.features.sum(dead_F.sum()))
    if n_dead == 0:
        return None
    error_BX = error().flatten(1)
    S = x_BSD.shape[1]
    mean_X = mesh.data.sum(error_BX.sum(0)) / batch
    variance = mesh.data.sum((error_BX - mean_X).square().sum()) / (batch * S)
    if not bool(variance > 0):
        return None
    k = max(1, crosscoder.config.d_model // 2)
    token, feature, value = _chosen(crosscoder, x_BSD, dead_F, min(k, n_dead), mesh)
    table = crosscoder.W_dec.detach().flatten(1)
    offsets = offsets_of(token, len(x_BSD))[:-1]
    gap_BX = mesh.features.sum(bag_sums(table, feature, offsets, value)).sub_(error_BX)
    scale = min(n_dead / k, 1.0) / variance / (batch * S)
    loss = mesh.data.sum(gap_BX.square().sum()) * scale
    slope_BX = gap_BX.mul_(2 * weight * scale)
    return Auxiliary(
        loss=loss,
        token=token,
        feature=feature,
        value=value,
        grad_value=bag_dots(slope_BX, table, feature, offsets, token),
        grad_rebuilt=slope_BX,
    )


def _chosen(
    crosscoder: Crosscoder, x_BSD: Tensor, dead_F: Tensor, k: int, mesh: Mesh
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token, feature and z of the k largest dead features of each token, if positive."""
    dead = dead_F.nonzero()[:, 0]
    W_enc, b_enc = crosscoder.W_enc.detach(), crosscoder.b_enc.detach()
    z_BX = rows_product(crosscoder.encoded(x_BSD), W_enc[dead].flatten(1), b_enc[dead])
    best = z_BX.topk(min(k, len(dead)), dim=1).indices.sort(dim=1).values
    kept_z = z_BX.gather(1, best)
    token, place = (kept_z > 0).nonzero(as_tuple=True)
    found = token, dead[best[token, place]], kept_z[token, place]
    return over_features(found, torch.ones_like(b_enc), len(x_BSD), k, mesh.features)
