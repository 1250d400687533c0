"""Weights repeat rows, and missing answers leave the rest as it was, for every statistic."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_rasch import (
    CML,
    Calibration,
    ExistenceError,
    Responses,
    andersen_test,
    conditional_probabilities,
    item_fit,
    logistic_dif,
    mantel_haenszel,
    martin_loef_test,
    person_fit,
    plausible_values,
    q3,
    rasch_dif,
    score_persons,
)

few = settings(max_examples=max(8, settings().max_examples // 12))
THRESHOLDS = [[-1.0], [-0.5, 0.8], [0.2], [0.1, 0.3, 1.2], [1.1]]
KNOWN_5 = Calibration.from_parameters("rasch", [[b] for b in np.linspace(-1, 1, 5)])
KNOWN = Calibration.from_parameters("pcm", THRESHOLDS)


def answers(rng, persons=30):
    top = np.array([len(row) for row in THRESHOLDS])
    table = rng.integers(0, top + 1, size=(persons, len(top))).astype(float)
    table[rng.random(table.shape) < 0.25] = np.nan
    table[np.isnan(table).all(axis=1), 0] = 1.0
    return Responses.from_wide(table, items=KNOWN.items, max_score=top)


@few
@given(rng=rngs(), residuals=st.sampled_from(["conditional", "person"]))
def test_weighted_item_fit_is_that_of_repeated_rows(rng, residuals):
    data = answers(rng)
    weight = rng.integers(0, 4, size=len(data.persons))
    weight[:2] = 1
    rows = np.repeat(np.arange(len(weight)), weight)
    table = np.where(data.mask, data.scores, np.nan)[rows]
    repeated = Responses.from_wide(table, items=KNOWN.items, max_score=data.max_score)
    weighted = replace(data, weight=weight.astype(float))
    ours = item_fit(KNOWN, weighted, residuals=residuals)
    wanted = item_fit(KNOWN, repeated, residuals=residuals)
    for name in ("outfit", "infit"):
        np.testing.assert_allclose(getattr(ours, name), getattr(wanted, name), rtol=1e-9)
    np.testing.assert_allclose(q3(KNOWN, weighted), q3(KNOWN, repeated), atol=1e-9)


@few
@given(rng=rngs(), method=st.sampled_from(["wle", "mle", "map", "eap"]))
def test_measures_with_gaps_are_those_of_the_answered_items(rng, method):
    data = answers(rng, 12)
    all_of_them = score_persons(KNOWN, data, method=method)
    fit = person_fit(KNOWN, data)
    for v in range(len(data.persons)):
        seen = np.flatnonzero(data.mask[v])
        part = Calibration.from_parameters(
            "pcm", [THRESHOLDS[i] for i in seen], items=[KNOWN.items[i] for i in seen]
        )
        alone = data.select(persons=[v], items=seen)
        one = score_persons(part, alone, method=method, mean=0.0, sd=1.0)
        np.testing.assert_allclose(all_of_them.theta[v], one.theta[0], atol=1e-8)
        np.testing.assert_allclose(all_of_them.se[v], one.se[0], atol=1e-8)
        np.testing.assert_allclose(fit.outfit[v], person_fit(part, alone).outfit[0], atol=1e-8)


def test_conditional_fit_has_expectation_one():
    """Outfit and infit, averaged over all answers with a score by their conditional chances."""
    tau = np.array([-0.7, 0.1, 0.4, 1.3])
    cal = Calibration.from_parameters("rasch", [[t] for t in tau])
    patterns = (np.arange(16)[:, None] >> np.arange(4)) & 1
    patterns = patterns[(patterns.sum(axis=1) > 0) & (patterns.sum(axis=1) < 4)]
    chance = np.exp(-(patterns @ tau))
    for score in (1, 2, 3):
        chance[patterns.sum(axis=1) == score] /= chance[patterns.sum(axis=1) == score].sum()
    data = Responses.from_wide(patterns, items=cal.items, weight=chance)
    fit = item_fit(cal, data)
    np.testing.assert_allclose(fit.outfit, 1, atol=1e-12)
    np.testing.assert_allclose(fit.infit, 1, atol=1e-12)


@few
@given(rng=rngs(), n_items=st.integers(3, 12))
def test_chances_given_the_score_rise_with_it_and_fall_with_difficulty(rng, n_items):
    tau = np.sort(rng.normal(size=n_items) * 2)
    p = conditional_probabilities([[t] for t in tau], np.arange(n_items + 1))[:, :, 1]
    assert (np.diff(p, axis=0) > 0).all()
    assert (np.diff(p, axis=1) < 1e-12).all()


@few
@given(rng=rngs())
def test_the_dual_is_the_transposed_table_with_the_sign_turned(rng):
    """Thresholds of the dual are minus those of the transposed scores, which count upwards."""
    table = rng.integers(0, 2, size=(6, 60))
    assume(((table.sum(axis=1) > 0) & (table.sum(axis=1) < 60)).all())
    try:
        dual = CML().fit(Responses.from_wide(table).transpose())
        plain = CML().fit(Responses.from_wide(table.T))
    except ExistenceError:
        assume(False)
    np.testing.assert_allclose(dual.threshold, -plain.threshold, atol=1e-8)
    assert dual.loglik == pytest.approx(plain.loglik, abs=1e-8)


@few
@given(rng=rngs())
def test_a_single_answer_says_nothing_about_items(rng):
    table = rng.integers(0, 2, size=(40, 4)).astype(float)
    single = np.full((1, 4), np.nan)
    single[0, int(rng.integers(4))] = 1.0
    try:
        before = CML().fit(Responses.from_wide(table))
    except ExistenceError:
        assume(False)
    after = CML().fit(Responses.from_wide(np.vstack([table, single])))
    np.testing.assert_allclose(after.threshold, before.threshold, atol=1e-8)
    np.testing.assert_allclose(after.vcov, before.vcov, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_weights_repeat_rows_in_every_test_and_every_dif(seed):
    rng = np.random.default_rng(seed)
    theta, b = rng.normal(size=(90, 1)), np.linspace(-1, 1, 5)
    table = (rng.random((90, 5)) < 1 / (1 + np.exp(b - theta))).astype(int)
    group = np.where(np.arange(90) % 2, "x", "y")
    weight = rng.integers(1, 4, size=90)
    rows = np.repeat(np.arange(90), weight)
    weighted = Responses.from_wide(table, weight=weight.astype(float))
    repeated = Responses.from_wide(table[rows])
    for test in (andersen_test, martin_loef_test):
        one, two = test(CML(), weighted), test(CML(), repeated)
        assert one.statistic == pytest.approx(two.statistic, rel=1e-6, abs=1e-6)
    for dif in (rasch_dif, mantel_haenszel, logistic_dif):
        one, two = dif(weighted, group.tolist()), dif(repeated, group[rows].tolist())
        np.testing.assert_allclose(one.effect, two.effect, atol=1e-6)
        np.testing.assert_allclose(one.p, two.p, atol=1e-6)
    found = [plausible_values(KNOWN_5, each, 4, rng=np.random.default_rng(0)) for each in
             (weighted, replace(weighted, weight=np.ones(90)))]  # fmt: skip
    np.testing.assert_array_equal(*found)
