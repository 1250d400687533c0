"""Divergence of two heads over the full vocabulary, one chunk of logits at a time."""

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
    if hidden.shape[:2] != ref_hidden.shape[:2] or len(weight) != len(ref_weight):
        raise ValueError(
            f"hidden {tuple(hidden.shape)} and ref_hidden {tuple(ref_hidden.shape)} must agree in "
            f"rows and positions, the heads in vocabulary ({len(weight)}, {len(ref_weight)})"
        )
    if mask is None:
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    rows, ref_rows, head = hidden[mask], ref_hidden[mask].detach(), ref_weight.detach()
    parts = [
        checkpoint(_kl, rows[c], weight, ref_rows[c], head, use_reentrant=False)
        for c in chunks(len(rows), chunk_rows(weight, chunk_tokens))
    ]
    values = torch.cat(parts)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the divergence is not finite; look for NaN or infinity in the inputs")
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def _kl(hidden: Tensor, weight: Tensor, ref_hidden: Tensor, ref_weight: Tensor) -> Tensor:
    kind = wide(weight.dtype)
    logp = (hidden @ weight.T).to(kind).log_softmax(1)
    ref = (ref_hidden @ ref_weight.T).to(kind).log_softmax(1)
    return (ref.exp() * (ref - logp)).sum(1)
