"""Marginal maximum likelihood: published tables, laws, and the derivatives of all curves."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_rasch import CML, MML, ExistenceError, Responses, score_persons
from meristem_rasch._curves import curves
from meristem_rasch._mml import Marginal


def frequencies(path):
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return Responses.from_wide(table[:, -6:-1], weight=table[:, -1])


@pytest.mark.data
@pytest.mark.paper
def test_lsat6_rasch_of_mirt(data_dir):
    """philchalmers/mirt, tests/testthat: d and the variance, to the digits printed there."""
    cal = MML().fit(frequencies(data_dir / "irt/classical/mirt_LSAT6_freq.csv"))
    easiness = cal.latent_mean - cal.threshold
    np.testing.assert_allclose(easiness, [2.73, 0.999, 0.24, 1.306, 2.099], atol=2e-3)
    assert cal.latent_sd**2 == pytest.approx(0.57, abs=5e-3)


@pytest.mark.data
@pytest.mark.paper
def test_lsat7_2pl_of_mirt(data_dir):
    cal = MML(model="2pl").fit(frequencies(data_dir / "irt/classical/mirt_LSAT7_freq.csv"))
    np.testing.assert_allclose(cal.slope, [0.988, 1.081, 1.706, 0.7651, 0.7358], atol=2e-3)
    easiness = -cal.slope * cal.threshold
    np.testing.assert_allclose(easiness, [1.8561, 0.808, 1.8043, 0.486, 1.8545], atol=2e-3)


@pytest.mark.data
@pytest.mark.paper
@pytest.mark.parametrize(
    ("name", "published"),
    [("arc", -120279.173), ("truthfulqa", -145426.626), ("gsm8k", -409894.401)],
)
def test_marginal_likelihood_of_mirt_on_leaderboards(data_dir, name, published):
    """The log-likelihood that mirt stored with its 2PL fits, at its parameters and its 61 nodes."""
    responses = np.load(data_dir / f"irt/metabench_{name}.npz")["responses"].astype(float)
    with (data_dir / f"irt/metabench_{name}_items.csv").open() as file:
        rows = list(csv.DictReader(file))
    slope = np.array([float(row["a1.x"]) for row in rows])
    intercept = np.array([float(row["d.x"]) for row in rows])
    responses[responses < 0] = np.nan
    marginal = Marginal(Responses.from_wide(responses), free_slopes=True)
    psi = np.concatenate([-intercept / slope, slope])
    assert -marginal.value_and_gradient(psi, 61)[0] == pytest.approx(published, abs=2e-3)


def simulate(rng, persons, items):
    logits = rng.normal(size=(persons, 1)) - rng.normal(size=items) / 2
    return Responses.from_wide((rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float))


@given(rng=rngs(), model=st.sampled_from(["rasch", "pcm", "2pl", "gpcm"]), gaps=st.booleans())
def test_the_gradient_is_that_of_the_value(rng, model, gaps):
    m = rng.integers(1, 3 if model in ("pcm", "gpcm") else 2, size=3)
    table = rng.integers(0, m + 1, size=(9, 3)).astype(float)
    if gaps:
        table[0, 0] = np.nan
    marginal = Marginal(
        Responses.from_wide(table, max_score=m), free_slopes=model in ("2pl", "gpcm")
    )
    psi = marginal.start() + 0.3 * rng.normal(size=len(marginal.start()))
    gradient = marginal.value_and_gradient(psi, 61)[1]
    for k in range(len(psi)):
        step = 1e-5 * np.eye(len(psi))[k]
        up, down = (marginal.value_and_gradient(psi + s, 61)[0] for s in (step, -step))
        assert gradient[k] == pytest.approx((up - down) / 2e-5, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_laws_of_the_fit(seed):
    data = simulate(np.random.default_rng(seed), 300, 6)
    rasch, free = MML().fit(data), MML(model="2pl").fit(data)
    assert free.loglik >= rasch.loglik - 1e-9
    assert MML(model="pcm").fit(data).loglik == pytest.approx(rasch.loglik, abs=1e-9)
    twice = MML().fit(replace(data, weight=np.full(300, 2.0)))
    np.testing.assert_allclose(twice.threshold, rasch.threshold, atol=1e-7)
    np.testing.assert_allclose(twice.vcov, rasch.vcov / 2, rtol=1e-4, atol=1e-9)
    finer = MML(n_nodes=241).fit(data)
    assert finer.loglik == pytest.approx(rasch.loglik, abs=1e-6)
    # conditional and marginal estimates differ by far less than their errors
    assert (np.abs(CML().fit(data).threshold - rasch.threshold) < rasch.threshold_se / 2).all()


def test_recovers_planted_slopes_and_a_reversed_item():
    rng = np.random.default_rng(3)
    slope, b = np.array([0.5, 1.0, 1.5, 2.0, -1.0, 1.2]), rng.normal(size=6)
    logits = slope * (rng.normal(size=(20_000, 1)) - b)
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    cal = MML(model="2pl").fit(Responses.from_wide(table))
    assert (np.abs(cal.slope - slope) < 4 * cal.slope_se).all()
    assert (np.abs(cal.threshold - b) < 4 * cal.threshold_se).all()


def test_a_category_that_nobody_reaches_is_named():
    data = Responses.from_wide([[0, 1], [1, 0], [0, 2]], max_score=[2, 2])
    with pytest.raises(ExistenceError, match="item I1: nobody scores \\[2\\]"):
        MML(model="pcm").fit(data)


@given(rng=rngs(), model=st.sampled_from(["pcm", "gpcm", "3pl", "grm"]))
def test_curves_are_probabilities_with_their_derivatives(rng, model):
    m = np.array([1, 1]) if model == "3pl" else np.array([2, 3])
    data = Responses.from_wide(np.vstack([np.zeros(2), m, rng.permuted(m)]).clip(max=m))
    tau = np.concatenate([np.sort(rng.normal(size=k)) for k in m])
    cal = replace(
        MML(model="gpcm")._calibration(
            (mar := Marginal(data, free_slopes=True)), mar.start(), np.eye(len(mar.start())), 61, 1
        ),
        model=model,
        threshold=tau,
        slope=np.ones(2) if model == "pcm" else rng.uniform(0.3, 2, size=2),
        guess=np.full(2, 0.2) if model == "3pl" else np.zeros(2),
    )
    theta, step = rng.normal(size=4), 1e-5
    p, first, second = curves(cal, theta)
    up, down = curves(cal, theta + step), curves(cal, theta - step)
    np.testing.assert_allclose(p.sum(axis=2), 1, atol=1e-12)
    np.testing.assert_allclose(first, (up[0] - down[0]) / (2 * step), atol=1e-8)
    np.testing.assert_allclose(second, (up[1] - down[1]) / (2 * step), atol=1e-8)


def test_posterior_means_equal_a_direct_integral():
    data = simulate(np.random.default_rng(0), 200, 5)
    cal = MML().fit(data)
    scores = score_persons(cal, data, method="eap")
    theta = cal.latent_mean + cal.latent_sd * np.linspace(-8, 8, 4001)
    p = 1 / (1 + np.exp(-(theta[:, None] - cal.threshold)))
    row = data.scores[0]
    density = np.prod(np.where(row == 1, p, 1 - p), axis=1)
    density *= np.exp(-(((theta - cal.latent_mean) / cal.latent_sd) ** 2) / 2)
    assert scores.theta[0] == pytest.approx(density @ theta / density.sum(), abs=1e-8)
