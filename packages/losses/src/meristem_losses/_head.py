"""Logits of a chunk of rows, their statistics and the gradient, worked in place in one buffer.

- y = s (h W' + b), soft-capped y = c tanh(y / c), z = y / temperature, in this order
- dz = a (1[v = target] - p) + l p - e p (log p + H) + m / V + d pull for incoming gradients
  a, l, e, m, d of logprobs, lse, entropy, mean logit and the divergence from a teacher, whose
  gradient `pull` is known beforehand but for the factor d
- float64 stays float64; else everything behind the matrix product is float32
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_losses._teacher import Teacher, compare

CPU_BUFFER_BYTES, CUDA_BUFFER_BYTES = 64 << 20, 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What shapes the logits, and which statistics are wanted."""

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0
    entropy: bool = False
    mean_logit: bool = False
    log_collision: bool = False
    top_k_entropy: int | None = None
    is_top1: bool = False


@dataclass(slots=True)
class Chunk:
    """One chunk: unnormalised probabilities exp(z - max), and z where a later step needs it.

    `pull` is the gradient of the divergence from a teacher on z.
    """

    exps: Float[Tensor, "N V"]
    total: Float[Tensor, "N 1"]
    logits: Float[Tensor, "N V"] | None
    rows: dict[str, Tensor]
    pull: Float[Tensor, "N V"] | None = None


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which sums are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def operands(
    hidden: Float[Tensor, "B S D"], weight: Float[Tensor, "V D"]
) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "V D"]]:
    """Return both in the type of the product: autocast's where it is on, else the weight's."""
    device = hidden.device.type
    on = torch.is_autocast_enabled(device)
    kind = torch.get_autocast_dtype(device) if on else weight.dtype
    return hidden.to(kind), weight.to(kind)


