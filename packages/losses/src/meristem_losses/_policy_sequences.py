"""Policy losses with one weight a sequence: (B, S), zeros where masked, or one number each."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_losses._policy import MAX_LOG_RATIO, Advantages, clipped, fit, log_ratios
from meristem_losses._stats import TokenStats, finite_values, positive, row_mean, zeroed

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
    mean = row_mean(log_ratio, stats.mask).detach()
    ratio = (mean + log_ratio - log_ratio.detach()).exp()
    return zeroed(clipped(ratio, ratio, a, low, high, None), stats.mask)


def rloo_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    low: float = 0.2,
    high: float = 0.2,
) -> Float[Tensor, " B"]:
    """Return PPO-clip with the ratio of whole responses, the product of r_t, one number each."""
    if advantages.shape[1:] != (1,):
        raise ValueError(
            f"advantages have shape {tuple(advantages.shape)}; a response has one, pass "
            f"({len(stats.mask)}, 1)"
        )
    a = row_mean(fit(stats, advantages), stats.mask)[:, 0]  # 0 for a row without tokens
    total = log_ratios(stats, old_logprobs).sum(1)
    ratio = total.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return clipped(ratio, ratio, a, low, high, None)


def a2po_loss(
    log_ratios: Float[Tensor, " N"], advantages: Float[Tensor, " N"], *, beta: float = 1e-3
) -> Float[Tensor, " N"]:
    """Return (beta log p / p_ref - A)^2, A = r - V* with `optimal_values` (A*-PO, 2505.20686)."""
    positive("beta", beta)
    if log_ratios.shape != advantages.shape:
        raise ValueError(
            f"{len(log_ratios)} log-ratios but {len(advantages)} advantages; pass one each"
        )
    finite_values("advantages", advantages)
    finite_values("log_ratios", log_ratios)
    return (beta * log_ratios - advantages.detach()) ** 2


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
    if not (low >= 0 and high >= 0):
        raise ValueError(f"low is {low}, high is {high}; they must be at least 0")
    a, log_ratio = fit(stats, advantages), log_ratios(stats, old_logprobs)
    bounded = torch.where(a > 0, log_ratio.clamp(max=high), log_ratio.clamp(min=-low))
    return zeroed(-a * row_mean(bounded, stats.mask).exp(), stats.mask)


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
    log_w = log_ratios(stats, old_logprobs).detach().sum(1, keepdim=True)
    log_w = log_w.clamp(LOWEST_LOG_WEIGHT, HIGHEST_LOG_WEIGHT)
    up, down = (
        (rate + k * log_w - rate * log_w.exp()).exp()
        for k, rate in (positive_shape, negative_shape)
    )
    return -torch.where(a >= 0, up, down) * a * stats.logprobs
