"""Logits of a chunk of rows, their statistics and the gradient, worked in place in one buffer.

- y = s (h W' + b), soft-capped y = c tanh(y / c), z = y / temperature, in this order
- dz = a (1[v = target] - p) + l p - e p (log p + H) + m / V for incoming gradients
  a, l, e, m of logprobs, lse, entropy and mean logit
- float64 stays float64; else everything behind the matrix product is float32
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

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


@dataclass(slots=True)
class Chunk:
    """One chunk: unnormalised probabilities exp(z - max), and z where a later step needs it."""

    exps: Float[Tensor, "N V"]
    total: Float[Tensor, "N 1"]
    logits: Float[Tensor, "N V"] | None
    rows: dict[str, Float[Tensor, " N"]]


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which sums are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def chunk_rows(weight: Float[Tensor, "V D"], chunk_tokens: int | None) -> int:
    """Return the rows of a buffer: what was asked for, or 64 MiB (CUDA: 256 MiB) of logits."""
    if chunk_tokens is not None:
        if chunk_tokens < 1:
            raise ValueError(f"chunk_tokens is {chunk_tokens}; it must be at least 1")
        return chunk_tokens
    budget = CUDA_BUFFER_BYTES if weight.is_cuda else CPU_BUFFER_BYTES
    rows = budget // (wide(weight.dtype).itemsize * weight.shape[0])
    return max(64, rows // 64 * 64)


def head_logits(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    options: Options,
) -> Float[Tensor, "N V"]:
    """Return z; differentiable, and in place on its own product where nothing is recorded."""
    y = (hidden @ weight.T).to(wide(weight.dtype))
    if bias is not None:
        y = y + bias if y.requires_grad else y.add_(bias)
    factor = options.scale / (options.softcap or options.temperature)
    if factor != 1.0:
        y = y * factor if y.requires_grad else y.mul_(factor)
    if options.softcap is None:
        return y
    capped = y.tanh() if y.requires_grad else y.tanh_()
    return capped * (options.softcap / options.temperature)


def evaluate(z: Float[Tensor, "N V"], targets: Int[Tensor, " N"], options: Options) -> Chunk:
    """Return statistics of the rows of z; consumes z unless its values are needed again."""
    rows: dict[str, Tensor] = {}
    target = z.gather(1, targets[:, None])
    if options.mean_logit:
        rows["mean_logit"] = z.mean(1)
    if options.top_k_entropy is not None:
        top = z.topk(min(options.top_k_entropy, z.shape[1]), dim=1).values.log_softmax(1)
        rows["top_k_entropy"] = -(top.exp() * top).sum(1)
    kept = z if options.entropy or options.softcap is not None else None
    peak = z.amax(1, keepdim=True)
    exps = (z - peak).exp_() if kept is not None else z.sub_(peak).exp_()
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
        dz = chunk.exps.mul_((row - e[:, None] * chunk.logits) / chunk.total)
    else:
        dz = chunk.exps.mul_((l - a)[:, None] / chunk.total)
    dz.scatter_add_(1, targets[:, None], a[:, None])
    if "mean_logit" in grads:
        dz.add_(grads["mean_logit"][:, None] / dz.shape[1])
    return dz.mul_(slope(chunk.logits, options))


def slope(z: Float[Tensor, "N V"] | None, options: Options) -> Tensor | float:
    """Return dz/d(h W' + b): a number, or a tensor where the soft-cap bends."""
    factor = options.scale / options.temperature
    if options.softcap is None or z is None:
        return factor
    return (1 - (z * (options.temperature / options.softcap)) ** 2).mul_(factor)
