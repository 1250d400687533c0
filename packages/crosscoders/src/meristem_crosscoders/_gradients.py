"""Loss and gradients of a step from the list of its open entries.

- only the encoder's product is dense; decoding, codes' and weights' gradients visit entries
- weight gradients are handed out by blocks of features, so that they never exist whole
- JumpReLU's thresholds also move by entries inside the window below them. Where the window begins
  at 0, which is where it is wide, their sum over tokens is one more product, P^T (dL/dx^) with
  P = 1[z > 0], less the open entries beyond the window

Shape letters: B tokens, F features, S snapshots, D width, G gates per feature, E = S D / G,
n entries. A gate g of feature i owns row i G + g of the decoder seen as (F G, E).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meristem_crosscoders._auxiliary import Auxiliary
from meristem_crosscoders._bags import bag_dots, bag_sums, column_sums, offsets_of
from meristem_crosscoders._entries import OpenCodes, rebuilt
from meristem_crosscoders._mesh import Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._penalties import Kind, Penalty, penalty_of, totals
from meristem_crosscoders._products import rows_product

BLOCK = 512  # features whose gradient exists at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is added to the reconstruction error at one step, with its weights."""

    penalty: Kind = "none"
    sparsity: float = 0.0
    preactivation: float = 0.0
    auxk: float = 0.0
    dead_F: Bool[Tensor, " F"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """A step's loss, what it says of the features, and its gradients on this process."""

    loss: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    fired_F: Bool[Tensor, " F"]
    open_S: Float[Tensor, " S"]  # open features per token
    least_G: Float[Tensor, " G"]  # smallest open z n
    b_enc: Float[Tensor, " F"]
    b_dec: Float[Tensor, "S D"]
    log_threshold: Float[Tensor, " F"] | None
    encoder: Callable[[slice], Tensor]  # a block of features -> its gradient
    decoder: Callable[[slice], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByFeature:
    """OpenCodes sorted by feature."""

    token: Int[Tensor, " n"]
    coefficient: Float[Tensor, " n"]
    offsets: Int[Tensor, " F_and_one"]

    def sums(self, table: Float[Tensor, "B E"], rows: slice) -> Float[Tensor, "block E"]:
        """Return the sum of coefficient times the token's row, for a block of features."""
        low, high = int(self.offsets[rows.start]), int(self.offsets[rows.stop])
        offsets = self.offsets[rows] - low
        return bag_sums(table, self.token[low:high], offsets, self.coefficient[low:high])


def by_feature(token: Tensor, feature: Tensor, coefficient: Tensor, features: int) -> ByFeature:
    """Return entries sorted by feature, tokens rising within."""
    order = feature.argsort(stable=True)
    return ByFeature(
        token=token[order],
        coefficient=coefficient[order],
        offsets=offsets_of(feature[order], features),
    )


def radial(
    grad_norm_FS: Float[Tensor, "F S"], norms_FS: Float[Tensor, "F S"]
) -> Float[Tensor, "F S"]:
    """Return dL/dn / n, by which a decoder row enters its own gradient: 0 where the norm is 0."""
    return torch.where(norms_FS > 0, grad_norm_FS / norms_FS, 0)


@dataclass(kw_only=True)
class SparseStep:
    """The parts of one step; `gradients` puts them together."""

    crosscoder: Crosscoder
    x_BSD: Float[Tensor, "B S D"]
    entries: OpenCodes
    norms_FS: Float[Tensor, "F S"]
    gate_norms_FG: Float[Tensor, "F G"]
    terms: Terms
    batch: int
    mesh: Mesh
    z_BF: Float[Tensor, "B F"] | None = None  # for JumpReLU
    window: "Window | None" = None
    slope_GBE: Tensor = field(init=False)

    def gradients(self, auxiliary: Callable[[Callable[[], Tensor]], Auxiliary | None]) -> Gradients:
        """Return loss and gradients; `auxiliary` is given a function for the error x - x^."""
        reconstruction = self._reconstruct()
        penalty, push_nG, grad_norm_FS = self._penalise()
        grad_code_nG = self._dots() + push_nG
        grad_z_n = (grad_code_nG * self.entries.is_open).sum(1)
        aux = auxiliary(self._error)
        loss = reconstruction + self.terms.sparsity * penalty.value
        threshold = None
        if self.window is not None:
            threshold = self.window.gradient(self, penalty, push_nG, grad_code_nG)
        return Gradients(
            loss=loss if aux is None else loss + self.terms.auxk * aux.loss,
            reconstruction=reconstruction,
            fired_F=self._fired(),
            open_S=self._open(),
            least_G=self._least(),
            b_enc=self._bias(grad_z_n, aux),
            b_dec=self.slope_GBE.sum(1).view_as(self.crosscoder.b_dec),
            log_threshold=threshold,
            encoder=self._encoder(grad_z_n, aux),
            decoder=self._decoder(grad_norm_FS, aux),
        )

    def rows(self, g: int, feature: Tensor) -> Int[Tensor, " n"]:
        """Return the rows of the decoder, seen as (F G, E), of features at a gate."""
        G = self.gate_norms_FG.shape[1]
        return feature if G == 1 else feature * G + g

    @property
    def table(self) -> Float[Tensor, "FG E"]:
        """The decoder, a row per feature and gate."""
        W_dec = self.crosscoder.W_dec.detach()
        return W_dec.reshape(self.gate_norms_FG.numel(), -1)

    def _reconstruct(self) -> Float[Tensor, ""]:
        """Set the slope dL/dx^ and return the error."""
        B, S, _ = self.x_BSD.shape
        G = self.gate_norms_FG.shape[1]
        error_GBE = rebuilt(self.entries, self.crosscoder.W_dec.detach())
        error_GBE = self.mesh.features.sum(error_GBE)
        x_GBE = self.x_BSD.reshape(B, G, -1).transpose(0, 1)
        error_GBE.sub_(x_GBE).add_(self.crosscoder.b_dec.detach().reshape(G, 1, -1))
        squares = self.mesh.data.sum(torch.dot(error_GBE.view(-1), error_GBE.view(-1)))
        self.slope_GBE = error_GBE.mul_(2 / (self.batch * S))
        return squares / (self.batch * S)

    def _error(self) -> Float[Tensor, "B S D"]:
        B, S, D = self.x_BSD.shape
        return (self.slope_GBE.transpose(0, 1).reshape(B, S, D)) * (-self.batch * S / 2)

    def _penalise(self) -> tuple[Penalty, Float[Tensor, "n G"], Float[Tensor, "F S"] | None]:
        """Return the penalty, its gradient by codes and, unless there is none, by norms."""
        e, (F, S), kind = self.entries, self.norms_FS.shape, self.terms.penalty
        if kind == "none":
            zero = penalty_of(
                kind, self.norms_FS.new_zeros(F), batch=self.batch, snapshots=S, mesh=self.mesh
            )
            return zero, torch.zeros_like(e.is_open, dtype=e.value.dtype), None
        norms_nS, value_nS = self.norms_FS[e.feature], e.value[:, None] * e.is_open
        y_nS = value_nS * norms_nS
        penalty = penalty_of(
            kind, totals(kind, y_nS, e.feature, F), batch=self.batch, snapshots=S, mesh=self.mesh
        )
        slope_nS = self.terms.sparsity * penalty.slope(y_nS, e.feature)
        push_nS = slope_nS * norms_nS
        push_nG = push_nS.sum(1, keepdim=True) if e.is_open.shape[1] == 1 else push_nS
        return penalty, push_nG, column_sums(slope_nS * value_nS, e.feature, F)

    def _dots(self) -> Float[Tensor, "n G"]:
        """Return <dL/dx^, decoder row> for every entry at every gate."""
        e, G = self.entries, self.gate_norms_FG.shape[1]
        offsets = e.offsets()[:-1]
        dots = [
            bag_dots(self.slope_GBE[g], self.table, self.rows(g, e.feature), offsets, e.token)
            for g in range(G)
        ]
        return torch.stack(dots, dim=1)

    def _fired(self) -> Bool[Tensor, " F"]:
        fired = torch.zeros_like(self.norms_FS[:, 0])
        fired[self.entries.feature[self.entries.is_open.any(1)]] = 1
        return self.mesh.data.sum(fired) > 0

    def _open(self) -> Float[Tensor, " S"]:
        open_G = self.entries.is_open.sum(0).to(self.norms_FS.dtype)
        open_G = self.mesh.features.sum(self.mesh.data.sum(open_G))
        return (open_G / self.batch).expand(self.norms_FS.shape[1])

    def _least(self) -> Float[Tensor, " G"]:
        e = self.entries
        u_nG = e.value[:, None] * self.gate_norms_FG[e.feature]
        u_nG = torch.where(e.is_open, u_nG, torch.inf)
        least_G = torch.cat([u_nG, torch.full_like(self.gate_norms_FG[:1], torch.inf)]).amin(0)
        for cohort in (self.mesh.data, self.mesh.features):
            least_G = torch.stack(cohort.gather(least_G)).amin(0)
        return least_G

    def _bias(self, grad_z_n: Tensor, aux: Auxiliary | None) -> Float[Tensor, " F"]:
        bias = grad_z_n.new_zeros(len(self.norms_FS)).index_add_(0, self.entries.feature, grad_z_n)
        return bias if aux is None else bias.index_add_(0, aux.feature, aux.grad_value)

    def _encoder(self, grad_z_n: Tensor, aux: Auxiliary | None) -> Callable[[slice], Tensor]:
        e, F = self.entries, len(self.norms_FS)
        parts = [(e.token, e.feature, grad_z_n)]
        if aux is not None:
            parts.append((aux.token, aux.feature, aux.grad_value))
        token, feature, grad = (torch.cat(each) for each in zip(*parts, strict=True))
        listed, x_BE = by_feature(token, feature, grad, F), self.crosscoder.encoded(self.x_BSD)
        shape = self.crosscoder.W_enc.shape[1:]
        return lambda rows: listed.sums(x_BE, rows).view(-1, *shape)

    def _decoder(
        self, grad_norm_FS: Float[Tensor, "F S"] | None, aux: Auxiliary | None
    ) -> Callable[[slice], Tensor]:
        e, (F, S) = self.entries, self.norms_FS.shape
        G = self.gate_norms_FG.shape[1]
        lists = []
        for g in range(G):
            at = e.is_open[:, g].nonzero()[:, 0] if G > 1 or self.window is not None else ...
            lists.append(by_feature(e.token[at], e.feature[at], e.value[at], F))
        extra = None if aux is None else by_feature(aux.token, aux.feature, aux.value, F)
        radial_FS = None if grad_norm_FS is None else radial(grad_norm_FS, self.norms_FS)
        W_dec, slopes = self.crosscoder.W_dec.detach(), self.slope_GBE

        def block(rows: slice) -> Float[Tensor, "block S D"]:
            parts = [listed.sums(s_BE, rows) for listed, s_BE in zip(lists, slopes, strict=True)]
            grad = parts[0] if G == 1 else torch.stack(parts, dim=1)
            grad = grad.view(-1, S, W_dec.shape[-1])
            if extra is not None and aux is not None:
                grad += extra.sums(aux.grad_rebuilt, rows).view_as(grad)
            if radial_FS is not None:
                grad.addcmul_(radial_FS[rows, :, None], W_dec[rows])
            return grad

        return block


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """JumpReLU's thresholds and the windows of their straight-through gradients."""

    threshold_F: Float[Tensor, " F"]
    width: float

    def near(self) -> Float[Tensor, "F 1"]:
        """Return the u from which entries are listed: where a window does not begin at 0, its edge.

        Elsewhere the threshold itself.
        """
        low_F = self.threshold_F - self.width / 2
        return torch.where(low_F > 0, low_F, self.threshold_F)[:, None]

    def gradient(
        self, step: SparseStep, penalty: Penalty, push_nG: Tensor, grad_code_nG: Tensor
    ) -> Float[Tensor, " F"]:
        """Return dL/dlog t = -t^2 / width times the sum of dL/dy over the window."""
        e, n_FG = step.entries, step.gate_norms_FG
        F = len(n_FG)
        from_zero_F = self.threshold_F <= self.width / 2
        u_nG = e.value[:, None] * n_FG[e.feature]
        t_n1 = self.threshold_F[e.feature][:, None]
        inside_nG = ((u_nG - t_n1).abs() < self.width / 2) & (u_nG > 0)
        beyond_nG = (u_nG > 0) & ~inside_nG
        listed_nG = torch.where(
            from_zero_F[e.feature][:, None], push_nG - grad_code_nG * beyond_nG,
            grad_code_nG * inside_nG,
        )  # fmt: skip
        sum_FG = column_sums(listed_nG, e.feature, F)
        if bool(from_zero_F.any()):
            sum_FG += self._everywhere(step, penalty) * from_zero_F[:, None]
        per_y_FG = torch.where(n_FG > 0, sum_FG / n_FG, 0)
        return -self.threshold_F.square() / self.width * per_y_FG.sum(1)

    def _everywhere(self, step: SparseStep, penalty: Penalty) -> Float[Tensor, "F G"]:
        """Return the sum of dL/df over tokens with z > 0; of listed ones without the penalty."""
        z_BF, slope_GBE = step.z_BF, step.slope_GBE
        assert z_BF is not None
        F, G = step.gate_norms_FG.shape
        slope_BE = slope_GBE.transpose(0, 1).reshape(len(z_BF), -1)
        table = step.table.view(F, -1)
        out = z_BF.new_empty(F, G)
        for start in range(0, F, BLOCK):
            rows = slice(start, min(start + BLOCK, F))
            positive = (z_BF[:, rows] > 0).to(z_BF.dtype)
            pulled = rows_product(positive.T, slope_BE.T).mul_(table[rows])
            out[rows] = pulled.view(-1, G, slope_GBE.shape[2]).sum(-1)
        positive_F = (z_BF > 0).sum(0)
        silent_F = positive_F - step.entries.feature.bincount(minlength=F)
        norm_FG = step.norms_FS.sum(1, keepdim=True) if G == 1 else step.norms_FS
        return out + (step.terms.sparsity * penalty.factor_F * silent_F)[:, None] * norm_FG
