"""Loss and gradients of a step where many entries are open: gate by gate, in tiles.

- a tile is (tokens, a block of features) and small enough for a processor's cache; no array has
  tokens, features and snapshots at once
- penalties are linear in a factor per feature that needs the whole batch: their slopes are summed
  over snapshots on the way forward, so that no tanh is computed twice
- it costs five products of the encoder's size; `SparseStep` costs one or two

Shape letters: B tokens, F features, S snapshots, D width, G gates per feature, E = S D / G,
b features of a tile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_crosscoders._auxiliary import Auxiliary
from meristem_crosscoders._gradients import Gradients, Terms, by_feature, radial
from meristem_crosscoders._mesh import Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._penalties import Penalty, bent, penalty_of
from meristem_crosscoders._products import rows_product

TILE = 2**17  # numbers in a tile: 512 KiB in float32
NARROWEST = 64  # features in a tile


@dataclass(kw_only=True)
class TiledStep:
    """The parts of one step; `gradients` puts them together. For "jumprelu" and "relu"."""

    crosscoder: Crosscoder
    x_BSD: Float[Tensor, "B S D"]
    z_BF: Float[Tensor, "B F"]
    norms_FS: Float[Tensor, "F S"]
    gate_norms_FG: Float[Tensor, "F G"]
    threshold_F: Float[Tensor, " F"]
    terms: Terms
    batch: int
    mesh: Mesh
    grad_z_BF: Float[Tensor, "B F"] = field(init=False)
    grad_norm_FS: Float[Tensor, "F S"] = field(init=False)
    grad_t_F: Float[Tensor, " F"] = field(init=False)  # by log t
    count_FG: Float[Tensor, "F G"] = field(init=False)  # tokens at which a gate is open

    def __post_init__(self) -> None:
        self.grad_z_BF = torch.zeros_like(self.z_BF)
        self.grad_norm_FS = torch.zeros_like(self.norms_FS)
        self.grad_t_F = torch.zeros_like(self.threshold_F)
        self.count_FG = torch.zeros_like(self.gate_norms_FG)

    def gradients(self, auxiliary: Callable[[Callable[[], Tensor]], Auxiliary | None]) -> Gradients:
        """Return loss and gradients; `auxiliary` is given a function for the error x - x^."""
        B, S, D = self.x_BSD.shape
        slope_GBE, reconstruction, penalty = self._forward()
        self._backward(slope_GBE)
        back = -self.batch * S / 2
        aux = auxiliary(lambda: slope_GBE.transpose(0, 1).reshape(B, S, D) * back)
        loss = reconstruction + self.terms.sparsity * penalty.value
        if self.terms.preactivation > 0:
            loss = loss + self.terms.preactivation * self._short()
        if aux is not None:
            loss = loss + self.terms.auxk * aux.loss
            self.grad_z_BF[aux.token, aux.feature] += aux.grad_value
        opens_G = self.mesh.features.sum(self.mesh.data.sum(self.count_FG.sum(0)))
        return Gradients(
            loss=loss,
            reconstruction=reconstruction,
            fired_F=self.mesh.data.sum(self.count_FG.sum(1)) > 0,
            open_S=(opens_G / self.batch).expand(S),
            least_G=torch.full_like(self.gate_norms_FG[0], torch.inf),
            b_enc=self.grad_z_BF.sum(0),
            b_dec=slope_GBE.sum(1).view(S, D),
            log_threshold=None if self.crosscoder.log_threshold is None else self.grad_t_F,
            encoder=self._encoder(),
            decoder=self._decoder(slope_GBE, aux),
        )

    def _tiles(self) -> Iterator[tuple[slice, Float[Tensor, "B b"]]]:
        """Yield blocks of features and their pre-activations."""
        B, F = self.z_BF.shape
        width = max(NARROWEST, TILE // B)
        for start in range(0, F, width):
            rows = slice(start, min(start + width, F))
            yield rows, self.z_BF[:, rows].contiguous()

    def _is_open(self, z_Bb: Tensor, rows: slice, g: int) -> Float[Tensor, "B b"]:
        """Return 1 where a gate is open and 0 elsewhere, as numbers: faster than as truths."""
        return (z_Bb * self.gate_norms_FG[rows, g]).gt_(self.threshold_F[rows])

    def _table(self, rows: slice, g: int) -> Float[Tensor, "b E"]:
        """Return the decoder rows behind a gate."""
        W_dec, G = self.crosscoder.W_dec.detach()[rows], self.gate_norms_FG.shape[1]
        return W_dec.flatten(1) if G == 1 else W_dec[:, g].contiguous()

    def _forward(self) -> tuple[Float[Tensor, "G B E"], Float[Tensor, ""], Penalty]:
        """Return dL/dx^, the reconstruction error and the penalty, whose slopes are kept."""
        (B, S, _), G = self.x_BSD.shape, self.gate_norms_FG.shape[1]
        b_dec, total_F = self.crosscoder.b_dec.detach(), torch.zeros_like(self.threshold_F)
        error_GBE = self.x_BSD.new_zeros(G, B, b_dec.numel() // G)
        for rows, z_Bb in self._tiles():
            for g in range(G):
                open_Bb = self._is_open(z_Bb, rows, g)
                self.count_FG[rows, g] = open_Bb.sum(0)
                f_Bb = open_Bb * z_Bb
                error_GBE[g] += rows_product(f_Bb, self._table(rows, g).T)
                if self.terms.sparsity > 0 and self.terms.penalty != "none":
                    total_F[rows] += self._penalise(z_Bb, f_Bb, open_Bb, rows, g)
        error_GBE = self.mesh.features.sum(error_GBE)
        error_GBE.add_(b_dec.view(G, 1, -1)).sub_(self.x_BSD.view(B, G, -1).transpose(0, 1))
        squares = self.mesh.data.sum(torch.dot(error_GBE.view(-1), error_GBE.view(-1)))
        penalty = penalty_of(
            self.terms.penalty, total_F, batch=self.batch, snapshots=S, mesh=self.mesh
        )
        factor_F = self.terms.sparsity * penalty.factor_F
        self.grad_z_BF *= factor_F
        self.grad_t_F *= factor_F
        self.grad_norm_FS *= factor_F[:, None]
        return error_GBE.mul_(2 / (self.batch * S)), squares / (self.batch * S), penalty

    def _penalise(
        self, z_Bb: Tensor, f_Bb: Tensor, open_Bb: Tensor, rows: slice, g: int
    ) -> Float[Tensor, " b"]:
        """Return what the penalty counts at a gate, and add its gradients over their factor."""
        S, G = self.norms_FS.shape[1], self.gate_norms_FG.shape[1]
        total_b, push_Bb = torch.zeros_like(self.threshold_F[rows]), None
        for s in [g] if G > 1 else range(S):
            n_b = self.norms_FS[rows, s]
            counted_Bb, slope_Bb = bent(self.terms.penalty, f_Bb * n_b)
            total_b += counted_Bb.sum(0)
            self.grad_norm_FS[rows, s] = torch.mul(slope_Bb, f_Bb, out=counted_Bb).sum(0)
            slope_Bb *= n_b
            push_Bb = slope_Bb if push_Bb is None else push_Bb.add_(slope_Bb)
        assert push_Bb is not None
        self._through_gate(z_Bb, open_Bb, push_Bb, self.grad_z_BF[:, rows], rows, g)
        return total_b

    def _backward(self, slope_GBE: Float[Tensor, "G B E"]) -> None:
        """Add the gradients by way of the reconstruction."""
        for rows, z_Bb in self._tiles():
            grad_z_Bb = torch.zeros_like(z_Bb)
            for g, slope_BE in enumerate(slope_GBE):
                grad_f_Bb = rows_product(slope_BE, self._table(rows, g))
                open_Bb = self._is_open(z_Bb, rows, g)
                self._through_gate(z_Bb, open_Bb, grad_f_Bb, grad_z_Bb, rows, g)
            self.grad_z_BF[:, rows] += grad_z_Bb

    def _through_gate(
        self, z_Bb: Tensor, open_Bb: Tensor, grad_f_Bb: Tensor, grad_z_Bb: Tensor,
        rows: slice, g: int,
    ) -> None:  # fmt: skip
        """Add to dL/dz and dL/dlog t what one gate's codes pass on; `grad_f_Bb` is used up."""
        grad_z_Bb.addcmul_(grad_f_Bb, open_Bb)
        if self.crosscoder.log_threshold is None:
            return
        n_b, t_b, width = self.gate_norms_FG[rows, g], self.threshold_F[rows], self._width
        u_Bb = z_Bb * n_b
        near_Bb = (u_Bb - t_b).abs_().lt_(width / 2)
        sum_b = grad_f_Bb.mul_(near_Bb).mul_(u_Bb.gt_(0)).sum(0)
        self.grad_t_F[rows] -= t_b.square() / width * torch.where(n_b > 0, sum_b / n_b, 0)

    @property
    def _width(self) -> float:
        return self.crosscoder.config.ste_width

    def _short(self) -> Float[Tensor, ""]:
        """Return the preactivation penalty and add its gradients."""
        value, G = self.z_BF.new_zeros(()), self.gate_norms_FG.shape[1]
        total = self.batch * G
        weight = self.terms.preactivation / total
        grad_gate_FG = torch.zeros_like(self.gate_norms_FG)
        for g in range(G):
            n_F = self.gate_norms_FG[:, g]
            short_BF = (self.threshold_F - self.z_BF * n_F).relu()
            is_short = (short_BF > 0).to(short_BF.dtype)
            value += (short_BF * n_F).sum()
            self.grad_z_BF.sub_(is_short * (weight * n_F.square()))
            self.grad_t_F.add_(weight * self.threshold_F * n_F * is_short.sum(0))
            grad_gate_FG[:, g] = weight * (short_BF - is_short * self.z_BF * n_F).sum(0)
        self.grad_norm_FS.add_(self._to_norms(grad_gate_FG))
        return self.mesh.features.sum(self.mesh.data.sum(value)) / total

    def _to_norms(self, grad_gate_FG: Float[Tensor, "F G"]) -> Float[Tensor, "F S"]:
        """Return dL/dn from dL/d(gate norms)."""
        config = self.crosscoder.config
        if config.gate == "snapshot":
            return grad_gate_FG
        match config.code_norm:
            case "sum":
                return grad_gate_FG.expand_as(self.norms_FS)
            case "l2":
                share_FS = self.norms_FS / self.gate_norms_FG
                return grad_gate_FG * share_FS.nan_to_num(0)
            case "none":
                return torch.zeros_like(self.norms_FS)

    def _encoder(self) -> Callable[[slice], Tensor]:
        x_BE, shape = self.crosscoder.encoded(self.x_BSD), self.crosscoder.W_enc.shape[1:]
        return lambda rows: rows_product(self.grad_z_BF[:, rows].T, x_BE.T).view(-1, *shape)

    def _decoder(
        self, slope_GBE: Float[Tensor, "G B E"], aux: Auxiliary | None
    ) -> Callable[[slice], Tensor]:
        radial_FS, W_dec = radial(self.grad_norm_FS, self.norms_FS), self.crosscoder.W_dec.detach()
        extra = None
        if aux is not None:
            extra = by_feature(aux.token, aux.feature, aux.value, len(W_dec))

        def block(rows: slice) -> Float[Tensor, "block S D"]:
            grad, z_Bb = torch.empty_like(W_dec[rows]), self.z_BF[:, rows].contiguous()
            for g, slope_BE in enumerate(slope_GBE):
                f_Bb = self._is_open(z_Bb, rows, g).mul_(z_Bb)
                part = grad.flatten(1) if len(slope_GBE) == 1 else grad[:, g]
                part.copy_(rows_product(f_Bb.T, slope_BE.T))
            grad.addcmul_(radial_FS[rows, :, None], W_dec[rows])
            if extra is not None and aux is not None:
                grad += extra.sums(aux.grad_rebuilt, rows).view_as(grad)
            return grad

        return block
