"""Distillation against the losses and the kernel of TRL, values and gradients."""

import pytest
import torch
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
