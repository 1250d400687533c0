"""Policy losses, per token: (B, S), zeros where masked; reduce with one of the three reductions.

r_t = p / p_old of a token, evaluated as exp of a difference held within +-20; A_t the advantage,
(B, S) or (B, 1). Weights, ratios in weights and covariances are detached.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_losses._stats import TokenStats, finite, positive, same_shape, zeroed

MAX_LOG_RATIO = 20.0

Advantages = Float[Tensor, "B _"]


def reinforce_loss(stats: TokenStats, advantages: Advantages) -> Float[Tensor, "B S"]:
    """Return -A log p."""
    return -fit(stats, advantages) * stats.logprobs


def ppo_clip_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual_clip: float | None = None,
    delta: float | None = None,
) -> Float[Tensor, "B S"]:
    """Return -min(r A, clip(r, 1 - low, 1 + high) A); GRPO, Dr.GRPO and DAPO (high 0.28).

    `dual_clip` c > 1 bounds the loss of A < 0 by -c A. `delta` > 1 + high is two-sided clipping:
    r of the first term is at most delta (INTELLECT-2), the same bound, with no gradient beyond it.
    """
    a, ratio = fit(stats, advantages), log_ratios(stats, old_logprobs).exp()
    if delta is not None and not delta > 1 + high:
        raise ValueError(f"delta is {delta}; it must be above 1 + high = {1 + high}")
    first = ratio if delta is None else ratio.clamp(max=delta)
    return zeroed(clipped(first, ratio, a, low, high, dual_clip), stats.mask)


def cispo_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    cap: float = 5.0,
) -> Float[Tensor, "B S"]:
    """Return -sg(min(r, cap)) A log p (2506.13585); `cap` is absolute, not 1 + epsilon."""
    positive("cap", cap)
    weight = log_ratios(stats, old_logprobs).detach().exp().clamp(max=cap)
    return -weight * fit(stats, advantages) * stats.logprobs


def sapo_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
) -> Float[Tensor, "B S"]:
    """Return -(4 / tau) s(tau (r - 1)) A, the soft gate of SAPO; tau by the sign of A."""
    positive("tau_positive", tau_positive)
    positive("tau_negative", tau_negative)
    a, ratio = fit(stats, advantages), log_ratios(stats, old_logprobs).exp()
    tau = torch.full_like(a, tau_negative).masked_fill(a > 0, tau_positive)  # in the type of A
    return zeroed(-(4 / tau) * (tau * (ratio - 1)).sigmoid() * a, stats.mask)


def oreal_loss(
    stats: TokenStats,
    ref_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    positive_weight: float = 1.0,
    negative_weight: float = 0.5,
    kl_weight: float = 0.01,
) -> Float[Tensor, "B S"]:
    """Return OREAL's terms, scaled so that `mean_over_tokens` gives the loss (2502.06781).

    Tokens with A > 0: A NLL over their number; tokens with A < 0: -r A over theirs, r = p / sg(p);
    all: k3 to the reference. The counts are this batch's: pass the whole update batch.
    """
    a = fit(stats, advantages)
    up, down = stats.mask & (a > 0), stats.mask & (a < 0)
    finite(positive_weight=positive_weight, negative_weight=negative_weight, kl_weight=kl_weight)
    every = stats.mask.sum().to(stats.logprobs.dtype)
    imitate = -a * stats.logprobs * (positive_weight * every / up.sum().clamp(min=1))
    ratio = (stats.logprobs - stats.logprobs.detach()).exp()
    avoid = -ratio * a * (negative_weight * every / down.sum().clamp(min=1))
    parts = torch.where(up, imitate, torch.where(down, avoid, 0.0))
    return zeroed(parts + kl_weight * k3(stats, ref_logprobs), stats.mask)


def covariances(stats: TokenStats, advantages: Advantages) -> Float[Tensor, "B S"]:
    """Return (A - mean A)(log p - mean log p) over kept tokens, detached, 0 where masked."""
    a, logp, n = fit(stats, advantages), stats.logprobs.detach(), stats.mask.sum().clamp(min=1)
    a_mean, p_mean = a.sum() / n, logp.sum() / n
    return zeroed((a - a_mean) * (logp - p_mean), stats.mask)


def kl_cov_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    top_frac: float = 2e-3,
    weight: float = 1.0,
    penalty: Callable[[Tensor], Tensor] = torch.abs,
) -> Float[Tensor, "B S"]:
    """Return -r A, plus `kl_cov_penalty` on the tokens of largest covariance (2505.22617).

    The authors' 0.2 percent is `top_frac` 2e-3; Intern-S1 states 0.2 with weight 0.01.
    """
    ratio = log_ratios(stats, old_logprobs).exp()
    loss = zeroed(-ratio * fit(stats, advantages), stats.mask)
    return loss + kl_cov_penalty(
        stats, old_logprobs, advantages, top_frac=top_frac, weight=weight, penalty=penalty
    )


def kl_cov_penalty(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    top_frac: float = 2e-3,
    weight: float = 1.0,
    penalty: Callable[[Tensor], Tensor] = torch.abs,
) -> Float[Tensor, "B S"]:
    """Return weight times a divergence from p_old on the `top_frac` of largest covariance, else 0.

    To be added to any policy loss. Rank over the whole update batch.

    Parameters
    ----------
    top_frac
        Fraction of the kept tokens; at least one is taken, none at 0.
    penalty
        Of d = log p - log p_old: |d| as in the authors' code, or `old_k1`, `old_k2`, `old_k3`. But
        for `old_k1` their gradient is 0 at p = p_old: in the first step after sampling they do
        nothing.
    """
    if not 0 <= top_frac <= 1:
        raise ValueError(f"top_frac is {top_frac}; it must be within [0, 1], a fraction")
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight is {weight}; it must be at least 0 and finite")
    d, n = log_ratios(stats, old_logprobs), int(stats.mask.sum())
    ranked = covariances(stats, advantages).masked_fill(~stats.mask, -torch.inf).flatten()
    top = ranked.topk(max(1, int(top_frac * n)) if top_frac and n else 0).indices
    chosen = torch.zeros_like(ranked, dtype=torch.bool).scatter(0, top, True).view_as(d)
    return weight * torch.where(chosen, penalty(torch.where(chosen, d, 0.0)), 0.0)


def old_k1(log_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return -d, d = log p - log p_old: unbiased for KL(p_old || p) on tokens of p_old.

    Its gradient is that of `nll_loss`, unbiased too.
    """
    return -log_ratio


