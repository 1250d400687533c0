"""Preference losses on pairs with a reference: (N,) out.

Letters: l_w, l_l log-ratios of chosen and rejected; x = beta (s(l_w) - s(l_l)) with the link s of
a divergence. A loss that uses the log-ratios themselves takes no divergence, so that a wrong
combination cannot be written.
"""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from meristem_losses._divergences import REVERSE_KL, Divergence
from meristem_losses._pairs import Pairs, lengths, smoothed
from meristem_losses._stats import finite, finite_values, positive


def dpo_loss(
    pairs: Pairs,
    *,
    beta: float = 0.1,
    divergence: Divergence = REVERSE_KL,
    smoothing: float = 0.0,
    margin: Float[Tensor, " N"] | float = 0.0,
) -> Float[Tensor, " N"]:
    """Return -(1 - e) log s(x - margin) - e log s(margin - x) (2305.18290 Eq. 7; cDPO: e > 0)."""
    if isinstance(margin, Tensor):
        finite_values("margin", margin)
    else:
        finite(margin=margin)
    return smoothed(_logit(pairs, beta, divergence) - margin, smoothing)


def soft_dpo_loss(
    pairs: Pairs,
    probability: Float[Tensor, " N"],
    *,
    beta: float = 0.1,
    divergence: Divergence = REVERSE_KL,
) -> Float[Tensor, " N"]:
    """Return DPO against the probability that the chosen response is the better one."""
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise ValueError("probability holds a non-finite value or one outside [0, 1]")
    x = _logit(pairs, beta, divergence)
    return -probability * logsigmoid(x) - (1 - probability) * logsigmoid(-x)


def robust_dpo_loss(
    pairs: Pairs,
    *,
    beta: float = 0.1,
    divergence: Divergence = REVERSE_KL,
    flip_rate: float = 0.1,
) -> Float[Tensor, " N"]:
    """Return [-(1 - e) log s(x) + e log s(-x)] / (1 - 2 e), unbiased under flips of rate e."""
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip_rate is {flip_rate}; it must be at least 0 and below 0.5")
    x = _logit(pairs, beta, divergence)
    return (-(1 - flip_rate) * logsigmoid(x) + flip_rate * logsigmoid(-x)) / (1 - 2 * flip_rate)


def hinge_loss(
    pairs: Pairs, *, beta: float = 0.1, divergence: Divergence = REVERSE_KL
) -> Float[Tensor, " N"]:
    """Return max(0, 1 - x) (SLiC, with a reference)."""
    return (1 - _logit(pairs, beta, divergence)).clamp(min=0)


def ipo_loss(
    pairs: Pairs, *, tau: float = 0.1, divergence: Divergence = REVERSE_KL, average: bool = True
) -> Float[Tensor, " N"]:
    """Return (d - 1 / (2 tau))^2 (2310.12036 Eq. 17); d per token unless `average` is False."""
    positive("tau", tau)
    chosen, rejected = (divergence.reward(r) for r in pairs.log_ratios())
    if average:
        chosen = chosen / lengths(pairs.chosen_tokens)
        rejected = rejected / lengths(pairs.rejected_tokens)
    return (chosen - rejected - 1 / (2 * tau)) ** 2


def exo_loss(
    pairs: Pairs,
    *,
    beta: float = 0.1,
    divergence: Divergence = REVERSE_KL,
    smoothing: float = 1e-3,
) -> Float[Tensor, " N"]:
    """Return the reverse KL to the smoothed label (2402.00856 Eq. 16); smoothing above 0."""
    if not 0 < smoothing < 0.5:
        raise ValueError(f"smoothing is {smoothing}; it must be above 0 and below 0.5")
    x = _logit(pairs, beta, divergence)
    better = logsigmoid(x) - math.log1p(-smoothing)
    worse = logsigmoid(-x) - math.log(smoothing)
    return x.sigmoid() * better + (-x).sigmoid() * worse


def discopop_loss(
    pairs: Pairs,
    *,
    beta: float = 0.1,
    divergence: Divergence = REVERSE_KL,
    temperature: float = 0.05,
) -> Float[Tensor, " N"]:
    """Return (1 - m)(-log s(x)) + m exp(-x), m = s(x / temperature), temperature at most 1.

    m exp(-x) is evaluated as exp(-x + log s(x / temperature)), which cannot overflow.
    """
    if not 0 < temperature <= 1:
        raise ValueError(f"temperature is {temperature}; it must be above 0 and at most 1")
    x = _logit(pairs, beta, divergence)
    gate = x / temperature
    return -(-gate).sigmoid() * logsigmoid(x) + (-x + logsigmoid(gate)).exp()


