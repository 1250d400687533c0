"""Laws of item bias, linking, adaptive tests and the diagnostics of language models."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit

from meristem_core.testing import rngs
from meristem_rasch import (
    Calibration,
    DataError,
    ExistenceError,
    Fractional,
    Responses,
    cohen_kappa,
    difficulty_alignment,
    fleiss_kappa,
    icc,
    icc_one_way,
    information,
    length_as_difficulty,
    link,
    logistic_dif,
    mantel_haenszel,
    overdispersion,
    rasch_dif,
    rater_agreement,
    replay_cat,
    score_persons,
    simulate_cat,
)
from meristem_rasch._cat_ranking import kullback_leibler
from meristem_rasch._curves import curves
from meristem_rasch._two_way import ability, two_way

few = settings(max_examples=max(6, settings().max_examples // 12))
N = float("nan")


def dichotomous(rng, persons, items, *, shift=None):
    logit = rng.normal(size=(persons, 1)) - rng.normal(size=items)
    if shift is not None:
        logit = logit - shift
    return (rng.random(logit.shape) < expit(logit)).astype(float)


def calibration(rng, items, model="rasch"):
    tops = np.ones(items, dtype=np.int64)
    if model in ("pcm", "gpcm", "grm"):
        tops = rng.integers(1, 4, size=items)
    size = int(tops.sum())
    threshold = rng.normal(size=size)
    if model == "grm":
        item = np.repeat(np.arange(items), tops)
        threshold = threshold[np.lexsort((threshold, item))]
    sloped = model in ("2pl", "3pl", "gpcm", "grm")
    return Calibration(
        model=model,
        method="drawn",
        items=tuple(f"I{k}" for k in range(items)),
        max_score=tops,
        threshold=threshold,
        vcov=np.eye(size),
        eta=threshold,
        eta_vcov=np.eye(size),
        slope=np.exp(rng.normal(size=items) / 4) if sloped else np.ones(items),
        slope_se=np.zeros(items),
        guess=np.full(items, 0.2) if model == "3pl" else np.zeros(items),
        latent_mean=0.0,
        latent_sd=1.0,
        loglik=0.0,
        n_parameters=size,
        n_iter=0,
        extreme_persons=(),
        status="converged",
    )


# ---------------------------------------------------------------- item bias
@few
@given(rng=rngs())
def test_identical_groups_show_no_bias(rng):
    half = dichotomous(rng, 60, 5)
    data = Responses.from_wide(np.vstack([half, half]))
    group = ["a"] * 60 + ["b"] * 60
    for found in (mantel_haenszel(data, group), logistic_dif(data, group)):
        known = ~np.isnan(found.effect)
        np.testing.assert_allclose(found.effect[known], 0, atol=1e-7)
        assert set(found.classes) <= {"A", "-"}
    try:
        found = rasch_dif(data, group)
    except (DataError, ExistenceError):
        assume(False)
    np.testing.assert_allclose(found.effect[~np.isnan(found.effect)], 0, atol=1e-9)


@few
@given(rng=rngs())
def test_swapping_the_groups_turns_the_sign(rng):
    shift = np.zeros((200, 6))
    shift[100:, 2] = 1.0
    data = Responses.from_wide(dichotomous(rng, 200, 6, shift=shift))
    group = np.repeat(["a", "b"], 100)
    swapped = np.where(group == "a", "b", "a")
    for method in (mantel_haenszel, logistic_dif, rasch_dif):
        try:
            one, other = method(data, group.tolist()), method(data, swapped.tolist())
        except (DataError, ExistenceError):
            continue
        atol = 1e-5 if method is logistic_dif else 1e-8
        np.testing.assert_allclose(one.effect, -other.effect, atol=atol)
        np.testing.assert_allclose(one.statistic, other.statistic, atol=1e-6, rtol=1e-6)


def test_a_planted_bias_is_found_and_only_that():
    rng = np.random.default_rng(3)
    shift = np.zeros((4000, 10))
    shift[2000:, 4] = 1.0
    data = Responses.from_wide(dichotomous(rng, 4000, 10, shift=shift))
    group = ["a"] * 2000 + ["b"] * 2000
    for method in (mantel_haenszel, rasch_dif):
        found = method(data, group)
        assert found.classes[4] == "C", method
        assert found.classes.count("C") == 1
        assert abs(found.effect[4] - 1.0) < 3 * found.se[4] + 0.1
    assert logistic_dif(data, group).p_holm[4] < 1e-6
    assert rasch_dif(data, group, anchors=["I1", "I2"]).anchors == ("I1", "I2")


def test_bias_needs_two_groups_and_a_matching_score():
    data = Responses.from_wide([[0, 1], [1, 0], [1, N], [0, 1]])
    with pytest.raises(DataError, match="person 3 has no answer to I2"):
        mantel_haenszel(data, list("aabb"))
    with pytest.raises(DataError, match="compares 2 groups, not 3"):
        rasch_dif(data, list("abcc"))
    with pytest.raises(DataError, match="use rasch_dif"):
        logistic_dif(Responses.from_wide([[0, 2], [1, 1]]), ["a", "b"])


# ---------------------------------------------------------------- linking
METHODS = st.sampled_from(["mean_mean", "mean_sigma", "haebara", "stocking_lord"])
MODELS = st.sampled_from(["rasch", "pcm", "2pl", "3pl", "gpcm", "grm"])


@few
@given(rng=rngs(), model=MODELS, method=METHODS, slope=st.floats(0.6, 1.6), shift=st.floats(-2, 2))
def test_a_planted_change_of_scale_is_found_and_undone(rng, model, method, slope, shift):
    source = calibration(rng, 6, model)
    if model in ("rasch", "pcm"):
        slope = 1.0
    planted = replace(link(source, source, method="mean_mean"), slope=slope, shift=shift)
    target = planted.apply(source)
    forth, back = link(source, target, method=method), link(target, source, method=method)
    np.testing.assert_allclose([forth.slope, forth.shift], [slope, shift], atol=2e-5)
    np.testing.assert_allclose(back.slope * forth.slope, 1, atol=2e-5)
    np.testing.assert_allclose(back.measure(forth.measure(np.arange(3.0))), range(3), atol=1e-4)
    np.testing.assert_allclose(forth.apply(source).threshold, target.threshold, atol=1e-4)
    assert forth.se < 1e-4


@pytest.mark.parametrize("method", ["haebara", "stocking_lord"])
def test_linking_back_is_the_inverse_where_items_disagree(method):
    rng = np.random.default_rng(0)
    source, target = calibration(rng, 8, "2pl"), calibration(rng, 8, "2pl")
    forth, back = link(source, target, method=method), link(target, source, method=method)
    assert forth.slope * back.slope == pytest.approx(1, abs=1e-4)
    assert forth.slope * back.shift + forth.shift == pytest.approx(0, abs=1e-4)


def test_a_drifted_item_is_dropped_by_the_robust_link():
    rng = np.random.default_rng(0)
    source = calibration(rng, 12)
    threshold = source.threshold + 0.5 + rng.normal(size=12) * 0.05
    threshold[3] += 2
    found = link(source, replace(source, threshold=threshold), method="mean_mean", robust=True)
    assert found.dropped[0] == "I3"
    assert found.shift == pytest.approx(0.5, abs=0.06)


def test_links_that_cannot_be_are_refused():
    rng = np.random.default_rng(0)
    one, two = calibration(rng, 4), calibration(rng, 4, "2pl")
    with pytest.raises(DataError, match="different units"):
        link(one, two)
    with pytest.raises(DataError, match="not in both"):
        link(one, one, items=["I0", "nothing"])
    with pytest.raises(DataError, match="at least 2"):
        link(one, replace(one, items=tuple("abcd")))


# ---------------------------------------------------------------- adaptive tests
@few
@given(
    rng=rngs(),
    model=MODELS,
    rule=st.sampled_from(["information", "closest", "random"]),
    estimate=st.sampled_from(["eap", "wle"]),
)
def test_a_batch_is_its_single_runs_and_no_item_comes_twice(rng, model, rule, estimate):
    bank, theta = calibration(rng, 12, model), rng.normal(size=5)
    options = {
        "max_items": 8, "seed": 7, "rule": rule, "randomesque": 3, "estimate": estimate,
    }  # fmt: skip
    batch = simulate_cat(bank, theta, **options)
    for row in batch.items:
        assert len(set(row.tolist())) == 8
    again = simulate_cat(bank, theta[:2], **options)
    for name in ("items", "scores", "theta", "se"):
        assert (getattr(batch, name)[:2] == getattr(again, name)).all()


@few
@given(rng=rngs(), model=MODELS)
def test_the_whole_bank_gives_the_estimate_of_all_answers(rng, model):
    bank = calibration(rng, 10, model)
    rows = rng.integers(0, bank.max_score + 1, size=(4, 10))
    data = Responses.from_wide(rows, items=bank.items, max_score=bank.max_score)
    run = replay_cat(bank, data, max_items=10, seed=0)
    wanted = score_persons(bank, data, method="eap", n_nodes=121)
    np.testing.assert_allclose(run.final, wanted.theta, atol=1e-9)
    np.testing.assert_allclose(run.final_se, wanted.se, atol=1e-6)
    warm = replay_cat(bank, data, max_items=10, seed=0, estimate="wle")
    wanted = score_persons(bank, data, method="wle")
    np.testing.assert_allclose(warm.final, wanted.theta, atol=1e-9)
    np.testing.assert_allclose(warm.final_se, wanted.se, atol=1e-9)
    assert (np.take_along_axis(rows, run.items, axis=1) == run.scores).all()


def test_a_test_ends_by_its_rules():
    rng = np.random.default_rng(1)
    bank = calibration(rng, 60)
    theta = rng.normal(size=50)
    run = simulate_cat(bank, theta, max_items=40, max_se=0.45, seed=0)
    stopped = run.length < 40
    assert stopped.any()
    assert (run.final_se[stopped] <= 0.45).all()
    before = np.take_along_axis(run.se, np.maximum(run.length - 2, 0)[:, None], axis=1)[:, 0]
    assert (before > 0.45).all(), "none went on after its error was small enough"
    assert np.isnan(run.theta[stopped, -1]).all()
    area = ["even" if k % 2 else "odd" for k in range(60)]
    run = simulate_cat(bank, theta, max_items=20, content=area, quota={"odd": 3}, seed=0)
    assert (((run.items % 2 == 0) & (run.items >= 0)).sum(axis=1) <= 3).all()
    with pytest.raises(DataError, match="quota names"):
        simulate_cat(bank, theta, max_items=5, content=area, quota={"x": 3}, seed=0)


def test_adaptive_tests_need_fewer_items_than_random_ones():
    rng = np.random.default_rng(5)
    bank = replace(calibration(rng, 300), threshold=rng.normal(size=300) * 2)
    theta = rng.normal(size=400)
    errors = [
        np.sqrt(
            np.mean((simulate_cat(bank, theta, max_items=20, rule=r, seed=1).final - theta) ** 2)
        )
        for r in ("information", "random")
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("model", ["rasch", "3pl", "grm"])
def test_kullback_leibler_information_is_its_integral(model):
    """Chang & Ying (1996), equation 8, by adaptive quadrature."""
    bank, grid = calibration(np.random.default_rng(3), 5, model), np.linspace(-8, 8, 801)

    def divergence(theta, at):
        p, q = curves(bank, np.array([at, theta]))[0]
        return float((p[i][p[i] > 0] * np.log(p[i][p[i] > 0] / q[i][p[i] > 0])).sum())

    found = kullback_leibler(bank, grid, 4)
    for i in range(5):
        wanted = quad(divergence, 0.4 - 1.5, 0.4 + 1.5, args=(0.4,))[0]
        assert found[420, i] == pytest.approx(wanted, rel=1e-3)
    assert (kullback_leibler(bank, grid, 9)[100:700] < found[100:700]).all()
    # nearby it is information times half the squared distance
    near = kullback_leibler(bank, grid, 900)[420]
    np.testing.assert_allclose(near, information(bank, np.array([0.4]))[0] * 0.1**3 / 3, rtol=0.1)


def test_the_kullback_leibler_rule_is_one_of_the_rules():
    rng = np.random.default_rng(4)
    bank, theta = calibration(rng, 12, "gpcm"), rng.normal(size=5)
    batch = simulate_cat(bank, theta, max_items=6, seed=7, rule="kl")
    assert all(len(set(row.tolist())) == 6 for row in batch.items)
    again = simulate_cat(bank, theta[:2], max_items=6, seed=7, rule="kl")
    assert (again.theta == batch.theta[:2]).all()
    first = kullback_leibler(bank, np.linspace(-8, 8, 801), 1)[400].argmax()
    assert (batch.items[:, 0] == first).all()  # at the prior's mean, 0


def test_an_unanswered_item_is_not_administered():
    bank = calibration(np.random.default_rng(2), 4)
    data = Responses.from_wide([[0, N, 1, N], [1, 1, 0, 1]], items=bank.items)
    run = replay_cat(bank, data, max_items=4, seed=0)
    assert set(run.items[0].tolist()) == {0, 2, -1}
    assert run.length.tolist() == [2, 4]


# ---------------------------------------------------------------- the two-way model
@few
@given(rng=rngs(), shape=st.tuples(st.integers(2, 9), st.integers(2, 9)))
def test_the_two_way_fit_solves_its_score_equations(rng, shape):
    y, w = rng.random(shape), rng.integers(1, 5, size=shape).astype(float)
    theta, b = two_way(y, w, ridge=0.3)
    residual = w * (y - expit(theta[:, None] - b))
    np.testing.assert_allclose(residual.sum(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(-residual.sum(axis=0), 0.3 * b, atol=1e-4)
    turned = two_way(1 - y.T, w.T, ridge=0.0)
    straight = two_way(y, w, ridge=0.0)
    for one, other in ((straight[0], turned[1]), (straight[1], turned[0])):
        np.testing.assert_allclose(one - one.mean(), other - other.mean(), atol=1e-4)
    np.testing.assert_allclose(ability(y, w, b), theta, atol=1e-4)


def test_fractional_measures_recover_and_cover():
    rng = np.random.default_rng(4)
    theta, b = rng.normal(size=8), rng.normal(size=60)
    b -= b.mean()
    y = rng.binomial(20, expit(theta[:, None] - b)) / 20
    y[0, :5] = N
    found = Fractional(ridge=0.0, bootstrap=60).fit(y, 20)
    assert found.dispersion == pytest.approx(1, abs=0.15)
    for name, true in (("ability", theta), ("difficulty", b)):
        z = (getattr(found, name) - true) / getattr(found, f"{name}_se")
        assert np.mean(z**2) == pytest.approx(1, abs=0.6)
    assert (found.interval[:, 0] < found.ability).all()
    assert (found.ability < found.interval[:, 1]).all()
    doubled = Fractional(ridge=0.0, bootstrap=5).fit(y, 40)
    np.testing.assert_allclose(doubled.ability, found.ability, atol=1e-6)
    np.testing.assert_allclose(doubled.ability_se, found.ability_se, rtol=1e-3)
    assert doubled.dispersion == pytest.approx(2 * found.dispersion, rel=1e-6)


@few
@given(rng=rngs(), shape=st.sampled_from([(4, 9), (9, 4)]))
def test_fractional_standard_errors_are_those_of_the_dense_information(rng, shape):
    y = rng.uniform(0.1, 0.9, size=shape)
    found = Fractional(ridge=0.5, bootstrap=2).fit(y)
    v, i = shape
    info = found.fitted * (1 - found.fitted)
    dense = np.block([[np.diag(info.sum(1) + 1e-6), -info], [-info.T, np.diag(info.sum(0) + 0.5)]])
    centre = np.eye(v + i) - np.outer(np.ones(v + i), np.r_[np.zeros(v), np.full(i, 1 / i)])
    se = np.sqrt(np.diag(centre @ np.linalg.inv(dense) @ centre.T) * found.dispersion)
    np.testing.assert_allclose(found.ability_se, se[:v], rtol=1e-4)
    np.testing.assert_allclose(found.difficulty_se, se[v:], rtol=1e-4)


# ---------------------------------------------------------------- alignment, dispersion, length
@few
@given(rng=rngs(), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_the_ladder_is_nested_and_blind_to_the_labels_scale(rng, scale, shift):
    label = rng.normal(size=30)
    y = rng.random((5, 30))
    one = difficulty_alignment(y, label, bootstrap=20)
    other = difficulty_alignment(y, scale * label + shift, bootstrap=20)
    for a, b in zip(one.rungs, other.rungs, strict=True):
        assert a.r2 == pytest.approx(b.r2, abs=1e-6)
        assert a.r2 <= 1
    gain = one.rung("rasch").r2 - one.rung("loo").r2
    assert gain > 0.02, "of noise, difficulty from other systems explains nothing"
    w = np.ones_like(y)
    gap = {}
    for name, p in predictions(y, w, label).items():
        gap[name] = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum()
    assert gap["pooled"] >= gap["system"] - 1e-6 >= gap["rasch"] - 2e-6


def predictions(y, w, label):
    from meristem_rasch._alignment import _by_system, _pooled

    z = (label - label.mean()) / label.std()
    level, slope = _pooled(y, w, z)
    alpha, kappa = _by_system(y, w, z)
    theta, b = two_way(y, w, ridge=0.0)
    return {
        "pooled": expit(level - slope * z) + 0 * y,
        "system": expit(alpha[:, None] - kappa * z),
        "rasch": expit(theta[:, None] - b),
    }


def test_true_labels_align_and_shuffled_ones_do_not():
    rng = np.random.default_rng(0)
    b = rng.normal(size=120) * 1.5
    y = rng.binomial(10, expit(rng.normal(size=(12, 1)) - b)) / 10
    true = difficulty_alignment(y, b, weight=10, groups=["a"] * 60 + ["b"] * 60)
    wrong = difficulty_alignment(y, rng.permutation(b), weight=10)
    assert true.rung("system").low > 0.7
    assert true.rung("system").slope == pytest.approx(1, abs=0.15)
    assert true.rung("system").r2_held_out == pytest.approx(true.rung("system").r2, abs=0.02)
    assert true.rung("pooled").r2 < true.rung("system").r2 <= true.rung("rasch").r2 + 0.02
    assert true.share_excluding_zero == 1
    assert len(true.correlations) == 24
    assert wrong.rung("pooled").r2_held_out < 0.02
    assert wrong.share_excluding_zero < 0.35
    assert wrong.rung("loo").low > 0.5, "difficulty from other systems needs no label"


def test_a_literal_reading_of_a_good_label_can_have_a_negative_r2():
    """An uncalibrated scale alone does that: all systems are strong, the label is perfect."""
    rng = np.random.default_rng(0)
    b = rng.normal(size=200) / 4
    y = np.tile(expit(3 - b), (4, 1))
    found = difficulty_alignment(y, b)
    assert found.rung("fixed").r2 < -1
    assert found.rung("pooled").r2 > 0.99


@pytest.mark.parametrize("factor", [1, 4])
def test_independent_points_are_not_overdispersed_and_repeated_ones_are(factor):
    rng = np.random.default_rng(1)
    p = expit(rng.normal(size=(10, 1)) - rng.normal(size=80))
    y = rng.binomial(12 // factor, p) * factor / 12  # each point counted `factor` times
    found = overdispersion(y, weight=12, bootstrap=60)
    inside = found.held_out.chance_low <= found.held_out.ratio <= found.held_out.chance_high
    assert inside == (factor == 1)
    if factor == 4:
        assert found.held_out.low > 2
        assert 2.5 < found.pearson < 5.5
    assert sum(row.cells for row in found.bins) == 800


def test_length_that_follows_difficulty_is_told_from_rambling():
    rng = np.random.default_rng(0)
    b = rng.normal(size=150)
    y = rng.binomial(8, expit(rng.normal(size=(6, 1)) - 1.5 * b)) / 8
    hard = np.exp(5 + 0.5 * b + rng.normal(size=(6, 150)) * 0.3)
    found = length_as_difficulty(y, hard, weight=8)
    assert found.items.high < -0.6
    assert all(each.high < 0 for each in found.others)
    noise = length_as_difficulty(y, np.exp(rng.normal(size=(6, 150))), weight=8)
    assert abs(noise.items.r) < 0.25
    answered = np.ones(y.shape, dtype=bool)
    answered[0, :10] = False
    assert length_as_difficulty(y, hard, answered=answered).dropped == 10
    with pytest.raises(DataError, match="lengths are finite"):
        length_as_difficulty(y, -hard)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y: difficulty_alignment(y * 3, np.arange(6.0)), "outside"),
        (lambda y: difficulty_alignment(y, np.ones(6)), "2 labels"),
        (lambda y: difficulty_alignment(y, np.arange(5.0)), "labels for 6 items"),
        (lambda y: overdispersion(y, weight=0.5), "whole numbers"),
        (lambda y: overdispersion(y, weight=-1), "positive"),
    ],
)
def test_what_the_diagnostics_cannot_use_is_named(call, message):
    with pytest.raises(DataError, match=message):
        call(np.full((3, 6), 0.5) + np.arange(6) / 20)


# ---------------------------------------------------------------- agreement
def test_published_kappas():
    """Fleiss 1971 (30 patients, 6 psychiatrists): 0.430; 2 x 2 of 20, 5, 10, 15: 0.4."""
    fleiss = [
        "00060", "03003", "01401", "00006", "03030", "20400", "00402", "20310", "20040", "00006",
        "10050", "11040", "03300", "10050", "02031", "00501", "30012", "51000", "02040", "10203",
        "00006", "01050", "02013", "20040", "10041", "05010", "40002", "02040", "10500", "00006",
    ]  # fmt: skip
    assert fleiss_kappa([[int(n) for n in row] for row in fleiss]) == pytest.approx(0.430, abs=5e-4)
    first, second = [0] * 25 + [1] * 25, [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@given(rng=rngs())
def test_quadratic_kappa_of_two_values_is_kappa(rng):
    a, b = rng.integers(0, 2, size=(2, 30))
    assume(len(set(a.tolist() + b.tolist())) == 2)
    plain = cohen_kappa(a, b)
    for weights in ("linear", "quadratic"):
        assert cohen_kappa(a, b, weights=weights) == pytest.approx(plain)
    assert cohen_kappa(a, a) == 1 if np.ptp(a) else True
    assert cohen_kappa(b, a) == pytest.approx(plain)


@given(rng=rngs(), k=st.integers(2, 5))
def test_one_way_icc_of_a_full_table_is_icc(rng, k):
    table = rng.normal(size=(8, k))
    assert icc_one_way(table) == pytest.approx(icc(table).one_way)
    gaps = np.hstack([table, np.full((8, 2), N)])
    gaps = np.take_along_axis(gaps, np.argsort(rng.random(gaps.shape), axis=1), axis=1)
    assert icc_one_way(gaps) == pytest.approx(icc_one_way(table))


def test_agreement_tells_noise_from_its_shape():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, size=(80, 1)).astype(float)
    close = truth + (rng.random((80, 3)) < 0.1)
    loose = np.clip(truth + rng.integers(-3, 4, size=(80, 3)), 0, 7)
    good, bad = (rater_agreement(x, bootstrap=50) for x in (close, loose))
    assert good.alpha > 0.95 > 0.8 > bad.alpha
    assert good.alpha_low <= good.alpha <= good.alpha_high
    assert good.exact > bad.exact
    assert good.within_one == 1
    assert good.units == 80
    assert good.ratings == 240
    assert bad.isr.gaussian == pytest.approx(bad.isr.rate, abs=0.1), "chance explains the rate"
