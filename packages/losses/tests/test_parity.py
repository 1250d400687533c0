"""Values and gradients against Liger's chunked losses in torch, and TRL's kernel."""

import pytest
import torch

import meristem_losses as ml

V, D, ROWS, S = 23, 8, 4, 6


def problem(seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden, other = (torch.randn(ROWS, S, D, generator=g) for _ in range(2))
    weight, other_weight = (torch.randn(V, D, generator=g) for _ in range(2))
    targets = torch.randint(0, V, (ROWS, S), generator=g)
    mask = torch.rand(ROWS, S, generator=g) < 0.7
    mask[:, 0] = True
    return hidden, weight, targets, mask, other, other_weight


def gradients(loss, *inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def same(ours, theirs, rtol=2e-4, atol=2e-5):
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)


DPO = {
    "sigmoid": ml.dpo_loss,
    "hinge": ml.hinge_loss,
    "exo_pair": lambda p: ml.exo_loss(p, smoothing=0.1),
    "nca_pair": ml.nca_loss,
    "robust": lambda p: ml.robust_dpo_loss(p, flip_rate=0.1),
    "bco_pair": ml.bco_loss,
    "sppo_hard": ml.sppo_loss,
    "apo_zero": ml.apo_zero_loss,
    "apo_down": ml.apo_down_loss,
    "discopop": ml.discopop_loss,
}


@pytest.mark.parametrize("name", DPO)
def test_preference_losses_against_liger(name):
    liger = pytest.importorskip("liger_kernel.chunked_loss")
    hidden, weight, targets, mask, other, other_weight = problem()
    module = liger.LigerFusedLinearDPOLoss(compiled=False, loss_type=name, label_smoothing=0.1)
    labels = targets.masked_fill(~mask, -100)

    def theirs(h, w):
        return module(w, h, labels, ref_input=other, ref_weight=other_weight)[0]

    ref = ml.token_logprobs(other, other_weight, targets, mask=mask)

    def ours(h, w):
        pairs = ml.preference_pairs(ml.token_logprobs(h, w, targets, mask=mask), ref)
        return DPO[name](pairs).mean()

    def in_groups(h, w):
        def share(stats, rows):
            part = ml.TokenStats(logprobs=ref.logprobs[rows], lse=ref.lse[rows], mask=stats.mask)
            return DPO[name](ml.preference_pairs(stats, part)).sum() / (ROWS // 2)

        groups = torch.arange(ROWS // 2).repeat(2)
        return ml.fused_loss(h, w, targets, mask=mask, loss=share, groups=groups).value

    expected = gradients(theirs, hidden, weight)
    same(gradients(ours, hidden, weight), expected)
    same(gradients(in_groups, hidden, weight), expected)


@pytest.mark.parametrize("name", ["CPO", "SimPO", "ORPO"])
def test_reference_free_losses_against_liger(name):
    liger = pytest.importorskip("liger_kernel.chunked_loss")
    hidden, weight, targets, mask, _, _ = problem()
    more = {"CPO": {"alpha": 0.7}, "SimPO": {"alpha": 0.0, "gamma": 0.4}, "ORPO": {"beta": 0.3}}
    module = getattr(liger, f"LigerFusedLinear{name}Loss")
    loss = module(compiled=False, **more[name])
    labels = targets.masked_fill(~mask, -100)
    n = ROWS // 2

    def ours(h, w):
        stats = ml.token_logprobs(h, w, targets, mask=mask)
        pairs = ml.preference_pairs(stats)
        nll = ml.mean_over_tokens(-stats.logprobs[:n], mask[:n])  # over the tokens of the batch
        if name == "CPO":
            return ml.cpo_loss(pairs, alpha=0.0).mean() + 0.7 * nll
        if name == "SimPO":
            return ml.simpo_loss(pairs, beta=0.1, gamma=0.4).mean()
        own = pairs.averages()[0]
        return (ml.orpo_loss(pairs, weight=0.3) + own).mean() + nll

    expected = gradients(lambda h, w: loss(w, h, labels)[0], hidden, weight)
    same(gradients(ours, hidden, weight), expected)


def test_kto_against_liger():
    liger = pytest.importorskip("liger_kernel.chunked_loss")
    hidden, weight, targets, mask, other, other_weight = problem()
    labels, good = targets.masked_fill(~mask, -100), torch.tensor([True, False, True, True])
    module = liger.LigerFusedLinearKTOLoss(compiled=False, beta=0.3, use_ref_model=True)
    kl = torch.tensor(0.2)
    ref = ml.token_logprobs(other, other_weight, targets, mask=mask)

    def ours(h, w):
        ratios = ml.sequence_logprobs(ml.token_logprobs(h, w, targets, mask=mask))
        return ml.kto_loss(ratios - ml.sequence_logprobs(ref), good, kl, beta=0.3).mean()

    def theirs(h, w):
        return module(h, w, labels, None, good, other, other_weight, None, kl)[0]

    same(gradients(ours, hidden, weight), gradients(theirs, hidden, weight))


POLICY = {
    "grpo": ({}, lambda s, old, a: ml.mean_of_sequence_means(_ppo(s, old, a), s.mask)),
    "dapo": ({}, lambda s, old, a: ml.mean_over_tokens(_ppo(s, old, a), s.mask)),
    "cispo": (
        {"epsilon_high": 3.0},
        lambda s, old, a: ml.mean_over_tokens(ml.cispo_loss(s, old, a, cap=3.0), s.mask),
    ),
    "sapo": ({}, lambda s, old, a: ml.mean_of_sequence_means(ml.sapo_loss(s, old, a), s.mask)),
    "vespo": ({}, lambda s, old, a: ml.mean_over_tokens(ml.vespo_loss(s, old, a), s.mask)),
    "dr_grpo": (
        {"max_completion_length": S},
        lambda s, old, a: ml.mean_of_sequence_sums(_ppo(s, old, a), s.mask, length=float(S)),
    ),
}


def _ppo(s, old, a):
    return ml.ppo_clip_loss(s, old, a)


@pytest.mark.parametrize("name", POLICY)
def test_policy_losses_against_liger(name):
    liger = pytest.importorskip("liger_kernel.chunked_loss")
    hidden, weight, targets, mask, _, _ = problem()
    more, loss = POLICY[name]
    advantages = torch.tensor([1.3, -0.7, 0.4, -1.1])
    old = -torch.rand(ROWS, S, generator=torch.Generator().manual_seed(2)) * 4
    module = liger.LigerFusedLinearGRPOLoss(
        compiled=False, beta=0.0, use_ref_model=False, loss_type=name, **more
    )

    def theirs(h, w):
        return module(h, w, targets, mask.float(), advantages, old_per_token_logps=old)[0]

    def ours(h, w):
        return loss(ml.token_logprobs(h, w, targets, mask=mask), old, advantages[:, None])

    same(gradients(ours, hidden, weight), gradients(theirs, hidden, weight))


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_primitive_against_the_kernel_of_trl(softcap):
    kernels = pytest.importorskip("trl.kernels")
    hidden, weight, targets, mask, _, _ = problem()
    bias = torch.randn(V, generator=torch.Generator().manual_seed(4))
    names = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits")
    ours = ml.token_logprobs(
        hidden, weight, targets, mask=mask, bias=bias, scale=0.7, softcap=softcap, temperature=1.3,
        entropy=True, mean_logit=True, log_collision=True,
    )  # fmt: skip
    theirs = kernels.ChunkedLogProbFunction.apply(
        hidden[mask], weight, bias, targets[mask], 1.3, 32768, softcap, 0.7, names
    )
    stats = (ours.logprobs, ours.entropy, ours.log_collision, ours.mean_logit)
    for x, y in zip(stats, theirs[:4], strict=True):
        torch.testing.assert_close(x[mask], y)


def test_entropy_controller_against_the_rule_of_trl():
    controller = ml.AdaptiveEntropy(target=0.5, step=0.1, low=0.0, high=0.25)
    coefficient, applied = 0.0, []
    for entropy in (0.4, 0.3, 0.2, 0.6, 0.7, 0.1):
        controller.update(entropy)
        change = 0.1 if entropy <= 0.5 else -0.1
        coefficient = min(max(coefficient + change, 0.0), 0.25)
        applied.append(coefficient if entropy <= 0.5 else 0.0)
        assert controller.coefficient == pytest.approx(applied[-1])
    again = ml.AdaptiveEntropy(target=0.5, step=0.1, high=0.25)
    again.load_state_dict(controller.state_dict())
    assert again.coefficient == controller.coefficient
