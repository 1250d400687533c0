"""Loss and gradients of a step where many entries are open: snapshot by snapshot, in tiles.

A tile is (tokens, features); no array has tokens, features and snapshots at once. It costs five
products of the encoder's size; `SparseStep` costs one or two.

Shape letters: B tokens, F features, S snapshots, D width, G gates per feature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meristem_crosscoders._auxiliary import Auxiliary
from meristem_crosscoders._gradients import Gradients, Terms, by_feature, radial
from meristem_crosscoders._mesh import Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._penalties import SLOPE, Penalty, penalty_of


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

    def gradients(self, auxiliary: Callable[[Callable[[], Tensor]], Auxiliary | None]) -> Gradients:
        """Return loss and gradients; `auxiliary` is given a function for the error x - x^."""
        S = self.norms_FS.shape[1]
        slope_SBD, reconstruction, penalty = self._forward()
        grad_z_BF, grad_norm_FS, grad_t_F, grad_W_FSD = self._backward(slope_SBD, penalty)
        aux = auxiliary(lambda: slope_SBD.transpose(0, 1) * (-self.batch * S / 2))
        loss = reconstruction + self.terms.sparsity * penalty.value
        if self.terms.preactivation > 0:
            loss = loss + self.terms.preactivation * self._short(grad_z_BF, grad_norm_FS, grad_t_F)
        if aux is not None:
            loss = loss + self.terms.auxk * aux.loss
            grad_z_BF[aux.token, aux.feature] += aux.grad_value
        opens = torch.stack([self._is_open(g).sum() for g in range(self.gate_norms_FG.shape[1])])
        opens = self.mesh.features.sum(self.mesh.data.sum(opens.to(self.z_BF.dtype)))
        fired = torch.stack(
            [self._is_open(g).any(0) for g in range(self.gate_norms_FG.shape[1])]
        ).any(0)
        has_thresholds = self.crosscoder.log_threshold is not None
        return Gradients(
            loss=loss,
            reconstruction=reconstruction,
            fired_F=self.mesh.data.sum(fired.to(self.z_BF.dtype)) > 0,
            open_S=(opens / self.batch).expand(S),
            least_G=torch.full_like(self.gate_norms_FG[0], torch.inf),
            b_enc=grad_z_BF.sum(0),
            b_dec=slope_SBD.sum(1),
            log_threshold=grad_t_F if has_thresholds else None,
            encoder=self._encoder(grad_z_BF),
            decoder=self._decoder(grad_W_FSD, grad_norm_FS, aux),
        )

    def _is_open(self, g: int) -> Bool[Tensor, "B F"]:
        return self.z_BF * self.gate_norms_FG[:, g] > self.threshold_F

    def _gate(self, s: int) -> int:
        return s if self.gate_norms_FG.shape[1] > 1 else 0

    def _codes(self, s: int) -> Float[Tensor, "B F"]:
        return self.z_BF * self._is_open(self._gate(s))

    def _forward(self) -> tuple[Float[Tensor, "S B D"], Float[Tensor, ""], Penalty]:
        """Return dL/dx^, the reconstruction error and the penalty."""
        B, S, D = self.x_BSD.shape
        W_dec, b_dec = self.crosscoder.W_dec.detach(), self.crosscoder.b_dec.detach()
        error_SBD, total_F = self.x_BSD.new_empty(S, B, D), self.norms_FS.new_zeros(len(W_dec))
        kind = self.terms.penalty
        for s in range(S):
            f_BF = self._codes(s)
            error_SBD[s] = f_BF @ W_dec[:, s]
            if kind != "none":
                y_BF = f_BF * self.norms_FS[:, s]
                total_F += (y_BF if kind == "l1" else (SLOPE * y_BF).tanh()).sum(0)
        error_SBD = self.mesh.features.sum(error_SBD)
        error_SBD.add_(b_dec[:, None]).sub_(self.x_BSD.transpose(0, 1))
        squares = self.mesh.data.sum(error_SBD.square().sum()) / (self.batch * S)
        penalty = penalty_of(kind, total_F, batch=self.batch, snapshots=S, mesh=self.mesh)
        return error_SBD.mul_(2 / (self.batch * S)), squares, penalty

    def _backward(
        self, slope_SBD: Float[Tensor, "S B D"], penalty: Penalty
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return dL/dz, dL/dn by way of the penalty, dL/dlog t and dL/dW_dec."""
        W_dec, S = self.crosscoder.W_dec.detach(), self.norms_FS.shape[1]
        grad_z_BF, grad_norm_FS = torch.zeros_like(self.z_BF), torch.zeros_like(self.norms_FS)
        grad_t_F, grad_W_FSD = torch.zeros_like(self.threshold_F), torch.empty_like(W_dec)
        shared_BF = None
        for s in range(S):
            f_BF, n_F = self._codes(s), self.norms_FS[:, s]
            grad_f_BF = slope_SBD[s] @ W_dec[:, s].T
            if self.terms.sparsity > 0 and self.terms.penalty != "none":
                slope_BF = self.terms.sparsity * penalty.slope(f_BF * n_F)
                grad_f_BF += slope_BF * n_F
                grad_norm_FS[:, s] = (slope_BF * f_BF).sum(0)
            grad_W_FSD[:, s] = f_BF.T @ slope_SBD[s]
            if self.gate_norms_FG.shape[1] == 1:
                shared_BF = grad_f_BF if shared_BF is None else shared_BF.add_(grad_f_BF)
            else:
                self._through_gate(s, grad_f_BF, grad_z_BF, grad_t_F)
        if shared_BF is not None:
            self._through_gate(0, shared_BF, grad_z_BF, grad_t_F)
        return grad_z_BF, grad_norm_FS, grad_t_F, grad_W_FSD

    def _through_gate(self, g: int, grad_f_BF: Tensor, grad_z_BF: Tensor, grad_t_F: Tensor) -> None:
        """Add to dL/dz and dL/dlog t what one gate's codes pass on."""
        grad_z_BF.addcmul_(grad_f_BF, self._is_open(g).to(grad_f_BF.dtype))
        if self.crosscoder.log_threshold is None:
            return
        n_F, width = self.gate_norms_FG[:, g], self.crosscoder.config.ste_width
        u_BF = self.z_BF * n_F
        window_BF = ((u_BF - self.threshold_F).abs() < width / 2) & (u_BF > 0)
        sum_F = torch.where(window_BF, grad_f_BF, 0).sum(0)
        per_y_F = torch.where(n_F > 0, sum_F / n_F, 0)
        grad_t_F.sub_(self.threshold_F.square() / width * per_y_F)

    def _short(
        self, grad_z_BF: Tensor, grad_norm_FS: Tensor, grad_t_F: Tensor
    ) -> Float[Tensor, ""]:
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
            grad_z_BF.sub_(is_short * (weight * n_F.square()))
            grad_t_F.add_(weight * self.threshold_F * n_F * is_short.sum(0))
            grad_gate_FG[:, g] = weight * (short_BF - is_short * self.z_BF * n_F).sum(0)
        grad_norm_FS.add_(self._to_norms(grad_gate_FG))
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

    def _encoder(self, grad_z_BF: Tensor) -> Callable[[slice], Tensor]:
        x_BE, shape = self.crosscoder.encoded(self.x_BSD), self.crosscoder.W_enc.shape[1:]
        return lambda rows: (grad_z_BF[:, rows].T @ x_BE).view(-1, *shape)

    def _decoder(
        self, grad_W_FSD: Tensor, grad_norm_FS: Tensor, aux: Auxiliary | None
    ) -> Callable[[slice], Tensor]:
        radial_FS, W_dec = radial(grad_norm_FS, self.norms_FS), self.crosscoder.W_dec.detach()
        extra = None
        if aux is not None:
            extra = by_feature(aux.token, aux.feature, aux.value, len(W_dec))

        def block(rows: slice) -> Float[Tensor, "block S D"]:
            grad = torch.addcmul(grad_W_FSD[rows], radial_FS[rows, :, None], W_dec[rows])
            if extra is not None and aux is not None:
                grad += extra.sums(aux.grad_rebuilt, rows).view_as(grad)
            return grad

        return block
