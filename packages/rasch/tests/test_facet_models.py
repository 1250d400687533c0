"""Laws of marginal facets, interactions, group anchors and corrections."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.linalg import null_space

from meristem_core.testing import rngs
from meristem_rasch import (
    MML,
    DataError,
    ExistenceError,
    FacetCalibration,
    Facets,
    IdentificationError,
    Ratings,
    Responses,
)
from meristem_rasch._facet_design import build
from meristem_rasch._facet_marginal import Marginal
from meristem_rasch._subspaces import Margins

few = settings(max_examples=max(5, settings().max_examples // 20))
PAIR = (("rater", "task"),)


def ratings(rng, persons=40, raters=5, tasks=4, *, marks=3):
    """Each person's tasks are marked by `marks` raters on a scale 0...3."""
    who, task, mark = (a.ravel() for a in np.indices((persons, tasks, marks)))
    drawn = rng.permuted(np.tile(np.arange(raters), (persons, 1)), axis=1)
    rater = drawn[who, mark]
    severity, difficulty = rng.normal(size=raters) / 2, rng.normal(size=tasks) / 2
    eta = rng.normal(size=persons)[who] - severity[rater] - difficulty[task]
    z = np.multiply.outer(eta, np.arange(4.0)) - np.cumsum([0, -1.2, 0, 1.2])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    score = (rng.random((len(eta), 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    order = np.lexsort([task, rater, who])  # levels in order of appearance are those of the codes
    levels = {"person": who[order], "rater": rater[order], "task": task[order]}
    return Ratings.from_long(score[order], levels), severity, difficulty


def log_likelihood(data, difficulty, steps, mean, sd):
    """Integrate over the persons one by one, on 4,001 nodes; `difficulty` of each rating."""
    theta = np.linspace(mean - 9 * sd, mean + 9 * sd, 4001)
    density = np.exp(-(((theta - mean) / sd) ** 2) / 2) / np.sqrt(2 * np.pi) / sd
    total, top = 0.0, np.arange(len(steps) + 1)
    for person in range(len(data.facets["person"])):
        like = density.copy()
        for row in np.flatnonzero(data.codes["person"] == person):
            z = np.multiply.outer(theta - difficulty[row], top) - np.append(0, np.cumsum(steps))
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            like *= p[:, data.score[row]] ** data.weight[row]
        total += np.log(np.trapezoid(like, theta))
    return total


def difficulty(cal, data):
    """Return the sum of all but the persons' measures for every rating."""
    out = sum(cal.facets[name].measure[data.codes[name]] for name in ("rater", "task"))
    for table in cal.interactions.values():
        cell = [
            f"{data.facets['rater'][r]}:{data.facets['task'][t]}"
            for r, t in zip(data.codes["rater"], data.codes["task"], strict=True)
        ]
        out = out + table.measure[[table.labels.index(name) for name in cell]]
    return out


@pytest.mark.parametrize("interactions", [(), PAIR])
def test_marginal_likelihood_equals_integration_and_is_largest(interactions):
    rng = np.random.default_rng(0)
    data, *_ = ratings(rng, 30, 3, 3)
    data = replace(data, weight=rng.choice([0.5, 1.0, 2.0], len(data.score)))
    cal = Facets(method="mml", interactions=interactions, tol=1e-9).fit(data)
    at = difficulty(cal, data), cal.steps[0], cal.latent.mean, cal.latent.sd
    assert log_likelihood(data, *at) == pytest.approx(cal.loglik, abs=1e-7)
    for moved in (
        (at[0] + 0.02 * rng.normal(size=3)[data.codes["rater"]], *at[1:]),
        (at[0], at[1] + 0.02 * np.array([1, -1, 0]), *at[2:]),
        (*at[:3], 1.02 * at[3]),
    ):
        assert log_likelihood(data, *moved) < cal.loglik


@pytest.mark.parametrize(("model", "m"), [("rasch", 1), ("pcm", 2), ("rsm", 2)])
def test_one_facet_beside_the_persons_is_marginal_likelihood_of_items(model, m):
    rng = np.random.default_rng(m)
    table = (rng.normal(size=(200, 1)) + rng.logistic(size=(200, 5)) > -0.3).astype(float)
    table += (m == 2) * (rng.normal(size=(200, 1)) + rng.logistic(size=(200, 5)) > 0.3)
    table[rng.random(table.shape) < 0.1] = np.nan
    ref = MML(model=model, tol=1e-10).fit(Responses.from_wide(table))
    item, person = np.nonzero(~np.isnan(table.T))
    data = Ratings.from_long(table[person, item].astype(int), {"person": person, "item": item})
    steps = "item" if model == "pcm" else None
    cal = Facets(method="mml", steps=steps, tol=1e-9).fit(data)
    found, group = cal.facets["item"], ref.latent[0]
    np.testing.assert_allclose(found.measure, ref.difficulty, atol=1e-9)
    np.testing.assert_allclose(found.se, ref.difficulty_se, rtol=1e-7)
    assert cal.loglik == pytest.approx(ref.loglik, abs=1e-8)
    assert cal.n_parameters == ref.n_parameters
    for mine, theirs in ((cal.latent.mean, group.mean), (cal.latent.sd, group.sd)):
        assert mine == pytest.approx(theirs, abs=1e-9)
    assert cal.latent.mean_se == pytest.approx(group.mean_se, rel=1e-7)
    assert cal.latent.sd_se == pytest.approx(group.sd_se, rel=1e-7)
    tau = ref.threshold.reshape(5, m) - ref.difficulty[:, None]
    np.testing.assert_allclose(cal.steps, tau if steps else tau[:1], atol=1e-9)


@few
@given(rng=rngs())
def test_marginal_gradient_and_hessian_are_those_of_the_value(rng):
    data, *_ = ratings(rng, 12, 3, 3)
    plan = Facets(method="mml", interactions=PAIR)._plan()
    try:
        design, x, _ = build(plan, data)
    except ExistenceError:  # an extreme cell
        return
    surface = Marginal(design, data.codes["person"], n_nodes=41)
    x, d = rng.normal(size=(2, len(x) + 1)) / 2
    at = surface.at(x)
    up, down = (surface.at(x + s * d) for s in (1e-5, -1e-5))
    assert at.gradient() @ d == pytest.approx((up.loglik - down.loglik) / 2e-5, abs=1e-5)
    np.testing.assert_allclose(
        at.product()(d), (down.gradient() - up.gradient()) / 2e-5, atol=1e-6 * len(data.score)
    )


@few
@given(rng=rngs())
def test_margins_are_taken_off_whatever_cells_occur(rng):
    present = rng.random((4, 3)) < 0.7
    present[0, 0] = True
    first, second = np.nonzero(present)
    space = Margins(first=first, second=second, shape=(4, 3))
    margins = np.vstack([np.eye(4)[first].T, np.eye(3)[second].T])
    basis = null_space(margins)
    assert space.lost == len(first) - basis.shape[1]
    v = rng.normal(size=len(first))
    np.testing.assert_allclose(space.project(v), basis @ (basis.T @ v), atol=1e-12)
    information = rng.uniform(1, 5, len(first))
    inverse = np.linalg.inv(basis.T @ (information[:, None] * basis))
    expected = np.diag(basis @ inverse @ basis.T)
    np.testing.assert_allclose(space.variance(information), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["jml", "mml"])
def test_an_interaction_of_all_facets_is_a_facet_of_cells(method):
    data, *_ = ratings(np.random.default_rng(1), 60, 4, 3)
    cal = Facets(method=method, interactions=PAIR, tol=1e-9).fit(data)
    cell = data.codes["rater"] * 3 + data.codes["task"]
    flat = replace(
        data,
        facets={"person": data.facets["person"], "cell": tuple(f"{k:02d}" for k in range(12))},
        codes={"person": data.codes["person"], "cell": cell},
    )
    saturated = Facets(method=method, tol=1e-9).fit(flat)
    assert cal.loglik == pytest.approx(saturated.loglik, abs=1e-8)
    assert cal.n_parameters == saturated.n_parameters
    total = difficulty(cal, data)
    shift = total - saturated.facets["cell"].measure[cell]
    np.testing.assert_allclose(shift, shift[0], atol=1e-7)
    table = cal.interactions["rater:task"].measure.reshape(4, 3)  # labels in order of codes
    np.testing.assert_allclose(table.sum(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(table.sum(axis=1), 0, atol=1e-9)
    if method == "mml":  # the cell's error is that of a contrast of the saturated facet's cells
        assert (cal.interactions["rater:task"].se < saturated.facets["cell"].se).all()


@pytest.mark.parametrize("method", ["jml", "mml"])
def test_a_planted_interaction_is_found_as_bias_finds_it(method):
    data, *_ = ratings(np.random.default_rng(3), 150, 4, 4, marks=4)
    pair = (data.codes["rater"] == 1) & (data.codes["task"] == 2)
    data = replace(data, score=np.where(pair, np.minimum(data.score + 1, 3), data.score))
    main = Facets(method=method).fit(data)
    cal = Facets(method=method, interactions=PAIR).fit(data)
    found, bias = cal.interactions["rater:task"], main.bias("rater", "task")
    assert [f"{a}:{b}" for a, b in zip(bias.first, bias.second, strict=True)] == [*found.labels]
    # the main model's residuals, cell by cell, are the first step towards the interactions
    np.testing.assert_allclose(found.measure, -bias.bias, atol=0.15 * np.ptp(bias.bias))
    z = found.measure / found.se
    assert int(np.argmin(z)) == int(np.argmax(bias.z))
    assert z.min() < -5
    test = cal.compare(main)
    assert test.df == found.df == 9
    assert test.statistic == pytest.approx(found.chi2, rel=0.2)  # likelihood ratio and Wald
    assert test.p < 1e-6
    left = cal.bias("rater", "task").bias
    np.testing.assert_allclose(left, 0, atol=1e-5 if method == "mml" else 0.05)
    with pytest.raises(DataError, match="call compare of the larger one"):
        main.compare(cal)


def test_posterior_fit_averages_one_and_persons_are_posterior_means():
    data, *_ = ratings(np.random.default_rng(4), 1000, 6, 4, marks=2)
    cal = Facets(method="mml").fit(data)
    for name in ("rater", "task"):
        np.testing.assert_allclose(cal.facets[name].outfit, 1, atol=0.12)
        np.testing.assert_allclose(cal.facets[name].infit, 1, atol=0.12)
        assert np.abs(cal.facets[name].outfit_t).max() < 3
    persons = cal.facets["person"]
    assert persons.infit.mean() == pytest.approx(1, abs=0.03)
    # variance of the ability is that of its posterior means plus their mean posterior variance
    whole = persons.measure.var() + np.mean(persons.se**2)
    assert whole == pytest.approx(cal.latent.sd**2, rel=1e-4)
    assert persons.measure.mean() == pytest.approx(cal.latent.mean, abs=1e-5)
    gap = np.bincount(data.codes["rater"], data.score - cal.expected)
    np.testing.assert_allclose(gap, 0, atol=1e-3)


def test_mean_squares_and_their_t_are_the_formulas():
    """Wright and Masters (1982): t = (MS^(1/3) - 1) 3 / q + q / 3, q the sd of the mean square."""
    data, *_ = ratings(np.random.default_rng(12), 60, 4, 3)
    cal = Facets().fit(data)
    h = np.arange(4)
    p = np.exp(np.multiply.outer(cal.logit, h) - np.cumsum(np.append(0, cal.steps[0])))
    p /= p.sum(axis=1, keepdims=True)
    away = h - (p @ h)[:, None]
    v, c = (p * away**2).sum(axis=1), (p * away**4).sum(axis=1)
    z2 = (data.score - p @ h) ** 2 / v
    rows = data.codes["rater"] == 1
    table, n = cal.facets["rater"], rows.sum()
    q = np.sqrt((c / v**2 - 1)[rows].sum()) / n
    assert table.outfit[1] == pytest.approx(z2[rows].mean(), rel=1e-9)
    t = (np.cbrt(z2[rows].mean()) - 1) * 3 / q + q / 3
    assert table.outfit_t[1] == pytest.approx(t, rel=1e-9)
    q = np.sqrt((c - v**2)[rows].sum()) / v[rows].sum()
    infit = (z2 * v)[rows].sum() / v[rows].sum()
    assert table.infit_t[1] == pytest.approx((np.cbrt(infit) - 1) * 3 / q + q / 3, rel=1e-9)
    assert table.strata == pytest.approx((4 * table.separation + 1) / 3)


def halves(rng):
    """Two raters mark one half of the persons, two others the other half."""
    data, *_ = ratings(rng, 30, 4, 3)
    second = data.codes["person"] >= 15
    rater = np.where(second, 2, 0) + data.codes["rater"] % 2
    return data, {"person": data.codes["person"], "rater": rater}, second


def test_group_anchors_identify_subsets_and_each_is_its_own_fit():
    data, levels, second = halves(np.random.default_rng(1))
    both = Ratings.from_long(data.score, levels)
    with pytest.raises(IdentificationError, match="group_anchor"):
        Facets().fit(both)
    cal = Facets(group_anchor="rater", tol=1e-9).fit(both)
    table = cal.facets["rater"]
    for rows in (second, ~second):
        part = Ratings.from_long(data.score[rows], {k: v[rows] for k, v in levels.items()})
        alone = Facets(anchors={}, tol=1e-9).fit(part).facets["rater"]
        own = table.measure[[table.labels.index(label) for label in alone.labels]]
        assert own.sum() == pytest.approx(0, abs=1e-9)
        assert np.sign(own) == pytest.approx(np.sign(alone.measure))
    assert cal.n_parameters == 30 + 4 - 2 + 2
    split = levels | {"task": data.codes["task"] + 3 * second}
    three = Ratings.from_long(data.score, split)
    with pytest.raises(IdentificationError, match="group_anchor of one facet more"):
        Facets(group_anchor="rater").fit(three)
    cal = Facets(group_anchor=("rater", "task")).fit(three)
    for name, size in (("rater", 2), ("task", 3)):
        by_label = dict(zip(cal.facets[name].labels, cal.facets[name].measure, strict=True))
        subset = [by_label[str(k)] for k in range(size)]
        assert np.sum(subset) == pytest.approx(0, abs=1e-9)


def test_group_anchors_identify_and_do_no_more():
    """Any identification has the same likelihood; a second facet takes what the first leaves."""
    data, *_ = ratings(np.random.default_rng(3), 30, 4, 3)
    own = 2 * data.codes["task"] + data.codes["rater"] % 2  # every task has raters of its own
    nested = Ratings.from_long(data.score, data.codes | {"rater": own})
    anchors = {"rater": {"0": 0.0, "2": 0.0, "4": 0.0}}
    anchored = Facets(anchors=anchors, tol=1e-9).fit(nested)
    for facets in ("rater", ("rater", "task"), ("task", "rater")):
        cal = Facets(group_anchor=facets, tol=1e-9).fit(nested)
        assert cal.loglik == pytest.approx(anchored.loglik, abs=1e-8), facets
        assert cal.n_parameters == anchored.n_parameters, facets
    # the facet that comes first is the one whose groups average 0: one task is one group
    np.testing.assert_allclose(cal.facets["task"].measure, 0, atol=1e-9)
    assert np.ptp(Facets(group_anchor="rater").fit(nested).facets["task"].measure) > 0.1


def test_group_anchored_persons_are_of_equal_ability_on_average():
    data, levels, _ = halves(np.random.default_rng(2))
    cal = Facets(group_anchor="person").fit(Ratings.from_long(data.score, levels))
    one = cal.facets["person"].measure[:15].mean() - cal.facets["person"].measure[15:].mean()
    assert one == pytest.approx(0, abs=1e-9)
    # persons drawn from one distribution link the halves as well
    assert Facets(method="mml").fit(Ratings.from_long(data.score, levels)).latent.sd > 0


def test_corrections_take_most_of_the_bias_away():
    """Marginal estimates are consistent for normal persons: the yardstick of the joint ones."""
    data, *_ = ratings(np.random.default_rng(5), 400, 4, 5, marks=4)
    raw = np.bincount(data.codes["person"], data.score)
    keep = ((raw > 0) & (raw < 60))[data.codes["person"]]  # the other corrections do it themselves
    inner = Ratings.from_long(
        data.score[keep], {name: code[keep] for name, code in data.codes.items()}
    )

    def estimates(cal):
        parts = (cal.facets["rater"].measure, cal.facets["task"].measure, cal.steps[0])
        return np.concatenate(parts)

    truth = estimates(Facets(method="mml").fit(data))
    excess = {
        correction: estimates(Facets(correction=correction).fit(used)) @ truth / (truth @ truth) - 1
        for correction, used in (("none", inner), ("wright", data), ("jackknife", data))
    }
    assert excess["none"] == pytest.approx(1 / 19, abs=0.02)  # L / (L - 1) with 20 ratings each
    assert abs(excess["wright"]) < 0.25 * excess["none"]
    assert abs(excess["jackknife"]) < 0.25 * excess["none"]


@pytest.mark.parametrize("correction", ["wright", "jackknife"])
def test_corrected_persons_are_measured_given_the_rest(correction):
    data, *_ = ratings(np.random.default_rng(6), 60, 4, 4, marks=3)
    data = replace(data, score=np.where(data.codes["person"] == 0, 3, data.score))
    cal = Facets(correction=correction).fit(data)
    gap = np.bincount(data.codes["person"], data.score - cal.expected)
    assert gap[0] == pytest.approx(0.3, abs=1e-6)  # an extreme score is measured 0.3 inside
    np.testing.assert_allclose(gap[1:], 0, atol=1e-6)
    assert cal.facets["rater"].measure.mean() == pytest.approx(0, abs=1e-9)
    with pytest.raises(DataError, match="takes no anchors"):
        Facets(correction=correction, anchors={"rater": {"0": 0.0}}).fit(data)


def test_a_half_without_estimates_is_named():
    data, *_ = ratings(np.random.default_rng(7), 30, 4, 3)
    lonely = replace(
        data,
        facets={**data.facets, "room": ("a", "b")},
        codes={**data.codes, "room": (np.arange(len(data.score)) == 5).astype(int)},
    )
    with pytest.raises(ExistenceError, match="room b"):
        Facets(correction="jackknife").fit(lonely)


@pytest.mark.parametrize("method", ["jml", "mml"])
def test_a_stored_calibration_comes_back(method):
    data, *_ = ratings(np.random.default_rng(8))
    cal = Facets(method=method, interactions=PAIR, steps="task").fit(data)
    back = FacetCalibration.from_dict(json.loads(json.dumps(cal.to_dict())))
    assert back.to_dict() == cal.to_dict()
    np.testing.assert_array_equal(
        back.bias("person", "rater").bias, cal.bias("person", "rater").bias
    )
    assert back.unexpected(2).tolist() == cal.unexpected(2).tolist()
    text = back.summary()
    assert "rater:task" in text
    assert ("normal, mean" in text) == (method == "mml")
    with pytest.raises(DataError, match="steps_se"):
        FacetCalibration.from_dict({k: v for k, v in cal.to_dict().items() if k != "steps_se"})


def test_marginal_weights_repeat_rows():
    data, *_ = ratings(np.random.default_rng(9), 40)
    twice = {name: np.tile(code, 2) for name, code in data.codes.items()}
    repeated = Facets(method="mml", tol=1e-9).fit(Ratings.from_long(np.tile(data.score, 2), twice))
    weighted = Facets(method="mml", tol=1e-9).fit(replace(data, weight=data.weight * 2))
    assert weighted.loglik == pytest.approx(repeated.loglik, abs=1e-7)
    for name in data.facets:
        mine, theirs = weighted.facets[name], repeated.facets[name]
        np.testing.assert_allclose(mine.measure, theirs.measure, atol=1e-8)
        np.testing.assert_allclose(mine.se, theirs.se, rtol=1e-7)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"interactions": (("rater", "judge"),)}, "'judge' is no facet"),
        ({"interactions": (("rater", "rater"),)}, "twice"),
        ({"interactions": (("rater", "task"), ("task", "rater"))}, "twice"),
        ({"group_anchor": "judge"}, "'judge' is no facet"),
        ({"group_anchor": "rater", "anchors": {"rater": {"0": 0.0}}}, "one of the two"),
        ({"anchors": {"rater": {"0": np.inf}}}, "must be finite"),
        ({"method": "mml", "interactions": (("person", "rater"),)}, "integrated out"),
        ({"method": "mml", "steps": "person"}, "integrated out"),
        ({"method": "mml", "correction": "wright"}, "needs none"),
        ({"method": "mml", "n_nodes": 2}, "n_nodes is 2"),
    ],
)
def test_settings_that_contradict(settings_, message):
    data, *_ = ratings(np.random.default_rng(10))
    with pytest.raises(DataError, match=message):
        Facets(**settings_).fit(data)


def test_marginal_estimates_that_do_not_exist():
    data, *_ = ratings(np.random.default_rng(11))
    severe = replace(data, score=np.where(data.codes["rater"] == 2, 0, data.score))
    with pytest.raises(ExistenceError, match="has only extreme ratings"):
        Facets(method="mml").fit(severe)
    alike = np.tile([0, 1, 2, 3], 40)  # every person has every score: no variance
    levels = {"person": np.repeat(np.arange(40), 4), "rater": np.tile(np.arange(4), 40)}
    score = alike.reshape(40, 4)
    score = np.array([np.roll(row, k) for k, row in enumerate(score)]).ravel()
    with pytest.raises(ExistenceError, match="variance of 'person' is estimated as 0"):
        Facets(method="mml").fit(Ratings.from_long(score, levels))
