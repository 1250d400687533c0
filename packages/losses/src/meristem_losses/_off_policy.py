"""What to do about samples that are not the policy's own: weights and masks, all detached.

Three models meet in a rollout: the sampling engine, the old policy, which is the trainer's own
scoring of the same weights, and the policy that is trained.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meristem_losses._policy import MAX_LOG_RATIO, Advantages, fit, log_ratios
from meristem_losses._stats import TokenStats, need, positive, row_mean, same_shape, zeroed


def sampler_weights(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    sampling_logprobs: Float[Tensor, "B S"],
    *,
    low: float = 0.5,
    high: float = 5.0,
    drop: bool = True,
    sequence: bool = False,
) -> Float[Tensor, "B _"]:
    """Return p_old / p_sampling at equal weights of the two, a correction for the engine.

    Multiply a loss a token by it, or pass it to `dual_importance_loss`.

    Parameters
    ----------
    low, high
        Where the ratio is trusted, `high` may be infinite.
    drop
        Whether a ratio outside becomes 0 (masked); else it is cut to the nearest bound (truncated).
    sequence
        Whether the ratio is that of the whole response, (B, 1), instead of each token, (B, S).

    Raises
    ------
    ValueError
        A non-finite log-probability at a kept token: mask tokens that the engine did not score.
    """
    if not 0 <= low < high:
        raise ValueError(f"low is {low}, high is {high}; they must satisfy 0 <= low < high")
    for name, values in (("old_logprobs", old_logprobs), ("sampling_logprobs", sampling_logprobs)):
        same_shape(stats, name, values)
    gap = zeroed((old_logprobs - sampling_logprobs).detach(), stats.mask)
    if sequence:
        gap = gap.sum(1, keepdim=True)
    ratio = gap.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if not drop:
        return ratio.clamp(low, high)
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


def off_policy_mask(
    stats: TokenStats,
    sampling_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    threshold: float,
) -> Bool[Tensor, "B _"]:
    """Return what to keep: A >= 0, or a mean of log p_sampling - log p of at most the threshold.

    Responses that were bad and have become improbable are dropped (DeepSeek-V3.2, 2512.02556
    Eq. 9). Multiply a loss a token by it; the counts of the reduction stay as they are.
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; it must be above 0, in nats a token")
    same_shape(stats, "sampling_logprobs", sampling_logprobs)
    fit(stats, advantages)
    drift = row_mean(sampling_logprobs - stats.logprobs.detach(), stats.mask)
    return (advantages >= 0) | (drift <= threshold)


def high_entropy_mask(stats: TokenStats, *, fraction: float = 0.2) -> Bool[Tensor, "B S"]:
    """Return the `fraction` of kept tokens of highest entropy, at least one (2506.01939).

    Ties at the edge are all kept. Rank over the whole update batch; needs `entropy`.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}; it must be within [0, 1]")
    entropy = need(stats, "entropy", "high_entropy_mask").detach()
    ranked = entropy[stats.mask].sort().values
    if not len(ranked):
        return stats.mask
    edge = ranked[math.ceil((1 - fraction) * (len(ranked) - 1) - 1e-9)]
    return stats.mask & (entropy >= edge)


def dual_importance_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    weights: Float[Tensor, "B _"],
) -> Float[Tensor, "B S"]:
    """Return -sg(w r) A log p: one ratio for the engine, one for the updates since (Intern-S1-Pro).

    `weights` are `sampler_weights`; advantages leave one out, reduce by `mean_of_sequence_means`:
    a token of weight 0 stays in its response's length.
    """
    if weights.shape not in (stats.mask.shape, (len(stats.mask), 1)):
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}; pass {tuple(stats.mask.shape)} or one "
            "column"
        )
    kept = weights.expand_as(stats.mask)[stats.mask]
    if not bool(((kept >= 0) & kept.isfinite()).all()):
        raise ValueError("weights hold a negative value or a non-finite one at a kept token")
    ratio = log_ratios(stats, old_logprobs).detach().exp()
    weight = zeroed(weights.detach() * ratio, stats.mask)
    return -weight * fit(stats, advantages) * stats.logprobs


def optimal_values(rewards: Float[Tensor, "P K"], *, beta: float = 0.5) -> Float[Tensor, " P"]:
    """Return V* = beta log mean exp(r / beta) of K answers of the reference to each prompt."""
    positive("beta", beta)
    if not rewards.shape[1] or not bool(torch.isfinite(rewards).all()):
        raise ValueError("rewards must hold a finite number for at least one answer a prompt")
    return beta * ((rewards / beta).logsumexp(1) - math.log(rewards.shape[1]))


def distillation_advantages(
    stats: TokenStats,
    teacher_logprobs: Float[Tensor, "B S"],
    *,
    old_logprobs: Float[Tensor, "B S"] | None = None,
    gamma: float = 0.0,
) -> Float[Tensor, "B S"]:
    """Return w (log p_teacher - log p_old) of sampled tokens, for `reinforce_loss`.

    On-policy distillation on the tokens drawn alone: the gradient is that of KL(p || p_teacher).
    Without `old_logprobs` p_old is the policy. `gamma` weighs early tokens, behind which most is
    still to come: w_t = 1 + gamma (1 - sum_{s<t} |A_s| / sum_s |A_s|), as TRL's IW-OPD.
    """
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma is {gamma}; it must be at least 0 and finite")
    same_shape(stats, "teacher_logprobs", teacher_logprobs)
    old = stats.logprobs if old_logprobs is None else old_logprobs
    same_shape(stats, "old_logprobs", old)
    gap = zeroed((teacher_logprobs - old).detach(), stats.mask)
    if gamma == 0:
        return gap
    size = gap.abs()
    before = (size.cumsum(1) - size) / size.sum(1, keepdim=True).clamp(min=1e-12)
    return (1 + gamma * (1 - before)) * gap
