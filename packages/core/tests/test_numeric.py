"""What is refused, with which words, and examples worked by hand."""

import subprocess
import sys

import numpy as np
import pytest

from meristem_core import (
    Moments,
    Quantiles,
    bca_interval,
    bootstrap_interval,
    clustered_standard_error,
    log_softmax,
    logsumexp,
    masked_mean,
    masked_sum,
    resample_indices,
    segment_max,
    segment_mean,
    segment_sum,
    shuffled_indices,
    stream,
    wilson_interval,
)
from meristem_core.fits import fit_power_law, fit_sigmoid

RNG = np.random.default_rng


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logsumexp(np.array([1, 2])), r"x has dtype int64; it must be floating-point"),
        (lambda: log_softmax(np.full(2, -np.inf)), r"all values along the axis are -inf"),
        (lambda: masked_sum(np.ones(2), np.ones(2)), r"mask has dtype float64; it must be boolean"),
        (lambda: masked_mean(np.ones(2), np.zeros(2, bool)), r"no True in its mask; give empty="),
        (lambda: segment_sum(np.ones(2), np.zeros(3, int), n_segments=1), r"must be as long"),
        (lambda: segment_sum(np.ones(1), np.array([4]), n_segments=2), r"must lie in \[0, 2\)"),
        (lambda: segment_sum(np.ones(1), np.array([0]), n_segments=0), r"n_segments \(0\)"),
        (lambda: segment_mean(np.ones(1), np.array([1]), n_segments=2), r"segment 0 has no values"),
        (lambda: segment_max(np.ones(1), np.array([1]), n_segments=2), r"segment 0 has no values"),
        (lambda: shuffled_indices(0, 0, 1, seed=0), r"n \(0\) must lie in \[1"),
        (lambda: shuffled_indices(3, 2, 1, seed=0), r"start \(2\) and stop \(1\)"),
        (lambda: stream(0, False), r"keys\[0\] \(False\) must be a whole number or a string"),
        (lambda: stream(True), r"seed \(True\) must be a whole number"),
        (lambda: resample_indices(0, 1, rng=RNG(0)), r"n \(0\)"),
        (lambda: resample_indices(2, 1, rng=RNG(0), clusters=np.zeros(3, int)), r"each of 2 rows"),
        (lambda: bootstrap_interval(lambda r: 0.0, 2, rng=RNG(0), level=1.0), r"level \(1.0\)"),
        (lambda: bootstrap_interval(lambda r: np.nan, 2, rng=RNG(0)), r"a resample is nan"),
        (lambda: bca_interval(lambda r: 0.0, 1, rng=RNG(0)), r"n \(1\) must be at least 2"),
        (lambda: wilson_interval(3, 2), r"successes \(3\) must lie in \[0, trials\]"),
        (lambda: clustered_standard_error(np.ones(2), np.zeros(2, int)), r"there is 1 cluster"),
        (lambda: clustered_standard_error(np.array([1, np.nan]), np.arange(2)), r"values\[1\]"),
        (lambda: Moments().update(np.array([0.0, np.inf])), r"values\[1\] is inf"),
        (lambda: Moments().variance(), r"0 values have no variance"),
        (lambda: Quantiles(error=1.0), r"error \(1.0\) must lie in \(0, 1\)"),
        (lambda: Quantiles().quantile(0.5), r"no value has been seen"),
        (lambda: Quantiles().quantile(2.0), r"q \(2.0\) must lie in \[0, 1\]"),
        (lambda: Quantiles(error=0.1).merge(Quantiles(error=0.2)), r"error 0.1 and 0.2"),
        (lambda: fit_power_law(np.ones(4), np.ones(4), rng=RNG(0)), r"1 different x are too few"),
        (
            lambda: fit_power_law(np.arange(4.0), np.ones(4), rng=RNG(0)),
            r"x\[0\] is 0.0; it must be > 0",
        ),
        (
            lambda: fit_sigmoid(np.arange(5.0), np.full(5, np.nan), rng=RNG(0)),
            r"y\[0\] is nan; drop the point",
        ),
        (
            lambda: fit_sigmoid(np.arange(5.0), np.ones(5), rng=RNG(0), low=1.0, high=0.0),
            r"low \(1.0\) must lie below high \(0.0\)",
        ),
    ],
)
def test_a_bad_value_is_named_with_the_rule(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_an_empty_slice_has_the_value_that_was_asked_for():
    x, mask = np.ones((2, 2)), np.array([[True, False], [False, False]])
    assert masked_mean(x, mask, axis=1, empty=0.5).tolist() == [1.0, 0.5]


def test_a_stream_is_the_same_on_every_machine():
    assert stream(0, "pin", 1).integers(1000, size=4).tolist() == [380, 98, 785, 826]
    assert shuffled_indices(10, 0, 10, seed=0).tolist() == [4, 3, 5, 7, 0, 2, 8, 6, 9, 1]


def test_importing_core_brings_no_heavy_library():
    code = (
        "import meristem_core, sys; heavy = {'torch', 'scipy', 'safetensors', 'zstandard'}; "
        "print(*heavy & set(sys.modules), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")
