"""Preference losses without a reference, and on single labelled responses: (N,) out.

L = log p / tokens is the mean log-probability of a token of a response.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from meristem_losses._pairs import Pairs, check_desirable, smoothed
from meristem_losses._stats import finite, finite_values, positive


def cpo_loss(
    pairs: Pairs, *, beta: float = 0.1, alpha: float = 1.0, smoothing: float = 0.0
) -> Float[Tensor, " N"]:
    """Return -log s(b (log p_w - log p_l)) - alpha L_w (2401.08417).

    The second term is the mean over the tokens of each chosen response. TRL and Liger average it
    over the tokens of the batch instead: `cpo_loss(pairs, alpha=0).mean()` plus alpha times
    `mean_over_tokens` of `nll_loss` on the chosen rows.
    """
    positive("beta", beta)
    finite(alpha=alpha)
    margin = smoothed(beta * (pairs.chosen - pairs.rejected), smoothing)
    return margin - alpha * pairs.averages()[0]


def simpo_loss(
    pairs: Pairs, *, beta: float = 2.0, gamma: float = 1.0, smoothing: float = 0.0
) -> Float[Tensor, " N"]:
    """Return -log s(b (L_w - L_l) - gamma) (2405.14734)."""
    positive("beta", beta)
    finite(gamma=gamma)
    chosen, rejected = pairs.averages()
    return smoothed(beta * (chosen - rejected) - gamma, smoothing)


def alphapo_loss(
    pairs: Pairs, *, beta: float = 2.0, gamma: float = 1.0, alpha: float = 0.25
) -> Float[Tensor, " N"]:
    """Return SimPO on the rewards (1 - exp(-alpha L)) / alpha; alpha 0 is SimPO (AlphaPO).

    Raises
    ------
    ValueError
        A reward that overflows: alpha too large for so improbable a response.
    """
    positive("beta", beta)
    finite(gamma=gamma, alpha=alpha)
    chosen, rejected = pairs.averages()
    if alpha != 0:
        chosen, rejected = -(-alpha * chosen).expm1() / alpha, -(-alpha * rejected).expm1() / alpha
    if not bool((chosen.isfinite() & rejected.isfinite()).all()):
        raise ValueError(f"alpha is {alpha}: exp(-alpha L) overflows; lower alpha")
    return -logsigmoid(beta * (chosen - rejected) - gamma)


def orpo_loss(pairs: Pairs, *, weight: float = 0.1) -> Float[Tensor, " N"]:
    """Return -L_w - weight log s(o_w - o_l), o = L - log(1 - exp(L)) the log-odds (ORPO).

    L is at most -tiny of its type, so a certain response has large, finite odds.
    """
    finite(weight=weight)
    chosen, rejected = pairs.averages()
    return -chosen - weight * logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def tpo_loss(
    pairs: Pairs,
    gold_nll: Float[Tensor, " N"],
    *,
    beta: float = 0.01,
    alpha: float = 1.0,
    smoothing: float = 0.0,
) -> Float[Tensor, " N"]:
    """Return -log s(b (log p_w - log p_l)) + alpha NLL of a third, gold response (2405.16681).

    `gold_nll` is a mean over tokens: of each gold response, or one number of the batch, expanded.
    """
    finite(alpha=alpha)
    finite_values("gold_nll", gold_nll)
    return cpo_loss(pairs, beta=beta, alpha=0.0, smoothing=smoothing) + alpha * gold_nll


def tpo_l_loss(
    pairs: Pairs,
    gold_nll: Float[Tensor, " N"],
    *,
    beta: float = 0.01,
    gamma: float = 0.5,
    alpha: float = 1.0,
    smoothing: float = 0.0,
) -> Float[Tensor, " N"]:
    """Return `simpo_loss` + alpha NLL of a gold response: the length-normalised TPO."""
    finite(alpha=alpha)
    finite_values("gold_nll", gold_nll)
    margin = simpo_loss(pairs, beta=beta, gamma=gamma, smoothing=smoothing)
    return margin + alpha * gold_nll


def kto_loss(
    log_ratios: Float[Tensor, " N"],
    desirable: Bool[Tensor, " N"],
    reference_point: Float[Tensor, ""],
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " N"]:
    """Return w_D (1 - s(b (l - k))) or w_U (1 - s(b (k - l))) by label (2402.01306)."""
    positive("beta", beta)
    check_desirable(log_ratios, desirable)
    finite(desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    finite_values("reference_point", reference_point)
    x = beta * (log_ratios - reference_point.detach())
    return torch.where(
        desirable, desirable_weight * (-x).sigmoid(), undesirable_weight * x.sigmoid()
    )


def apo_zero_unpaired_loss(
    log_ratios: Float[Tensor, " N"], desirable: Bool[Tensor, " N"], *, beta: float = 0.1
) -> Float[Tensor, " N"]:
    """Return 1 - s(b l) for desirable, s(b l) for undesirable responses: KTO with k = 0."""
    return kto_loss(log_ratios, desirable, log_ratios.new_zeros(()), beta=beta)


def bco_unpaired_loss(
    log_ratios: Float[Tensor, " N"],
    desirable: Bool[Tensor, " N"],
    *,
    beta: float = 0.1,
    shift: float = 0.0,
) -> Float[Tensor, " N"]:
    """Return -log s(b l - shift) for desirable, -log s(shift - b l) for undesirable ones."""
    positive("beta", beta)
    check_desirable(log_ratios, desirable)
    finite(shift=shift)
    x = beta * log_ratios - shift
    return -logsigmoid(torch.where(desirable, x, -x))


def _log_odds(average: Tensor) -> Tensor:
    bounded = average.clamp(max=-torch.finfo(average.dtype).tiny)
    near = torch.log(-torch.expm1(bounded.clamp(min=-math.log(2))))
    far = torch.log1p(-torch.exp(bounded.clamp(max=-math.log(2))))
    return bounded - torch.where(bounded > -math.log(2), near, far)
