"""Laws of the kernel, the estimates, the measures and the tests."""

import itertools
from dataclasses import replace
from functools import partial

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_rasch import (
    CML,
    JML,
    ConvergenceError,
    ExistenceError,
    Fractional,
    Responses,
    andersen_test,
    conditional_probabilities,
    item_fit,
    likelihood_ratio_dif,
    log_esf,
    martin_loef_test,
    q3,
    score_persons,
    score_table,
)
from meristem_rasch._cml import Problem
from meristem_rasch._information import observed_information
from meristem_rasch._kernel import blocks, conditional, log_gamma, padded
from meristem_rasch._mml import FEWEST_NODES, _enough
from meristem_rasch._parameters import layout
from meristem_rasch._patterns import patterns
from meristem_rasch._posterior import Marginal

# each example of these laws is several fits
few = settings(max_examples=max(8, settings().max_examples // 12))
max_scores = st.lists(st.integers(1, 3), min_size=2, max_size=6)
few_items = st.lists(
    st.integers(1, 3), min_size=2, max_size=4
)  # of few patterns of missing answers
tau_of_item = st.lists(st.floats(-12, 12), min_size=1, max_size=3)
thresholds = st.lists(tau_of_item, min_size=2, max_size=12)
long_tests = st.lists(tau_of_item, min_size=2, max_size=20)


def simulate(rng, persons, max_score, *, missing=0.0):
    """Responses of standard normal persons to partial credit items."""
    columns, theta = [], rng.normal(size=persons)
    for m in max_score:
        beta = np.concatenate([[0], np.cumsum(rng.normal(size=m))])
        p = np.exp(np.outer(theta, np.arange(m + 1)) - beta)
        p /= p.sum(axis=1, keepdims=True)
        columns.append((rng.random((persons, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1))
    table = np.column_stack(columns).astype(float)
    table[rng.random(table.shape) < missing] = np.nan
    assume(not np.isnan(table).all(axis=0).any())
    return Responses.from_wide(table, max_score=max_score)


def fitted(data, **settings):
    try:
        return CML(model="pcm", **settings).fit(data)
    except ExistenceError:
        assume(False)


@given(items=thresholds)
def test_log_esf_equals_50_digit_sums(items):
    with mpmath.workdps(50):
        weights = [[mpmath.exp(-mpmath.fsum(t[:h])) for h in range(len(t) + 1)] for t in items]
        wanted = [float(mpmath.log(value)) for value in symmetric_functions(weights)]
    np.testing.assert_allclose(log_esf(items), wanted, rtol=1e-12, atol=1e-11)


@few
@given(items=long_tests)
def test_conditional_probabilities_equal_50_digit_sums(items):
    total = sum(map(len, items))
    ours = conditional_probabilities(items, np.arange(total + 1))
    with mpmath.workdps(50):
        weights = [[mpmath.exp(-mpmath.fsum(t[:h])) for h in range(len(t) + 1)] for t in items]
        gamma = symmetric_functions(weights)
        for i, weight in enumerate(weights):
            rest = symmetric_functions(weights[:i] + weights[i + 1 :])
            for h, w in enumerate(weight):
                wanted = [float(w * value / gamma[s + h]) for s, value in enumerate(rest)]
                mine = ours[h : h + len(rest), i, h]
                np.testing.assert_allclose(mine, wanted, rtol=1e-10, atol=1e-13)


def symmetric_functions(weights):
    """Return the coefficients of the product of the items' polynomials."""
    gamma = [mpmath.mpf(1)]
    for weight in weights:
        out = [mpmath.mpf(0)] * (len(gamma) + len(weight) - 1)
        for r, value in enumerate(gamma):
            for h, w in enumerate(weight):
                out[r + h] += value * w
        gamma = out
    return gamma


@few
@given(items=thresholds, rng=rngs())
def test_log_esf_knows_no_order_and_no_border_between_items(items, rng):
    plain = log_esf(items)
    mixed = [items[i] for i in rng.permutation(len(items))]
    np.testing.assert_allclose(log_esf(mixed), plain, rtol=1e-12, atol=1e-11)
    first, second = (np.exp(-np.cumsum([0.0, *tau])) for tau in mixed[:2])
    merged = -np.diff(np.log(np.convolve(first, second)))  # one item, its score their sum
    np.testing.assert_allclose(log_esf([merged, *mixed[2:]]), plain, rtol=1e-12, atol=1e-11)


@few
@given(items=thresholds, cut=st.floats(0, 1))
def test_the_choice_of_tilts_and_blocks_does_not_matter(items, cut):
    m = np.array([len(tau) for tau in items])
    logw, scores = padded(np.concatenate(items), m), np.arange(m.sum() + 1)
    place = 1 + int(cut * (len(scores) - 2))
    parts = [block for part in np.split(scores, [place]) for block in blocks(logw, part)]
    tilts = {block.tilt for block in parts}
    assert len(tilts) > 1
    gamma = np.concatenate([log_gamma(block) for block in parts])
    np.testing.assert_allclose(gamma, log_esf(items), rtol=1e-12, atol=1e-11)
    p = np.concatenate([conditional(block) for block in parts])
    np.testing.assert_allclose(p, conditional_probabilities(items, scores), atol=1e-12)


@given(items=thresholds)
def test_conditional_probabilities_spend_the_score(items):
    total = sum(map(len, items))
    p = conditional_probabilities(items, np.arange(total + 1))
    np.testing.assert_allclose(p.sum(axis=2), 1, atol=1e-11)
    spent = (p @ np.arange(p.shape[2])).sum(axis=1)
    np.testing.assert_allclose(spent, np.arange(total + 1), atol=1e-10)


@given(items=thresholds, shift=st.floats(-5, 5))
def test_a_common_shift_leaves_conditional_probabilities(items, shift):
    scores = np.arange(sum(map(len, items)) + 1)
    moved = [[t + shift for t in tau] for tau in items]
    np.testing.assert_allclose(
        conditional_probabilities(items, scores),
        conditional_probabilities(moved, scores),
        atol=1e-11,
    )


def enumerated(data, tau):
    """Return -log L_c by summing over all response patterns."""
    beta = [
        np.concatenate([[0], np.cumsum(part)])
        for part in np.split(tau, np.cumsum(data.max_score)[:-1])
    ]
    value = 0.0
    for row, weight in zip(data.scores, data.weight, strict=True):
        seen = np.flatnonzero(row >= 0)
        if row[seen].sum() in (0, data.max_score[seen].sum()):
            continue
        energy = sum(beta[i][row[i]] for i in seen)
        same = [
            -sum(beta[i][h] for i, h in zip(seen, pattern, strict=True))
            for pattern in itertools.product(*(range(data.max_score[i] + 1) for i in seen))
            if sum(pattern) == row[seen].sum()
        ]
        value += weight * (energy + np.logaddexp.reduce(same))
    return value


@few
@given(rng=rngs(), m=st.lists(st.integers(1, 2), min_size=2, max_size=4), gaps=st.booleans())
def test_likelihood_gradient_and_hessian_equal_enumeration(rng, m, gaps):
    data = simulate(rng, 8, m, missing=0.3 * gaps)
    problem, tau = Problem(data, patterns(data)), rng.normal(size=sum(m))
    value, gradient = problem.value_and_gradient(tau)
    assert value == pytest.approx(enumerated(data, tau), abs=1e-9)
    hessian, step = problem.hessian(tau), 1e-5
    for k in range(len(tau)):
        up, down = tau + step * np.eye(len(tau))[k], tau - step * np.eye(len(tau))[k]
        slope = (enumerated(data, up) - enumerated(data, down)) / (2 * step)
        assert gradient[k] == pytest.approx(slope, abs=1e-7)
        change = (problem.value_and_gradient(up)[1] - problem.value_and_gradient(down)[1]) / 2
        np.testing.assert_allclose(hessian[k], change / step, atol=1e-7)
    np.testing.assert_allclose(hessian.sum(axis=1), 0, atol=1e-9)


@few
@given(rng=rngs(), m=max_scores)
def test_weight_two_is_every_row_twice(rng, m):
    data = simulate(rng, 60, m)
    once, table = fitted(data), data.scores.astype(float)
    twice = fitted(Responses.from_wide(np.vstack([table, table]), max_score=m))
    weighted = fitted(replace(data, weight=np.full(60, 2.0)))
    for other in (twice, weighted):
        np.testing.assert_allclose(other.threshold, once.threshold, atol=1e-8)
        np.testing.assert_allclose(other.vcov, once.vcov / 2, rtol=1e-6, atol=1e-12)


@few
@given(rng=rngs(), m=max_scores)
def test_weight_zero_is_no_row(rng, m):
    data = simulate(rng, 60, m)
    fewer = fitted(data.select(persons=np.arange(50)))
    weight = np.where(np.arange(60) < 50, 1.0, 0.0)
    without = fitted(replace(data, weight=weight))
    np.testing.assert_allclose(without.threshold, fewer.threshold, atol=1e-8)


@few
@given(rng=rngs(), m=few_items)
def test_the_order_of_rows_and_items_does_not_matter(rng, m):
    data = simulate(rng, 60, m, missing=0.1)
    columns = rng.permutation(len(m))
    plain = fitted(data)
    mixed = fitted(data.select(persons=rng.permutation(60), items=columns))
    np.testing.assert_allclose(mixed.difficulty, plain.difficulty[columns], atol=1e-7)
    assert mixed.items == tuple(plain.items[i] for i in columns)


@few
@given(rng=rngs(), m=max_scores)
def test_reversed_scores_turn_the_thresholds(rng, m):
    data = simulate(rng, 60, m)
    plain = fitted(data)
    turned = fitted(replace(data, scores=(data.max_score - data.scores).astype(np.int32)))
    for i in range(len(m)):
        mine, theirs = plain.threshold[plain.item_of == i], turned.threshold[plain.item_of == i]
        np.testing.assert_allclose(theirs, -mine[::-1], atol=1e-7)
    assert turned.loglik == pytest.approx(plain.loglik, abs=1e-8)


@few
@given(rng=rngs(), n_items=st.integers(2, 6))
def test_dichotomous_models_agree(rng, n_items):
    data = simulate(rng, 80, [1] * n_items)
    rasch = fitted(data)
    contrasts = np.vstack([np.zeros(n_items - 1), np.eye(n_items - 1)])
    for other in (CML(), CML(model="rsm"), CML(design=contrasts)):
        np.testing.assert_allclose(other.fit(data).threshold, rasch.threshold, atol=1e-8)


@few
@given(rng=rngs())
def test_a_rating_scale_never_beats_partial_credit(rng):
    data = simulate(rng, 80, [2, 2, 2])
    full = fitted(data)
    assert CML(model="rsm").fit(data).loglik <= full.loglik + 1e-9


@few
@given(rng=rngs(), m=few_items)
def test_residuals_vanish_at_the_estimate(rng, m):
    data = simulate(rng, 60, m, missing=0.1)
    cal = fitted(data)
    from meristem_rasch._fit import residual_moments

    residual = residual_moments(cal, data, residuals="conditional").residual
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(residual.sum(axis=1), 0, atol=1e-9)


@few
@given(rng=rngs(), m=max_scores)
def test_anchored_items_stay_and_free_items_move_with_them(rng, m):
    data = simulate(rng, 80, m)
    plain = fitted(data)
    moved = plain.threshold[plain.item_of == 0] + 1.5
    held = fitted(data, anchors={"I1": moved})
    np.testing.assert_allclose(held.threshold, plain.threshold + 1.5, atol=1e-7)


@few
@given(rng=rngs(), m=max_scores, method=st.sampled_from(["wle", "map", "eap"]))
def test_measures_rise_with_the_score_and_are_finite(rng, m, method):
    table = score_table(fitted(simulate(rng, 60, m)), method=method)
    assert np.isfinite(table.theta).all()
    assert (np.diff(table.theta) > 0).all()
    assert (table.se > 0).all()


@few
@given(rng=rngs(), m=max_scores)
def test_maximum_likelihood_measures_reproduce_the_score(rng, m):
    cal = fitted(simulate(rng, 60, m))
    table = score_table(cal, method="mle")
    assert table.theta[0] == -np.inf
    assert table.theta[-1] == np.inf
    from meristem_rasch._curves import curves

    p = curves(cal, table.theta[1:-1])[0]
    expected = (p @ np.arange(p.shape[2])).sum(axis=1)
    np.testing.assert_allclose(expected, np.arange(1, sum(m)), atol=1e-7)


@few
@given(rng=rngs())
def test_equal_groups_have_no_andersen_statistic(rng):
    data = simulate(rng, 60, [1, 1, 1, 1])
    fitted(data)
    table = np.vstack([data.scores, data.scores]).astype(float)
    both = Responses.from_wide(table, max_score=[1] * 4)
    test = andersen_test(CML(), both, split=[0] * 60 + [1] * 60)
    assert test.statistic == pytest.approx(0, abs=1e-8)


@settings(max_examples=3)  # each is sixteen fits
@given(rng=rngs(), m=st.sampled_from([[1, 1, 1], [1, 2, 1]]))
def test_item_bias_is_none_between_equal_groups_and_turns_with_them(rng, m):
    data = simulate(rng, 60, m)
    fitted(data)
    table = np.vstack([data.scores, data.scores]).astype(float)
    bias = partial(likelihood_ratio_dif, estimator=CML(model="pcm"))
    none = bias(Responses.from_wide(table, max_score=m), ["a"] * 60 + ["b"] * 60)
    np.testing.assert_allclose(none.effect, np.where(np.isnan(none.effect), np.nan, 0), atol=1e-7)
    cut = rng.permutation(["a", "b"] * 30)
    one, other = bias(data, cut.tolist()), bias(data, np.where(cut == "a", "b", "a").tolist())
    np.testing.assert_allclose(one.effect, -other.effect, atol=1e-7)
    np.testing.assert_allclose(one.statistic, other.statistic, atol=1e-7)


@few
@given(rng=rngs())
def test_martin_loef_is_not_negative(rng):
    data = simulate(rng, 100, [1, 1, 1, 1])
    try:
        test = martin_loef_test(CML(), data, groups=[0, 1, 0, 1])
    except ExistenceError:
        assume(False)
    assert test.statistic >= -1e-9
    assert test.df == 9 - 1 - 4 + 1 + 1 - 3


@few
@given(rng=rngs())
def test_q3_is_a_symmetric_correlation(rng):
    data = simulate(rng, 60, [1, 2, 1, 2], missing=0.1)
    table = q3(fitted(data), data)
    np.testing.assert_allclose(table, table.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(table), 1, atol=1e-12)
    assert (np.abs(table) <= 1 + 1e-12).all()


@few
@given(rng=rngs(), n_items=st.integers(2, 5))
def test_existence_is_what_the_fit_finds(rng, n_items):
    """Planted sets: nobody solves an item of the hard set without the whole easy set."""
    easy, hard = simulate(rng, 40, [1] * n_items), simulate(rng, 40, [1] * n_items)
    table = np.vstack(
        [
            np.hstack([easy.scores, np.zeros_like(easy.scores)]),
            np.hstack([np.ones_like(hard.scores), hard.scores]),
        ]
    )
    with pytest.raises(ExistenceError):
        CML().fit(Responses.from_wide(table, max_score=[1] * (2 * n_items)))


@few
@given(rng=rngs())
def test_measures_of_a_subset_use_only_its_items(rng):
    data = simulate(rng, 60, [1, 2, 3])
    cal = fitted(data)
    gaps = data.scores.copy()
    gaps[:, 2] = -1
    masked = score_persons(cal, replace(data, scores=gaps))
    assert (masked.possible == 3).all()
    fit = item_fit(cal, replace(data, scores=gaps))
    assert np.isnan(fit.outfit[2])


MARGINAL = st.sampled_from(["rasch", "pcm", "2pl", "gpcm", "grm"])


@few
@given(rng=rngs(), model=MARGINAL, items=st.integers(3, 60))
def test_the_marginal_likelihood_is_done_with_the_nodes_it_takes(rng, model, items):
    data = simulate(rng, 20, [1 if model in ("rasch", "2pl") else 2] * items)
    plan = layout(model, data, 1, {})
    marginal = Marginal(plan, [data], n_nodes=FEWEST_NODES)
    psi = plan.start(data)
    psi = psi + 0.5 * rng.normal(size=len(psi))
    nodes = _enough(marginal, psi, FEWEST_NODES)
    coarse, fine = (
        Marginal(plan, [data], n_nodes=n).value_and_gradient(psi)[0] for n in (nodes, 2 * nodes - 1)
    )
    assert coarse == pytest.approx(fine, rel=1e-6)


@few
@given(rng=rngs(), model=MARGINAL)
def test_the_observed_information_is_that_of_the_likelihood(rng, model):
    data = simulate(rng, 30, [1, 1, 1] if model in ("rasch", "2pl") else [1, 2, 2])
    plan = layout(model, data, 1, {})
    marginal = Marginal(plan, [data], n_nodes=81)
    psi = plan.start(data)
    psi = psi + 0.2 * rng.normal(size=len(psi))
    found, size, step = observed_information(marginal, psi), len(psi), 1e-3
    assert size <= 10

    def value(j, k, s, t):
        e = step * np.eye(size)
        return s * t * marginal.value_and_gradient(psi + s * e[j] + t * e[k])[0]

    for j, k in itertools.combinations_with_replacement(range(size), 2):
        cross = sum(value(j, k, s, t) for s in (1, -1) for t in (1, -1)) / (4 * step**2)
        assert found[j, k] == pytest.approx(cross, rel=1e-4, abs=1e-4)
        assert found[k, j] == pytest.approx(found[j, k], abs=1e-9)


@few
@given(rng=rngs(), n_items=st.integers(3, 8), scale=st.floats(0.2, 20))
def test_fractions_of_whole_answers_are_joint_maximum_likelihood(rng, n_items, scale):
    data = simulate(rng, 40, [1] * n_items)
    data = data.select(persons=(data.raw > 0) & (data.raw < n_items))
    try:
        wanted = JML(correction="none").fit(data)
        one = Fractional(ridge=0, bootstrap=1).fit(data.scores)
        other = Fractional(ridge=0, bootstrap=1).fit(data.scores, scale)
    except (ConvergenceError, ExistenceError):
        assume(False)
    np.testing.assert_allclose(one.difficulty, wanted.difficulty, atol=1e-4)
    theta = score_persons(wanted, data, method="mle").theta
    np.testing.assert_allclose(one.ability, theta, atol=1e-4)
    for name in ("ability", "difficulty", "ability_se", "difficulty_se"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-3, atol=1e-4)
    assert other.dispersion == pytest.approx(scale * one.dispersion, rel=1e-4)
