"""Divergence of two heads over the full vocabulary, one chunk of logits at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from meristem_losses._head import chunk_rows, wide
from meristem_losses._primitive import chunks


def token_forward_kl(
    hidden: Float[Tensor, "B S D"],
    weight: Float[Tensor, "V D"],
    *,
    ref_hidden: Float[Tensor, "B S R"],
    ref_weight: Float[Tensor, "V R"],
    mask: Bool[Tensor, "B S"] | None = None,
    chunk_tokens: int | None = None,
) -> Float[Tensor, "B S"]:
    """Return KL(p_ref || p) of every kept token in nats; gradient to the policy only.

    Chunks are recomputed in the backward pass; the gradient of the weight is summed over them in
    the weight's own type. For `asft_loss` and distillation.
    """
    return _divergence(_forward, hidden, weight, ref_hidden, ref_weight, mask, chunk_tokens)


def token_reverse_kl(
    hidden: Float[Tensor, "B S D"],
    weight: Float[Tensor, "V D"],
    *,
    ref_hidden: Float[Tensor, "B S R"],
    ref_weight: Float[Tensor, "V R"],
    mask: Bool[Tensor, "B S"] | None = None,
    chunk_tokens: int | None = None,
) -> Float[Tensor, "B S"]:
    """Return KL(p || p_ref) of every kept token in nats; gradient to the policy only.

    The exact regulariser of which `k1`, `k2` and `k3` are estimates; chunks as above.
    """
    return _divergence(_reverse, hidden, weight, ref_hidden, ref_weight, mask, chunk_tokens)


def _divergence(
    kind: Callable[[Tensor, Tensor], Tensor],
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    mask: Tensor | None,
    chunk_tokens: int | None,
) -> Tensor:
    if hidden.shape[:2] != ref_hidden.shape[:2] or len(weight) != len(ref_weight):
        raise ValueError(
            f"hidden {tuple(hidden.shape)} and ref_hidden {tuple(ref_hidden.shape)} must agree in "
            f"rows and positions, the heads in vocabulary ({len(weight)}, {len(ref_weight)})"
        )
    if mask is None:
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    rows, ref_rows, head = hidden[mask], ref_hidden[mask].detach(), ref_weight.detach()

    def part(rows: Tensor, weight: Tensor, ref_rows: Tensor) -> Tensor:
        wider = wide(weight.dtype)
        logp = (rows @ weight.T).to(wider).log_softmax(1)
        return kind(logp, (ref_rows @ head.T).to(wider).log_softmax(1))

    values = torch.cat(
        [
            checkpoint(part, rows[c], weight, ref_rows[c], use_reentrant=False)
            for c in chunks(len(rows), chunk_rows(weight, chunk_tokens))
        ]
    )
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the divergence is not finite; look for NaN or infinity in the inputs")
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _forward(logp: Tensor, ref: Tensor) -> Tensor:
    return (ref.exp() * (ref - logp)).sum(1)


def _reverse(logp: Tensor, ref: Tensor) -> Tensor:
    return (logp.exp() * (logp - ref)).sum(1)
