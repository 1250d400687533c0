"""Loss and gradients in one pass, for losses that are a sum over independent groups of rows.

- a group's logits stay until its share of the loss and d loss / d statistics are known
- then the gradients on hidden states and head are formed at once: 3 matrix products, as the plain
  path, but in the memory of one buffer
- a block that outgrows the buffer goes through the recomputing primitive; the result is the same
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meristem_losses._head import Chunk, Head, Options, chunk_rows, logit_gradient, operands
from meristem_losses._primitive import check, lesson_of, scatter
from meristem_losses._schedules import (
    DIFFERENTIABLE,
    Accumulator,
    chunks,
    concatenate,
    refuse_non_finite,
    refuse_second_derivative,
    row_names,
)
from meristem_losses._stats import TokenStats
from meristem_losses._teacher import Teacher

GROUP_BUFFERS = 2  # a group may take two buffers before its logits are made twice
BlockLoss = Callable[[TokenStats, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedLoss:
    """The value, differentiable once towards hidden states, weight and bias."""

    value: Float[Tensor, ""]
    logprobs: Float[Tensor, "B S"]  # detached


def fused_loss(
    hidden: Float[Tensor, "B S D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "B S"],
    *,
    loss: BlockLoss,
    mask: Bool[Tensor, "B S"] | None = None,
    groups: Int[Tensor, " B"] | None = None,
    bias: Float[Tensor, " V"] | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    mean_logit: bool = False,
    log_collision: bool = False,
    top_k_entropy: int | None = None,
    is_top1: bool = False,
    teacher: Teacher | None = None,
    chunk_tokens: int | None = None,
) -> FusedLoss:
    """Return a separable loss whose gradients are formed in the forward pass.

    Parameters
    ----------
    loss
        Called with the statistics of a block and an index, returns the block's share of the
        scalar: divide by a global count, not by the block's. Without `groups` a block is (1, n)
        kept tokens and the index their places in (B S,), so `reference.flatten()[index]` fits;
        with groups it is whole rows and the index their numbers in (B,), in ascending order.
    groups
        Labels of rows that belong together, for example `arange(n).repeat(2)` for pairs whose
        rows are all chosen, then all rejected. Without: every token stands alone.

    Notes
    -----
    All other parameters are those of `token_logprobs`. The gradient of the weight, (V, D), is held
    from the forward to the backward pass, of which there can be one. A group whose logits outgrow
    two buffers has them computed twice.
    """
    options = Options(
        scale=scale,
        softcap=softcap,
        temperature=temperature,
        entropy=entropy,
        mean_logit=mean_logit,
        log_collision=log_collision,
        top_k_entropy=top_k_entropy,
        is_top1=is_top1,
    )
    mask = check(hidden, weight, targets, mask, bias, options)
    lesson = lesson_of(teacher, mask, len(weight))
    hidden, weight = operands(hidden, weight)
    size = chunk_rows(weight, chunk_tokens, taught=teacher is not None)
    blocks = _token_blocks(mask, size) if groups is None else _row_blocks(mask, groups, size)
    largest = size if groups is None or chunk_tokens is not None else GROUP_BUFFERS * size
    flat = None if lesson is None else lesson.rows(torch.ones_like(mask))
    value, logprobs = _OnePass.apply(
        hidden.flatten(0, 1), weight, bias, targets.flatten(), blocks, loss, options, largest, flat
    )
    return FusedLoss(value=value, logprobs=logprobs.view(mask.shape))


@dataclass(frozen=True, slots=True)
class _Block:
    mask: Tensor  # (b, s) of the block
    places: Tensor  # (n,) places of its kept tokens in (B S,)
    index: Tensor  # what the loss is given


def _token_blocks(mask: Tensor, size: int) -> list[_Block]:
    places = mask.flatten().nonzero()[:, 0]
    return [_Block(torch.ones_like(p, dtype=torch.bool)[None], p, p) for p in places.split(size)]


def _row_blocks(mask: Tensor, groups: Tensor, size: int) -> list[_Block]:
    if groups.shape != mask.shape[:1]:
        raise ValueError(f"groups has shape {tuple(groups.shape)}, not ({len(mask)},): one a row")
    every = torch.arange(mask.numel(), device=mask.device).view(mask.shape)
    length = mask.sum(1)
    packed: list[list[Tensor]] = []
    filled = 0
    for label in groups.unique():
        rows = (groups == label).nonzero()[:, 0]
        tokens = int(length[rows].sum())
        if not packed or (filled > 0 and filled + tokens > size):
            packed.append([])
            filled = 0
        packed[-1].append(rows)
        filled += tokens
    indices = [torch.cat(rows).sort().values for rows in packed]
    return [_Block(mask[i], every[i][mask[i]], i) for i in indices]


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        blocks: list[_Block],
        loss: BlockLoss,
        options: Options,
        size: int,
        teacher: Teacher | None,
    ) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[:3]
        sums = Accumulator(weight, bias, needs)
        dh = torch.zeros_like(hidden) if sums.hidden else None
        largest = max((len(block.places) for block in blocks), default=0)
        head = Head(weight, bias, options, min(size, largest))
        total: Tensor | None = None
        every: Tensor | None = None
        for block in blocks:
            rows, labels = hidden[block.places], targets[block.places]
            lesson = teacher and teacher.rows(block.places)
            stats, share, grads, chunk = _loss_of(block, rows, labels, lesson, head, loss, size)
            total = share if total is None else total + share
            every = share.new_zeros(len(hidden)) if every is None else every
            every[block.places] = stats["logprobs"].to(every.dtype)
            back = None if dh is None else torch.empty_like(rows)
            for c in chunks(len(rows), size) if any(needs) else ():
                part = chunk or head.chunk(rows[c], labels[c], lesson and lesson.rows(c))
                some = {k: g[c] for k, g in grads.items()}
                dy = logit_gradient(part, labels[c], some, options)
                sums.add(dy, rows[c], weight, None if back is None else back[c])
            if dh is not None and back is not None:
                dh[block.places] = back
        ctx.gradients = dh, sums.dw, sums.db
        ctx.kinds = weight.dtype, None if bias is None else bias.dtype
        value = hidden.new_zeros(()) if total is None else total
        logprobs = hidden.new_zeros(len(hidden)) if every is None else every
        ctx.mark_non_differentiable(logprobs)
        return value, logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        if ctx.gradients is None:
            raise RuntimeError("fused_loss has one backward pass; use token_logprobs for more")
        (dh, dw, db), (kind, bias_kind), g = ctx.gradients, ctx.kinds, grads[0]
        ctx.gradients = None  # scaled in place, and given away
        return (
            None if dh is None else dh.mul_(g),
            None if dw is None else dw.mul_(g).to(kind),
            None if db is None else db.mul_(g).to(bias_kind),
            *[None] * 6,
        )


def _loss_of(
    block: _Block,
    hidden: Tensor,
    targets: Tensor,
    teacher: Teacher | None,
    head: Head,
    loss: BlockLoss,
    size: int,
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor], Chunk | None]:
    """Return a block's statistics, loss, gradients on them, and its chunk where it fits."""
    parts, chunk = [], None
    for c in chunks(len(hidden), size):
        chunk = head.chunk(hidden[c], targets[c], teacher and teacher.rows(c))
        parts.append(chunk.rows)
    rows = concatenate(parts, row_names(head.options, teacher))
    refuse_non_finite(rows)
    leaves = {k: v.detach().requires_grad_(k in DIFFERENTIABLE) for k, v in rows.items()}
    with torch.enable_grad():
        share = loss(scatter(leaves, block.mask), block.index)
    if share.shape != ():
        raise ValueError(f"loss returned shape {tuple(share.shape)}; return one number a block")
    names = [k for k in DIFFERENTIABLE if k in leaves]
    found: tuple[Tensor | None, ...] = (None,) * len(names)
    if share.requires_grad:
        found = torch.autograd.grad(share, [leaves[k] for k in names], allow_unused=True)
    grads = {k: g for k, g in zip(names, found, strict=True) if g is not None}
    return rows, share.detach(), grads, chunk if len(hidden) <= size else None
