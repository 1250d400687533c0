"""Divergence from a teacher: against Liger and TRL, by finite differences, and its laws."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

import meristem_losses as ml
from meristem_losses import Teacher

F64 = torch.float64
B, S, V, D, R = 3, 4, 9, 5, 4
BETAS = (0.0, 0.3, 1.0)
KINDS = [{}, {"top_k": 3}, {"top_k": 3, "tail": False}, {"top_k": V + 1}]


def problem(seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    shapes = ((B, S, D), (V, D), (B, S, R), (V, R))
    hidden, weight, ref_hidden, ref_weight = (
        torch.randn(*n, generator=g).to(dtype) for n in shapes
    )
    targets = torch.randint(0, V, (B, S), generator=g)
    mask = torch.rand(B, S, generator=g) < 0.7
    return hidden, weight, Teacher(hidden=ref_hidden, weight=ref_weight), targets, mask


def taught(teacher, **options):
    fields = ("hidden", "weight", "bias", "scale", "softcap")
    return Teacher(**{name: getattr(teacher, name) for name in fields}, **options)


def gradients(loss, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value.sum(), inputs)]


def same(ours, theirs, tolerance=1e-10):
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_against_liger():
    liger = pytest.importorskip("liger_kernel.chunked_loss")
    hidden, weight, teacher, targets, mask = problem(4, torch.float32)
    module = liger.LigerFusedLinearJSDLoss(
        compiled=False, beta=0.3, weight_hard_loss=0.0, weight_soft_loss=1.0
    )
    labels = targets.masked_fill(~mask, -100).flatten()

    def theirs(h, w):
        return module(
            h.flatten(0, 1), w, teacher.hidden.flatten(0, 1), teacher.weight, labels, None, None
        )

    def ours(h, w):
        values = ml.token_jsd(h, w, teacher=taught(teacher, beta=0.3), mask=mask)
        return ml.mean_over_tokens(values, mask)

    same(gradients(ours, hidden, weight), gradients(theirs, hidden, weight), tolerance=2e-5)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_against_the_self_distillation_losses_of_trl(kind, beta):
    theirs = pytest.importorskip("trl.experimental.sdft.loss_utils")
    hidden, weight, teacher, _, mask = problem()
    fixed = linear(teacher.hidden, teacher.weight) / 0.7

    def reference(h, w):
        logits = linear(h, w) / 0.7
        if kind.get("top_k", V) >= V:
            found = theirs.compute_full_logit_self_distillation_loss(
                logits, fixed, distillation_alpha=beta
            )
        else:
            found = theirs.compute_topk_self_distillation_loss(
                logits, fixed, distillation_topk=3, distillation_alpha=beta,
                distillation_add_tail=kind.get("tail", True),
            )  # fmt: skip
        return found * mask

    def ours(h, w, rows=5):
        other = taught(teacher, beta=beta, **kind)
        return ml.token_jsd(h, w, teacher=other, mask=mask, temperature=0.7, chunk_tokens=rows)

    expected = gradients(reference, hidden, weight)
    same(gradients(ours, hidden, weight), expected)

    def in_one_pass(h, w):
        return ml.fused_loss(
            h, w, torch.zeros(B, S, dtype=torch.long), mask=mask, temperature=0.7, chunk_tokens=5,
            teacher=taught(teacher, beta=beta, **kind), loss=lambda s, _: s.divergence.sum(),
        ).value  # fmt: skip

    value, *others = gradients(in_one_pass, hidden, weight)
    same([value, *others], [expected[0].sum(), *expected[1:]])


@pytest.mark.parametrize("beta", BETAS)
def test_against_generalised_distillation_of_trl(beta):
    gkd = pytest.importorskip("trl.experimental.gkd")
    hidden, weight, teacher, targets, mask = problem(1)
    labels = targets.masked_fill(~mask, -100)

    def theirs(h, w):
        return gkd.GKDTrainer.generalized_jsd_loss(
            linear(h, w), linear(teacher.hidden, teacher.weight), labels=labels, beta=beta,
            temperature=1.3, num_items_in_batch=7,
        )  # fmt: skip

    def ours(h, w):
        other = taught(teacher, beta=beta)
        values = ml.token_jsd(h, w, teacher=other, mask=mask, temperature=1.3)
        return ml.mean_over_tokens(values, mask, count=7.0)

    same(gradients(ours, hidden, weight), gradients(theirs, hidden, weight))


@pytest.mark.parametrize("beta", BETAS)
def test_against_the_kernel_of_trls_distillation_trainer(beta):
    kernel = pytest.importorskip("trl.kernels.chunked_divergence").ChunkedDivergenceFunction
    hidden, weight, teacher, targets, mask = problem(2, torch.float32)
    g = torch.Generator().manual_seed(3)
    bias, ref_bias = (torch.randn(V, generator=g) for _ in range(2))
    other = Teacher(
        hidden=teacher.hidden, weight=teacher.weight, bias=ref_bias, scale=1.4, softcap=2.0,
        beta=beta,
    )  # fmt: skip

    def ours(h, w, b):
        return ml.token_logprobs(
            h, w, targets, mask=mask, bias=b, scale=0.6, softcap=3.0, temperature=0.7,
            teacher=other, chunk_tokens=4, entropy=True,
        ).divergence[mask]  # fmt: skip

    def theirs(h, w, b):
        return kernel.apply(
            h[mask], w, b, other.hidden[mask], other.weight, ref_bias, beta, 0.7, 0.6, 3.0, 1.4, 2.0
        )[0]

    inputs = hidden, weight, bias
    same(gradients(ours, *inputs), gradients(theirs, *inputs), tolerance=2e-5)


def test_sampled_tokens_are_reinforced_by_the_log_ratio():
    theirs = pytest.importorskip("trl.experimental.sdft.loss_utils")
    hidden, weight, teacher, targets, mask = problem(6)
    other = ml.token_logprobs(teacher.hidden, teacher.weight, targets, mask=mask).logprobs
    old = other - 0.4

    def ours(h, w):
        s = ml.token_logprobs(h, w, targets, mask=mask)
        loss = ml.reinforce_loss(s, ml.distillation_advantages(s, other))
        weights = ml.sampler_weights(s, s.logprobs, old, low=0.0, high=2.0, drop=False)
        return loss * weights

    def reference(h, w):
        logits = linear(h, w)
        loss = theirs.compute_sampled_token_self_distillation_loss(
            logits, linear(teacher.hidden, teacher.weight), targets, distillation_alpha=1.0
        )
        logp = logits.log_softmax(2).gather(2, targets[..., None])[..., 0]
        return mask * theirs.apply_importance_sampling_clipping(loss, logp, old, 2.0)

    same(gradients(ours, hidden, weight), gradients(reference, hidden, weight))


def test_advantages_of_early_tokens_weigh_more():
    opd = pytest.importorskip("trl.experimental.iw_opd").IWOPDTrainer
    hidden, weight, teacher, targets, mask = problem(7)
    other = ml.token_logprobs(teacher.hidden, teacher.weight, targets, mask=mask).logprobs
    old = ml.token_logprobs(hidden + 0.1, weight, targets, mask=mask).logprobs

    class Bare:  # what the method reads of its trainer
        temperature, iw_opd_gamma, iw_opd_epsilon = 1.0, 0.7, 1e-12
        model = torch.nn.Linear(1, 1)

        def __init__(self):
            names = ("advantage", "abs_advantage", "weight")
            keys = [f"iw_opd/mean_{n}" for n in names] + ["iw_opd/min_weight", "iw_opd/max_weight"]
            self._metrics = {"train": {k: [] for k in keys}}

    def reference(h, w):
        labels = targets.masked_fill(~mask, -100)
        return opd._compute_iw_opd_loss(Bare(), linear(h, w), targets, labels, other, old)

    def ours(h, w):
        s = ml.token_logprobs(h, w, targets, mask=mask)
        advantages = ml.distillation_advantages(s, other, old_logprobs=old, gamma=0.7)
        return ml.mean_over_tokens(ml.reinforce_loss(s, advantages), mask)

    same(gradients(ours, hidden, weight), gradients(reference, hidden, weight))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS[:3], ids=str)
def test_gradcheck_beside_the_other_statistics(kind, beta):
    hidden, weight, teacher, targets, mask = problem(5)
    other = taught(teacher, beta=beta, **kind)

    def all_of_it(h, w):
        s = ml.token_logprobs(
            h, w, targets, mask=mask, softcap=2.0, entropy=True, teacher=other, chunk_tokens=5
        )
        return s.divergence + s.entropy.cos() - 0.3 * s.logprobs

    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(all_of_it, inputs, fast_mode=True)


seeds = st.integers(0, 2**31)
betas = st.floats(0.001, 0.999)
DRAWN = settings(max_examples=10)


def jsd(hidden, weight, teacher, **options):
    return ml.token_jsd(hidden, weight, teacher=taught(teacher, **options))


@DRAWN
@given(seeds, betas)
def test_it_is_bounded_and_symmetric(seed, beta):
    hidden, weight, teacher, _, _ = problem(seed)
    found = jsd(hidden, weight, teacher, beta=beta)
    entropy = -beta * math.log(beta) - (1 - beta) * math.log1p(-beta)
    assert bool((found >= -1e-12).all())
    assert bool((found <= entropy + 1e-12).all())
    turned = Teacher(hidden=hidden, weight=weight)
    same([jsd(teacher.hidden, teacher.weight, turned, beta=1 - beta)], [found])


@DRAWN
@given(seeds)
def test_its_slopes_at_the_ends_are_the_two_divergences(seed):
    hidden, weight, teacher, _, _ = problem(seed)
    hidden, teacher = hidden / 4, teacher.frozen(teacher.hidden / 4, teacher.weight)
    small = 1e-7  # times the second-order term, below 1e3 at such logits
    for end, near in ((0.0, small), (1.0, 1 - small)):
        whole = jsd(hidden, weight, teacher, beta=end)
        torch.testing.assert_close(
            jsd(hidden, weight, teacher, beta=near) / small, whole, rtol=1e-3, atol=1e-6
        )


@DRAWN
@given(seeds, st.sampled_from([0.0, 0.5, 1.0]))
def test_a_tail_makes_it_grow_with_the_support(seed, beta):
    hidden, weight, teacher, _, _ = problem(seed)
    found = [jsd(hidden, weight, teacher, beta=beta, top_k=k) for k in range(1, V)]
    found.append(jsd(hidden, weight, teacher, beta=beta))
    for less, more in pairwise(found):  # data processing
        assert bool((less <= more + 1e-12).all())
    same([found[-2]], [found[-1]])  # a tail of one token


@DRAWN
@given(seeds, betas, st.sampled_from(KINDS))
def test_the_policy_as_its_own_teacher_has_no_pull(seed, beta, kind):
    hidden, weight, _, _, _ = problem(seed)
    own = Teacher(hidden=hidden, weight=weight)
    value, *pull = gradients(lambda h, w: jsd(h, w, own, beta=beta, **kind), hidden, weight)
    same([value, *pull], [torch.zeros_like(x) for x in (value, *pull)])


def test_extremes_stay_finite():
    hidden = torch.tensor([[[1e4, 0.0], [-1e4, 0.0]]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    for beta in (0.0, 0.5, 1.0):
        for kind in ({}, {"top_k": 1}, {"top_k": 1, "tail": False}):
            teacher = Teacher(hidden=-hidden.detach(), weight=torch.eye(2), beta=beta, **kind)
            found = ml.token_jsd(hidden, weight, teacher=teacher)
            pull = torch.autograd.grad(found.sum(), (hidden, weight))
            assert bool(found.isfinite().all())
            assert all(bool(x.isfinite().all()) for x in pull)
            if 0 < beta < 1 and kind.get("tail", True):
                torch.testing.assert_close(found, torch.full((1, 2), math.log(2)))


@pytest.mark.parametrize("kind", [{}, {"top_k": 3}])
def test_masked_rows_of_the_teacher_cannot_matter(kind):
    hidden, weight, teacher, targets, mask = problem(8)
    dirty = teacher.hidden.masked_fill(~mask[..., None], torch.nan)
    one, two = (
        ml.token_logprobs(
            hidden, weight, targets, mask=mask,
            teacher=Teacher(hidden=h, weight=teacher.weight, **kind),
        ).divergence
        for h in (teacher.hidden, dirty)
    )  # fmt: skip
    assert torch.equal(one, two)
    assert not bool(one[~mask].any())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.ones(B, S + 1, R, dtype=F64)}, "rows and positions"),
        ({"weight": torch.ones(V + 1, R, dtype=F64)}, "vocabulary 9"),
        ({"beta": 1.5}, "beta is 1.5"),
        ({"beta": math.nan}, "beta is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"softcap": 0.0}, "softcap is 0.0"),
        ({"hidden": torch.full((B, S, R), torch.nan, dtype=F64)}, "divergence is not finite"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(change, message):
    hidden, weight, teacher, targets, _ = problem()
    given_ = {"hidden": teacher.hidden, "weight": teacher.weight}
    for call in (
        lambda t: ml.token_logprobs(hidden, weight, targets, teacher=t),
        lambda t: ml.fused_loss(
            hidden, weight, targets, teacher=t, loss=lambda s, _: s.divergence.sum()
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call(Teacher(**(given_ | change)))


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_advantages_of_distillation_refuse_bad_input(bad):
    hidden, weight, _, targets, mask = problem()
    s = ml.token_logprobs(hidden, weight, targets, mask=mask)
    with pytest.raises(ValueError, match=f"gamma is {bad}"):
        ml.distillation_advantages(s, s.logprobs, gamma=bad)
    with pytest.raises(ValueError, match="non-finite"):
        ml.distillation_advantages(s, s.logprobs * math.nan)


def test_whether_the_target_is_the_likeliest_token():
    hidden, weight, _, targets, mask = problem(9)
    logits = linear(hidden, weight)
    targets[0] = logits[0].argmax(1)
    want = (logits.argmax(2) == targets) & mask
    for found in (
        ml.token_logprobs(hidden, weight, targets, mask=mask, is_top1=True),
        ml.token_logprobs_from_logits(logits, targets, mask=mask, is_top1=True),
    ):
        assert torch.equal(found.is_top1, want)
        assert want.any()
        assert torch.equal(found.select(torch.tensor([0])).is_top1, want[:1])
    seen = []

    def share(stats, index):
        seen.append(stats.is_top1.all())
        return stats.logprobs.sum()

    weight.requires_grad_()
    ml.fused_loss(hidden, weight, targets, mask=mask, loss=share, is_top1=True)
    assert bool(seen[0]) == bool(want[mask].all())
