"""Gradient checks of every loss in float64, the lattice of special cases, and extremes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

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
    **{f"f-sft {d.name}": lambda s, d=d: ml.f_sft_loss(s, REF, d, beta=0.7) for d in PHIS},
    **{f"sequence {d.name}": lambda s, d=d: ml.f_sft_sequence_loss(s, REF, d) for d in PHIS},
    **{f"zero {d.name}": lambda s, d=d: ml.f_sft_zero_value_loss(s, REF, d) for d in PHIS},
    "reinforce": lambda s: ml.reinforce_loss(s, ADV),
    "rloo": lambda s: ml.rloo_loss(s, OLD, ADV, low=0.9, high=1e6),
    "a2po": lambda s: ml.a2po_loss(ratios_of(s), ADV[:, 0], beta=0.2),
    "z": ml.z_loss,
    "psft": lambda s: ml.psft_loss(s, OLD),
    "ppo": lambda s: ml.ppo_clip_loss(s, OLD, ADV),
    "dual ppo": lambda s: ml.ppo_clip_loss(s, OLD, ADV, dual_clip=3.0),
    "sapo": lambda s: ml.sapo_loss(s, OLD, ADV),
    "kl-cov penalty": lambda s: ml.k1(s, OLD),
    "k2": lambda s: ml.k2(s, OLD),
    "k3": lambda s: ml.k3(s, OLD),
    "entropy": lambda s: ml.entropy_bonus(s, 0.3),
    "ppo delta": lambda s: ml.ppo_clip_loss(s, OLD, ADV, delta=1.5),
    "gmpo": lambda s: ml.gmpo_loss(s, OLD, ADV),
    "corrected k3": lambda s: ml.k3(s, REF.logprobs * 0.9, old_logprobs=OLD),
    "kl-cov": lambda s: ml.kl_cov_loss(s, OLD, ADV, top_frac=1.0),
    **{
        f"kl-cov penalty {form.__name__}": lambda s, form=form: ml.kl_cov_penalty(
            s, OLD, ADV, top_frac=1.0, penalty=form
        )
        for form in (ml.old_k1, ml.old_k2, ml.old_k3)
    },
    "clip-cov": lambda s: ml.clip_cov_loss(s, OLD, ADV, generator=rng(3), fraction=0.0),
    "kto": lambda s: ml.kto_loss(ratios_of(s), GOOD, torch.tensor(0.2, dtype=F64)),
    "apo zero unpaired": lambda s: ml.apo_zero_unpaired_loss(ratios_of(s), GOOD),
    "bco unpaired": lambda s: ml.bco_unpaired_loss(ratios_of(s), GOOD, shift=0.1),
    "plackett-luce": lambda s: ml.plackett_luce_loss(ratios_of(s)[None], beta=0.3),
    "plackett-luce links": lambda s: ml.plackett_luce_loss(
        ml.FORWARD_KL.reward(ratios_of(s)).view(2, 2)
    ),
}
# losses with detached weights: the same expression with the weights of a frozen copy
FROZEN = {
    "dft": (ml.dft_loss, lambda s, f: -f.logprobs.exp() * s.logprobs),
    "eaft": (
        lambda s: ml.eaft_loss(s, alpha=0.5, k=4),
        lambda s, f: -((f.top_k_entropy / math.log(4)) ** 0.5) * s.logprobs,
    ),
    "iw-sft": (
        lambda s: ml.iw_sft_loss(s, OLD, power=0.5),
        lambda s, f: -(0.5 * row_mean(f.logprobs - OLD)).exp().clamp(max=16.0) * s.logprobs,
    ),
    "iw-sft token": (
        lambda s: ml.iw_sft_token_loss(s, OLD),
        lambda s, f: -(f.logprobs - OLD).exp().clamp(0.2, 1.8) * s.logprobs,
    ),
    "asft": (
        lambda s: ml.asft_loss(s, s.entropy, weight=0.3),
        lambda s, f: -f.logprobs.exp() * s.logprobs + 0.3 * s.entropy,
    ),
    "cispo": (
        lambda s: ml.cispo_loss(s, OLD, ADV, cap=1.5),
        lambda s, f: -(f.logprobs - OLD).exp().clamp(max=1.5) * ADV * s.logprobs,
    ),
    "dual importance": (
        lambda s: ml.dual_importance_loss(s, OLD, ADV, ADV**2),
        lambda s, f: -(ADV**2) * (f.logprobs - OLD).exp() * ADV * s.logprobs,
    ),
    "vespo": (
        lambda s: ml.vespo_loss(s, OLD, ADV),
        lambda s, f: -gamma((f.logprobs - OLD).sum(1, keepdim=True)) * ADV * s.logprobs,
    ),
    "gspo": (
        lambda s: ml.gspo_loss(s, OLD, ADV, low=0.9, high=1e3),
        lambda s, f: -row_mean(f.logprobs - OLD).exp() * ADV * (s.logprobs - f.logprobs).exp(),
    ),
    "oreal": (
        lambda s: ml.oreal_loss(s, OLD, ADV),
        lambda s, f: torch.where(
            ADV > 0,
            -ADV * s.logprobs * (N / int(MASK[::2].sum())),
            -0.5 * ADV * (s.logprobs - f.logprobs).exp() * (N / int(MASK[1::2].sum())),
        ) + 0.01 * ml.k3(s, OLD),
    ),
    "k3 unbiased": (
        lambda s: ml.k3(s, OLD, unbiased=True), lambda s, f: (s.logprobs - OLD) ** 2 / 2,
    ),
    "wpo": (
        lambda s: ml.dpo_loss(ml.preference_pairs(s, REF)) * ml.wpo_weights(s),
        lambda s, f: ml.dpo_loss(ml.preference_pairs(s, REF)) * pair_weights(f),
    ),
}  # fmt: skip
N = int(MASK.sum())
GOOD = torch.tensor([True, False, True, True])


def ratios_of(s):
    return ml.sequence_logprobs(s) - ml.sequence_logprobs(REF)


def row_mean(x):
    return ((x * MASK).sum(1) / MASK.sum(1))[:, None]


def gamma(log_w):
    k, rate = torch.where(ADV >= 0, 2.0, 3.0), torch.where(ADV >= 0, 3.0, 2.0)
    return (rate + k * log_w - rate * log_w.exp()).exp()


def pair_weights(f):
    every = row_mean(f.logprobs - f.log_collision)[:, 0].exp()
    return every[:2] * every[2:]


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
    "tpo-l": lambda p: ml.tpo_l_loss(p, torch.ones_like(p.chosen), smoothing=0.1),
    "smoothed cpo": lambda p: ml.cpo_loss(p, smoothing=0.1),
    "smoothed aot": lambda p: ml.aot_loss(p, smoothing=0.1),
}


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_gradcheck_of_token_losses(name):
    logits = logits_of().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: TOKEN_LOSSES[name](stats_of(z)), (logits,), fast_mode=True
    )


@pytest.mark.parametrize("name", FROZEN)
def test_gradients_of_losses_with_detached_weights(name):
    loss, frozen = FROZEN[name]
    fixed = stats_of(logits_of())

    def restated(s):
        x = frozen(s, fixed)
        return x * MASK if x.shape == MASK.shape else x

    close(gradient(loss, logits_of()), gradient(restated, logits_of()))
    logits = logits_of().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: restated(stats_of(z)), (logits,), fast_mode=True)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradcheck_of_pair_losses(name):
    logits = logits_of().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: PAIR_LOSSES[name](pairs_of(z)), (logits,), fast_mode=True
    )


def recorded(real, called):
    def call(*given, **options):
        called.add(real.__name__)
        return real(*given, **options)

    return call


def test_every_public_loss_is_gradient_checked(monkeypatch):
    elsewhere = {"fused_loss"}  # with the primitive
    losses = {n for n in ml.__all__ if n.endswith("_loss")} - elsewhere
    losses |= {"k1", "k2", "k3", "entropy_bonus", "kl_cov_penalty"}
    tokens = [*TOKEN_LOSSES.values(), *(ours for ours, _ in FROZEN.values())]
    direct = {getattr(case, "__name__", "") for case in (*tokens, *PAIR_LOSSES.values())}
    called = losses & direct
    for name in losses:
        monkeypatch.setattr(ml, name, recorded(getattr(ml, name), called))
    s = stats_of(logits_of())
    for case in tokens:
        case(s)
    for case in PAIR_LOSSES.values():
        case(ml.preference_pairs(s, REF))
    assert called == losses


@pytest.mark.parametrize("name", PAIR_LOSSES)
@settings(max_examples=20)  # times the losses
@given(a=st.floats(-1e4, 1e4), b=st.floats(-1e4, 1e4))
def test_extreme_log_ratios_stay_finite(name, a, b):
    if name in ("cpo", "simpo", "alphapo", "orpo", "tpo", "tpo-l", "smoothed cpo"):
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


@given(seed=st.integers(0, 2**31))
def test_forms_of_the_penalty_over_a_whole_vocabulary(seed):
    old, new = (x[0].log_softmax(1) for x in (logits_of(seed), logits_of(seed + 1)))
    new.requires_grad_()

    def of(form):
        value = (old.exp() * form(new - old)).sum(1)
        return value.detach(), torch.autograd.grad(value.sum(), new)[0]

    divergence, slope = (old.exp() * (old - new)).sum(1).detach(), -old.exp()
    close(of(ml.old_k1), (divergence, slope))
    value, gradient_ = of(ml.old_k3)  # its gradient sums the change of all probabilities as well
    close(value, divergence + new.exp().sum(1).detach() - 1)
    close(gradient_, slope + new.exp().detach())
    assert float((of(ml.old_k2)[0] - divergence).abs().max()) > 1e-6  # a witness of its bias


def test_forms_of_the_penalty_where_nothing_has_moved_yet():
    z = logits_of()
    own = stats_of(z).logprobs

    def pull(form):
        return gradient(
            lambda s: ml.kl_cov_penalty(s, own, ADV, top_frac=1.0, penalty=form), z
        ).abs().max()  # fmt: skip

    assert [float(pull(f)) for f in (torch.abs, ml.old_k2, ml.old_k3)] == [0, 0, 0]
    close(
        gradient(
            lambda s: ml.kl_cov_penalty(s, own, ADV, top_frac=1.0, penalty=ml.old_k1), z
        ),
        gradient(ml.nll_loss, z),
    )  # fmt: skip


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


@given(rewards, st.floats(-5, 5))
def test_length_weighted_advantages(values, shift):
    r, lengths = torch.tensor(values, dtype=F64), torch.tensor([1.0, 3, 2, 2, 4], dtype=F64)
    a = ml.length_weighted_advantages(r, GROUP, lengths)
    for g in (0, 1):  # the definition, group by group
        kept = g == GROUP
        mean = (r[kept] * lengths[kept]).sum() / lengths[kept].sum()
        close(a[kept], r[kept] - mean)
    same = ml.length_weighted_advantages(r, GROUP, torch.full_like(r, 7.0))
    close(same, ml.centred_advantages(r, GROUP))
    assert ml.length_weighted_advantages(torch.full_like(r, shift), GROUP, lengths).abs().max() == 0


def test_batch_deviation():
    a = torch.tensor([1.0, -1.0, 0.0, 2.0])
    close(ml.scale_by_batch_std(a, eps=0.0), a / a.std())
    with pytest.raises(ValueError, match="no deviation"):
        ml.scale_by_batch_std(a[:1])


def test_gmpo_reduces_to_the_geometric_mean():
    s = stats_of(logits_of())
    loss = ml.mean_of_sequence_means(ml.gmpo_loss(s, OLD, ADV, low=9.0, high=9.0), MASK)
    close(loss, (-row_mean(s.logprobs - OLD).exp() * ADV).mean())


def test_delta_bounds_the_loss_and_ends_the_gradient():
    high = logits_of().requires_grad_()
    s = stats_of(high)
    loss = ml.ppo_clip_loss(s, s.logprobs.detach() - 3.0, -torch.ones_like(ADV), delta=1.5)
    close(loss, 1.5 * MASK.to(F64))
    assert float(torch.autograd.grad(loss.sum(), high)[0].abs().max()) == 0


class Controller(RuleBasedStateMachine):
    """The coefficient stays within its bounds, and a saved state goes on the same way."""

    def __init__(self):
        super().__init__()
        self.one = ml.AdaptiveEntropy(target=1.0, step=0.3, low=0.1, high=0.8, start=0.2)

    @rule(entropy=st.floats(0, 2))
    def step(self, entropy):
        before = self.one.controlled
        self.one.update(entropy)
        rises = entropy <= 1.0
        assert (self.one.controlled >= before) if rises else (self.one.controlled <= before)
        assert self.one.coefficient == (self.one.controlled if rises else 0.0)

    @rule()
    def reload(self):
        again = ml.AdaptiveEntropy(target=1.0, step=0.3, low=0.1, high=0.8, start=0.2)
        again.load_state_dict(self.one.state_dict())
        assert again.coefficient == self.one.coefficient
        self.one = again

    @invariant()
    def bounded(self):
        assert 0.1 <= self.one.controlled <= 0.8


TestController = Controller.TestCase
TestController.settings = settings(max_examples=10, stateful_step_count=10)


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


def spoiled():
    return TokenStats(logprobs=REF.logprobs * torch.nan, lse=REF.lse, mask=MASK)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ml.dpo_loss(pairs_of(logits_of()), beta=0.0), "beta is 0.0"),
        (lambda: ml.dpo_loss(ml.preference_pairs(REF)), "needs a reference"),
        (lambda: ml.dpo_loss(pairs_of(logits_of()), divergence=ml.PEARSON_CHI2), "not identified"),
        (lambda: ml.exo_loss(pairs_of(logits_of()), smoothing=0.0), "smoothing is 0.0"),
        (lambda: ml.robust_dpo_loss(pairs_of(logits_of()), flip_rate=0.5), "flip_rate is 0.5"),
        (lambda: ml.f_sft_loss(REF, spoiled(), ml.REVERSE_KL), "non-finite"),
        (lambda: ml.f_sft_loss(REF, REF, ml.CHI2_KL), "preferences only"),
        (lambda: ml.preference_pairs(stats_of(logits_of()[:3], MASK[:3])), "3 rows are no pairs"),
        (lambda: ml.eaft_loss(TokenStats(logprobs=OLD, lse=OLD, mask=MASK)), "top_k_entropy"),
        (lambda: ml.reinforce_loss(REF, ADV * torch.nan), "non-finite"),
        (lambda: ml.kl_cov_loss(REF, OLD, ADV, top_frac=2.0), "top_frac is 2.0"),
        (lambda: ml.mean_over_tokens(OLD, MASK, count=0.0), "count is 0.0"),
        (lambda: ml.ppo_clip_loss(REF, OLD, ADV, delta=1.1), "delta is 1.1"),
        (lambda: ml.k3(REF, OLD, unbiased=True, old_logprobs=OLD), "choose one"),
        (lambda: ml.aot_loss(pairs_of(logits_of()), smoothing=0.6), "smoothing is 0.6"),
        (lambda: ml.vespo_loss(REF, OLD, ADV, positive_shape=(0.0, 1.0)), "k of a shape is 0.0"),
        (lambda: ml.gmpo_loss(REF, OLD, ADV, low=-1.0), "low is -1.0"),
        (lambda: ml.AdaptiveEntropy(low=2.0), "0 <= low <= start <= high"),
        (lambda: ml.AdaptiveEntropy().update(math.nan), "entropy is nan"),
        (lambda: ml.discopop_loss(pairs_of(logits_of()), temperature=2.0), "temperature is 2.0"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
