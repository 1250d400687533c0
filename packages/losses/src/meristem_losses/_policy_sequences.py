"""Policy losses with one weight a sequence, per token: (B, S), zeros where masked."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_losses._policy import Advantages, clipped, fit, kept, log_ratios
from meristem_losses._stats import TokenStats, positive

LOWEST_LOG_WEIGHT, HIGHEST_LOG_WEIGHT = math.log(1e-8), 20.0  # VESPO, as its authors' code


def gspo_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Float[Tensor, "B S"]:
    """Return PPO-clip with one ratio a sequence, exp(mean_t log r_t) (2507.18071).

    Gradients are those of GSPO-token, which equal GSPO's where the advantages of a row are equal.
    """
    a, log_ratio = fit(stats, advantages), log_ratios(stats, old_logprobs)
    mean = log_ratio.sum(1, keepdim=True) / stats.mask.sum(1, keepdim=True).clamp(min=1)
    ratio = (mean.detach() + log_ratio - log_ratio.detach()).exp()
    return kept(stats, clipped(ratio, ratio, a, low, high, None))


def gmpo_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    low: float = 0.4,
    high: float = 0.4,
) -> Float[Tensor, "B S"]:
    """Return -A exp(mean_t c_t), c_t = log r_t clipped to [-low, high] (2507.20673).

    The clip is one-sided: above for A > 0, below for A < 0. Reduce by `mean_of_sequence_means`.
    """
    if low < 0 or high < 0:
        raise ValueError(f"low is {low}, high is {high}; they must be at least 0")
    a, log_ratio = fit(stats, advantages), log_ratios(stats, old_logprobs)
    bounded = torch.where(a > 0, log_ratio.clamp(max=high), log_ratio.clamp(min=-low))
    return kept(stats, -a * row_mean(stats, bounded).exp())


def vespo_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    positive_shape: tuple[float, float] = (2.0, 3.0),
    negative_shape: tuple[float, float] = (3.0, 2.0),
) -> Float[Tensor, "B S"]:
    """Return -sg(phi(w)) A log p, phi(w) = e^l w^k e^(-l w), w the product of r_t over the row.

    Shapes are (k, l) for A >= 0 and A < 0; phi(1) = 1. log w is held within [log 1e-8, 20].
    """
    for k, rate in (positive_shape, negative_shape):
        positive("k of a shape", k)
        positive("l of a shape", rate)
    a = fit(stats, advantages)
    log_w = kept(stats, log_ratios(stats, old_logprobs).detach()).sum(1, keepdim=True)
    log_w = log_w.clamp(LOWEST_LOG_WEIGHT, HIGHEST_LOG_WEIGHT)
    up, down = (
        (rate + k * log_w - rate * log_w.exp()).exp()
        for k, rate in (positive_shape, negative_shape)
    )
    return -torch.where(a >= 0, up, down) * a * stats.logprobs


def row_mean(stats: TokenStats, x: Float[Tensor, "B S"]) -> Float[Tensor, "B 1"]:
    """Return the mean of each row over its kept tokens, 0 for a row without any."""
    return kept(stats, x).sum(1, keepdim=True) / stats.mask.sum(1, keepdim=True).clamp(min=1)
