"""Ways to one loss from hidden states and a head: plain, ours, and the peers'."""

import contextlib
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, linear, logsigmoid
from torch.utils.checkpoint import checkpoint

from meristem_losses import (
    Teacher,
    dpo_loss,
    fused_loss,
    nll_loss,
    preference_pairs,
    token_jsd,
    token_logprobs,
)

Way = Callable[[Tensor, Tensor], Tensor]


def nll_ways(targets: Tensor, mask: Tensor, cce: bool) -> dict[str, Way]:
    """Return the ways to the mean negative log-likelihood of kept tokens."""
    n = int(mask.sum())
    labels = targets.masked_fill(~mask, -100)[0]

    def plain(h: Tensor, w: Tensor) -> Tensor:
        return cross_entropy(linear(h[0], w), labels)

    def one_pass(h: Tensor, w: Tensor) -> Tensor:
        def share(stats, _):
            return nll_loss(stats).sum() / n

        return fused_loss(h, w, targets, mask=mask, loss=share).value

    def recompute(h: Tensor, w: Tensor) -> Tensor:
        return nll_loss(token_logprobs(h, w, targets, mask=mask)).sum() / n

    def checkpointed(h: Tensor, w: Tensor) -> Tensor:
        def part(x, y, w):
            return cross_entropy(linear(x, w), y, reduction="sum")

        parts = zip(h[0].split(256), labels.split(256), strict=True)
        return sum(checkpoint(part, x, y, w, use_reentrant=False) for x, y in parts) / n

    ways = {
        "plain": plain, "one pass": one_pass, "recompute": recompute,
        "checkpointed chunks of 256": checkpointed,
    }  # fmt: skip
    ways |= torch_ways(labels, n) | trl_ways(targets, labels, n)
    if cce:
        from cut_cross_entropy import linear_cross_entropy as cut

        ways["CCE torch_compile"] = lambda h, w: cut(h[0], w, labels, impl="torch_compile")
    return ways


def buffer_ways(targets: Tensor) -> dict[str, Way]:
    """Return both schedules with buffers of several sizes."""
    n = targets.numel()

    def one_pass(h: Tensor, w: Tensor, rows: int) -> Tensor:
        def share(stats, _):
            return nll_loss(stats).sum() / n

        return fused_loss(h, w, targets, loss=share, chunk_tokens=rows).value

    def recompute(h: Tensor, w: Tensor, rows: int) -> Tensor:
        return nll_loss(token_logprobs(h, w, targets, chunk_tokens=rows)).sum() / n

    return {
        f"{name}, {rows} tokens": partial(way, rows=rows)
        for name, way in (("one pass", one_pass), ("recompute", recompute))
        for rows in (64, 128, 256, 512, 1024)
    }


def torch_ways(labels: Tensor, n: int) -> dict[str, Way]:
    """Return torch's own fused operation where the installed torch has one."""
    fused = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if fused is None:
        return {}
    chunked = torch.nn.LinearCrossEntropyOptions
    return {
        "torch fused, auto": lambda h, w: fused(h[0], w, labels, options=chunked()),
        "torch fused, chunk 256": lambda h, w: fused(
            h[0], w, labels, reduction="none", options=chunked(batch_chunk_size=256)
        ).sum() / n,
    }  # fmt: skip


def trl_ways(targets: Tensor, labels: Tensor, n: int) -> dict[str, Way]:
    """Return TRL's kernel where TRL is installed, called as its trainers call it on a CPU."""
    try:
        from trl.kernels import ChunkedLogProbFunction
    except ImportError:
        return {}

    def trl(h: Tensor, w: Tensor) -> Tensor:
        found = ChunkedLogProbFunction.apply(
            h[0], w, None, targets[0], 1.0, 32768, None, 1.0, ("log_probs",)
        )[0]
        return -found.masked_fill(labels == -100, 0).sum() / n

    return {"TRL kernel": trl}


def dpo_ways(targets: Tensor, mask: Tensor, reference: Tensor) -> dict[str, Way]:
    """Return the ways to the mean DPO loss; rows are all chosen, then all rejected."""
    pairs = len(targets) // 2
    ref = token_logprobs(*reference, targets, mask=mask)
    groups = torch.arange(pairs).repeat(2)

    def plain(h: Tensor, w: Tensor) -> Tensor:
        logp = linear(h, w).log_softmax(2).gather(2, targets[..., None])[..., 0]
        new, old = (logp * mask).sum(1).chunk(2), ref.logprobs.sum(1).chunk(2)
        return -logsigmoid(0.1 * (new[0] - old[0] - new[1] + old[1])).mean()

    def in_groups(h: Tensor, w: Tensor) -> Tensor:
        def share(stats, rows):
            return dpo_loss(preference_pairs(stats, ref.select(rows))).sum() / pairs

        return fused_loss(h, w, targets, mask=mask, loss=share, groups=groups).value

    def recompute(h: Tensor, w: Tensor) -> Tensor:
        stats = token_logprobs(h, w, targets, mask=mask)
        return dpo_loss(preference_pairs(stats, ref)).mean()

    ways = {"plain": plain, "one pass in pairs": in_groups, "recompute": recompute}
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss
    except ImportError:
        return ways
    module, labels = LigerFusedLinearDPOLoss(compiled=False), targets.masked_fill(~mask, -100)
    h_ref, w_ref = reference
    # Liger scores the reference itself: the same work is added to no other way
    ways["Liger, and the reference"] = lambda h, w: module(
        w, h, labels, ref_input=h_ref, ref_weight=w_ref
    )[0]
    return ways


def distillation_ways(teacher: Teacher) -> dict[str, Way]:
    """Return the ways to the mean Jensen-Shannon divergence from a teacher, beta 0.5."""
    n = teacher.hidden[..., 0].numel()
    nothing = torch.zeros(teacher.hidden.shape[:2], dtype=torch.long)

    def plain(h: Tensor, w: Tensor) -> Tensor:
        p = linear(h[0], w).log_softmax(1)
        with torch.no_grad():
            q = linear(teacher.hidden[0], teacher.weight).log_softmax(1)
        m = torch.logaddexp(p, q) - math.log(2)
        own, its = (kl_div(m, x, reduction="none", log_target=True) for x in (p, q))
        return (own + its).sum() / (2 * n)

    def one_pass(h: Tensor, w: Tensor) -> Tensor:
        def share(stats, _):
            return stats.divergence.sum() / n

        return fused_loss(h, w, nothing, teacher=teacher, loss=share).value

    def recompute(h: Tensor, w: Tensor) -> Tensor:
        return token_jsd(h, w, teacher=teacher).sum() / n

    ways = {"plain": plain, "one pass": one_pass, "recompute": recompute}
    with contextlib.suppress(ImportError):
        from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

        fixed = teacher.hidden[0], teacher.weight
        ways["TRL kernel"] = lambda h, w: (
            ChunkedDivergenceFunction.apply(h[0], w, None, *fixed, None, 0.5)[0].sum() / n
        )
    with contextlib.suppress(ImportError):
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        module = LigerFusedLinearJSDLoss(
            compiled=False, beta=0.5, weight_hard_loss=0.0, weight_soft_loss=1.0
        )
        ways["Liger"] = lambda h, w: module(
            h[0], w, teacher.hidden[0], teacher.weight, nothing[0], None, None
        )
    return ways
