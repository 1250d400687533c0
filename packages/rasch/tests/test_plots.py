"""The pictures show what the results hold."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
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

BANK = Calibration.from_parameters("pcm", [[-1.0], [-0.5, 0.8], [0.2], [0.1, 1.2]])
DATA = simulate(BANK, np.random.default_rng(0).normal(size=300), seed=0)
CAL = CML(model="pcm").fit(DATA)


@pytest.fixture
def ax():
    figure = Figure()
    yield figure.subplots()
    figure.canvas.draw()  # everything can be drawn


def test_persons_and_thresholds_share_a_scale(ax):
    persons = score_persons(CAL, DATA)
    assert wright_map(ax, CAL, persons) is ax
    assert -sum(bar.get_width() for bar in ax.patches) == 300
    (points,) = ax.collections
    np.testing.assert_allclose(points.get_offsets()[:, 1], CAL.threshold)
    assert [text.get_text() for text in ax.get_xticklabels()] == list(CAL.items)


def test_infinite_measures_make_no_map(ax):
    data = DATA.select(persons=DATA.raw == 0)
    with pytest.raises(DataError, match="no person has a finite measure"):
        wright_map(ax, CAL, score_persons(CAL, data, method="mle"))


def test_the_curves_of_an_item_sum_to_one(ax):
    item_curves(ax, CAL, "I2")
    assert len(ax.lines) == 3
    np.testing.assert_allclose(sum(line.get_ydata() for line in ax.lines), 1)
    with pytest.raises(DataError, match="'I9' is no item"):
        item_curves(ax, CAL, "I9")


def test_fit_is_drawn_over_difficulty(ax):
    fit = item_fit(CAL, DATA)
    fit_map(ax, CAL, fit)
    infit, outfit = ax.collections
    np.testing.assert_allclose(infit.get_offsets(), np.column_stack([CAL.difficulty, fit.infit]))
    np.testing.assert_allclose(outfit.get_offsets(), np.column_stack([CAL.difficulty, fit.outfit]))
    two = DATA.select(items=[0, 2])
    with pytest.raises(DataError, match="of other items"):
        fit_map(ax, CAL, item_fit(CML().fit(two), two))


def test_every_rung_has_its_interval(ax):
    rng = np.random.default_rng(1)
    found = difficulty_alignment(rng.random((4, 20)), rng.normal(size=20), bootstrap=50)
    alignment_plot(ax, found)
    assert [text.get_text() for text in ax.get_yticklabels()] == [r.name for r in found.rungs]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [rung.r2 for rung in found.rungs])


def test_every_level_of_a_facet_is_on_the_ruler(ax):
    rng = np.random.default_rng(2)
    person, rater = (a.ravel() for a in np.indices((40, 3)))
    data = Ratings.from_long(rng.integers(0, 3, size=120), {"person": person, "rater": rater})
    found = Facets().fit(data)
    facet_ruler(ax, found)
    np.testing.assert_allclose(ax.collections[1].get_offsets()[:, 1], found.facets["rater"].measure)
    assert [text.get_text().strip() for text in ax.texts] == ["0", "1", "2"]


def test_effects_are_sorted_with_their_intervals(ax):
    found = rasch_dif(DATA, ["a", "b"] * 150, estimator=CML(model="pcm"))
    dif_plot(ax, found)
    drawn = [float(line.get_xdata()[0]) for line in ax.lines[:-1]]
    known = found.effect[np.isfinite(found.effect)]  # all but the anchor
    np.testing.assert_allclose(drawn, np.sort(known))
