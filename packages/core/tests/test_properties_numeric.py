"""Laws of reductions, streams of random numbers, orders, intervals, streaming statistics, fits."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meristem_core import (
    Moments,
    Quantiles,
    bootstrap_interval,
    clustered_standard_error,
    derive_seed,
    log_softmax,
    logsumexp,
    masked_mean,
    masked_sum,
    resample_indices,
    segment_logsumexp,
    segment_max,
    segment_mean,
    segment_sum,
    shuffled_indices,
    softmax_entropy,
    stream,
    wilson_interval,
)
from meristem_core.fits import fit_power_law, fit_sigmoid
from meristem_core.testing import (
    assert_close,
    assert_commutes,
    finite_vectors,
    logits,
    masks,
    permutations,
    seeds,
)

sizes = st.integers(1, 12).map(lambda n: (n,))
keys = st.lists(st.integers() | st.text(max_size=5), max_size=4)


@given(x=logits(sizes), shift=st.floats(-50, 50))
def test_a_shift_moves_the_log_sum_and_leaves_the_softmax(xp, x, shift):
    values = xp.asarray(x)
    assert_close(logsumexp(values + shift), logsumexp(values) + shift, scale=100.0)
    assert_close(log_softmax(values + shift), log_softmax(values), scale=100.0)
    assert_close(softmax_entropy(values + shift), softmax_entropy(values), scale=100.0)


@given(x=logits((3, 4)))
def test_probabilities_sum_to_one_and_entropy_is_bounded(xp, x):
    values = xp.asarray(x)
    assert_close(xp.sum(xp.exp(log_softmax(values)), axis=-1), np.ones(3), scale=30.0)
    entropy = softmax_entropy(values)
    assert bool(xp.all(entropy >= 0)), f"negative entropy {entropy}"
    assert bool(xp.all(entropy <= math.log(4) + 1e-12)), f"entropy {entropy} above log 4"


@given(x=logits((3, 4)), order=permutations(3))
def test_rows_are_independent(x, order):
    for function in (logsumexp, log_softmax, softmax_entropy):
        assert_commutes(function, lambda a: a[order], lambda a: a[order], x)


@given(data=st.data(), x=finite_vectors())
def test_what_a_mask_hides_does_not_matter(xp, data, x):
    mask = data.draw(masks(x.shape))
    hidden = np.where(mask, x, np.nan)
    got = masked_mean(xp.asarray(hidden), xp.asarray(mask))
    assert_close(got, x[mask].mean(), scale=1e3)
    assert_close(masked_sum(xp.asarray(hidden), xp.asarray(mask)), x[mask].sum(), scale=1e3)


@given(x=finite_vectors())
def test_a_full_mask_gives_the_mean(x):
    assert_close(masked_mean(x, np.ones(x.shape, bool)), x.mean(), scale=1e3)


@given(data=st.data(), x=finite_vectors(bound=30.0), n=st.integers(1, 5))
def test_segments_are_reductions_of_their_own_rows(data, x, n):
    ids = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=x.size, max_size=x.size)))
    total = segment_sum(x, ids, n_segments=n)
    mean = segment_mean(x, ids, n_segments=n, empty=7.0)
    top = segment_max(x, ids, n_segments=n, empty=7.0)
    logs = segment_logsumexp(x, ids, n_segments=n)
    for segment in range(n):
        own = x[ids == segment]
        assert_close(total[segment], own.sum(), scale=30.0 * x.size)
        assert_close(mean[segment], own.mean() if own.size else 7.0, scale=30.0 * x.size)
        assert top[segment] == (own.max() if own.size else 7.0)
        expected = logsumexp(own) if own.size else -np.inf
        assert_close(logs[segment], expected, scale=30.0)


@given(data=st.data(), x=finite_vectors(min_size=2))
def test_the_order_of_the_rows_of_a_segment_does_not_matter(data, x):
    ids = np.arange(x.size) % 2
    order = data.draw(permutations(x.size))
    assert_close(
        segment_sum(x[order], ids[order], n_segments=2),
        segment_sum(x, ids, n_segments=2),
        scale=1e3,
    )


@given(seed=st.integers(), names=keys, others=keys)
@example(seed=0, names=["a", 1], others=["a1"])
@example(seed=0, names=[1, 2], others=[12])
@example(seed=0, names=[1], others=["1"])
def test_streams_are_equal_exactly_for_equal_keys(seed, names, others):
    same = [(type(each), each) for each in names] == [(type(each), each) for each in others]
    left, right = stream(seed, *names).integers(2**62), stream(seed, *others).integers(2**62)
    assert (left == right) == same, f"streams of {names} and {others}"
    assert (derive_seed(seed, *names) == derive_seed(seed, *others)) == same
    assert 0 <= derive_seed(seed, *names) < 2**63


@given(n=st.integers(1, 300), epoch=st.integers(0, 5), seed=seeds())
def test_every_epoch_is_a_permutation(n, epoch, seed):
    found = shuffled_indices(n, epoch * n, (epoch + 1) * n, seed=seed)
    assert np.array_equal(np.sort(found), np.arange(n)), "an epoch must hold each item once"


@given(n=st.integers(1, 50), cuts=st.lists(st.integers(0, 60), max_size=3), seed=seeds())
def test_an_order_does_not_depend_on_where_it_is_cut(n, cuts, seed):
    edges = sorted([0, 60, *cuts])
    parts = [shuffled_indices(n, a, b, seed=seed) for a, b in pairwise(edges)]
    assert np.array_equal(np.concatenate(parts), shuffled_indices(n, 0, 60, seed=seed))


@pytest.mark.parametrize("seed", range(4))
def test_every_item_comes_first_equally_often(seed):
    n, epochs = 5, 60
    first = [int(shuffled_indices(n, e * n, e * n + 1, seed=seed)[0]) for e in range(epochs)]
    counts = np.bincount(first, minlength=n)
    chi_square = ((counts - epochs / n) ** 2).sum() / (epochs / n)
    assert chi_square < 35, f"counts {counts}"  # exceeded once in 2 million by a fair order


@given(value=st.floats(-1e3, 1e3), n=st.integers(1, 20), seed=seeds())
def test_constant_data_has_an_interval_of_no_width(value, n, seed):
    x = np.full(n, value)
    found = bootstrap_interval(
        lambda rows: float(x[rows].min()), n, rng=np.random.default_rng(seed), n_resamples=20
    )
    assert found.low == found.estimate == found.high == value


@given(data=st.data(), n=st.integers(1, 12), seed=seeds())
def test_clusters_are_drawn_whole(data, n, seed):
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    rows = resample_indices(n, 1, rng=np.random.default_rng(seed), clusters=labels)[0]
    times = np.bincount(rows, minlength=n)
    for label in np.unique(labels):
        assert len(set(times[labels == label])) == 1, "rows of one cluster come equally often"


@given(x=finite_vectors(min_size=2))
def test_clusters_of_one_give_the_usual_standard_error(x):
    expected = x.std(ddof=1) / np.sqrt(x.size)
    assert_close(clustered_standard_error(x, np.arange(x.size)), expected, scale=1e3)


@given(trials=st.integers(1, 500), data=st.data())
def test_wilson_mirrors_and_holds_the_estimate(trials, data):
    successes = data.draw(st.integers(0, trials))
    found, mirrored = (
        wilson_interval(successes, trials),
        wilson_interval(trials - successes, trials),
    )
    assert 0 <= found.low <= found.estimate <= found.high <= 1, f"{found}"
    assert_close(found.low, 1 - mirrored.high)


@given(x=finite_vectors(max_size=30), cuts=st.lists(st.integers(0, 30), max_size=3))
def test_moments_do_not_depend_on_how_a_stream_is_cut(x, cuts):
    edges = sorted([0, x.size, *(min(cut, x.size) for cut in cuts)])
    seen = Moments()
    for a, b in pairwise(edges):
        seen = seen.merge(Moments().update(x[a:b]))
    assert seen.count == x.size
    assert_close(seen.mean, x.mean(), scale=1e3)
    assert_close(seen.variance(), x.var(), scale=1e6)
    assert Moments.from_json(seen.to_json()) == seen


@given(
    x=finite_vectors(max_size=40),
    error=st.sampled_from([0.01, 0.1]),
    q=st.floats(0, 1),
    cut=st.integers(0, 40),
)
def test_quantiles_keep_their_promise(x, error, q, cut):
    seen, rest = Quantiles(error=error), Quantiles(error=error)
    seen.update(x[:cut])
    rest.update(x[cut:])
    seen.merge(rest)
    again = Quantiles.from_json(seen.to_json())
    true = float(np.quantile(x, q, method="lower"))
    # the rank is floor(q (n - 1)); NumPy may round q (n - 1) the other way
    near = [true, *(float(np.sort(x)[i]) for i in _ranks(q, x.size))]
    got = again.quantile(q)
    assert any(abs(got - each) <= error * abs(each) * (1 + 1e-9) for each in near), f"{got} {near}"


def _ranks(q: float, n: int) -> list[int]:
    return [min(n - 1, int(np.floor(q * (n - 1))))]


@given(
    exponent=st.floats(0.0625, 2),
    scale=st.floats(0.125, 100),
    unit=st.floats(0.125, 100),
    seed=seeds(),
)
def test_a_power_law_comes_back_and_units_move_only_the_scale(exponent, scale, unit, seed):
    x = np.geomspace(1.0, 1e3, 8)
    y = scale * x**-exponent
    rng = np.random.default_rng(seed)
    plain = fit_power_law(x, y, rng=rng, n_resamples=20)
    other = fit_power_law(x * unit, y, rng=rng, n_resamples=20)
    assert plain.exponent.estimate == pytest.approx(exponent, rel=1e-8)
    assert plain.scale.estimate == pytest.approx(scale, rel=1e-8)
    assert plain.exponent.high - plain.exponent.low < 1e-8, "exact data has no spread"
    assert other.exponent.estimate == pytest.approx(exponent, rel=1e-8)
    assert other.scale.estimate == pytest.approx(scale * unit**exponent, rel=1e-8)
    assert np.allclose(plain.predict(x), y, rtol=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_a_sigmoid_comes_back(seed):
    drawn = np.random.default_rng(seed)
    slope, middle, falling = drawn.uniform(0.5, 6), drawn.uniform(-1, 1), drawn.random() < 0.5
    x = np.linspace(-4, 4, 25)
    signed = -slope if falling else slope
    y = 0.25 + 0.5 / (1 + np.exp(-signed * (x - middle)))
    found = fit_sigmoid(x, y, rng=np.random.default_rng(seed), n_resamples=1)
    got = [each.estimate for each in (found.low, found.high, found.slope, found.middle)]
    assert got == pytest.approx([0.25, 0.75, signed, middle], abs=1e-5), f"{got}"