def chunk_rows(
    weight: Float[Tensor, "V D"], chunk_tokens: int | None, *, taught: bool = False
) -> int:
    """Return the rows of a buffer: what was asked for, or 64 MiB (CUDA: 256 MiB) of logits.

    Beside a teacher, whose comparison takes several buffers, a buffer is half of that.
    """
    if chunk_tokens is not None:
        if chunk_tokens < 1:
            raise ValueError(f"chunk_tokens is {chunk_tokens}; it must be at least 1")
        return chunk_tokens
    budget = CUDA_BUFFER_BYTES if weight.is_cuda else CPU_BUFFER_BYTES
    budget = budget // 2 if taught else budget
    rows = budget // (wide(weight.dtype).itemsize * weight.shape[0])
    return max(64, rows // 64 * 64)


class Head:
    """An output embedding with the buffers that every chunk of rows is worked in.

    Memory fresh from the system costs more to touch than to compute on: a buffer is made once,
    for as many rows as a chunk can have, and the next chunk overwrites the last.
    """

    def __init__(
        self,
        weight: Float[Tensor, "V D"],
        bias: Float[Tensor, " V"] | None,
        options: Options,
        rows: int,
    ) -> None:
        self.weight, self.bias, self.options, self.rows = weight, bias, options, rows
        self._buffers: dict[str, Tensor] = {}
        self._teacher: Head | None = None

    def chunk(
        self,
        hidden: Float[Tensor, "N D"],
        targets: Int[Tensor, " N"],
        teacher: Teacher | None = None,
    ) -> Chunk:
        """Return a chunk, beside the teacher of the same rows; the one before is gone."""
        z = self.logits(hidden)
        value, pull = (None, None) if teacher is None else self._compared(z, teacher)
        keeps_logits = self.options.entropy or self.options.softcap is not None
        spare = self._buffer("exps", len(hidden)) if keeps_logits else None
        chunk = evaluate(z, targets, self.options, spare)
        if value is not None:
            chunk.rows["divergence"], chunk.pull = value, pull
        return chunk

    def _compared(self, z: Tensor, teacher: Teacher) -> tuple[Tensor, Tensor]:
        if self._teacher is None:
            options = Options(
                scale=teacher.scale, softcap=teacher.softcap, temperature=self.options.temperature
            )
            self._teacher = Head(teacher.weight, teacher.bias, options, self.rows)
        q = self._teacher.logits(teacher.hidden).to(z.dtype)
        one, two, three = (self._buffer(f"spare {i}", len(z)) for i in range(3))
        return compare(z, q, teacher, (one, two, three))

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Return z, in the buffer."""
        y = self._buffer("logits", len(hidden))
        if y.dtype == self.weight.dtype:
            torch.mm(hidden, self.weight.T, out=y)
        else:
            y.copy_(hidden @ self.weight.T)
        if self.bias is not None:
            y.add_(self.bias)
        options = self.options
        factor = options.scale / (options.softcap or options.temperature)
        if factor != 1.0:
            y.mul_(factor)
        if options.softcap is None:
            return y
        return y.tanh_().mul_(options.softcap / options.temperature)

    def _buffer(self, name: str, rows: int) -> Tensor:
        if name not in self._buffers:
            kind = wide(self.weight.dtype)
            self._buffers[name] = self.weight.new_empty(self.rows, len(self.weight), dtype=kind)
        return self._buffers[name][:rows]


def evaluate(
    z: Float[Tensor, "N V"],
    targets: Int[Tensor, " N"],
    options: Options,
    spare: Float[Tensor, "N V"] | None = None,
) -> Chunk:
    """Return statistics of the rows of z; its values are kept only where `spare` takes exp(z)."""
    rows: dict[str, Tensor] = {}
    target = z.gather(1, targets[:, None])
    if options.mean_logit:
        rows["mean_logit"] = z.mean(1)
    if options.top_k_entropy is not None:
        top = z.topk(min(options.top_k_entropy, z.shape[1]), dim=1).values.log_softmax(1)
        rows["top_k_entropy"] = -(top.exp() * top).sum(1)
    kept = None if spare is None else z
    peak = z.amax(1, keepdim=True)
    exps = (z.sub_(peak) if spare is None else torch.sub(z, peak, out=spare)).exp_()
    if options.is_top1:
        rows["is_top1"] = (target == peak)[:, 0]
    total = exps.sum(1, keepdim=True)
    lse = peak + total.log()
    rows["lse"], rows["logprobs"] = lse[:, 0], (target - peak - total.log())[:, 0]
    if options.entropy:
        mean = torch.linalg.vecdot(exps, z - peak) / total[:, 0]
        rows["entropy"] = (total.log()[:, 0] - mean).clamp_(min=0)
    if options.log_collision:
        rows["log_collision"] = torch.linalg.vecdot(exps, exps).log() - 2 * total.log()[:, 0]
    return Chunk(exps=exps, total=total, logits=kept, rows=rows)


def logit_gradient(
    chunk: Chunk,
    targets: Int[Tensor, " N"],
    grads: dict[str, Float[Tensor, " N"]],
    options: Options,
) -> Float[Tensor, "N V"]:
    """Return the gradient on h W' + b, in the buffer of the exponentials."""
    zero = torch.zeros_like(chunk.total[:, 0])
    a, l = grads.get("logprobs", zero), grads.get("lse", zero)
    if "entropy" in grads and chunk.logits is not None:
        e, entropy = grads["entropy"], chunk.rows["entropy"]
        row = (l - a - e * (entropy - chunk.rows["lse"]))[:, None]
        z = chunk.logits if options.softcap is None else chunk.logits.clone()
        dz = chunk.exps.mul_(z.mul_(-e[:, None]).add_(row).div_(chunk.total))
    else:
        dz = chunk.exps.mul_((l - a)[:, None] / chunk.total)
    dz.scatter_add_(1, targets[:, None], a[:, None])
    if "mean_logit" in grads:
        dz.add_(grads["mean_logit"][:, None] / dz.shape[1])
    if "divergence" in grads and chunk.pull is not None:
        dz.addcmul_(chunk.pull, grads["divergence"][:, None])
    factor = slope(chunk.logits, options)
    return dz if isinstance(factor, float) and factor == 1.0 else dz.mul_(factor)


def slope(z: Float[Tensor, "N V"] | None, options: Options) -> Tensor | float:
    """Return dz/d(h W' + b): a number, or a tensor in place of z where the soft-cap bends."""
    factor = options.scale / options.temperature
    if options.softcap is None or z is None:
        return factor
    return z.mul_(options.temperature / options.softcap).square_().neg_().add_(1).mul_(factor)
