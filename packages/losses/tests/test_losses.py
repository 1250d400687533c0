"""Gradient checks of every loss in float64, the lattice of special cases, and extremes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import meristem_losses as ml
from meristem_losses import Pairs, TokenStats

MASK = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]]).bool()
LINKS = [
    ml.REVERSE_KL, ml.FORWARD_KL, ml.JENSEN_SHANNON, ml.SQUARED_HELLINGER, ml.CHI2_KL,
    ml.alpha_divergence(0.3),
]  # fmt: skip
PHIS = [
    ml.TOTAL_VARIATION, ml.PEARSON_CHI2, ml.SQUARED_HELLINGER, ml.JENSEN_SHANNON, ml.REVERSE_KL,
    ml.FORWARD_KL, ml.alpha_divergence(1.5),
]  # fmt: skip
F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def logits_of(seed=0):
    return torch.randn(4, 5, 6, generator=rng(seed), dtype=F64)


def stats_of(logits, mask=MASK):
    targets = torch.arange(mask.numel()).view(mask.shape) % 6
    return ml.token_logprobs_from_logits(
        logits, targets, mask=mask, entropy=True, mean_logit=True, log_collision=True,
        top_k_entropy=4,
    )  # fmt: skip


REF = stats_of(logits_of(7))
OLD = REF.logprobs
ADV = torch.tensor([[1.3], [-0.7], [0.4], [-1.1]], dtype=F64)


def gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(stats_of(logits)).sum(), logits)[0]


def pairs_of(logits, **options):
    return ml.preference_pairs(stats_of(logits), REF, **options)


TOKEN_LOSSES = {
    "nll": ml.nll_loss,
    "smoothed nll": lambda s: ml.nll_loss(s, smoothing=0.1),
    "z": ml.z_loss,
    **{f"f-sft {d.name}": lambda s, d=d: ml.f_sft_loss(s, REF, d, beta=0.7) for d in PHIS},
    **{f"sequence {d.name}": lambda s, d=d: ml.f_sft_sequence_loss(s, REF, d) for d in PHIS},
    **{f"zero {d.name}": lambda s, d=d: ml.f_sft_zero_value_loss(s, REF, d) for d in PHIS},
    "reinforce": lambda s: ml.reinforce_loss(s, ADV),
    "psft": lambda s: ml.psft_loss(s, OLD),
    "ppo": lambda s: ml.ppo_clip_loss(s, OLD, ADV),
    "dual ppo": lambda s: ml.ppo_clip_loss(s, OLD, ADV, dual_clip=3.0),
    "sapo": lambda s: ml.sapo_loss(s, OLD, ADV),
    "kl-cov penalty": lambda s: ml.k1(s, OLD),
    "k2": lambda s: ml.k2(s, OLD),
    "k3": lambda s: ml.k3(s, OLD),
    "entropy": lambda s: ml.entropy_bonus(s, 0.3),
}
PAIR_LOSSES = {
    **{f"dpo {d.name}": lambda p, d=d: ml.dpo_loss(p, divergence=d) for d in LINKS},
    "cdpo": lambda p: ml.dpo_loss(p, smoothing=0.1, margin=0.2),
    "soft": lambda p: ml.soft_dpo_loss(p, torch.tensor([0.2, 0.9], dtype=F64)),
    "robust": ml.robust_dpo_loss,
    "hinge": ml.hinge_loss,
    "ipo": ml.ipo_loss,
    "ipo sum": lambda p: ml.ipo_loss(p, average=False),
    "exo": ml.exo_loss,
    "discopop": ml.discopop_loss,
    "length": ml.length_normalised_dpo_loss,
    "nca": ml.nca_loss,
    "bco": lambda p: ml.bco_loss(p, shift=0.1),
    "sppo": ml.sppo_loss,
    "aot": ml.aot_loss,
    "aot unpaired": ml.aot_unpaired_loss,
    "apo zero": ml.apo_zero_loss,
    "apo down": ml.apo_down_loss,
    "dpop": ml.dpop_loss,
    "cal": ml.cal_dpo_loss,
    "cpo": ml.cpo_loss,
    "simpo": ml.simpo_loss,
    "alphapo": ml.alphapo_loss,
    "orpo": ml.orpo_loss,
    "tpo": lambda p: ml.tpo_loss(p, torch.ones_like(p.chosen)),
}


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_gradcheck_of_token_losses(name):
    logits = logits_of().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: TOKEN_LOSSES[name](stats_of(z)), (logits,), fast_mode=True
    )


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradcheck_of_pair_losses(name):
    logits = logits_of().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: PAIR_LOSSES[name](pairs_of(z)), (logits,), fast_mode=True
    )


@pytest.mark.parametrize("name", PAIR_LOSSES)
@settings(max_examples=20)  # times the losses
@given(a=st.floats(-1e4, 1e4), b=st.floats(-1e4, 1e4))
def test_extreme_log_ratios_stay_finite(name, a, b):
    if name in ("cpo", "simpo", "alphapo", "orpo", "tpo"):
        a, b = -abs(a) / 50, -abs(b) / 50  # log-probabilities, and exp(0.25 L) is a number
    x = torch.tensor([a, b], dtype=F64, requires_grad=True)
    zero, tokens = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    two = lambda t: t.repeat(2)  # noqa: E731
    pairs = Pairs(
        chosen=two(x[:1]), rejected=two(x[1:]), chosen_ref=two(zero), rejected_ref=two(zero),
        chosen_tokens=two(tokens), rejected_tokens=two(tokens),
    )  # fmt: skip
    loss = PAIR_LOSSES[name](pairs).sum()
    (found,) = torch.autograd.grad(loss, x)
    assert bool(loss.isfinite())
    assert bool(found.isfinite().all())
    if name.startswith("dpo "):
        assert found[0] <= 0 <= found[1]


def close(x, y):
    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("d", PHIS, ids=lambda d: d.name)
@settings(max_examples=10)  # times the divergences
@given(seed=st.integers(0, 2**31), beta=st.floats(0.1, 3))
def test_every_divergence_starts_as_plain_fine_tuning(d, seed, beta):
    logits = logits_of(seed)
    ref = stats_of(logits)
    plain = gradient(ml.nll_loss, logits)
    for form in (ml.f_sft_loss, ml.f_sft_sequence_loss, ml.f_sft_zero_value_loss):
        close(gradient(lambda s, form=form: form(s, ref, d, beta=beta), logits), plain)


@given(seed=st.integers(0, 2**31), beta=st.floats(0.1, 3))
def test_total_variation_is_plain_fine_tuning_for_every_reference(seed, beta):
    logits, d = logits_of(seed), ml.TOTAL_VARIATION
    plain = gradient(ml.nll_loss, logits)
    close(gradient(lambda s: ml.f_sft_loss(s, REF, d, beta=beta), logits), plain)
    close(gradient(lambda s: ml.f_sft_sequence_loss(s, REF, d, beta=beta), logits), plain)


@given(seed=st.integers(0, 2**31), beta=st.floats(0.1, 3))
def test_rewards_telescope(seed, beta):
    s = stats_of(logits_of(seed))
    rewards = ml.implicit_rewards(s, REF, beta=beta).sum(1)
    values = ml.soft_values(s, REF, beta=beta)
    first = values.gather(1, MASK.int().argmax(1, keepdim=True))[:, 0]
    close(rewards, ml.token_advantages(s, REF, beta=beta).sum(1) + first)


def test_lattice_of_fine_tuning():
    logits = logits_of()
    plain, s = gradient(ml.nll_loss, logits), stats_of(logits)
    same = s.logprobs.detach()
    for loss in (
        lambda s: ml.iw_sft_loss(s, same),
        lambda s: ml.iw_sft_token_loss(s, same),
        lambda s: ml.psft_loss(s, same),
        lambda s: ml.eaft_loss(s, alpha=0.0, k=4),
        lambda s: ml.nll_loss(s, smoothing=0.0),
        lambda s: ml.reinforce_loss(s, torch.ones_like(ADV)),
        lambda s: ml.cispo_loss(s, same, torch.ones_like(ADV)),
        lambda s: ml.ppo_clip_loss(s, same, torch.ones_like(ADV)),
    ):
        close(gradient(loss, logits), plain)
    zero = torch.zeros_like(same)
    close(gradient(lambda s: ml.asft_loss(s, zero), logits), gradient(ml.dft_loss, logits))
    weights = s.logprobs.exp()
    close(gradient(ml.dft_loss, logits), gradient(lambda s: -weights * s.logprobs, logits))


@given(seed=st.integers(0, 2**31))
def test_lattice_of_preferences(seed):
    p = pairs_of(logits_of(seed))
    dpo = ml.dpo_loss(p)
    for same in (
        ml.robust_dpo_loss(p, flip_rate=0.0),
        ml.soft_dpo_loss(p, torch.ones_like(p.chosen)),
        ml.plackett_luce_loss(torch.stack(p.log_ratios(), 1)),
        ml.dpop_loss(p, penalty=0.0),
        ml.dpo_loss(p, divergence=ml.alpha_divergence(1.0)),
    ):
        close(same, dpo)
    close(ml.alphapo_loss(p, alpha=0.0), ml.simpo_loss(p))
    flipped = Pairs(
        chosen=p.rejected, rejected=p.chosen, chosen_ref=p.rejected_ref, rejected_ref=p.chosen_ref,
        chosen_tokens=p.rejected_tokens, rejected_tokens=p.chosen_tokens,
    )  # fmt: skip
    chosen, rejected = p.log_ratios()
    close(dpo - ml.dpo_loss(flipped), -0.1 * (chosen - rejected))
    ratios, labels = torch.cat([chosen, rejected]), torch.tensor([True, True, False, False])
    halves = ml.apo_zero_unpaired_loss(ratios, labels)
    close(halves[:2] + halves[2:], ml.apo_zero_loss(p))
    halves = ml.bco_unpaired_loss(ratios, labels, shift=0.2)
    close(halves[:2] + halves[2:], ml.bco_loss(p, shift=0.2))


@given(seed=st.integers(0, 2**31), weight=st.floats(0, 1))
def test_tail_weight(seed, weight):
    z = logits_of(seed)
    close(pairs_of(z, tail_weight=1.0).chosen, pairs_of(z).chosen)
    s, n = stats_of(z), 2
    got = ml.preference_pairs(s, REF, tail_weight=weight)
    for i in range(n):  # plain loops as the oracle
        kept = [s.logprobs[r][MASK[r]] for r in (i, i + n)]
        short = min(len(k) for k in kept)
        want = [k[:short].sum() + weight * k[short:].sum() for k in kept]
        close(torch.stack([got.chosen[i], got.rejected[i]]), torch.stack(want))


def test_dpo_at_the_reference_is_log_two():
    loss = ml.dpo_loss(ml.preference_pairs(REF, REF))
    close(loss, torch.full_like(loss, math.log(2)))


def test_ipo_has_its_minimum_at_half_the_inverse_temperature():
    one = torch.ones(1, dtype=F64)
    p = Pairs(
        chosen=5 * one, rejected=0 * one, chosen_ref=0 * one, rejected_ref=0 * one,
        chosen_tokens=one, rejected_tokens=one,
    )  # fmt: skip
    assert ml.ipo_loss(p, tau=0.1).item() == 0


def test_k3_unbiased_has_the_value_of_k3_and_the_gradient_of_k2():
    s, z = stats_of(logits_of()), logits_of()
    close(ml.k3(s, OLD, unbiased=True), ml.k3(s, OLD))
    close(gradient(lambda s: ml.k3(s, OLD, unbiased=True), z), gradient(lambda s: ml.k2(s, OLD), z))


@given(seed=st.integers(0, 2**31), frac=st.floats(0, 1))
def test_kl_cov_touches_the_largest_covariances(seed, frac):
    s = stats_of(logits_of(seed))
    base = ml.kl_cov_loss(s, OLD, ADV, top_frac=0.0)
    touched = (ml.kl_cov_loss(s, OLD, ADV, top_frac=frac) - base).abs() > 0
    n = int(MASK.sum())
    assert int(touched.sum()) == (max(1, int(frac * n)) if frac else 0)
    cov = ml.covariances(s, ADV)
    if touched.any() and not touched[MASK].all():
        assert cov[touched].min() >= cov[MASK & ~touched].max()


def test_clip_cov_is_a_function_of_its_generator():
    s = stats_of(logits_of())
    one, two = (
        ml.clip_cov_loss(s, OLD, ADV, generator=rng(3), fraction=0.2, low=-9.0, high=9.0)
        for _ in range(2)
    )
    plain = ml.ppo_clip_loss(s, OLD, ADV)
    assert torch.equal(one, two)
    assert int((one != plain).sum()) == int(0.2 * int(MASK.sum()))


def test_oreal_of_winners_is_weighted_imitation():
    s = stats_of(logits_of())
    up = ADV.abs()
    got = ml.mean_over_tokens(ml.oreal_loss(s, OLD, up, kl_weight=0.0), MASK)
    close(got, ml.mean_over_tokens(-up * s.logprobs, MASK))


def test_gspo_ratio_is_the_geometric_mean():
    s = stats_of(logits_of())
    loss = ml.gspo_loss(s, OLD, -ADV.abs(), low=0.0, high=1e6)
    mean = ((s.logprobs - OLD) * MASK).sum(1) / MASK.sum(1)
    want = (mean.exp().clamp(min=1)[:, None] * ADV.abs()).expand(4, 5) * MASK
    close(loss, want)


GROUP = torch.tensor([0, 0, 1, 1, 1])
rewards = st.lists(st.floats(-5, 5), min_size=5, max_size=5)


@given(rewards, st.floats(-5, 5))
def test_advantages_are_centred_and_blind_to_a_shift(values, shift):
    r = torch.tensor(values, dtype=F64)
    a = ml.centred_advantages(r, GROUP)
    torch.testing.assert_close(a, ml.centred_advantages(r + shift, GROUP), rtol=1e-9, atol=1e-12)
    assert torch.zeros(2, dtype=F64).scatter_add(0, GROUP, a).abs().max() < 1e-12
    factor = torch.tensor([2.0, 2.0, 1.5, 1.5, 1.5], dtype=F64)
    close(ml.leave_one_out_advantages(r, GROUP), a * factor)


def test_equal_and_unscorable_rewards():
    r = torch.tensor([0.1, 0.1, 1.0, torch.nan, 2.0])
    a = ml.centred_advantages(r, GROUP)
    assert a.tolist() == [0.0, 0.0, -0.5, 0.0, 0.5]
    scaled = ml.scale_by_group_std(a, GROUP, eps=0.0)
    assert bool(scaled.isfinite().all())
    with pytest.raises(ValueError, match="at least two"):
        ml.leave_one_out_advantages(torch.ones(1), torch.zeros(1, dtype=torch.long))


@given(seed=st.integers(0, 2**31), cut=st.integers(1, 3))
def test_micro_batches_with_global_counts_sum_to_the_whole(seed, cut):
    x = torch.randn(4, 5, generator=rng(seed), dtype=F64)
    tokens = float(MASK.sum())
    for reduce, count in (
        (ml.mean_over_tokens, tokens), (ml.mean_of_sequence_means, 4.0),
        (ml.mean_of_sequence_sums, 4.0),
    ):  # fmt: skip
        parts = reduce(x[:cut], MASK[:cut], count=count) + reduce(x[cut:], MASK[cut:], count=count)
        close(parts, reduce(x, MASK))


NAN = TokenStats(logprobs=REF.logprobs * torch.nan, lse=REF.lse, mask=MASK)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ml.dpo_loss(pairs_of(logits_of()), beta=0.0), "beta is 0.0"),
        (lambda: ml.dpo_loss(ml.preference_pairs(REF)), "needs a reference"),
        (lambda: ml.dpo_loss(pairs_of(logits_of()), divergence=ml.PEARSON_CHI2), "not identified"),
        (lambda: ml.exo_loss(pairs_of(logits_of()), smoothing=0.0), "smoothing is 0.0"),
        (lambda: ml.robust_dpo_loss(pairs_of(logits_of()), flip_rate=0.5), "flip_rate is 0.5"),
        (lambda: ml.f_sft_loss(REF, NAN, ml.REVERSE_KL), "non-finite"),
        (lambda: ml.f_sft_loss(REF, REF, ml.CHI2_KL), "preferences only"),
        (lambda: ml.preference_pairs(stats_of(logits_of()[:3], MASK[:3])), "3 rows are no pairs"),
        (lambda: ml.eaft_loss(TokenStats(logprobs=OLD, lse=OLD, mask=MASK)), "top_k_entropy"),
        (lambda: ml.reinforce_loss(REF, ADV * torch.nan), "non-finite"),
        (lambda: ml.kl_cov_loss(REF, OLD, ADV, top_frac=2.0), "top_frac is 2.0"),
        (lambda: ml.mean_over_tokens(OLD, MASK, count=0.0), "count is 0.0"),
        (lambda: ml.discopop_loss(pairs_of(logits_of()), temperature=2.0), "temperature is 2.0"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