def old_k2(log_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return d^2 / 2: biased for KL(p_old || p), equal to it to second order."""
    return log_ratio**2 / 2


def old_k3(log_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return exp(d) - 1 - d: unbiased for KL(p_old || p) in value and gradient, never negative."""
    return log_ratio.expm1() - log_ratio


def clip_cov_loss(
    stats: TokenStats,
    old_logprobs: Float[Tensor, "B S"],
    advantages: Advantages,
    *,
    generator: torch.Generator,
    fraction: float = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
    clip: float = 0.2,
) -> Float[Tensor, "B S"]:
    """Return PPO-clip without `fraction` of the tokens, drawn where low < covariance < high."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}; it must be within [0, 1]")
    if not low < high:
        raise ValueError(f"low is {low}, high is {high}; they must satisfy low < high")
    loss = ppo_clip_loss(stats, old_logprobs, advantages, low=clip, high=clip)
    a, ratio = fit(stats, advantages), log_ratios(stats, old_logprobs).exp()
    cov = covariances(stats, advantages)
    clipped = ((a > 0) & (ratio > 1 + clip)) | ((a < 0) & (ratio < 1 - clip))
    pool = (stats.mask & ~clipped & (cov > low) & (cov < high)).flatten().nonzero()[:, 0]
    n = min(len(pool), max(1, int(fraction * int(stats.mask.sum())))) if fraction else 0
    order = torch.randperm(len(pool), generator=generator, device=generator.device)
    drop = torch.zeros_like(stats.mask).flatten().scatter(0, pool[order[:n].to(pool.device)], True)
    return loss.masked_fill(drop.view_as(loss), 0.0)


def k1(stats: TokenStats, ref_logprobs: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """Return log p - log p_ref: unbiased value of KL(p || p_ref), zero-mean gradient on-policy."""
    return log_ratios(stats, ref_logprobs)


def k2(stats: TokenStats, ref_logprobs: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """Return half the squared log-ratio: biased value, the unbiased gradient on-policy."""
    return log_ratios(stats, ref_logprobs) ** 2 / 2


def k3(
    stats: TokenStats,
    ref_logprobs: Float[Tensor, "B S"],
    *,
    unbiased: bool = False,
    old_logprobs: Float[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B S"]:
    """Return exp(-d) + d - 1, d = log p - log p_ref: unbiased value, biased gradient.

    `unbiased` keeps the value and takes the gradient of `k2`. With `old_logprobs` the estimate is
    multiplied by p / p_old, whose gradient counts (DeepSeek-V3.2, TRL's default): value and
    gradient are unbiased for tokens sampled from p_old.
    """
    d = log_ratios(stats, ref_logprobs)
    value = (-d).expm1() + d
    if old_logprobs is not None:
        if unbiased:
            raise ValueError("unbiased and old_logprobs are two corrections; choose one")
        return zeroed(log_ratios(stats, old_logprobs).exp() * value, stats.mask)
    if not unbiased:
        return value
    straight = d**2 / 2
    return value.detach() + straight - straight.detach()


def clipped(
    first: Tensor, ratio: Tensor, a: Tensor, low: float, high: float, dual: float | None
) -> Tensor:
    """Return -min(first A, clip(ratio, 1 - low, 1 + high) A), bounded by -dual A for A < 0."""
    if not 0 <= low < 1 or not high >= 0:
        raise ValueError(f"low is {low}, high is {high}; they must be in [0, 1) and at least 0")
    loss = torch.maximum(-first * a, -ratio.clamp(1 - low, 1 + high) * a)
    if dual is None:
        return loss
    if not dual > 1:
        raise ValueError(f"dual_clip is {dual}; it must be above 1")
    return torch.where(a < 0, torch.minimum(loss, -dual * a), loss)


def log_ratios(stats: TokenStats, other: Tensor) -> Float[Tensor, "B S"]:
    """Return log p - log p_other within +-20, 0 where masked."""
    same_shape(stats, "the other model's logprobs", other)
    return zeroed(stats.logprobs - other.detach(), stats.mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def fit(stats: TokenStats, advantages: Tensor) -> Float[Tensor, "B S"]:
    """Return detached advantages of every token, 0 where masked."""
    rows, length = stats.mask.shape
    if advantages.shape not in ((rows, length), (rows, 1)):
        raise ValueError(
            f"advantages have shape {tuple(advantages.shape)}; pass ({rows}, {length}) or "
            f"({rows}, 1)"
        )
    wide = advantages.detach().expand(rows, length)
    if not bool(torch.isfinite(wide[stats.mask]).all()):
        raise ValueError("advantages hold a non-finite value at a kept token; mask that token")
    return zeroed(wide, stats.mask)
