"""The two schedules that give statistics token by token, and what they share with one pass.

- recompute: logits of one chunk at a time, again in the backward pass; 4 matrix products
- frozen head: d = W_y - sum_v p_v W_v formed in the forward pass; 2 products, none in the backward
  pass; the difference is taken before the product, so that confident tokens keep their gradient
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from meristem_losses._head import Head, Options, logit_gradient, slope, wide
from meristem_losses._teacher import Teacher

DIFFERENTIABLE = ("logprobs", "lse", "entropy", "mean_logit", "divergence")


def row_names(options: Options, teacher: Teacher | None = None) -> list[str]:
    """Return the names of the statistics, in the order the kernels return them."""
    names = ["logprobs", "lse"]
    names += ["entropy"] * options.entropy + ["mean_logit"] * options.mean_logit
    names += ["log_collision"] * options.log_collision
    names += ["top_k_entropy"] * (options.top_k_entropy is not None)
    return names + ["is_top1"] * options.is_top1 + ["divergence"] * (teacher is not None)


def refuse_non_finite(rows: dict[str, Tensor]) -> None:
    """Refuse statistics that a NaN or an infinity in the inputs has spoiled."""
    for name in ("logprobs", "lse", "divergence"):
        if name not in rows:
            continue
        bad = int((~torch.isfinite(rows[name])).sum())
        if bad:
            raise ValueError(
                f"{name} is not finite at {bad} kept tokens; look for NaN or infinity in hidden, "
                "weight, bias or logits (of policy or teacher), or mask those tokens"
            )


def refuse_second_derivative() -> None:
    """Say which function has second derivatives; gradients are recorded only for those."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "fused statistics have first derivatives only; use token_logprobs_from_logits"
        )


def chunks(n: int, size: int) -> list[slice]:
    """Return slices that cover n rows; one empty slice for none."""
    return [slice(start, min(start + size, n)) for start in range(0, max(n, 1), size)]


def concatenate(parts: Sequence[dict[str, Tensor]], names: Sequence[str]) -> dict[str, Tensor]:
    """Return the chunks' statistics as one, in the order of the names."""
    return {name: torch.cat([part[name] for part in parts]) for name in names}


class Accumulator:
    """Gradients of the head, summed over chunks in the wide type, rounded once."""

    def __init__(self, weight: Tensor, bias: Tensor | None, needs: Sequence[bool]) -> None:
        kind = wide(weight.dtype)
        self.hidden, self.weight, self.bias = needs
        self.dw = torch.zeros_like(weight, dtype=kind) if self.weight else None
        self.db = torch.zeros_like(bias, dtype=kind) if self.bias and bias is not None else None

    def add(self, dy: Tensor, hidden: Tensor, weight: Tensor, dh: Tensor | None) -> None:
        """Add one chunk's share, and write its gradient on the hidden states into `dh`."""
        if self.db is not None:
            self.db += dy.sum(0)
        if self.dw is not None:
            self.dw.addmm_(dy.T, hidden.to(dy.dtype))
        if dh is not None:
            torch.mm(dy.to(weight.dtype), weight, out=dh)


class Recompute(torch.autograd.Function):
    """Logits of a chunk at a time, forward and backward; gradients in all differentiable ones."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        options: Options,
        size: int,
        teacher: Teacher | None,
    ) -> tuple[Tensor, ...]:
        head = Head(weight, bias, options, min(size, len(hidden)))
        parts = [
            head.chunk(hidden[c], targets[c], teacher and teacher.rows(c)).rows
            for c in chunks(len(hidden), size)
        ]
        rows = concatenate(parts, row_names(options, teacher))
        refuse_non_finite(rows)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.options, ctx.size, ctx.teacher = options, size, teacher
        ctx.mark_non_differentiable(*(v for k, v in rows.items() if k not in DIFFERENTIABLE))
        return tuple(rows.values())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        hidden, weight, bias, targets = ctx.saved_tensors
        teacher = ctx.teacher
        named = dict(zip(row_names(ctx.options, teacher), grads, strict=True))
        sums = Accumulator(weight, bias, ctx.needs_input_grad[:3])
        head = Head(weight, bias, ctx.options, min(ctx.size, len(hidden)))
        dh = torch.empty_like(hidden) if sums.hidden else None
        for c in chunks(len(hidden), ctx.size):
            chunk = head.chunk(hidden[c], targets[c], teacher and teacher.rows(c))
            share = {k: g[c] for k, g in named.items() if k in DIFFERENTIABLE}
            dy = logit_gradient(chunk, targets[c], share, ctx.options)
            sums.add(dy, hidden[c], weight, None if dh is None else dh[c])
        dw = None if sums.dw is None else sums.dw.to(weight.dtype)
        db = None if sums.db is None else sums.db.to(bias.dtype)
        return dh, dw, db, *[None] * 4


class FrozenHead(torch.autograd.Function):
    """`logprobs` and `lse` of a head without a gradient, whose rows are summed at once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        options: Options,
        size: int,
    ) -> tuple[Tensor, ...]:
        head = Head(weight, bias, options, min(size, len(hidden)))
        parts, target_rows, differences = [], [], []
        for c in chunks(len(hidden), size):
            chunk = head.chunk(hidden[c], targets[c])
            parts.append(chunk.rows)
            if not ctx.needs_input_grad[0]:
                continue
            dz = slope(chunk.logits, options)
            at_target = dz.gather(1, targets[c][:, None]) if isinstance(dz, Tensor) else dz
            target_rows.append((weight[targets[c]] * at_target).to(hidden.dtype))
            q = chunk.exps.div_(-chunk.total)
            q.scatter_add_(1, targets[c][:, None], torch.ones_like(chunk.total))
            differences.append(q.mul_(dz).to(weight.dtype) @ weight)
        rows = concatenate(parts, row_names(options))
        refuse_non_finite(rows)
        none = [hidden[:0]]
        ctx.save_for_backward(torch.cat(target_rows or none), torch.cat(differences or none))
        ctx.mark_non_differentiable(*(v for k, v in rows.items() if k not in DIFFERENTIABLE))
        return tuple(rows.values())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        target, difference = ctx.saved_tensors
        a, l = grads[0][:, None], grads[1][:, None]
        dh = a * difference + l * (target - difference)
        return dh.to(difference.dtype), None, None, None, None, None
