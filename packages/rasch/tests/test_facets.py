"""Laws of many-facet measurement: margins, shifts, connection, bias terms."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_rasch import (
    JML,
    DataError,
    ExistenceError,
    Facets,
    IdentificationError,
    Ratings,
    Responses,
)
from meristem_rasch import _newton_cg as engine
from meristem_rasch._facet_design import build

few = settings(max_examples=max(8, settings().max_examples // 12))
PLANTED = np.array([-1.2, 0.0, 1.2])


def ratings(rng, persons=40, raters=5, tasks=4, *, marks=3):
    """Each person's tasks are marked by `marks` raters on a scale 0...3."""
    theta, severity = rng.normal(size=persons), rng.normal(size=raters) / 2
    difficulty = rng.normal(size=tasks) / 2
    who = np.repeat(np.arange(persons), marks * tasks)
    rater = np.repeat(
        np.concatenate([rng.permutation(raters)[:marks] for _ in range(persons)]), tasks
    )
    task = np.tile(np.arange(tasks), persons * marks)
    eta = theta[who] - severity[rater] - difficulty[task]
    z = np.multiply.outer(eta, np.arange(4.0)) - np.concatenate([[0], np.cumsum(PLANTED)])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    score = (rng.random((len(eta), 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    data = Ratings.from_long(score, {"person": who, "rater": rater, "task": task})
    return data, severity, difficulty


@few
@given(rng=rngs(), steps=st.sampled_from([None, "task", "rater"]))
def test_expected_scores_equal_adjusted_scores_on_every_margin(rng, steps):
    data, *_ = ratings(rng)
    try:
        config = Facets(steps=steps, tol=1e-9)
        cal = config.fit(data)
    except ExistenceError:  # a step group without a category
        return
    design, _, _ = build(config._plan(), data)
    for name, code in data.codes.items():
        gap = np.bincount(code, design.target - cal.expected)
        np.testing.assert_allclose(gap, 0, atol=1e-5, err_msg=name)
    for name in ("rater", "task"):
        assert cal.facets[name].measure.mean() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.nansum(cal.steps, axis=1), 0, atol=1e-9)


def test_planted_measures_come_back():
    data, severity, difficulty = ratings(np.random.default_rng(0), 1500, 8, 5)
    cal = Facets().fit(data)
    for name, planted in (("rater", severity), ("task", difficulty)):
        table = cal.facets[name]
        true = (planted - planted.mean())[[int(label) for label in table.labels]]
        assert np.sqrt(np.mean(((table.measure - true) / table.se) ** 2)) < 1.7
        assert (np.abs(table.infit - 1) < 0.1).all()
        assert table.p < 1e-6
        order = np.argsort(table.measure)
        assert (np.diff(table.fair[order]) < 0).all()  # severe raters give fair scores below
    np.testing.assert_allclose(cal.steps[0], PLANTED, atol=0.15)  # joint: 12 ratings each
    assert cal.facets["person"].reliability == pytest.approx(0.85, abs=0.1)


@few
@given(rng=rngs(), model=st.sampled_from(["rasch", "pcm", "rsm"]))
def test_two_facets_are_joint_estimates(rng, model):
    m = {"rasch": 1, "pcm": 2, "rsm": 2}[model]
    table = rng.integers(0, m + 1, size=(30, 4))
    table[:3] = np.arange(3)[:, None].clip(max=m)
    joint = JML(model=model).fit(Responses.from_wide(table))
    long = Ratings.from_long(
        table.ravel(), {"person": np.repeat(np.arange(30), 4), "item": np.tile(np.arange(4), 30)}
    )
    cal = Facets(steps="item" if model == "pcm" else None, tol=1e-9).fit(long)
    np.testing.assert_allclose(cal.facets["item"].measure, joint.difficulty, atol=1e-6)


@few
@given(rng=rngs())
def test_the_projection_keeps_shifts_out_and_products_are_hessians(rng):
    data, *_ = ratings(rng, 12)
    design, _, _ = build(Facets()._plan(), data)
    x = rng.normal(size=design.n_levels + 3)
    at = engine.moments(design, x)
    basis = engine.shift_basis(design)
    assert basis.shape == (2, design.n_levels)
    for shift in basis:
        moved = engine.moments(design, x + 3 * np.concatenate([shift, np.zeros(3)]))
        assert moved.loglik == pytest.approx(at.loglik, abs=1e-8)
    d = rng.normal(size=len(x))
    up, down = (engine.gradient(design, engine.moments(design, x + s * d)) for s in (1e-6, -1e-6))
    np.testing.assert_allclose(engine.product(design, at)(d), (down - up) / 2e-6, atol=1e-4)
    project = engine.projector(design)
    np.testing.assert_allclose(project(project(d)), project(d), atol=1e-12)
    np.testing.assert_allclose(basis @ project(d)[: design.n_levels], 0, atol=1e-12)
    slope = engine.gradient(design, at)
    value = [engine.moments(design, x + s * d).loglik for s in (1e-6, -1e-6)]
    assert slope @ d == pytest.approx((value[0] - value[1]) / 2e-6, abs=1e-3)


def test_disjoint_and_confounded_designs_are_named():
    rng = np.random.default_rng(1)
    data, *_ = ratings(rng, 30, 4, 3)
    split = {
        "person": data.codes["person"],
        "rater": np.where(data.codes["person"] < 15, 0, 2) + data.codes["rater"] % 2,
        "task": np.where(data.codes["person"] < 15, 0, 3) + data.codes["task"],
    }
    with pytest.raises(IdentificationError, match="2 subsets that share no level"):
        Facets().fit(Ratings.from_long(data.score, split))
    score = np.append(data.score, [1])
    joined = {name: np.append(level, level[0]) for name, level in split.items()}
    joined["rater"][-1] = 3  # one rating by a rater of the other half leaves the tasks apart
    with pytest.raises(IdentificationError, match=r"without changing any expected rating"):
        Facets().fit(Ratings.from_long(score, joined))
    joined["task"][-1] = 5
    score, joined = (
        np.append(score, [2]),
        {name: np.append(level, level[0]) for name, level in joined.items()},
    )
    joined["rater"][-1] = 2
    Facets().fit(Ratings.from_long(score, joined))
    anchors = {"rater": {"0": 0.0, "2": 0.0}, "task": {"0": 0.0, "3": 0.0}}
    cal = Facets(anchors=anchors).fit(Ratings.from_long(data.score, split))
    assert cal.facets["rater"].measure[0] == 0.0


def test_a_rater_who_marks_one_task_only_is_confounded():
    rng = np.random.default_rng(2)
    data, *_ = ratings(rng, 30, 4, 3)
    # every task has its own two raters
    own = 2 * data.codes["task"] + data.codes["rater"] % 2
    levels = {"person": data.codes["person"], "rater": own, "task": data.codes["task"]}
    with pytest.raises(IdentificationError, match="rater"):
        Facets().fit(Ratings.from_long(data.score, levels))


def test_bias_terms_find_a_planted_interaction():
    rng = np.random.default_rng(3)
    data, *_ = ratings(rng, 400, 4, 4, marks=4)
    pair = (data.codes["rater"] == 1) & (data.codes["task"] == 2)
    score = np.where(pair, np.minimum(data.score + 1, 3), data.score)
    cal = Facets().fit(replace(data, score=score))
    bias = cal.bias("rater", "task")
    worst = int(np.argmax(bias.z))
    assert (bias.first[worst], bias.second[worst]) == (
        data.facets["rater"][1],
        data.facets["task"][2],
    )
    assert bias.z[worst] > 8
    assert cal.bias("task", "rater").z.max() == pytest.approx(bias.z.max(), rel=1e-6)
    with pytest.raises(DataError, match="'examiner' is no facet"):
        cal.bias("examiner", "task")


def test_weights_repeat_rows_and_surprises_are_listed():
    rng = np.random.default_rng(4)
    data, *_ = ratings(rng)
    twice = Ratings.from_long(
        np.tile(data.score, 2), {name: np.tile(code, 2) for name, code in data.codes.items()}
    )
    weighted = Facets(tol=1e-9).fit(replace(data, weight=np.full(len(data.score), 2.0)))
    repeated = Facets(tol=1e-9).fit(twice)
    for name in data.facets:
        np.testing.assert_allclose(
            weighted.facets[name].measure, repeated.facets[name].measure, atol=1e-7
        )
        np.testing.assert_allclose(weighted.facets[name].se, repeated.facets[name].se, rtol=1e-6)
    rows = weighted.unexpected(2.0)
    residual = np.abs(data.score - weighted.expected) / np.sqrt(weighted.variance)
    assert (np.diff(residual[rows]) <= 0).all()
    assert len(rows) == (residual >= 2).sum()


@pytest.mark.parametrize(
    ("score", "facets", "message"),
    [
        ([0.5, 1], {"a": [1, 2], "b": [1, 2]}, "rating 1: score 0.5"),
        ([0, 1], {"a": [1, 2]}, "give two or more"),
        ([0, 1], {"a": [1, 2], "b": [1]}, "one level each"),
    ],
)
def test_bad_ratings(score, facets, message):
    with pytest.raises(DataError, match=message):
        Ratings.from_long(score, facets)


def test_bad_settings_and_extremes_are_named():
    rng = np.random.default_rng(5)
    data, *_ = ratings(rng)
    with pytest.raises(DataError, match="'judge' is no facet"):
        Facets(steps="judge").fit(data)
    with pytest.raises(DataError, match="anchor 'nobody' is no level of 'rater'"):
        Facets(anchors={"rater": {"nobody": 0.0}}).fit(data)
    top = replace(data, score=np.where(data.codes["person"] == 0, 3, data.score))
    with pytest.raises(ExistenceError, match="person 0 has only extreme ratings"):
        Facets(correction="none").fit(top)
    assert np.isfinite(Facets().fit(top).facets["person"].measure).all()
    gap = replace(data, score=np.where(data.score == 1, 2, data.score))
    with pytest.raises(ExistenceError, match=r"no rating uses \[1\]"):
        Facets().fit(gap)
