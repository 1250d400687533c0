"""What the papers state and can be checked in closed form.

2507.00018: fine-tuning is implicit-reward learning with the total variation; the statements are
checked on finite bandits against an independent optimum of the primal problem.
"""

import math

import pytest
import torch

import meristem_losses as ml

F64 = torch.float64
SMOOTH = [
    ml.PEARSON_CHI2, ml.SQUARED_HELLINGER, ml.JENSEN_SHANNON, ml.REVERSE_KL, ml.FORWARD_KL,
    ml.alpha_divergence(0.3),
]  # fmt: skip


def bandit(seed):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(5, generator=g, dtype=F64).log_softmax(0) for _ in range(2))


def minimise(loss, start):
    """Return the minimiser by L-BFGS and the loss there."""
    x = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [x], max_iter=400, tolerance_grad=1e-11, tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimiser.zero_grad()
        value = loss(x)
        value.backward()
        return value

    optimiser.step(closure)
    return x.detach(), loss(x).item()


def bandit_stats(logits, mask):
    """Return statistics of one-token responses, one row each."""
    return ml.token_logprobs_from_logits(
        logits.expand(len(mask), 1, -1), torch.arange(len(mask))[:, None], mask=mask
    )


@pytest.mark.paper
@pytest.mark.parametrize("d", SMOOTH, ids=lambda d: d.name)
def test_the_loss_minimises_divergence_to_the_expert_plus_kl_to_the_base(d):
    """2507.00018: min over policies of D_f(pi, expert) + beta KL(pi, base) = the loss's optimum."""
    beta = 0.8
    expert, base = bandit(3)

    def primal(z):
        logp = z.log_softmax(0)
        ratio = (logp - expert).exp()
        return (expert.exp() * d.f(ratio)).sum() + beta * (logp.exp() * (logp - base)).sum()

    logits, best = minimise(primal, base)
    mask = torch.ones(5, 1, dtype=torch.bool)
    reference = bandit_stats(base, mask)

    def fine_tuning(z):
        losses = ml.f_sft_loss(bandit_stats(z, mask), reference, d, beta=beta)
        return (expert.exp() * losses.sum(1)).sum()

    found, value = minimise(fine_tuning, base)
    # the loss is -dual / beta, and the dual optimum is the primal one
    assert -beta * value == pytest.approx(best, abs=1e-8)
    torch.testing.assert_close(found.log_softmax(0), logits.log_softmax(0), rtol=0, atol=1e-5)


@pytest.mark.paper
def test_total_variation_reaches_the_expert_whatever_the_base():
    """2507.00018 abstract: plain fine-tuning is the case in which the KL to the base drops out."""
    expert, base = bandit(4)
    mask = torch.ones(5, 1, dtype=torch.bool)
    for beta in (0.03, 1.0, 10.0):
        reference = bandit_stats(base, mask)

        def loss(z, beta=beta, reference=reference):
            found = ml.f_sft_loss(bandit_stats(z, mask), reference, ml.TOTAL_VARIATION, beta=beta)
            return (expert.exp() * found.sum(1)).sum()

        found, _ = minimise(loss, base)
        torch.testing.assert_close(found.log_softmax(0), expert, rtol=0, atol=1e-4)


@pytest.mark.paper
def test_dpo_is_the_published_expression():
    """2305.18290 Eq. 7 on numbers worked by hand: beta 0.1, log-ratios 2 and -1."""
    one = torch.ones(1, dtype=F64)
    pairs = ml.Pairs(
        chosen=-3 * one, rejected=-6 * one, chosen_ref=-5 * one, rejected_ref=-5 * one,
        chosen_tokens=one, rejected_tokens=one,
    )  # fmt: skip
    assert ml.dpo_loss(pairs).item() == pytest.approx(math.log(1 + math.exp(-0.3)), abs=1e-12)


@pytest.mark.paper
def test_natural_gradient_loses_entropy_by_the_covariance():
    """2505.22617: to first order dH = -Cov(log p, dz) of a tabular policy."""
    z = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=F64)
    step = 1e-6 * torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=F64)
    logp = z.log_softmax(0)
    p = logp.exp()

    def entropy(x):
        return -(x.log_softmax(0).exp() * x.log_softmax(0)).sum()

    covariance = (p * logp * step).sum() - (p * logp).sum() * (p * step).sum()
    change = entropy(z + step) - entropy(z)
    torch.testing.assert_close(change, -covariance, rtol=1e-4, atol=0)


@pytest.mark.paper
def test_estimators_of_kl_have_the_stated_expectations():
    """Enumerated: k1 and k3 have the value of KL; k2 and the corrected k3 its gradient."""
    g = torch.Generator().manual_seed(2)
    z, ref = (torch.randn(5, generator=g, dtype=F64) for _ in range(2))
    z.requires_grad_()
    logp, base = z.log_softmax(0), ref.log_softmax(0)
    kl = (logp.exp() * (logp - base)).sum()
    (exact,) = torch.autograd.grad(kl, z, retain_graph=True)
    mask = torch.ones(1, 5, dtype=torch.bool)
    stats = ml.TokenStats(logprobs=logp[None], lse=z.logsumexp(0).expand(1, 5), mask=mask)
    p, other, old = logp.exp().detach(), base[None], logp.detach()[None]
    for value in (ml.k1(stats, other), ml.k3(stats, other), ml.k3(stats, other, unbiased=True)):
        torch.testing.assert_close((p * value[0]).sum(), kl.detach())
    gradients = {
        name: torch.autograd.grad((p * x[0]).sum(), z, retain_graph=True)[0]
        for name, x in {
            "k1": ml.k1(stats, other), "k2": ml.k2(stats, other), "k3": ml.k3(stats, other),
            "unbiased": ml.k3(stats, other, unbiased=True),
            "corrected": ml.k3(stats, other, old_logprobs=old),
        }.items()
    }  # fmt: skip
    for name in ("k2", "unbiased", "corrected"):
        torch.testing.assert_close(gradients[name], exact)
    assert float((gradients["k3"] - exact).abs().max()) > 0.01
    assert float(gradients["k1"].abs().max()) < 1e-12