def length_normalised_dpo_loss(
    pairs: Pairs, *, beta: float = 0.1, divergence: Divergence = REVERSE_KL
) -> Float[Tensor, " N"]:
    """Return DPO with each link divided by the tokens of its response."""
    positive("beta", beta)
    chosen, rejected = (divergence.reward(r) for r in pairs.log_ratios())
    x = chosen / lengths(pairs.chosen_tokens) - rejected / lengths(pairs.rejected_tokens)
    return -logsigmoid(beta * x)


def nca_loss(pairs: Pairs, *, beta: float = 0.1) -> Float[Tensor, " N"]:
    """Return -log s(b l_w) - log s(-b l_w) / 2 - log s(-b l_l) / 2 (noise contrast)."""
    chosen, rejected = _rewards(pairs, beta)
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2


def bco_loss(pairs: Pairs, *, beta: float = 0.1, shift: float = 0.0) -> Float[Tensor, " N"]:
    """Return -log s(b l_w - shift) - log s(shift - b l_l); shift is the running mean reward."""
    chosen, rejected = _rewards(pairs, beta)
    finite(shift=shift)
    return -logsigmoid(chosen - shift) - logsigmoid(shift - rejected)


def sppo_loss(pairs: Pairs, *, beta: float = 0.1) -> Float[Tensor, " N"]:
    """Return (l_w - 1 / (2 b))^2 + (l_l + 1 / (2 b))^2 (hard labels)."""
    positive("beta", beta)
    chosen, rejected = pairs.log_ratios()
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2


def aot_loss(pairs: Pairs, *, beta: float = 0.1, smoothing: float = 0.0) -> Float[Tensor, " N"]:
    """Return DPO on sorted margins of policy and reference; couples the batch."""
    positive("beta", beta)
    chosen, rejected = pairs.log_ratios()
    margins = pairs.chosen - pairs.rejected
    ref = margins - (chosen - rejected)
    return smoothed(beta * (margins.sort().values - ref.sort().values), smoothing)


def aot_unpaired_loss(
    pairs: Pairs, *, beta: float = 0.1, smoothing: float = 0.0
) -> Float[Tensor, " N"]:
    """Return DPO on sorted chosen against sorted rejected log-ratios; couples the batch."""
    chosen, rejected = _rewards(pairs, beta)
    return smoothed(chosen.sort().values - rejected.sort().values, smoothing)


def apo_zero_loss(pairs: Pairs, *, beta: float = 0.1) -> Float[Tensor, " N"]:
    """Return 1 - s(b l_w) + s(b l_l): chosen up, rejected down (2408.06266 Eq. 7)."""
    chosen, rejected = _rewards(pairs, beta)
    return (-chosen).sigmoid() + rejected.sigmoid()


def apo_down_loss(pairs: Pairs, *, beta: float = 0.1) -> Float[Tensor, " N"]:
    """Return s(b l_w) + 1 - s(b (l_w - l_l)): both down, rejected more (2408.06266 Eq. 8)."""
    chosen, rejected = _rewards(pairs, beta)
    return chosen.sigmoid() + (rejected - chosen).sigmoid()


def dpop_loss(pairs: Pairs, *, beta: float = 0.1, penalty: float = 50.0) -> Float[Tensor, " N"]:
    """Return -log s(b (l_w - l_l - penalty max(0, -l_w))) (DPO-positive)."""
    positive("beta", beta)
    finite(penalty=penalty)
    chosen, rejected = pairs.log_ratios()
    return -logsigmoid(beta * (chosen - rejected - penalty * (-chosen).clamp(min=0)))


def cal_dpo_loss(pairs: Pairs, *, beta: float = 0.1) -> Float[Tensor, " N"]:
    """Return DPO plus `sppo_loss`, which fixes the scale of the rewards (Cal-DPO)."""
    return dpo_loss(pairs, beta=beta) + sppo_loss(pairs, beta=beta)


def plackett_luce_loss(scores: Float[Tensor, "N K"], *, beta: float = 0.1) -> Float[Tensor, " N"]:
    """Return -log of the Plackett-Luce probability of a ranking, best first; K = 2 is DPO.

    `scores` are log-ratios, or the link of a divergence on them.
    """
    positive("beta", beta)
    finite_values("scores", scores)
    x = beta * scores
    return (x.flip(1).logcumsumexp(1).flip(1) - x).sum(1)


def _logit(pairs: Pairs, beta: float, divergence: Divergence) -> Tensor:
    positive("beta", beta)
    return beta * pairs.difference(divergence)


def _rewards(pairs: Pairs, beta: float) -> tuple[Tensor, Tensor]:
    positive("beta", beta)
    chosen, rejected = pairs.log_ratios()
    return beta * chosen, beta * rejected
