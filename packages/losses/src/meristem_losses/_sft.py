"""Supervised fine-tuning losses, per token: (B, S), zeros where masked. Weights are detached."""

import math

from jaxtyping import Float
from torch import Tensor

from meristem_losses._divergences import Divergence
from meristem_losses._readouts import next_values, q_values, soft_values, token_advantages
from meristem_losses._stats import TokenStats, finite, need, positive, row_mean, same_shape, zeroed


def nll_loss(stats: TokenStats, *, smoothing: float = 0.0) -> Float[Tensor, "B S"]:
    """Return -log p; with smoothing e, (1 - e)(-log p) + e (lse - mean logit)."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}; it must be at least 0 and below 1")
    if smoothing == 0:
        return -stats.logprobs
    flat = stats.lse - need(stats, "mean_logit", "nll_loss with smoothing")
    return -(1 - smoothing) * stats.logprobs + smoothing * flat


def z_loss(stats: TokenStats) -> Float[Tensor, "B S"]:
    """Return lse squared, to be added with a coefficient such as 1e-4."""
    return stats.lse**2


def dft_loss(stats: TokenStats) -> Float[Tensor, "B S"]:
    """Return -sg(p) log p: dynamic fine-tuning (2508.05629)."""
    return -stats.logprobs.detach().exp() * stats.logprobs


def eaft_loss(stats: TokenStats, *, alpha: float = 1.0, k: int = 20) -> Float[Tensor, "B S"]:
    """Return -(H_k / ln k)^alpha log p: entropy-adaptive fine-tuning.

    H_k, in the statistics as `top_k_entropy` of the same k, is the entropy of the k most probable
    tokens after renormalising.
    """
    if not (0 <= alpha < math.inf and k >= 2):
        raise ValueError(f"alpha is {alpha}, k is {k}; they must be at least 0 and 2")
    gate = need(stats, "top_k_entropy", "eaft_loss").detach() / math.log(k)
    return -(gate**alpha) * stats.logprobs


def iw_sft_loss(
    stats: TokenStats, ref_logprobs: Float[Tensor, "B S"], *, power: float = 1.0, cap: float = 16.0
) -> Float[Tensor, "B S"]:
    """Return -w log p, w = min(exp(power mean_t(log p - log p_ref)), cap), one w a sequence."""
    ratio = _log_ratio(stats, "ref_logprobs", ref_logprobs)
    positive("cap", cap)
    finite(power=power)
    mean = row_mean(ratio, stats.mask)
    return -(power * mean).clamp(max=math.log(cap)).exp() * stats.logprobs


def iw_sft_token_loss(
    stats: TokenStats, ref_logprobs: Float[Tensor, "B S"], *, low: float = 0.2, high: float = 1.8
) -> Float[Tensor, "B S"]:
    """Return -clip(p / p_ref, low, high) log p."""
    if not 0 < low <= high:
        raise ValueError(f"low is {low}, high is {high}; they must satisfy 0 < low <= high")
    ratio = _log_ratio(stats, "ref_logprobs", ref_logprobs)
    return -ratio.clamp(math.log(low), math.log(high)).exp() * stats.logprobs


def psft_loss(
    stats: TokenStats, old_logprobs: Float[Tensor, "B S"], *, low: float = 0.2, high: float = 0.28
) -> Float[Tensor, "B S"]:
    """Return -min(ratio, clip(ratio, 1 - low, 1 + high)): PPO-clip with advantage 1.

    A minimum with advantage 1 only binds above, so the gradient ends where p / p_old > 1 + high.
    """
    if not (0 <= low < 1 and high >= 0):
        raise ValueError(f"low is {low}, high is {high}; they must be in [0, 1) and at least 0")
    same_shape(stats, "old_logprobs", old_logprobs)
    ratio = (stats.logprobs - old_logprobs.detach()).clamp(max=math.log(1 + high)).exp()
    return -zeroed(ratio, stats.mask)


def asft_loss(
    stats: TokenStats, forward_kl: Float[Tensor, "B S"], *, weight: float = 0.1
) -> Float[Tensor, "B S"]:
    """Return dynamic fine-tuning plus weight KL(p_ref || p) over the full vocabulary."""
    same_shape(stats, "forward_kl", forward_kl)
    finite(weight=weight)
    return dft_loss(stats) + weight * forward_kl


def f_sft_loss(
    stats: TokenStats, ref_stats: TokenStats, divergence: Divergence, *, beta: float = 1.0
) -> Float[Tensor, "B S"]:
    """Return the implicit-reward loss of a divergence, the value tied to the logits.

    A row is a sequence; V_0 / beta is booked on its first kept token. The last kept token counts
    as terminal: mask it where the length limit cut the response.

    Notes
    -----
    L = (V_0 - sum_t phi(r_t)) / beta with r_t = Q_t - V_{t+1}. At equal logits every divergence has
    the gradient of `nll_loss`; total variation has it always, and the reference drops out
    (2507.00018). A value that is free of the network would make every divergence plain
    fine-tuning.
    """
    _check_pair(stats, ref_stats, beta)
    values = soft_values(stats, ref_stats, beta=beta)
    rewards = q_values(stats, ref_stats, beta=beta) - next_values(values, stats.mask)
    first = stats.mask & (stats.mask.cumsum(1) == 1)
    loss = (values * first - divergence.value(rewards)) / beta
    return zeroed(loss, stats.mask)


def f_sft_sequence_loss(
    stats: TokenStats, ref_stats: TokenStats, divergence: Divergence, *, beta: float = 1.0
) -> Float[Tensor, " B"]:
    """Return (V_0 - phi(r)) / beta with r = sum_t A_t + V_0, one number a sequence."""
    _check_pair(stats, ref_stats, beta)
    first = stats.mask & (stats.mask.cumsum(1) == 1)
    start = (soft_values(stats, ref_stats, beta=beta) * first).sum(1)
    total = token_advantages(stats, ref_stats, beta=beta).sum(1) + start
    return (start - divergence.value(total)) / beta


def f_sft_zero_value_loss(
    stats: TokenStats, ref_stats: TokenStats, divergence: Divergence, *, beta: float = 1.0
) -> Float[Tensor, "B S"]:
    """Return -phi(A_t) / beta: the value fixed at 0."""
    _check_pair(stats, ref_stats, beta)
    loss = -divergence.value(token_advantages(stats, ref_stats, beta=beta)) / beta
    return zeroed(loss, stats.mask)


def _log_ratio(stats: TokenStats, name: str, other: Tensor) -> Tensor:
    same_shape(stats, name, other)
    return zeroed((stats.logprobs - other).detach(), stats.mask)


def _check_pair(stats: TokenStats, ref_stats: TokenStats, beta: float) -> None:
    positive("beta", beta)
    same_shape(stats, "ref_stats.logprobs", ref_stats.logprobs)
    if not bool((stats.mask == ref_stats.mask).all()):
        raise ValueError("ref_stats keeps other tokens than stats; score both with one mask")
