"""Values and rewards read off the logits of a policy and its reference (2507.00018).

Q_t = beta (z_t - z_t^ref)[a_t], V_t = beta (lse_t - lse_t^ref), A_t = Q_t - V_t, and the reward
r_t = Q_t - V_{t+1} with V = 0 behind the last kept token: sum_t r_t = sum_t A_t + V_0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meristem_losses._stats import TokenStats, zeroed


def token_advantages(
    stats: TokenStats, ref_stats: TokenStats, *, beta: float = 1.0
) -> Float[Tensor, "B S"]:
    """Return A_t = beta (log p - log p_ref), DPO's implicit reward of a token."""
    return zeroed(beta * (stats.logprobs - ref_stats.logprobs.detach()), stats.mask)


def soft_values(
    stats: TokenStats, ref_stats: TokenStats, *, beta: float = 1.0
) -> Float[Tensor, "B S"]:
    """Return V_t = beta (lse - lse_ref)."""
    return zeroed(beta * (stats.lse - ref_stats.lse.detach()), stats.mask)


def q_values(
    stats: TokenStats, ref_stats: TokenStats, *, beta: float = 1.0
) -> Float[Tensor, "B S"]:
    """Return Q_t = A_t + V_t, the difference of the two logits of the token."""
    advantages = token_advantages(stats, ref_stats, beta=beta)
    return advantages + soft_values(stats, ref_stats, beta=beta)


def implicit_rewards(
    stats: TokenStats, ref_stats: TokenStats, *, beta: float = 1.0
) -> Float[Tensor, "B S"]:
    """Return r_t = Q_t - V_{t+1}; a row's sum is sum_t A_t + V_0."""
    values = soft_values(stats, ref_stats, beta=beta)
    return q_values(stats, ref_stats, beta=beta) - next_values(values, stats.mask)


def potential(
    stats: TokenStats, ref_stats: TokenStats, *, beta: float = 1.0
) -> Float[Tensor, "B S"]:
    """Return V_t - V_0 along each response."""
    values = soft_values(stats, ref_stats, beta=beta)
    first = stats.mask & (stats.mask.cumsum(1) == 1)
    start = (values * first).sum(1, keepdim=True)
    return zeroed(values - start, stats.mask)


def next_values(values: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """Return the value at the next kept token of the row, 0 behind the last and where masked."""
    length = mask.shape[1]
    places = torch.arange(length, device=mask.device).expand_as(mask).masked_fill(~mask, length)
    padded = torch.nn.functional.pad(places, (0, 1), value=length)
    following = padded.flip(1).cummin(1).values.flip(1)[:, 1:]
    found = torch.nn.functional.pad(values, (0, 1)).gather(1, following)
    return zeroed(found, mask)
