"""Numbers of trusted implementations: SciPy and NumPy."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from meristem_core import (
    bca_interval,
    bootstrap_interval,
    log_softmax,
    logsumexp,
    softmax_entropy,
    wilson_interval,
)
from meristem_core.fits import Status, fit_power_law, fit_sigmoid
from meristem_core.testing import assert_close, logits


@given(x=logits((2, 5)))
def test_reductions_equal_scipy(x):
    assert_close(logsumexp(x), scipy.special.logsumexp(x, axis=-1), scale=30.0)
    assert_close(log_softmax(x), scipy.special.log_softmax(x, axis=-1), scale=60.0)
    probs = scipy.special.softmax(x, axis=-1)
    assert_close(softmax_entropy(x), scipy.stats.entropy(probs, axis=-1), scale=60.0)


@pytest.mark.parametrize(
    ("ours", "name"), [(bootstrap_interval, "percentile"), (bca_interval, "BCa")]
)
def test_bootstrap_intervals_equal_scipy_on_the_same_resamples(ours, name):
    x = np.random.default_rng(3).gamma(1.0, size=30)
    found = ours(lambda rows: float(x[rows].mean()), 30, rng=np.random.default_rng(5))
    known = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=2000, method=name, random_state=np.random.default_rng(5)
    ).confidence_interval
    assert_close([found.low, found.high], [known.low, known.high])


@given(trials=st.integers(1, 1000), data=st.data(), level=st.sampled_from([0.5, 0.95, 0.99]))
def test_wilson_equals_scipy(trials, data, level):
    successes = data.draw(st.integers(0, trials))
    found = wilson_interval(successes, trials, level=level)
    known = scipy.stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert_close([found.low, found.high], [known.low, known.high])


@pytest.mark.parametrize("seed", range(10))
def test_a_power_law_with_a_floor_is_no_worse_than_curve_fit(seed):
    rng = np.random.default_rng(seed)
    x = np.geomspace(1, 1e4, 25)
    y = (2.0 * x**-0.5 + 0.5) * np.exp(0.01 * rng.normal(size=25))
    found = fit_power_law(x, y, rng=rng, floor=True, n_resamples=1)

    def log_law(x, a, log_c, e):
        return np.log(np.exp(log_c) * x**-a + e)

    known, _ = scipy.optimize.curve_fit(log_law, x, np.log(y), p0=(0.5, np.log(2.0), 0.5))
    ours = ((np.log(found.predict(x)) - np.log(y)) ** 2).sum()
    theirs = ((log_law(x, *known) - np.log(y)) ** 2).sum()
    assert ours <= theirs * (1 + 1e-6), f"squared error {ours} against {theirs}"


def test_a_floor_is_reported_as_undetermined_where_there_is_none():
    x = np.geomspace(1, 100, 12)
    noise = np.exp(0.05 * np.random.default_rng(0).normal(size=12))
    found = fit_power_law(
        x, x**-0.3 * noise, rng=np.random.default_rng(1), floor=True, n_resamples=50
    )
    assert found.status is Status.FLOOR_UNDETERMINED


@pytest.mark.parametrize("seed", range(5))
def test_a_sigmoid_is_no_worse_than_curve_fit(seed):
    rng = np.random.default_rng(seed)
    x = np.linspace(-3, 3, 40)
    y = 0.2 + 0.7 / (1 + np.exp(-1.5 * x)) + 0.02 * rng.normal(size=40)

    def law(x, low, high, slope, middle):
        return low + (high - low) / (1 + np.exp(-slope * (x - middle)))

    found = fit_sigmoid(x, y, rng=rng, n_resamples=1)
    known, _ = scipy.optimize.curve_fit(law, x, y, p0=(0.2, 0.9, 1.5, 0.0))
    ours, theirs = ((found.predict(x) - y) ** 2).sum(), ((law(x, *known) - y) ** 2).sum()
    assert ours <= theirs * (1 + 1e-6), f"squared error {ours} against {theirs}"


def test_a_known_floor_is_kept():
    x = np.linspace(-3, 3, 20)
    y = 0.25 + 0.5 / (1 + np.exp(-2 * x))
    found = fit_sigmoid(x, y, rng=np.random.default_rng(0), low=0.25, n_resamples=1)
    assert found.low.estimate == 0.25
    assert found.high.estimate == pytest.approx(0.75, abs=1e-6)
