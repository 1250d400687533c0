"""Drawn answers, tables of ratings and results as columns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_rasch import (
    CML,
    Calibration,
    DataError,
    Facets,
    Ratings,
    Responses,
    item_fit,
    rasch_dif,
    read_ratings,
    score_persons,
    simulate,
)
from meristem_rasch._curves import curves

few = settings(max_examples=max(8, settings().max_examples // 12))
GRADED = [[-1.0], [-0.5, 0.8], [0.1, 0.3, 1.2]]
BANKS = {
    "pcm": Calibration.from_parameters("pcm", GRADED),
    "grm": Calibration.from_parameters("grm", GRADED, slope=[0.7, 1.5, 1.0]),
    "3pl": Calibration.from_parameters("3pl", [[-1.0], [0.5]], slope=[1.2, 0.8], guess=[0.2, 0.1]),
}


@few
@given(seed=st.integers(0, 2**32 - 1), model=st.sampled_from(list(BANKS)), theta=st.floats(-3, 3))
def test_scores_are_drawn_with_the_probabilities_of_the_model(seed, model, theta):
    bank, n = BANKS[model], 4000
    drawn = simulate(bank, np.full(n, theta), seed=seed)
    p = curves(bank, np.array([theta]))[0][0]
    for h in range(p.shape[1]):
        seen = (drawn.scores == h).mean(axis=0)
        assert (np.abs(seen - p[:, h]) <= 5.5 * np.sqrt(p[:, h] * (1 - p[:, h]) / n) + 1e-9).all()
    again = simulate(bank, np.full(n, theta), seed=seed)
    np.testing.assert_array_equal(drawn.scores, again.scores)


@few
@given(rng=rngs(), seed=st.integers(0, 99))
def test_a_masked_answer_is_missing_and_the_others_stay(rng, seed):
    theta, mask = rng.normal(size=30), rng.random((30, 3)) < 0.7
    mask[0] = True
    whole = simulate(BANKS["pcm"], theta, seed=seed)
    part = simulate(BANKS["pcm"], theta, seed=seed, mask=mask)
    np.testing.assert_array_equal(part.scores, np.where(mask, whole.scores, -1))
    np.testing.assert_array_equal(part.wide()[mask], whole.wide()[mask])
    assert np.isnan(part.wide()[~mask]).all()


@pytest.mark.parametrize(
    ("theta", "mask", "message"),
    [
        (np.array([0.0, np.nan]), None, r"theta\[1\] must be finite"),
        (np.zeros(2), np.ones((2, 2), dtype=bool), r"mask has shape \(2, 2\); .* \(2, 3\)"),
    ],
)
def test_what_cannot_be_drawn_is_named(theta, mask, message):
    with pytest.raises(DataError, match=message):
        simulate(BANKS["pcm"], theta, seed=0, mask=mask)


@few
@given(rng=rngs())
def test_ratings_of_persons_and_items_are_responses(rng):
    table = rng.integers(0, 3, size=(8, 4)).astype(float)
    table[rng.random(table.shape) < 0.3] = np.nan
    table[:, 0] = table[0] = 1.0
    data = Responses.from_wide(table)
    row, column = np.nonzero(data.mask)
    person, item = np.array(data.persons)[row], np.array(data.items)[column]
    ratings = Ratings.from_long(data.scores[row, column], {"person": person, "item": item})
    back = ratings.responses()
    order = [back.persons.index(name) for name in data.persons]
    items = [back.items.index(name) for name in data.items]
    np.testing.assert_array_equal(back.select(order, items).scores, data.scores)


def test_ratings_that_make_no_table_are_named(tmp_path):
    path = tmp_path / "essays.csv"
    path.write_text("essay,rater,task,grade,n\na,x,t,3,1\na,y,t,2,1\nb,x,t,1,2\n")
    data = read_ratings(path, score="grade", facets=["essay", "rater", "task"])
    assert data.score.tolist() == [3, 2, 1]
    assert data.facets["rater"] == ("x", "y")
    with pytest.raises(DataError, match="person a answers item t more than once"):
        data.responses("essay", "task")
    with pytest.raises(DataError, match=r"'person' is no facet; the facets are \['essay'"):
        data.responses()
    weighted = read_ratings(path, score="grade", facets=["essay", "rater"], weight="n")
    assert weighted.weight.tolist() == [1, 1, 2]
    with pytest.raises(DataError, match="weighted ratings make no table"):
        weighted.responses("essay", "rater")
    with pytest.raises(DataError, match="marks"):
        read_ratings(path, score="marks", facets=["essay", "rater"])


def test_results_are_columns_of_equal_length():
    data = simulate(BANKS["pcm"], np.random.default_rng(0).normal(size=200), seed=1)
    cal = CML(model="pcm").fit(data)
    assert cal.to_frame()["item"].tolist() == ["I1", "I2", "I2", "I3", "I3", "I3"]
    assert cal.to_frame()["step"].tolist() == [1, 1, 2, 1, 2, 3]
    row, column = np.nonzero(data.mask)
    long = {"person": np.array(data.persons)[row], "item": np.array(data.items)[column]}
    facets = Facets(steps="item").fit(Ratings.from_long(data.scores[row, column], long))
    group = ["a", "b"] * 100
    frames = [
        (cal.to_frame(), 6),
        (score_persons(cal, data).to_frame(), 200),
        (item_fit(cal, data).to_frame(), 3),
        (rasch_dif(data, group, estimator=CML(model="pcm")).to_frame(), 3),
        (facets.facets["item"].to_frame(), 3),
        (facets.bias("person", "item").to_frame(), 600),
    ]
    for columns, rows in frames:
        assert {len(values) for values in columns.values()} == {rows}
