"""Values and slopes of the sparsity penalties on lists of strengths.

- a strength y = f n is one number per open entry and snapshot; a closed one is 0
- batch means are over all processes, or the result would depend on their number

Shape letters: n entries, F features, S snapshots.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_crosscoders._bags import column_sums
from meristem_crosscoders._mesh import Mesh

Kind = Literal["tanh_quad", "tanh", "l1", "none"]
SLOPE, RATE = 4.0, 0.01  # of the script of arXiv 2509.17196


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """A penalty and how it changes with the strengths."""

    value: Float[Tensor, ""]
    factor_F: Float[Tensor, " F"]  # dR/dy = factor at y = 0; times (1 - tanh^2) for the tanh ones
    kind: Kind

    def slope(self, y: Tensor, feature: Int[Tensor, " n"] | None = None) -> Tensor:
        """Return dR/dy: for entries (n, S) with their features, or for tiles (B, F)."""
        factor = self.factor_F if feature is None else self.factor_F[feature][:, None]
        if self.kind == "l1":
            return factor.expand_as(y)
        return factor * (1 - (SLOPE * y).tanh().square())


def bent(kind: Kind, y: Float[Tensor, "B b"]) -> tuple[Tensor, Tensor]:
    """Return what the penalty counts, y or tanh(4 y), and dR/dy over its factor; uses `y` up."""
    if kind == "l1":
        return y, torch.ones_like(y)
    h = y.mul_(SLOPE).tanh_()
    return h, (h * h).neg_().add_(1)


def penalty_of(
    kind: Kind, total_F: Float[Tensor, " F"], *, batch: int, snapshots: int, mesh: Mesh
) -> Penalty:
    """Return a penalty from `totals` over the whole batch of one process.

    Raises
    ------
    KeyError
        If there is no such penalty.
    """
    total_F = mesh.data.sum(total_F.clone())
    count = batch * snapshots
    match kind:
        case "tanh_quad":
            p_F = total_F / count
            value, factor = p_F * (1 + p_F / RATE), SLOPE / count * (1 + 2 * p_F / RATE)
        case "tanh":
            value, factor = total_F / count, torch.full_like(total_F, SLOPE / count)
        case "l1":
            value, factor = total_F / batch, torch.full_like(total_F, 1 / batch)
        case "none":
            value, factor = torch.zeros_like(total_F), torch.zeros_like(total_F)
    return Penalty(value=mesh.features.sum(value.sum()), factor_F=factor, kind=kind)


def totals(
    kind: Kind, y_nS: Float[Tensor, "n S"], feature: Int[Tensor, " n"], features: int
) -> Float[Tensor, " F"]:
    """Return the sum over entries and snapshots of what the penalty counts: y or tanh(4 y)."""
    counted = y_nS if kind == "l1" else (SLOPE * y_nS).tanh()
    return column_sums(counted.sum(1, keepdim=True), feature, features)[:, 0]
