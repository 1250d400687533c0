"""Drawn answers, tables of results, local dependence, and what joins them."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings

from meristem_core.testing import rngs
from meristem_rasch import (
    CML,
    MML,
    Calibration,
    DataError,
    Ratings,
    Responses,
    benjamini_hochberg,
    design_repeated,
    guttman_errors,
    holm,
    item_fit,
    likelihood_ratio_dif,
    link,
    q3,
    rasch_dif,
    read_ratings,
    residual_dependence,
    score_persons,
    simulate,
    simulate_cat,
    wald_test,
)
from meristem_rasch._curves import curves

few = settings(max_examples=max(6, settings().max_examples // 12))
BANK = Calibration.from_parameters("pcm", [[-1.0], [-0.5, 0.8], [0.2, -0.3], [0.9]])


@pytest.mark.parametrize("model", ["pcm", "grm", "3pl"])
def test_drawn_answers_have_the_models_chances(model):
    rows = [[-1.0], [0.4]] if model == "3pl" else [[-1.0, 0.5], [0.2], [-0.4, 0.1, 1.0]]
    sloped = model != "pcm"
    bank = Calibration.from_parameters(
        model,
        rows,
        slope=[1.5, 0.7, 1.0][: len(rows)] if sloped else None,
        guess=[0.2, 0.1] if model == "3pl" else None,
    )
    data = simulate(bank, np.full(40_000, 0.3), seed=2)
    wanted = curves(bank, np.array([0.3]))[0][0]
    error = np.sqrt(wanted * (1 - wanted) / 40_000)
    assert (np.abs(data.category_counts / 40_000 - wanted) <= 5 * error + 1e-12).all()


def test_a_mask_hides_drawn_answers_and_changes_none():
    theta = np.linspace(-1, 1, 30)
    mask = np.arange(120).reshape(30, 4) % 3 > 0
    whole, part = simulate(BANK, theta, seed=4), simulate(BANK, theta, seed=4, mask=mask)
    assert (part.scores == np.where(mask, whole.scores, -1)).all()
    with pytest.raises(DataError, match="shape"):
        simulate(BANK, theta, seed=4, mask=mask[:3])
    with pytest.raises(DataError, match="finite"):
        simulate(BANK, [np.nan], seed=4)


def test_results_are_columns_of_one_length():
    data = simulate(BANK, np.random.default_rng(1).normal(size=300), seed=1)
    cal, group = CML(model="pcm").fit(data), ["ab"[k % 2] for k in range(300)]
    tables = {
        "item": cal,
        "persons": score_persons(cal, data),
        "labels": item_fit(cal, data),
        "items": rasch_dif(data, group, estimator=CML(model="pcm")),
    }
    for first, result in tables.items():
        columns = result.to_frame()
        assert next(iter(columns)) == first
        assert len({len(column) for column in columns.values()}) == 1
    assert tables["persons"].to_frame()["theta"] is tables["persons"].theta
    assert "reliability" not in tables["persons"].to_frame()
    scores = tables["persons"]
    assert scores.strata == pytest.approx((4 * scores.separation + 1) / 3)


@few
@given(rng=rngs())
def test_wide_long_and_ratings_hold_the_same_answers(rng):
    data = simulate(BANK, rng.normal(size=12), seed=int(rng.integers(99)))
    again = Responses.from_wide(data.wide(), items=data.items, max_score=data.max_score)
    assert (again.scores == data.scores).all()
    person, item = np.nonzero(data.mask)
    people, items = [data.persons[k] for k in person], [data.items[k] for k in item]
    score = data.scores[person, item]
    ratings = Ratings.from_long(score, {"who": people, "what": items})
    weight = {name: 1.0 + k for k, name in enumerate(data.persons)}
    long = Responses.from_long(people, items, score, weight=weight)
    assert (ratings.responses("who", "what").scores == data.scores).all()
    assert (long.scores == data.scores).all()
    assert long.weight.tolist() == list(weight.values())
    marked = np.where(rng.random(data.scores.shape) < 0.2, 9, data.scores)
    assume((marked < 9).any(axis=0).all())
    read = Responses.from_wide(marked, missing=[9])
    assert (read.scores == np.where(marked == 9, -1, marked)).all()


def test_long_data_that_cannot_be_a_table_are_named(tmp_path):
    with pytest.raises(DataError, match=r"without a weight: \['b'\], weights of nobody: \['c'\]"):
        Responses.from_long(["a", "b"], ["x", "x"], [0, 1], weight={"a": 1.0, "c": 1.0})
    ratings = Ratings.from_long([1, 2], {"person": ["a", "a"], "rater": ["x", "x"]})
    with pytest.raises(DataError, match="more than once"):
        ratings.responses("person", "rater")
    with pytest.raises(DataError, match="'item' is no facet"):
        ratings.responses()
    file = tmp_path / "r.csv"
    file.write_text("who,rater,points\na,x,1\nb,,2\nc,y,\n")
    with pytest.raises(DataError, match="row 3 has no points"):
        read_ratings(file, score="points", facets=["who", "rater"])
    file.write_text("who,rater,points\na,x,1\nb,,2\n")
    with pytest.raises(DataError, match="row 2 has no rater"):
        read_ratings(file, score="points", facets=["who", "rater"])
    file.write_text("who,rater,points,n\na,x,1,2\nb,y,2,1\n")
    read = read_ratings(file, score="points", facets=["who", "rater"], weight="n")
    assert (read.score.tolist(), read.weight.tolist()) == ([1, 2], [2.0, 1.0])


@few
@given(rng=rngs())
def test_guttman_errors_by_counting_pairs_of_steps(rng):
    table = rng.integers(0, [2, 3, 4, 2], size=(15, 4)).astype(float)
    table[rng.random(table.shape) < 0.2] = np.nan
    assume(np.isfinite(table).any(axis=0).all())
    data = Responses.from_wide(table, max_score=[1, 2, 3, 1])
    steps = [(i, h) for i, top in enumerate([1, 2, 3, 1]) for h in range(1, top + 1)]
    seen = np.isfinite(table)
    common = {(i, h): (table[seen[:, i], i] >= h).mean() for i, h in steps}
    wanted = [
        sum(
            bool(row[easy[0]] < easy[1] and row[hard[0]] >= hard[1])
            for one, two in combinations(steps, 2)
            for easy, hard in ((one, two), (two, one))
            if common[easy] > common[hard] and np.isfinite(row[[easy[0], hard[0]]]).all()
        )
        for row in table
    ]
    assert guttman_errors(data).tolist() == wanted


def test_two_items_that_are_one_stand_out():
    rng = np.random.default_rng(3)
    items = Calibration.from_parameters("rasch", np.linspace(-1, 1, 8)[:, None].tolist())
    scores = simulate(items, rng.normal(size=600), seed=3).scores.copy()
    copied = rng.random(600) < 0.7
    scores[copied, 5] = scores[copied, 4]
    data = Responses.from_wide(scores)
    cal = CML().fit(data)
    found = residual_dependence(cal, data)
    values = q3(cal, data)
    assert found.pair == ("I5", "I6")
    assert found.q3_star == pytest.approx(values[4, 5] - values[np.triu_indices(8, 1)].mean())
    assert found.q3_star > 0.3
    assert found.contrasts.sum() == pytest.approx(8)
    assert (np.diff(found.contrasts) <= 0).all()
    apart = Responses.from_wide([[1, 0, np.nan], [0, 1, np.nan], [np.nan, np.nan, 1]])
    three = Calibration.from_parameters("rasch", [[-0.1], [0.1], [0.0]])
    assert residual_dependence(three, apart).contrasts.size == 0


def test_adjusted_p_values():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(holm(p), [0.04, np.nan, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.04, np.nan, 0.16 / 3, 0.16 / 3, 0.5])


@pytest.mark.parametrize("seed", range(3))
def test_the_joint_wald_statistic_is_blind_to_the_anchors(seed):
    rng = np.random.default_rng(seed)
    data = simulate(BANK, rng.normal(size=250), seed=int(rng.integers(999)))
    group = rng.integers(2, size=250).tolist()
    estimator = CML(model="pcm")
    every = wald_test(estimator, data, split=group)
    one = wald_test(estimator, data, split=group, anchors=[data.items[1]])
    assert every.df == one.df == int(data.max_score.sum()) - 1
    assert one.statistic == pytest.approx(every.statistic, rel=1e-6)


def test_the_likelihood_ratio_of_bias_turns_with_the_groups_and_is_0_for_equal_ones():
    rng = np.random.default_rng(0)
    half = simulate(BANK, rng.normal(size=120), seed=int(rng.integers(999)))
    data = Responses.from_wide(np.vstack([half.scores, half.scores]), max_score=half.max_score)
    estimator = CML(model="pcm")
    alike = likelihood_ratio_dif(data, ["a"] * 120 + ["b"] * 120, estimator=estimator)
    group = rng.integers(2, size=240)
    one = likelihood_ratio_dif(data, group.tolist(), estimator=estimator)
    other = likelihood_ratio_dif(data, (1 - group).tolist(), estimator=estimator)
    np.testing.assert_allclose(alike.statistic, 0, atol=1e-8)
    np.testing.assert_allclose(one.effect, -other.effect, atol=1e-7)
    np.testing.assert_allclose(one.statistic, other.statistic, atol=1e-7)
    assert (one.statistic > -1e-9).all()
    assert one.df.tolist() == [1, 2, 2, 1]


def test_a_split_item_shows_its_planted_bias():
    theta = np.random.default_rng(5).normal(size=3000)
    plain = Calibration.from_parameters("rasch", [[-0.5], [0.0], [0.3], [0.2]])
    moved = replace(plain, threshold=plain.threshold + np.array([0, 0, 0.8, 0]))
    table = np.vstack(
        [simulate(plain, theta, seed=1).scores, simulate(moved, theta + 0.5, seed=2).scores]
    )
    found = likelihood_ratio_dif(Responses.from_wide(table), [0] * 3000 + [1] * 3000)
    assert int(np.argmax(found.statistic)) == 2
    assert abs(found.effect[2] - 0.8) < 4 * found.se[2]
    assert found.classes[2] == "C"
    assert found.anchors == ()
    with pytest.raises(DataError, match="without anchors"):
        likelihood_ratio_dif(
            Responses.from_wide(table), [0] * 3000 + [1] * 3000, estimator=CML(anchors={"I1": 0.0})
        )


def test_change_and_treatment_come_back_from_virtual_items():
    rng = np.random.default_rng(8)
    tau, shifts = np.array([-0.6, 0.1, 0.7]), np.array([[-0.4, -0.9], [-1.0, -1.2]])
    n, size = 1500, 3
    table = np.full((2 * n, 3 * 2 * size), np.nan)
    for g in (0, 1):
        theta = rng.normal(size=n) + g
        for t in range(3):
            shift = 0.0 if t == 0 else shifts[g, t - 1]
            items = Calibration.from_parameters("rasch", (tau + shift)[:, None].tolist())
            at = (t * 2 + g) * size
            seed = int(rng.integers(2**31))
            table[g * n : (g + 1) * n, at : at + size] = simulate(items, theta, seed=seed).scores
    design = design_repeated([1] * size, 3, groups=2)
    fit = CML(design=design).fit(Responses.from_wide(table))
    wanted = np.concatenate([tau[1:] - tau[0], shifts[0], shifts[1] - shifts[0]])
    assert (np.abs(fit.eta - wanted) < 4 * np.sqrt(np.diag(fit.eta_vcov))).all()
    with pytest.raises(ValueError, match="1 group"):
        design_repeated([1], 3, groups=0)


def test_a_moved_scale_takes_its_groups_along():
    theta = np.random.default_rng(6).normal(size=600)
    bank = Calibration.from_parameters("rasch", [[-0.5], [0.0], [0.3], [0.6]])
    cal = MML().fit(simulate(bank, theta, seed=1), groups=["a", "b"] * 300)
    target = replace(cal, threshold=cal.threshold + 0.7)
    moved = link(cal, target).apply(cal)
    assert [g.mean for g in moved.latent] == pytest.approx([g.mean + 0.7 for g in cal.latent])
    there, here = moved.renormalise(["I2"]), cal.renormalise(["I2"])
    np.testing.assert_allclose(there.threshold, here.threshold, atol=1e-7)
    np.testing.assert_allclose(there.vcov, here.vcov, atol=1e-12)
    for one, two in zip(there.latent, here.latent, strict=True):
        assert one.mean == pytest.approx(two.mean, abs=1e-7)
        assert one.mean_se == pytest.approx(two.mean_se)


def test_an_adaptive_test_can_be_scored_by_any_method():
    run = simulate_cat(BANK, np.array([-1.0, 0.5]), max_items=3, seed=2)
    data = run.responses(BANK)
    assert data.answered.tolist() == run.length.tolist()
    assert (np.take_along_axis(data.scores, run.items, axis=1) == run.scores).all()
    wanted = score_persons(BANK, data, method="eap", n_nodes=121)
    np.testing.assert_allclose(run.final, wanted.theta, atol=1e-9)
    with pytest.raises(DataError, match="the bank of this run"):
        run.responses(Calibration.from_parameters("rasch", [[0.0]]))
