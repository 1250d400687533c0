"""Laws of joint, pairwise and fractional estimation, plausible values and lz*."""

import itertools
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit

from meristem_core.testing import rngs
from meristem_rasch import (
    CML,
    JML,
    MML,
    Calibration,
    DataError,
    ExistenceError,
    Fractional,
    Pairwise,
    Responses,
    collapse_null,
    drop_extreme,
    lz_star,
    plausible_values,
    score_persons,
)
from meristem_rasch._curves import curves

few = settings(max_examples=max(8, settings().max_examples // 12))


def draw(rng, persons, max_score, *, missing=0.0):
    cal = Calibration.from_parameters("pcm", [rng.normal(size=m) for m in max_score])
    edges = curves(cal, rng.normal(size=persons))[0].cumsum(axis=2)[:, :, :-1]
    table = (rng.random((persons, len(max_score), 1)) > edges).sum(axis=2).astype(float)
    table[rng.random(table.shape) < missing] = np.nan
    table[0] = np.minimum(1, max_score)  # every item has an answer
    return Responses.from_wide(table, max_score=max_score)


def fitted(estimator, data, **more):
    try:
        return estimator.fit(data, **more)
    except ExistenceError:
        assume(False)


@few
@given(rng=rngs())
def test_pairwise_is_conditional_for_two_items(rng):
    data = draw(rng, 60, [1, 1], missing=0.1)
    ours, exact = fitted(Pairwise(), data), fitted(CML(), data)
    np.testing.assert_allclose(ours.threshold, exact.threshold, atol=1e-8)
    assert ours.loglik == pytest.approx(exact.loglik, abs=1e-8)


@few
@given(rng=rngs(), model=st.sampled_from(["pcm", "rsm"]))
def test_the_pairwise_scores_vanish_and_weights_repeat_rows(rng, model):
    m = [2, 2, 2] if model == "rsm" else [1, 2, 3]
    data = draw(rng, 80, m, missing=0.2)
    cal = fitted(Pairwise(model=model), data)
    twice = fitted(Pairwise(model=model), replace(data, weight=np.full(80, 2.0)))
    np.testing.assert_allclose(twice.threshold, cal.threshold, atol=1e-8)
    np.testing.assert_allclose(twice.vcov, cal.vcov / 2, atol=1e-9)
    # the composite likelihood by enumeration of pairs of items within persons
    tau = [cal.threshold[cal.item_of == i] for i in range(3)]
    total = 0.0
    for row in data.scores:
        for i, j in itertools.combinations(np.flatnonzero(row >= 0), 2):
            a, b = row[i], row[j]
            if a >= 1 and b < m[j]:  # (a, b) against (a - 1, b + 1)
                total -= np.logaddexp(0, tau[i][a - 1] - tau[j][b])
            if b >= 1 and a < m[i]:
                total -= np.logaddexp(0, tau[j][b - 1] - tau[i][a])
    assert total == pytest.approx(cal.loglik, abs=1e-8)


def test_pairwise_errors_are_those_of_repeated_samples():
    rng = np.random.default_rng(0)
    b = np.array([-1.0, 0.0, 0.5, 0.5])
    table = rng.random((100, 400, 4)) < expit(rng.normal(size=(100, 400, 1)) - b)
    fits = [Pairwise().fit(Responses.from_wide(x.astype(int))) for x in table]
    spread = np.std([fit.threshold for fit in fits], axis=0)
    np.testing.assert_allclose(spread, np.mean([f.threshold_se for f in fits], axis=0), rtol=0.25)


def test_pairwise_names_what_is_not_compared():
    blocks = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    with pytest.raises(ExistenceError, match=r"I1, I2 \| I3, I4|I3, I4 \| I1, I2"):
        Pairwise().fit(Responses.from_wide(blocks))


@few
@given(rng=rngs(), model=st.sampled_from(["rasch", "pcm", "rsm"]))
def test_joint_estimates_reproduce_all_margins(rng, model):
    """Without correction, expected category counts equal observed ones at the joint estimates."""
    m = {"rasch": [1] * 4, "pcm": [1, 2, 3], "rsm": [2, 2, 2]}[model]
    data = draw(rng, 60, m, missing=0.1)
    cal = fitted(JML(model=model, correction="none"), data)
    theta = score_persons(cal, data, method="mle").theta
    rows = np.flatnonzero(np.isfinite(theta))
    p = curves(cal, theta[rows])[0]
    seen = data.scores[rows] >= 0
    for h in range(1, max(m) + 1):
        observed = (data.scores[rows] == h).sum(axis=0)
        expected = (p[:, :, h] * seen).sum(axis=0)
        if model == "rsm":
            observed, expected = observed.sum(), expected.sum()
        np.testing.assert_allclose(observed, expected, atol=1e-5)


@few
@given(rng=rngs(), estimator=st.sampled_from([CML, Pairwise, JML, MML]))
def test_reversed_scores_turn_the_thresholds_of_every_estimator(rng, estimator):
    """x -> m - x maps tau_ih to -tau_i,m+1-h and leaves the likelihood."""
    data = draw(rng, 150, [1, 2, 2], missing=0.1)
    plain = fitted(estimator(model="pcm"), data)
    scores = np.where(data.mask, data.max_score - data.scores, -1).astype(data.scores.dtype)
    turned = fitted(estimator(model="pcm"), replace(data, scores=scores))
    for i in range(3):
        mine, theirs = plain.threshold[plain.item_of == i], turned.threshold[plain.item_of == i]
        np.testing.assert_allclose(theirs, -mine[::-1], atol=1e-5)
    assert turned.loglik == pytest.approx(plain.loglik, rel=1e-9)


@few
@given(rng=rngs(), correction=st.sampled_from(["epsilon", "none"]), shift=st.floats(-3, 3))
def test_anchored_joint_estimates_are_those_of_a_moved_scale(rng, correction, shift):
    data = draw(rng, 80, [1] * 5, missing=0.1)
    free = fitted(JML(correction=correction), data)
    anchors = {name: free.threshold[k] + shift for k, name in enumerate(data.items[:2])}
    held = fitted(JML(correction=correction, anchors=anchors), data)
    np.testing.assert_allclose(held.threshold, free.threshold + shift, atol=1e-6)
    assert (held.threshold_se[:2] == 0).all()
    assert (held.threshold_se[2:] > 0).all()
    assert held.loglik == pytest.approx(free.loglik, abs=1e-8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchors": {"X": 0.0}}, r"anchors \['X'\] are no items"),
        ({"anchors": {"I1": np.nan}}, "must be finite"),
        ({"anchors": {"I1": 0.0}, "model": "pcm"}, "Facets anchors locations"),
        ({"anchors": {"I1": 0.0}, "correction": "wright"}, "they take 'rasch' with"),
        ({"anchors": {"I1": 0.0}, "correction": "jackknife"}, "they take 'rasch' with"),
    ],
)
def test_joint_anchors_that_cannot_be_are_named(settings, message):
    data = draw(np.random.default_rng(0), 40, [1] * 4)
    with pytest.raises(DataError, match=message):
        JML(**settings).fit(data)


@few
@given(rng=rngs(), estimator=st.sampled_from([CML(), Pairwise(), JML(), MML()]))
def test_a_stored_calibration_comes_back_to_the_bit(rng, estimator):
    groups = {} if not isinstance(estimator, MML) else {"groups": ["a", "b"] * 75}
    cal = fitted(estimator, draw(rng, 150, [1] * 4), **groups)
    text = json.dumps(cal.to_dict(), allow_nan=False)
    again = Calibration.from_dict(json.loads(text))
    for field in fields(Calibration):
        mine, theirs = getattr(cal, field.name), getattr(again, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(theirs, mine)
        else:
            assert theirs == mine or (mine != mine and theirs != theirs), field.name
    with pytest.raises(ValueError, match=r"\['items'\]: missing or unknown"):
        Calibration.from_dict({k: v for k, v in cal.to_dict().items() if k != "items"})


def test_corrections_remove_most_of_the_bias():
    rng = np.random.default_rng(1)
    b = np.linspace(-2, 2, 10)
    table = (rng.random((20_000, 10)) < expit(rng.normal(size=(20_000, 1)) - b)).astype(int)
    data = Responses.from_wide(table)
    stretch = {
        kind: np.polyfit(b, JML(correction=kind).fit(data).threshold, 1)[0]
        for kind in ("none", "wright", "jackknife", "epsilon")
    }
    assert stretch["none"] == pytest.approx(10 / 9, abs=0.03)
    assert stretch["wright"] == pytest.approx(1, abs=0.03)
    assert stretch["jackknife"] == pytest.approx(
        1 - 2 / 72, abs=0.03
    )  # L (L - 3) / (L - 1) (L - 2)
    assert abs(stretch["epsilon"] - 1) < 0.06
    weighted = JML().fit(replace(data, weight=np.full(20_000, 2.0)))
    plain = JML().fit(data)
    np.testing.assert_allclose(weighted.threshold, plain.threshold, atol=1e-7)
    np.testing.assert_allclose(weighted.vcov, plain.vcov / 2, rtol=1e-6, atol=1e-12)


@few
@given(rng=rngs())
def test_the_jackknife_takes_weights_as_repeated_rows_in_any_order(rng):
    data = draw(rng, 80, [1] * 8, missing=0.1)
    weight = rng.integers(1, 3, size=80)
    rows = rng.permutation(np.repeat(np.arange(80), weight))
    table = np.where(data.mask, data.scores, np.nan)[rows]
    jackknife = JML(correction="jackknife")
    ours = fitted(jackknife, replace(data, weight=weight.astype(float)))
    theirs = jackknife.fit(Responses.from_wide(table, max_score=data.max_score))
    np.testing.assert_allclose(ours.threshold, theirs.threshold, atol=1e-7)


def test_halves_without_an_estimate_are_named():
    data = Responses.from_wide([[1, 1, 0, 0], [0, 0, 1, 1]])
    assert np.isfinite(JML(correction="wright").fit(data).threshold).all()
    with pytest.raises(ExistenceError, match="in halves of the answers, which 'jackknife' compare"):
        JML(correction="jackknife").fit(data)


@few
@given(rng=rngs(), extreme=st.lists(st.sampled_from([0, 1]), min_size=1, max_size=3))
def test_dropping_extreme_items_leaves_what_can_be_estimated(rng, extreme):
    whole = draw(rng, 60, [1] * 5, missing=0.1)
    table = np.where(whole.mask, whole.scores, np.nan)
    wide = np.column_stack([table, *(np.full(60, float(h)) for h in extreme)])
    wide[0] = np.nan  # a person who answered one constant item only
    wide[0, 5] = extreme[0]
    data = Responses.from_wide(wide, max_score=np.ones(5 + len(extreme), dtype=int))
    kept, dropped = drop_extreme(data)
    assert set(dropped) >= set(data.items[5:])
    assert kept.persons == data.persons
    assert drop_extreme(kept)[1] == ()
    alone = data.select(items=[i for i, name in enumerate(data.items) if name not in dropped])
    np.testing.assert_array_equal(kept.scores, alone.scores)
    with pytest.raises(ExistenceError, match=r"drop_extreme|compare both ways"):
        CML().fit(data)
    assert np.isfinite(fitted(CML(), kept).threshold).all()


@few
@given(rng=rngs(), gap=st.lists(st.integers(0, 3), min_size=4, max_size=4, unique=True))
def test_collapsing_removes_unused_categories_and_nothing_else(rng, gap):
    """Spreading the scores of an item and collapsing them gives back the item."""
    data = draw(rng, 120, [3, 1, 2])
    kept, _ = collapse_null(drop_extreme(data)[0])
    spread = np.cumsum(1 + np.array(gap)) - 1 - gap[0]
    wide = np.where(kept.mask, kept.scores, np.nan).astype(float)
    wide[:, 0] = spread[kept.scores[:, 0]]
    back, moved = collapse_null(Responses.from_wide(wide, items=kept.items))
    np.testing.assert_array_equal(back.scores, kept.scores)
    np.testing.assert_array_equal(back.max_score, kept.max_score)
    code = moved.get(kept.items[0], tuple(range(int(spread[kept.max_score[0]]) + 1)))
    assert [code[h] for h in spread[: kept.max_score[0] + 1]] == list(range(kept.max_score[0] + 1))
    assert list(code) == sorted(code)
    assert set(moved) <= {kept.items[0]}


def test_data_without_any_usable_item_are_refused():
    with pytest.raises(ExistenceError, match="no item has two scores among persons"):
        drop_extreme(Responses.from_wide([[1, 1], [0, 0]]))


def fractions(rng, systems=5, items=30):
    p = expit(rng.normal(size=(systems, 1)) - rng.normal(size=items))
    w = rng.integers(2, 9, size=items).astype(float)
    return rng.binomial(w.astype(int), p) / w, w


@few
@given(rng=rngs(), wide=st.booleans())
def test_fractional_errors_are_those_of_the_full_information_matrix(rng, wide):
    y, w = fractions(rng, 4 if wide else 12, 12 if wide else 4)
    fit = Fractional(bootstrap=1).fit(y, w)
    c = w * fit.fitted * (1 - fit.fitted)
    n, items = y.shape
    full = np.block([[np.diag(c.sum(axis=1) + 1e-6), -c], [-c.T, np.diag(c.sum(axis=0) + 0.3)]])
    shift = np.eye(n + items) - np.concatenate([np.zeros(n), np.ones(items) / items])
    spread = np.sqrt(fit.dispersion * np.diag(shift @ np.linalg.inv(full) @ shift.T))
    np.testing.assert_allclose(fit.ability_se, spread[:n], rtol=1e-6)
    np.testing.assert_allclose(fit.difficulty_se, spread[n:], rtol=1e-6)


def test_fractional_equals_joint_estimates_on_whole_answers():
    rng = np.random.default_rng(3)
    data = draw(rng, 60, [1] * 6)
    keep = (data.raw > 0) & (data.raw < 6)
    table = data.scores[keep].astype(float)
    joint = JML(correction="none").fit(Responses.from_wide(table))
    fit = Fractional(ridge=0, bootstrap=1).fit(table)
    np.testing.assert_allclose(fit.difficulty, joint.threshold, atol=1e-4)


def test_plausible_values_come_from_the_posterior():
    rng = np.random.default_rng(5)
    data = draw(rng, 40, [1, 2, 1, 2], missing=0.1)
    cal = Calibration.from_parameters("pcm", [[0.0], [-1.0, 1.0], [0.5], [0.0, 0.5]])
    scores = score_persons(cal, data, method="eap")
    values = plausible_values(cal, data, 2000, rng=rng)
    away = (values.mean(axis=1) - scores.theta) / (scores.se / np.sqrt(2000))
    assert np.abs(away).max() < 5
    np.testing.assert_allclose(values.std(axis=1), scores.se, rtol=0.1)
    with pytest.raises(DataError, match="draws is 0"):
        plausible_values(cal, data, 0, rng=rng)


@few
@given(rng=rngs())
def test_lz_star_at_maximum_likelihood_by_enumeration(rng):
    """At a fixed ability the corrected statistic has mean 0 and variance 1 over all patterns."""
    b, theta = rng.normal(size=6), float(rng.normal())
    cal = Calibration.from_parameters("rasch", [[x] for x in b])
    from meristem_rasch._person_fit import _statistic

    rows = np.array(list(itertools.product([0, 1], repeat=6)))
    p = expit(theta - b)
    chance = np.prod(np.where(rows == 1, p, 1 - p), axis=1)
    values = _statistic(cal, rows, np.full(len(rows), theta))
    assert chance @ values == pytest.approx(0, abs=1e-9)
    assert chance @ values**2 == pytest.approx(1, abs=1e-9)
    # uncorrelated with the score function: that is what removes the estimated ability
    assert chance @ (values * (rows - p).sum(axis=1)) == pytest.approx(0, abs=1e-9)


def test_lz_star_finds_reversed_answers():
    rng = np.random.default_rng(6)
    data = draw(rng, 500, [1] * 40)
    cal = MML().fit(data)
    z = lz_star(cal, data)
    assert abs(np.nanmean(z)) < 0.2
    assert np.nanstd(z) == pytest.approx(1, abs=0.2)
    worst = np.argsort(cal.threshold)
    reversed_row = np.zeros((1, 40))
    reversed_row[0, worst[20:]] = 1  # solves exactly the hard half
    odd = Responses.from_wide(reversed_row, items=data.items, max_score=[1] * 40)
    assert lz_star(cal, odd)[0] < -3
