"""Divergence of two heads over the full vocabulary, for distillation and exact regularisers."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meristem_losses._primitive import token_logprobs
from meristem_losses._stats import need
from meristem_losses._teacher import Teacher


def token_jsd(
    hidden: Float[Tensor, "B S D"],
    weight: Float[Tensor, "V D"],
    *,
    teacher: Teacher,
    mask: Bool[Tensor, "B S"] | None = None,
    bias: Float[Tensor, " V"] | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> Float[Tensor, "B S"]:
    """Return the generalised Jensen-Shannon divergence from a teacher at every kept token, in nats.

    The loss of generalised knowledge distillation (2306.13649 Eq. 1) and, on the policy's likeliest
    tokens, of self-distillation; `Teacher` says which divergence. It is `token_logprobs` with a
    teacher, which gives everything else in the same pass; `fused_loss` needs one product less.
    """
    targets = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    stats = token_logprobs(
        hidden,
        weight,
        targets,
        mask=mask,
        bias=bias,
        scale=scale,
        softcap=softcap,
        temperature=temperature,
        teacher=teacher,
        chunk_tokens=chunk_tokens,
    )
    return need(stats, "divergence", "token_jsd")


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

    For `asft_loss` and distillation. Heads with a bias, a scale or a soft-cap: `token_jsd` with
    beta 0.
    """
    teacher = Teacher(hidden=ref_hidden, weight=ref_weight, beta=0.0)
    return token_jsd(hidden, weight, teacher=teacher, mask=mask, chunk_tokens=chunk_tokens)


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

    The exact regulariser of which `k1`, `k2` and `k3` are estimates; heads as above, beta 1.
    """
    teacher = Teacher(hidden=ref_hidden, weight=ref_weight, beta=1.0)
    return token_jsd(hidden, weight, teacher=teacher, mask=mask, chunk_tokens=chunk_tokens)
