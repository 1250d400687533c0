"""Which loss equals which, and at which parameters: values and gradients on drawn logits."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import meristem_losses as ml
from meristem_losses import Pairs

F64 = torch.float64
MASK = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]]).bool()
SINGLE = torch.tensor([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]).bool()
ADV = torch.tensor([[1.3], [-0.7], [0.4], [-1.1]], dtype=F64)
ONE, UP = torch.ones_like(ADV), ADV.abs()
GOOD = torch.tensor([True, False, True, True])
HUGE = 1e6


def logits_of(seed):
    return torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=F64)


def stats_of(logits, mask=MASK):
    targets = torch.arange(mask.numel()).view(mask.shape) % 6
    return ml.token_logprobs_from_logits(
        logits, targets, mask=mask, entropy=True, mean_logit=True, top_k_entropy=4
    )


REF = {mask: stats_of(logits_of(7), mask) for mask in (MASK, SINGLE)}


def old(s):
    return REF[SINGLE if s.mask.sum() == 4 else MASK].logprobs


def ref(s):
    return REF[SINGLE if s.mask.sum() == 4 else MASK]


def own(s):
    return s.logprobs.detach()


def ratios(s):
    return ml.sequence_logprobs(s) - ml.sequence_logprobs(ref(s))


def ppo(s, **options):
    return ml.ppo_clip_loss(s, old(s), ADV, **options)


def own_ratio(s):
    return (own(s) - old(s)) * s.mask


def plain_ratio(s):
    return ml.kl_cov_loss(s, old(s), ADV, top_frac=0.0)


def dual(s, before, weights=ONE):
    return ml.dual_importance_loss(s, before, ADV, weights)


ONES = {"low": 1.0, "high": 1.0}
TV = ml.TOTAL_VARIATION
EQUAL = {  # a loss, its equal
    "reinforce, A = 1": (lambda s: ml.reinforce_loss(s, ONE), ml.nll_loss),
    "dft": (ml.dft_loss, lambda s: ml.cispo_loss(s, torch.zeros_like(own(s)), ONE, cap=1.0)),
    "eaft, alpha = 0": (lambda s: ml.eaft_loss(s, alpha=0.0, k=4), ml.nll_loss),
    "iw-sft, power = 0": (lambda s: ml.iw_sft_loss(s, old(s), power=0.0), ml.nll_loss),
    "iw-sft token": (lambda s: ml.iw_sft_token_loss(s, old(s), **ONES), ml.nll_loss),
    "iw-sft at the reference": (lambda s: ml.iw_sft_loss(s, own(s)), ml.nll_loss),
    "psft": (
        lambda s: ml.psft_loss(s, old(s)),
        lambda s: ml.ppo_clip_loss(s, old(s), ONE, low=0.2, high=0.28),
    ),
    "asft, weight = 0": (lambda s: ml.asft_loss(s, s.entropy, weight=0.0), ml.dft_loss),
    "cispo, no cap": (
        lambda s: ml.cispo_loss(s, old(s), ADV, cap=HUGE), lambda s: dual(s, old(s)),
    ),
    "cispo on-policy": (
        lambda s: ml.cispo_loss(s, own(s), ADV), lambda s: ml.reinforce_loss(s, ADV),
    ),
    "dual importance on-policy": (
        lambda s: dual(s, own(s), UP), lambda s: ml.reinforce_loss(s, ADV * UP),
    ),
    "dual importance, the engine is the policy": (
        lambda s: dual(s, old(s), ml.sampler_weights(s, old(s), old(s))),
        lambda s: dual(s, old(s)),
    ),
    "vespo on-policy": (
        lambda s: ml.vespo_loss(s, own(s), ADV), lambda s: ml.reinforce_loss(s, ADV),
    ),
    "ppo, no clip": (lambda s: ppo(s, low=1 - 1e-9, high=HUGE), plain_ratio),
    "ppo, loose dual clip": (lambda s: ppo(s, dual_clip=HUGE), ppo),
    "ppo, loose delta": (lambda s: ppo(s, delta=HUGE), ppo),
    "clip-cov, fraction = 0": (
        lambda s: ml.clip_cov_loss(s, old(s), ADV, generator=torch.Generator(), fraction=0.0), ppo,
    ),
    "kl-cov, weight = 0": (
        lambda s: ml.kl_cov_loss(s, old(s), ADV, top_frac=0.5, weight=0.0), plain_ratio,
    ),
    "kl-cov": (
        lambda s: ml.kl_cov_loss(s, old(s), ADV, top_frac=0.4, weight=0.3),
        lambda s: plain_ratio(s) + ml.kl_cov_penalty(s, old(s), ADV, top_frac=0.4, weight=0.3),
    ),
    "kl-cov penalty k2 on all": (
        lambda s: ml.kl_cov_penalty(s, old(s), ADV, top_frac=1.0, penalty=ml.old_k2),
        lambda s: ml.k2(s, old(s)),
    ),
    "kl-cov penalty k1 on all": (
        lambda s: ml.kl_cov_penalty(s, old(s), ADV, top_frac=1.0, penalty=ml.old_k1),
        lambda s: -ml.k1(s, old(s)),
    ),
    "reinforced log-ratio": (
        lambda s: ml.reinforce_loss(s, ml.distillation_advantages(s, old(s))),
        lambda s: own_ratio(s) * s.logprobs,
    ),
    "asft": (
        lambda s: ml.asft_loss(s, s.entropy, weight=0.3),
        lambda s: ml.dft_loss(s) + 0.3 * s.entropy,
    ),
    "oreal of winners": (
        lambda s: ml.oreal_loss(s, old(s), UP, kl_weight=0.0), lambda s: ml.reinforce_loss(s, UP),
    ),
    "oreal, KL alone": (
        lambda s: ml.oreal_loss(
            s, old(s), ADV, positive_weight=0.0, negative_weight=0.0, kl_weight=1.0
        ),
        lambda s: ml.k3(s, old(s)),
    ),
    "kto, k = 0": (
        lambda s: ml.kto_loss(ratios(s), GOOD, torch.zeros((), dtype=F64)),
        lambda s: ml.apo_zero_unpaired_loss(ratios(s), GOOD),
    ),
    "alpha 2 is chi-squared": (
        lambda s: ml.f_sft_loss(s, ref(s), ml.alpha_divergence(2.0)),
        lambda s: ml.f_sft_loss(s, ref(s), ml.PEARSON_CHI2),
    ),
    "alpha 1/2 is Hellinger": (
        lambda s: ml.f_sft_loss(s, ref(s), ml.alpha_divergence(0.5)),
        lambda s: ml.f_sft_loss(s, ref(s), ml.SQUARED_HELLINGER),
    ),
}  # fmt: skip
SAME_GRADIENT = {
    "smoothed nll, its mean logit aside": (
        lambda s: ml.nll_loss(s, smoothing=0.2),
        lambda s: ml.nll_loss(s) + 0.2 * (s.logprobs - s.mean_logit + s.lse),
    ),
    "f-sft, total variation": (lambda s: ml.f_sft_loss(s, ref(s), TV, beta=0.4), ml.nll_loss),
    "f-sft sequence, total variation": (
        lambda s: ml.f_sft_sequence_loss(s, ref(s), TV, beta=0.4), ml.nll_loss,
    ),
    "f-sft zero value, total variation": (
        lambda s: ml.f_sft_zero_value_loss(s, ref(s), TV, beta=0.4), ml.nll_loss,
    ),
    "ppo on-policy": (
        lambda s: ml.ppo_clip_loss(s, own(s), ADV), lambda s: ml.reinforce_loss(s, ADV),
    ),
    "sapo on-policy": (
        lambda s: ml.sapo_loss(s, own(s), ADV), lambda s: ml.reinforce_loss(s, ADV),
    ),
    "gspo on-policy": (
        lambda s: ml.gspo_loss(s, own(s), ADV), lambda s: ml.reinforce_loss(s, ADV),
    ),
    "rloo on-policy": (
        lambda s: ml.rloo_loss(s, own(s), ADV), lambda s: ml.reinforce_loss(s, ADV),
    ),
    "gmpo on-policy": (
        lambda s: ml.gmpo_loss(s, own(s), ADV), lambda s: ml.reinforce_loss(s, ADV),
    ),
    "oreal of losers": (
        lambda s: ml.oreal_loss(s, old(s), -UP, negative_weight=1.0, kl_weight=0.0),
        lambda s: ml.reinforce_loss(s, -UP),
    ),
    "kl-cov penalty k1": (
        lambda s: ml.kl_cov_penalty(s, old(s), ADV, top_frac=1.0, penalty=ml.old_k1), ml.nll_loss,
    ),
    "kl-cov penalty k3 is a step from p_old": (
        lambda s: ml.kl_cov_penalty(s, old(s), ADV, top_frac=1.0, penalty=ml.old_k3),
        lambda s: (s.logprobs - old(s)).exp() * s.mask - s.logprobs,
    ),
    "sampled distillation is k2": (
        lambda s: ml.reinforce_loss(s, ml.distillation_advantages(s, old(s))),
        lambda s: ml.k2(s, old(s)),
    ),
    "k3, unbiased": (lambda s: ml.k3(s, old(s), unbiased=True), lambda s: ml.k2(s, old(s))),
}  # fmt: skip
OF_ONE_TOKEN = {
    "gspo": (lambda s: ml.gspo_loss(s, old(s), ADV, low=0.2, high=0.3), lambda s: ppo(s, high=0.3)),
    "rloo": (
        lambda s: ml.rloo_loss(s, old(s), ADV, high=0.3), lambda s: ppo(s, high=0.3).sum(1),
    ),
    "gmpo": (
        lambda s: ml.gmpo_loss(s, old(s), ADV, low=0.4, high=0.5),
        lambda s: ppo(s, low=1 - math.exp(-0.4), high=math.exp(0.5) - 1),
    ),
    "f-sft sequence": (
        lambda s: ml.f_sft_sequence_loss(s, ref(s), ml.FORWARD_KL),
        lambda s: ml.f_sft_loss(s, ref(s), ml.FORWARD_KL).sum(1),
    ),
}  # fmt: skip


def log_ratio_pair(p):
    return p.log_ratios()


def unit(p):
    ones = torch.ones_like(p.chosen)
    return dataclasses.replace(p, chosen_tokens=ones, rejected_tokens=ones)


def halves(loss):
    def summed(p):
        chosen, rejected = p.log_ratios()
        n = len(chosen)
        good = torch.arange(2 * n) < n
        values = loss(torch.cat([chosen, rejected]), good)
        return values[:n] + values[n:]

    return summed


def first(p):
    fields = {f.name: getattr(p, f.name)[:1] for f in dataclasses.fields(p)}
    return Pairs(**fields)


def zero(p):
    return torch.zeros_like(p.chosen)


def squares(p):
    """The two squares of SPPO as regressions of rewards on advantages of 1/2."""
    half = torch.full_like(p.chosen, 0.5)
    chosen, rejected = p.log_ratios()
    return (ml.a2po_loss(chosen, half, beta=0.2) + ml.a2po_loss(rejected, -half, beta=0.2)) / 0.04


def half_certain(p):
    """DPO of each chosen response against nothing, its label undecided."""
    nothing = dataclasses.replace(p, rejected=zero(p), rejected_ref=zero(p))
    return ml.dpo_loss(nothing, smoothing=0.5)


def kto_of_chosen_and_margin(p):
    chosen, rejected = p.log_ratios()
    point, yes = torch.zeros((), dtype=F64), torch.ones_like(chosen, dtype=torch.bool)
    return ml.kto_loss(chosen, ~yes, point) + ml.kto_loss(chosen - rejected, yes, point)


PAIRS = {
    "robust, no flips": (lambda p: ml.robust_dpo_loss(p, flip_rate=0.0), ml.dpo_loss),
    "soft, certain": (lambda p: ml.soft_dpo_loss(p, zero(p) + 1), ml.dpo_loss),
    "soft": (
        lambda p: ml.soft_dpo_loss(p, zero(p) + 0.8), lambda p: ml.dpo_loss(p, smoothing=0.2),
    ),
    "Plackett-Luce of two": (
        lambda p: ml.plackett_luce_loss(torch.stack(log_ratio_pair(p), 1)), ml.dpo_loss,
    ),
    "dpop, no penalty": (lambda p: ml.dpop_loss(p, penalty=0.0), ml.dpo_loss),
    "cal-dpo": (ml.cal_dpo_loss, lambda p: ml.dpo_loss(p) + ml.sppo_loss(p)),
    "length-normalised, one token": (
        lambda p: ml.length_normalised_dpo_loss(unit(p)), ml.dpo_loss,
    ),
    "alpha 1 is reverse KL": (
        lambda p: ml.dpo_loss(p, divergence=ml.alpha_divergence(1.0)), ml.dpo_loss,
    ),
    "alpha 0 is forward KL": (
        lambda p: ml.dpo_loss(p, divergence=ml.alpha_divergence(0.0)),
        lambda p: ml.dpo_loss(p, divergence=ml.FORWARD_KL),
    ),
    "aot of one pair": (lambda p: ml.aot_loss(first(p)), lambda p: ml.dpo_loss(first(p))),
    "unpaired aot of one pair": (
        lambda p: ml.aot_unpaired_loss(first(p)), lambda p: ml.dpo_loss(first(p)),
    ),
    "ipo, one token": (
        lambda p: ml.ipo_loss(p, average=False, tau=0.3), lambda p: ml.ipo_loss(unit(p), tau=0.3),
    ),
    "apo-zero of halves": (halves(lambda *x: ml.apo_zero_unpaired_loss(*x)), ml.apo_zero_loss),
    "bco of halves": (
        halves(lambda *x: ml.bco_unpaired_loss(*x, shift=0.2)),
        lambda p: ml.bco_loss(p, shift=0.2),
    ),
    "apo-down": (ml.apo_down_loss, kto_of_chosen_and_margin),
    "sppo": (lambda p: ml.sppo_loss(p, beta=0.2), squares),
    "nca": (ml.nca_loss, lambda p: ml.bco_loss(p) / 2 + half_certain(p)),
    "cpo, no likelihood": (
        lambda p: ml.cpo_loss(p, alpha=0.0), lambda p: ml.dpo_loss(p.reference_free()),
    ),
    "simpo, one token": (
        lambda p: ml.simpo_loss(unit(p), beta=0.3, gamma=0.0),
        lambda p: ml.cpo_loss(p, beta=0.3, alpha=0.0),
    ),
    "alphapo, alpha = 0": (lambda p: ml.alphapo_loss(p, alpha=0.0), ml.simpo_loss),
    "orpo, weight = 0": (
        lambda p: ml.orpo_loss(p, weight=0.0), lambda p: ml.cpo_loss(p) - ml.cpo_loss(p, alpha=0.0),
    ),
    "tpo, no gold": (
        lambda p: ml.tpo_loss(p, zero(p), beta=0.1), lambda p: ml.cpo_loss(p, alpha=0.0),
    ),
    "tpo, gold is chosen": (
        lambda p: ml.tpo_loss(p, -p.averages()[0], beta=0.1), ml.cpo_loss,
    ),
    "tpo-l, no gold": (
        lambda p: ml.tpo_l_loss(p, zero(p), beta=2.0, gamma=1.0), ml.simpo_loss,
    ),
}  # fmt: skip
ALONE = {"z_loss", "fused_loss", "hinge_loss", "exo_loss", "discopop_loss"}  # no other at any value
DRAWN = settings(max_examples=3)  # times the rows
seeds = st.integers(8, 2**31)


def both(loss, logits, mask):
    logits = logits.clone().requires_grad_()
    value = loss(stats_of(logits, mask))
    return value.detach(), torch.autograd.grad(value.sum(), logits)[0]


def close(x, y):
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", EQUAL)
@DRAWN
@given(seed=seeds)
def test_equal_losses_of_tokens(name, seed):
    one, other = (both(loss, logits_of(seed), MASK) for loss in EQUAL[name])
    close(one, other)


@pytest.mark.parametrize("name", SAME_GRADIENT)
@DRAWN
@given(seed=seeds)
def test_equal_gradients(name, seed):
    one, other = (both(loss, logits_of(seed), MASK)[1] for loss in SAME_GRADIENT[name])
    close(one, other)


@pytest.mark.parametrize("name", OF_ONE_TOKEN)
@DRAWN
@given(seed=seeds)
def test_equal_losses_of_responses_of_one_token(name, seed):
    one, other = (both(loss, logits_of(seed), SINGLE) for loss in OF_ONE_TOKEN[name])
    close(one, other)


@pytest.mark.parametrize("name", PAIRS)
@DRAWN
@given(seed=seeds)
def test_equal_losses_of_pairs(name, seed):
    one, other = (
        both(lambda s, loss=loss: loss(ml.preference_pairs(s, REF[MASK])), logits_of(seed), MASK)
        for loss in PAIRS[name]
    )
    close(one, other)


@given(seed=seeds)
def test_a_pair_turned_round_differs_by_its_margin(seed):
    p = ml.preference_pairs(stats_of(logits_of(seed)), REF[MASK])
    turned = Pairs(
        chosen=p.rejected, rejected=p.chosen, chosen_ref=p.rejected_ref, rejected_ref=p.chosen_ref,
        chosen_tokens=p.rejected_tokens, rejected_tokens=p.chosen_tokens,
    )  # fmt: skip
    chosen, rejected = p.log_ratios()
    close(ml.dpo_loss(p) - ml.dpo_loss(turned), -0.1 * (chosen - rejected))


def test_every_public_loss_has_its_place(monkeypatch):
    losses = {name for name in ml.__all__ if name.endswith("_loss")}
    tables = (EQUAL, SAME_GRADIENT, OF_ONE_TOKEN, PAIRS)
    cases = [case for table in tables for sides in table.values() for case in sides]
    called = losses & {case.__name__ for case in cases}

    def recorded(real):
        def call(*given, **options):
            called.add(real.__name__)
            return real(*given, **options)

        return call

    for name in losses:
        monkeypatch.setattr(ml, name, recorded(getattr(ml, name)))
    s = stats_of(logits_of(0))
    for table in tables:
        given = ml.preference_pairs(s, REF[MASK]) if table is PAIRS else s
        for sides in table.values():
            for case in sides:
                case(given)
    assert called | ALONE == losses
    assert not called & ALONE
