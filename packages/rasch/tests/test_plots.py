"""What each plot shows is what the result holds."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from meristem_rasch import (
    CML,
    Calibration,
    DataError,
    Facets,
    Ratings,
    difficulty_alignment,
    item_fit,
    rasch_dif,
    score_persons,
    simulate,
)
from meristem_rasch.plots import (
    alignment_plot,
    dif_plot,
    facet_ruler,
    fit_map,
    item_curves,
    wright_map,
)

BANK = Calibration.from_parameters("pcm", [[-1.0], [-0.5, 0.8], [0.2, -0.3], [0.9]])


@pytest.fixture
def ax():
    axes = Figure().subplots()
    yield axes
    axes.figure.canvas.draw()  # what cannot be drawn fails here


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture(scope="module")
def fitted():
    data = simulate(BANK, np.random.default_rng(0).normal(size=300), seed=1)
    return SimpleNamespace(cal=CML(model="pcm").fit(data), data=data)


def test_wright_map(ax, fitted):
    scores = score_persons(fitted.cal, fitted.data, method="mle")
    assert wright_map(fitted.cal, scores, ax=ax) is ax
    assert texts(ax) == ["I1.1", "I2.1", "I2.2", "I3.1", "I3.2", "I4.1"]
    assert [text.get_position()[1] for text in ax.texts] == fitted.cal.threshold.tolist()
    lost = int(np.isinf(scores.theta).sum())
    assert lost > 0
    assert f"{lost} without a finite measure" in ax.get_xlabel()
    heights = np.array([bar.get_width() for bar in ax.patches])
    assert heights.min() == -1
    assert (heights <= 0).all()


def test_a_map_of_many_items_is_points(ax):
    bank = Calibration.from_parameters("rasch", np.linspace(-2, 2, 60)[:, None].tolist())
    data = simulate(bank, np.zeros(20), seed=1)
    wright_map(bank, score_persons(bank, data), ax=ax)
    assert not ax.texts
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), bank.threshold)


def test_item_curves(ax, fitted):
    item_curves(fitted.cal, "I2", ax=ax)
    chances = np.array([line.get_ydata() for line in ax.lines])
    assert len(chances) == 3
    np.testing.assert_allclose(chances.sum(axis=0), 1)
    with pytest.raises(DataError, match="'I9' is not an item"):
        item_curves(fitted.cal, "I9", ax=ax)


def test_fit_map_names_what_is_beyond_chance(ax):
    bank = Calibration.from_parameters("rasch", np.linspace(-1, 1, 10)[:, None].tolist())
    rng = np.random.default_rng(4)
    noise = simulate(bank, rng.normal(size=800), seed=1)
    noise.scores[:, 3] = rng.integers(2, size=800)  # an item that measures nothing
    cal = CML().fit(noise)
    table = item_fit(cal, noise)
    fit_map(table, cal.difficulty, ax=ax)
    assert "I4" in texts(ax)
    assert len(texts(ax)) < 10
    with pytest.raises(DataError, match="2 measures for 10 rows"):
        fit_map(table, cal.difficulty[:2], kind="infit", ax=ax)


def test_alignment_plot(ax):
    label = np.arange(30.0)
    logit = np.random.default_rng(2).normal(size=(5, 1)) - (label - 15) / 8
    found = difficulty_alignment(1 / (1 + np.exp(-logit)), label, bootstrap=50)
    alignment_plot(found, ax=ax)
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == [rung.name for rung in found.rungs][::-1]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [rung.r2 for rung in found.rungs][::-1])


def test_facet_ruler(ax):
    rng = np.random.default_rng(3)
    person, rater = np.repeat(np.arange(45), 3), np.tile(np.arange(3), 45)
    score = rng.binomial(3, 0.5, size=135)
    data = Ratings.from_long(score, {"person": person, "rater": [f"R{k}" for k in rater]})
    fit = Facets().fit(data)
    facet_ruler(fit, ax=ax)
    assert texts(ax) == ["R0", "R1", "R2"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), fit.facets["person"].measure)
    low, high = ax.get_ylim()
    assert low < fit.facets["person"].measure.min() < fit.facets["person"].measure.max() < high


def test_dif_plot(ax, fitted):
    table = rasch_dif(fitted.data, ["a", "b"] * 150, estimator=CML(model="pcm"))
    dif_plot(table, ax=ax)
    (anchor,) = table.anchors
    assert ax.get_xlabel().endswith(f"not tested: {anchor}")
    assert len(ax.get_yticklabels()) == 3


def test_an_axes_is_made_where_none_is_given():
    from matplotlib import pyplot

    drawn = item_curves(BANK, "I1")
    pyplot.close(drawn.figure)
    assert drawn.get_xlabel() == "ability, logits"
