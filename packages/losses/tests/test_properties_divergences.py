"""Generators, conjugates, links, and the duality that fine-tuning by divergence rests on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_losses import (
    CHI2_KL,
    FORWARD_KL,
    JENSEN_SHANNON,
    PEARSON_CHI2,
    REVERSE_KL,
    SQUARED_HELLINGER,
    TOTAL_VARIATION,
    alpha_divergence,
)

SMOOTH = [
    PEARSON_CHI2, SQUARED_HELLINGER, JENSEN_SHANNON, REVERSE_KL, FORWARD_KL,
    alpha_divergence(-0.7), alpha_divergence(0.3), alpha_divergence(1.5), alpha_divergence(3.0),
]  # fmt: skip
LINKED = [
    SQUARED_HELLINGER, JENSEN_SHANNON, REVERSE_KL, FORWARD_KL, CHI2_KL,
    alpha_divergence(-0.7), alpha_divergence(0.3),
]  # fmt: skip


def scalar(x):
    return torch.tensor(float(x), dtype=torch.float64)


def slope(curve, x):
    x = scalar(x).requires_grad_()
    return torch.autograd.grad(curve(x), x)[0].item()


@pytest.mark.parametrize("d", [*SMOOTH, CHI2_KL], ids=lambda d: d.name)
@settings(max_examples=25)  # times the divergences
@given(u=st.floats(0.06, 20))
def test_generators_are_normalised_and_convex(d, u):
    assert d.f(scalar(u)).item() >= -1e-13
    assert d.f(scalar(1)).item() == pytest.approx(0, abs=1e-14)
    assert d.f_prime(scalar(1)).item() == pytest.approx(0, abs=1e-14)
    assert slope(d.f, u) == pytest.approx(d.f_prime(scalar(u)).item(), rel=1e-9, abs=1e-9)
    curvature = slope(d.f_prime, 1.0)
    assert curvature == pytest.approx(2.0 if d is CHI2_KL else 1.0, rel=1e-12)
    assert slope(d.f_prime, u) > 0


@pytest.mark.parametrize("d", SMOOTH, ids=lambda d: d.name)
@settings(max_examples=25)  # times the divergences
@given(u=st.floats(0.06, 19), other=st.floats(0.06, 19))
def test_fenchel_young_with_equality_at_the_derivative(d, u, other):
    # phi(x) = -f*(-x), so f(u) - phi(-g) >= u g, equal at g = f'(u)
    g = d.f_prime(scalar(u))
    assert (d.f(scalar(u)) - d.phi(-g)).item() == pytest.approx(u * g.item(), rel=1e-8, abs=1e-8)
    gap = d.f(scalar(other)) - d.phi(-g) - other * g
    assert gap.item() >= -1e-8 * (1 + abs(g.item()))
    assert d.phi_prime(-g).item() == pytest.approx(u, rel=1e-7)


@pytest.mark.parametrize("d", [*SMOOTH, TOTAL_VARIATION], ids=lambda d: d.name)
@settings(max_examples=25)  # times the divergences
@given(x=st.floats(-1e4, 1e4), y=st.floats(-1e4, 1e4))
def test_weights_are_bounded_decreasing_and_the_slope_of_phi(d, x, y):
    low, high = sorted((x, y))
    found = d.phi_prime(scalar(low)).item(), d.phi_prime(scalar(high)).item()
    assert 20 * (1 + 1e-12) >= found[0] >= found[1] * (1 - 1e-12) >= 0
    assert math.isfinite(d.phi(scalar(x)).item())
    assert slope(d.phi, x) == pytest.approx(d.phi_prime(scalar(x)).item(), rel=1e-7, abs=1e-9)
    assert slope(d.phi, 0.0) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("d", LINKED, ids=lambda d: d.name)
@settings(max_examples=25)  # times the divergences
@given(r=st.floats(-5.5, 9))  # where no link has met its continuation
def test_links_are_the_derivative_of_the_generator(d, r):
    assert d.reward(scalar(r)).item() == pytest.approx(
        d.f_prime(scalar(r).exp()).item(), rel=1e-7, abs=1e-9
    )


@pytest.mark.parametrize("d", LINKED, ids=lambda d: d.name)
@settings(max_examples=25)  # times the divergences
@given(r=st.floats(-1e4, 1e4))
def test_links_stay_finite_and_increasing(d, r):
    x = scalar(r)
    assert math.isfinite(d.reward(x).item())
    assert 0 <= slope(d.link, r) <= math.exp(10) * (1 + 1e-9)
    if r < 60:  # the steepest decay is e^(-1.7 r)
        assert slope(d.link, r) > 0


@pytest.mark.parametrize(
    "d", [TOTAL_VARIATION, PEARSON_CHI2, alpha_divergence(2.0), alpha_divergence(1.5)]
)
def test_divergences_without_a_link_say_why(d):
    with pytest.raises(ValueError, match="not identified"):
        d.reward(scalar(0.1))


@pytest.mark.parametrize(
    ("alpha", "named"),
    [(2.0, PEARSON_CHI2), (0.5, SQUARED_HELLINGER), (1 + 2e-6, REVERSE_KL), (2e-6, FORWARD_KL)],
)
@given(x=st.floats(-0.9, 5))
def test_alpha_meets_the_named_divergences(alpha, named, x):
    found = alpha_divergence(alpha).phi(scalar(x)).item()
    assert found == pytest.approx(named.phi(scalar(x)).item(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("d", [*SMOOTH, TOTAL_VARIATION], ids=lambda d: d.name)
@settings(max_examples=25)  # times the divergences
@given(u=st.floats(-3, 3))
def test_a_free_value_makes_every_divergence_plain_fine_tuning(d, u):
    v = torch.linspace(-u - 0.5, -u + 0.5, 2001, dtype=torch.float64)
    assert (d.phi(u + v) - v).max().item() == pytest.approx(u, abs=1e-7)


@pytest.mark.parametrize("d", SMOOTH, ids=lambda d: d.name)
@settings(max_examples=25)  # times the divergences
@given(seed=st.integers(0, 2**31), beta=st.floats(0.2, 3))
def test_strong_duality_on_a_bandit(d, seed, beta):
    """The dual at the r of any policy bounds the primal below; at its optimum both agree."""
    g = torch.Generator().manual_seed(seed)
    ref, expert, trial = torch.randn(3, 4, generator=g, dtype=torch.float64).softmax(1)
    # a policy with reward r = beta log(pi / ref): choose the expert that makes it optimal,
    # phi'(r + c) = pi / expert with c set so that the expert sums to 1
    policy = (0.7 * ref + 0.3 * trial) / (0.7 * ref + 0.3 * trial).sum()
    base = beta * (policy / ref).log()
    low, high = -60.0, 60.0
    for _ in range(200):
        c = (low + high) / 2
        if (policy / d.phi_prime(base + c).clamp(min=1e-12)).sum() > 1:
            high = c
        else:
            low = c
    r = base + (low + high) / 2
    weight = d.phi_prime(r)
    if not bool(((weight > 1e-6) & (weight < 19)).all()):
        return
    best = policy / weight

    def primal(pi, q):
        return (q * d.f(pi / q)).sum() + beta * (pi * (pi / ref).log()).sum()

    def dual(q, reward):
        return (q * d.phi(reward)).sum() - beta * (ref * (reward / beta).exp()).sum().log()

    value = primal(policy, best)
    assert dual(best, r).item() == pytest.approx(value.item(), abs=1e-8)
    assert primal(expert, best) >= value - 1e-9
