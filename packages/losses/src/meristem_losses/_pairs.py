"""What preference losses are given: sums of log-probabilities of pairs, and of single responses."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from meristem_losses._divergences import Divergence
from meristem_losses._stats import TokenStats, finite_values, need, row_mean, same_shape, zeroed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Sequence log-probabilities of N pairs; reference sums are None for reference-free losses."""

    chosen: Float[Tensor, " N"]
    rejected: Float[Tensor, " N"]
    chosen_ref: Float[Tensor, " N"] | None = None
    rejected_ref: Float[Tensor, " N"] | None = None
    chosen_tokens: Float[Tensor, " N"]
    rejected_tokens: Float[Tensor, " N"]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                finite_values(field.name, value)

    def log_ratios(self) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """Return log p - log p_ref of the chosen and of the rejected responses."""
        if self.chosen_ref is None or self.rejected_ref is None:
            raise ValueError("this loss needs a reference; give ref_stats to preference_pairs")
        return self.chosen - self.chosen_ref, self.rejected - self.rejected_ref

    def reference_free(self) -> "Pairs":
        """Return the pairs with a reference of zeros: `hinge_loss` and `ipo_loss` in CPO's form."""
        zero = torch.zeros_like(self.chosen)
        return replace(self, chosen_ref=zero, rejected_ref=zero)

    def difference(self, divergence: Divergence) -> Float[Tensor, " N"]:
        """Return s(l_w) - s(l_l) with the link of the divergence."""
        chosen, rejected = self.log_ratios()
        return divergence.reward(chosen) - divergence.reward(rejected)

    def averages(self) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """Return log-probabilities per token; an empty response gives 0."""
        return self.chosen / lengths(self.chosen_tokens), self.rejected / lengths(
            self.rejected_tokens
        )


def lengths(tokens: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return token counts that can be divided by."""
    return tokens.clamp(min=1)


def smoothed(x: Float[Tensor, " N"], smoothing: float) -> Float[Tensor, " N"]:
    """Return -(1 - e) log s(x) - e log s(-x), the cross-entropy to a label of 1 - e."""
    if not 0 <= smoothing <= 0.5:
        raise ValueError(f"smoothing is {smoothing}; it must be within [0, 0.5]")
    return -(1 - smoothing) * logsigmoid(x) - smoothing * logsigmoid(-x)


def preference_pairs(
    stats: TokenStats, ref_stats: TokenStats | None = None, *, tail_weight: float = 1.0
) -> Pairs:
    """Return pairs of rows: all chosen, then all rejected.

    Tokens beyond the shorter response of a pair weigh `tail_weight` in the sums of policy and
    reference (LD-DPO); counts stay true counts.

    Raises
    ------
    ValueError
        An odd number of rows, a reference of another shape, or tail_weight outside [0, 1].
    """
    rows = len(stats.mask)
    if rows % 2:
        raise ValueError(f"{rows} rows are no pairs; pass all chosen, then all rejected rows")
    if not 0 <= tail_weight <= 1:
        raise ValueError(f"tail_weight is {tail_weight}; it must be within [0, 1]")
    count = stats.mask.sum(1)
    n = rows // 2
    shorter = torch.minimum(count[:n], count[n:]).repeat(2)[:, None]
    tail = stats.mask & (stats.mask.cumsum(1) > shorter)
    weights = torch.ones_like(stats.logprobs).masked_fill(tail, tail_weight)
    policy = (stats.logprobs * weights).sum(1)
    reference = None
    if ref_stats is not None:
        same_shape(stats, "ref_stats.logprobs", ref_stats.logprobs)
        kept = zeroed(ref_stats.logprobs.detach(), stats.mask)
        reference = (kept * weights).sum(1)
    tokens = count.to(policy.dtype)
    return Pairs(
        chosen=policy[:n],
        rejected=policy[n:],
        chosen_ref=None if reference is None else reference[:n],
        rejected_ref=None if reference is None else reference[n:],
        chosen_tokens=tokens[:n],
        rejected_tokens=tokens[n:],
    )


def wpo_weights(stats: TokenStats) -> Float[Tensor, " N"]:
    """Return detached pair weights: both rows' exp(mean_t(log p - log sum p^2)) multiplied (WPO).

    Rows are all chosen, then all rejected; needs `log_collision`.
    """
    gap = stats.logprobs.detach() - need(stats, "log_collision", "wpo_weights")
    mean = row_mean(gap, stats.mask)[:, 0]
    n = len(mean) // 2
    return (mean[:n] + mean[n:]).exp()


def kto_reference_point(mismatched_log_ratios: Float[Tensor, " M"]) -> Float[Tensor, ""]:
    """Return max(0, mean log-ratio of responses paired with other prompts), detached (KTO).

    Average over all processes before use.
    """
    if not mismatched_log_ratios.numel():
        raise ValueError("no mismatched log-ratios; score at least one response to another prompt")
    return mismatched_log_ratios.detach().mean().clamp(min=0)


def check_desirable(log_ratios: Tensor, desirable: Bool[Tensor, " N"]) -> None:
    """Refuse labels that do not fit."""
    if log_ratios.shape != desirable.shape:
        raise ValueError(f"{len(log_ratios)} log-ratios but {len(desirable)} labels; pass one each")
    finite_values("log_ratios", log_ratios)
