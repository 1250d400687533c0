"""Marginal maximum likelihood: published tables, laws, and the derivatives of all curves."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.special import logit

from meristem_core.testing import rngs
from meristem_rasch import (
    CML,
    MML,
    Calibration,
    DataError,
    ExistenceError,
    Responses,
    score_persons,
)
from meristem_rasch import _marginal as marginal_module
from meristem_rasch import _mml as mml_module
from meristem_rasch._curves import curves
from meristem_rasch._information import observed_information, person_scores
from meristem_rasch._marginal import Patterns, collapse
from meristem_rasch._models import at_nodes
from meristem_rasch._parameters import item_parameters, layout
from meristem_rasch._posterior import Marginal
from meristem_rasch._simulate import simulate as draw_answers

few = settings(max_examples=max(8, settings().max_examples // 12))


def frequencies(path):
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return Responses.from_wide(table[:, -6:-1], weight=table[:, -1])


@pytest.mark.data
@pytest.mark.paper
def test_lsat6_rasch_of_mirt(data_dir):
    """philchalmers/mirt, tests/testthat: d and the variance, to the digits printed there."""
    cal = MML().fit(frequencies(data_dir / "irt/classical/mirt_LSAT6_freq.csv"))
    easiness = cal.latent_mean - cal.threshold
    np.testing.assert_allclose(easiness, [2.73, 0.999, 0.24, 1.306, 2.099], atol=2e-3)
    assert cal.latent_sd**2 == pytest.approx(0.57, abs=5e-3)


@pytest.mark.data
@pytest.mark.paper
def test_lsat7_2pl_of_mirt(data_dir):
    cal = MML(model="2pl").fit(frequencies(data_dir / "irt/classical/mirt_LSAT7_freq.csv"))
    np.testing.assert_allclose(cal.slope, [0.988, 1.081, 1.706, 0.7651, 0.7358], atol=2e-3)
    easiness = -cal.slope * cal.threshold
    np.testing.assert_allclose(easiness, [1.8561, 0.808, 1.8043, 0.486, 1.8545], atol=2e-3)


@pytest.mark.data
@pytest.mark.paper
def test_lsat7_common_slope_of_mirt(data_dir):
    """One slope for all items is the Rasch model with a free sd: a = sd, d = -sd b."""
    cal = MML().fit(frequencies(data_dir / "irt/classical/mirt_LSAT7_freq.csv"))
    assert cal.latent_sd == pytest.approx(1.011, abs=2e-3)
    easiness = cal.latent_mean - cal.threshold
    np.testing.assert_allclose(easiness, [1.868, 0.791, 1.461, 0.521, 1.993], atol=2e-3)


@pytest.mark.data
@pytest.mark.paper
def test_science_graded_of_mirt(data_dir):
    with (data_dir / "irt/classical/ltm_Science.csv").open() as file:
        rows = list(csv.DictReader(file))
    words = ["strongly disagree", "disagree", "agree", "strongly agree"]
    names = ["Comfort", "Work", "Future", "Benefit"]
    table = [[words.index(row[name]) for name in names] for row in rows]
    cal = MML(model="grm").fit(Responses.from_wide(table, items=names))
    np.testing.assert_allclose(cal.slope, [1.041, 1.226, 2.296, 1.095], atol=1e-2)
    easiness = -(np.repeat(cal.slope, 3) * cal.threshold).reshape(4, 3)
    published = [
        [4.864, 2.64, -1.466],
        [2.924, 0.901, -2.266],
        [5.238, 2.216, -1.965],
        [3.348, 0.992, -1.688],
    ]
    np.testing.assert_allclose(easiness, published, atol=1e-2)


def leaderboard(data_dir, name):
    """Responses of a stored leaderboard, and the parameters that mirt estimated for its items."""
    stored = np.load(data_dir / f"irt/metabench_{name}.npz")
    responses = stored["responses"]
    with (data_dir / f"irt/metabench_{name}_items.csv").open() as file:
        rows = list(csv.DictReader(file))
    parameters = {
        key: np.array([float(row[f"{key}.x"]) for row in rows]) for key in ("a1", "d", "g")
    }
    table = np.where(responses < 0, np.nan, responses) if (responses < 0).any() else responses
    return Responses.from_wide(table), parameters, stored["theta"]


@pytest.mark.data
@pytest.mark.paper
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("arc", -120279.173),
        ("truthfulqa", -145426.626),
        ("gsm8k", -409894.401),
        ("mmlu", -118930.067),
    ],
)
def test_marginal_likelihood_of_mirt_on_leaderboards(data_dir, name, published):
    """The log-likelihood that mirt stored with its fits, at its parameters and its 61 nodes."""
    data, stored, _ = leaderboard(data_dir, name)
    raw = [stored["d"], stored["a1"]]
    model = "3pl" if name == "mmlu" else "2pl"
    raw += [logit(stored["g"].clip(1e-15))] * (model == "3pl")
    marginal = Marginal(layout(model, data, 1, {}), [data], n_nodes=61)
    psi = np.column_stack(raw).ravel()
    assert -marginal.value_and_gradient(psi)[0] == pytest.approx(published, abs=2e-3)


@pytest.mark.data
@pytest.mark.slow
def test_slopes_of_a_leaderboard(data_dir):
    """A 2PL fit orders systems as mirt's stored fit does, and finds its mis-keyed items."""
    data, stored, theta = leaderboard(data_dir, "arc")
    cal = MML(model="2pl", se="opg", tol=1e-3).fit(data)
    ours = score_persons(cal, data, method="eap").theta
    assert np.corrcoef(ours, theta[:, 0])[0, 1] > 0.97
    assert (cal.slope < 0).sum() == (stored["a1"] < 0).sum() == 2


def simulate(rng, persons, items):
    logits = rng.normal(size=(persons, 1)) - rng.normal(size=items) / 2
    return Responses.from_wide((rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float))


MODELS = ["rasch", "pcm", "rsm", "2pl", "3pl", "gpcm", "grm"]


def draw(rng, model, persons=9, *, gaps):
    m = np.full(3, 2) if model == "rsm" else rng.integers(1, 4, size=3)
    m = np.ones(3, dtype=int) if model in ("rasch", "2pl", "3pl") else m
    table = rng.integers(0, m + 1, size=(persons, 3)).astype(float)
    if gaps:
        table[0, 0] = np.nan
    return Responses.from_wide(table, max_score=m, weight=rng.uniform(0.5, 2, size=persons))


@few
@given(rng=rngs(), model=st.sampled_from(MODELS), gaps=st.booleans(), groups=st.booleans())
def test_the_gradient_is_that_of_the_value_and_of_the_persons(rng, model, gaps, groups):
    data = draw(rng, model, gaps=gaps)
    parts = [data.select(persons=np.arange(9) < 5), data.select(persons=np.arange(9) >= 5)]
    parts = parts if groups else [data]
    plan = layout(model, data, len(parts), {})
    marginal = Marginal(plan, parts, (5.0, 17.0) if model == "3pl" else None, n_nodes=121)
    psi = plan.start(data)
    psi = psi + 0.3 * rng.normal(size=len(psi))
    gradient = marginal.value_and_gradient(psi)[1]
    for k in range(len(psi)):
        step = 1e-5 * np.eye(len(psi))[k]
        up, down = (marginal.value_and_gradient(psi + s)[0] for s in (step, -step))
        assert gradient[k] == pytest.approx((up - down) / 2e-5, abs=1e-6)
    if model != "3pl":  # its prior belongs to no person
        total = sum(weight @ score for weight, score in person_scores(marginal, psi))
        np.testing.assert_allclose(total, -gradient, atol=1e-5)


@few
@given(rng=rngs(), gaps=st.booleans())
def test_collapsed_expectations_equal_those_of_patterns(rng, gaps):
    data = draw(rng, "pcm", 40, gaps=gaps)
    plan, theta = layout("pcm", data, 1, {}), np.linspace(-3, 3, 31)
    raw = plan.raw(plan.start(data))
    nodes = at_nodes("pcm", raw, theta, data.max_score)
    every = Patterns(rows=data.scores, weight=data.weight, complete=False)
    for short in (collapse(data, rasch=True), collapse(data, rasch=False)):
        ours = short.expect(nodes, raw, theta, -(theta**2) / 2)
        theirs = every.expect(nodes, raw, theta, -(theta**2) / 2)
        assert ours.loglik == pytest.approx(theirs.loglik, abs=1e-9)
        np.testing.assert_allclose(ours.answers, theirs.answers, atol=1e-9)
        np.testing.assert_allclose(ours.d_theta, theirs.d_theta, atol=1e-9)
        width = plan.categories  # the slope of a Rasch model is not a parameter
        np.testing.assert_allclose(ours.d_raw[:, :width], theirs.d_raw[:, :width], atol=1e-9)


@few
@given(rng=rngs(), model=st.sampled_from(MODELS))
def test_thresholds_and_their_jacobian(rng, model):
    data = draw(rng, model, gaps=False)
    plan = layout(model, data, 1, {})
    psi = plan.start(data)
    psi = psi + 0.2 * rng.normal(size=len(psi))
    found = item_parameters(plan, psi)
    for k in range(len(psi)):
        step = 1e-6 * np.eye(len(psi))[k]
        up, down = item_parameters(plan, psi + step), item_parameters(plan, psi - step)
        change = np.concatenate(
            [up.threshold - down.threshold, up.slope - down.slope, up.guess - down.guess]
        )
        np.testing.assert_allclose(found.jacobian[:, k], change / 2e-6, atol=1e-5, rtol=1e-5)


@few
@given(rng=rngs(), model=st.sampled_from(MODELS))
def test_estimation_and_reporting_use_the_same_curves(rng, model):
    """The curves of a calibration, from thresholds, equal those of the estimation."""
    data = draw(rng, model, gaps=False)
    plan = layout(model, data, 1, {})
    psi = plan.start(data)
    psi = psi + 0.2 * rng.normal(size=len(psi))
    found, theta = item_parameters(plan, psi), rng.normal(size=4)
    rows = np.split(found.threshold, np.cumsum(data.max_score)[:-1])
    cal = Calibration.from_parameters(model, rows, slope=found.slope, guess=found.guess)
    nodes = at_nodes(model, plan.raw(psi), theta, data.max_score)
    p, first, _ = curves(cal, theta)
    np.testing.assert_allclose(p.transpose(1, 0, 2), nodes.p, atol=1e-12)
    np.testing.assert_allclose(first.transpose(1, 0, 2), nodes.p * nodes.d_theta, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_recovery_of_planted_parameters(model):
    """z statistics of all estimates against the planted values are standard normal."""
    rng = np.random.default_rng(MODELS.index(model))
    m = 1 if model in ("rasch", "2pl", "3pl") else 3
    slopes = model in ("2pl", "3pl", "gpcm", "grm")
    items, persons = 12, 4000
    b = np.sort(rng.normal(size=(items, m)), axis=1)
    if model == "rsm":
        b = rng.normal(size=(items, 1)) + np.array([-1.0, 0.0, 1.0])
    cal = Calibration.from_parameters(
        model,
        b,
        slope=rng.uniform(0.6, 1.8, size=items) if slopes else None,
        guess=np.full(items, 0.2) if model == "3pl" else None,
    )
    theta = rng.normal(size=persons) * (1.0 if slopes else 1.3)
    edges = curves(cal, theta)[0].cumsum(axis=2)[:, :, :-1]
    table = (rng.random((persons, items, 1)) > edges).sum(axis=2)
    found = MML(model=model).fit(Responses.from_wide(table, max_score=[m] * items))
    wanted = b.ravel() - (0 if slopes else b.mean())
    z = (found.threshold - wanted) / found.threshold_se
    assert np.sqrt(np.mean(z**2)) < 1.5
    if slopes:
        assert np.sqrt(np.mean(((found.slope - cal.slope) / found.slope_se) ** 2)) < 1.5
    else:
        assert abs(found.latent_sd - 1.3) < 4 * found.latent[0].sd_se
    assert np.diff(found.history).min() > -1e-6


@pytest.mark.parametrize("seed", range(5))
def test_laws_of_the_fit(seed):
    data = simulate(np.random.default_rng(seed), 300, 6)
    rasch, free = MML().fit(data), MML(model="2pl").fit(data)
    assert free.loglik >= rasch.loglik - 1e-9
    assert MML(model="pcm").fit(data).loglik == pytest.approx(rasch.loglik, abs=1e-9)
    twice = MML().fit(replace(data, weight=np.full(300, 2.0)))
    np.testing.assert_allclose(twice.threshold, rasch.threshold, atol=1e-7)
    np.testing.assert_allclose(twice.vcov, rasch.vcov / 2, rtol=1e-4, atol=1e-9)
    finer = MML(n_nodes=241).fit(data)
    assert finer.loglik == pytest.approx(rasch.loglik, abs=1e-6)
    # conditional and marginal estimates differ by far less than their errors
    assert (np.abs(CML().fit(data).threshold - rasch.threshold) < rasch.threshold_se / 2).all()


@pytest.mark.parametrize("model", ["rasch", "2pl", "grm"])
def test_the_likelihood_never_falls_on_a_fixed_grid(model):
    cal = MML(model=model, n_nodes=61).fit(simulate(np.random.default_rng(2), 300, 8))
    assert len(cal.history) > 2
    assert (np.diff(cal.history) > -1e-9 * abs(cal.loglik)).all()


@few
@given(rng=rngs())
def test_sparse_products_equal_dense_ones(rng):
    table = rng.integers(0, 2, size=(50, 8)).astype(float)
    table[rng.random(table.shape) < 0.5] = np.nan
    data = Responses.from_wide(table[~np.isnan(table).all(axis=1)], max_score=[1] * 8)
    plan, found = layout("rasch", data, 1, {}), []
    psi = rng.normal(size=len(plan.start(data))) / 2
    with pytest.MonkeyPatch.context() as patch:
        for share in (0.0, 1.1):  # of answers, below which the products are sparse
            patch.setattr(marginal_module, "SPARSE", share)
            marginal = Marginal(plan, [data])
            assert all(isinstance(m, csr_array) == (share > 1) for m in marginal.data[0].masks)
            found.append(marginal.value_and_gradient(psi))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-9)


def test_recovers_planted_slopes_and_a_reversed_item():
    rng = np.random.default_rng(3)
    slope, b = np.array([0.5, 1.0, 1.5, 2.0, -1.0, 1.2]), rng.normal(size=6)
    logits = slope * (rng.normal(size=(20_000, 1)) - b)
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    cal = MML(model="2pl").fit(Responses.from_wide(table))
    assert (np.abs(cal.slope - slope) < 4 * cal.slope_se).all()
    assert (np.abs(cal.threshold - b) < 4 * cal.threshold_se).all()


def test_a_category_that_nobody_reaches_is_named():
    data = Responses.from_wide([[0, 1], [1, 0], [0, 2]], max_score=[2, 2])
    with pytest.raises(ExistenceError, match="item I1: nobody scores \\[2\\]"):
        MML(model="pcm").fit(data)


@given(rng=rngs(), model=st.sampled_from(["pcm", "gpcm", "3pl", "grm"]))
def test_curves_are_probabilities_with_their_derivatives(rng, model):
    m = np.array([1, 1]) if model == "3pl" else np.array([2, 3])
    cal = Calibration.from_parameters(
        model,
        [np.sort(rng.normal(size=k)) for k in m],
        slope=None if model == "pcm" else rng.uniform(0.3, 2, size=2),
        guess=[0.2, 0.2] if model == "3pl" else None,
    )
    theta, step = rng.normal(size=4), 1e-5
    p, first, second = curves(cal, theta)
    up, down = curves(cal, theta + step), curves(cal, theta - step)
    np.testing.assert_allclose(p.sum(axis=2), 1, atol=1e-12)
    np.testing.assert_allclose(first, (up[0] - down[0]) / (2 * step), atol=1e-8)
    np.testing.assert_allclose(second, (up[1] - down[1]) / (2 * step), atol=1e-8)


def test_standard_errors():
    """Oakes = differences of the likelihood; all three agree where the model is true."""
    rng = np.random.default_rng(5)
    data = simulate(rng, 3000, 5)
    fits = {kind: MML(model="2pl", se=kind).fit(data) for kind in ("oakes", "opg", "sandwich")}
    for other in ("opg", "sandwich"):
        np.testing.assert_allclose(fits[other].slope_se, fits["oakes"].slope_se, rtol=0.15)
    plan = layout("2pl", data, 1, {})
    marginal = Marginal(plan, [data], n_nodes=81)
    psi, step = fits["oakes"].eta, 2e-3
    hessian = observed_information(marginal, psi)
    value = marginal.value_and_gradient
    for j, k in [(0, 0), (0, 1), (3, 8)]:
        e = step * np.eye(len(psi))
        cross = [value(psi + s * e[j] + t * e[k])[0] * s * t for s in (1, -1) for t in (1, -1)]
        assert hessian[j, k] == pytest.approx(sum(cross) / (4 * step**2), rel=1e-3, abs=0.05)


def test_groups_find_their_distributions():
    rng = np.random.default_rng(2)
    theta = np.concatenate([rng.normal(size=2000), rng.normal(0.8, 1.5, size=2000)])
    b = rng.normal(size=8)
    table = (rng.random((4000, 8)) < 1 / (1 + np.exp(b - theta[:, None]))).astype(int)
    label = ["a"] * 2000 + ["b"] * 2000
    for model in ("rasch", "2pl"):
        first, second = MML(model=model).fit(Responses.from_wide(table), groups=label).latent
        assert (first.label, second.label) == ("a", "b")
        assert second.mean - first.mean == pytest.approx(0.8, abs=4 * second.mean_se)
        assert second.sd / first.sd == pytest.approx(1.5, abs=0.2)
    cal = MML().fit(Responses.from_wide(table), groups=label)
    with pytest.raises(DataError, match="different priors"):
        score_persons(cal, Responses.from_wide(table), method="eap")


def test_anchored_items_carry_the_scale():
    rng = np.random.default_rng(4)
    data = simulate(rng, 2000, 6)
    for model in ("rasch", "2pl", "3pl"):
        cal = MML(model=model).fit(data)
        held = replace(cal, threshold=cal.threshold + 1.0)
        again = MML(model=model, anchors=held).fit(data)
        np.testing.assert_allclose(again.threshold, held.threshold, atol=1e-9)
        assert again.latent_mean == pytest.approx(cal.latent_mean + 1.0, abs=1e-3)
        assert again.latent_sd == pytest.approx(cal.latent_sd, abs=1e-3)
    some = MML(anchors={"I1": 0.5}).fit(data)
    assert some.threshold[0] == 0.5
    assert some.threshold_se[0] == 0
    plain = MML().fit(data)
    np.testing.assert_allclose(np.diff(some.threshold), np.diff(plain.threshold), atol=1e-5)
    with pytest.raises(DataError, match="need slopes"):
        MML(model="2pl", anchors={"I1": 0.5}).fit(data)
    with pytest.raises(DataError, match="'x' is not an item"):
        MML(anchors={"x": 0.5}).fit(data)
    with pytest.raises(DataError, match="the anchors are 'rasch'"):
        MML(model="2pl", anchors=plain).fit(data)


def test_missing_answers_leave_the_estimates_in_place():
    rng = np.random.default_rng(6)
    b = rng.normal(size=20)
    table = (rng.random((6000, 20)) < 1 / (1 + np.exp(b - rng.normal(size=(6000, 1))))).astype(
        float
    )
    table[rng.random(table.shape) < 0.88] = np.nan  # sparse enough for the sparse products
    table = table[~np.isnan(table).all(axis=1)]
    for model in ("rasch", "2pl"):
        cal = MML(model=model).fit(Responses.from_wide(table))
        shift = 0 if model == "2pl" else b.mean()
        assert np.sqrt(np.mean(((cal.threshold - b + shift) / cal.threshold_se) ** 2)) < 1.5


def test_posterior_means_equal_a_direct_integral():
    data = simulate(np.random.default_rng(0), 200, 5)
    cal = MML().fit(data)
    scores = score_persons(cal, data, method="eap")
    theta = cal.latent_mean + cal.latent_sd * np.linspace(-8, 8, 4001)
    p = 1 / (1 + np.exp(-(theta[:, None] - cal.threshold)))
    row = data.scores[0]
    density = np.prod(np.where(row == 1, p, 1 - p), axis=1)
    density *= np.exp(-(((theta - cal.latent_mean) / cal.latent_sd) ** 2) / 2)
    assert scores.theta[0] == pytest.approx(density @ theta / density.sum(), abs=1e-8)


@pytest.mark.parametrize("model", ["rasch", "2pl"])
def test_a_sample_of_very_many_persons_is_only_a_start(model, monkeypatch):
    rng = np.random.default_rng(8)
    theta = 2.5 * rng.normal(size=(8000, 1))  # far from the usual start, whose sd is 1
    data = Responses.from_wide((rng.logistic(size=(8000, 6)) < theta - rng.normal(size=6)) * 1)
    label = rng.choice(["a", "b"], size=8000)
    plain = MML(model=model).fit(data, groups=label)
    starts = []
    method = MML._from_sample
    monkeypatch.setattr(mml_module, "SAMPLE", 2000)
    monkeypatch.setattr(MML, "_from_sample", lambda *a: starts.append(method(*a)) or starts[-1])
    sampled = MML(model=model).fit(data, groups=label)
    np.testing.assert_allclose(sampled.threshold, plain.threshold, atol=1e-5)
    np.testing.assert_allclose(sampled.threshold_se, plain.threshold_se, atol=1e-6)
    assert len(starts) == 1
    parts = [data.select(persons=label == name) for name in (label[0], *{"a", "b"} - {label[0]})]
    plan = layout(model, data, 2, {})
    value = Marginal(plan, parts, n_nodes=81).value_and_gradient
    assert value(starts[0])[0] < value(plan.start(data))[0] - 1


def test_posteriors_are_no_narrower_than_the_bound_from_the_longest_set_of_answers():
    """The bound uses the answers given, not all items: a tenth of them needs fewer nodes."""
    rng = np.random.default_rng(9)
    table = rng.integers(0, 2, size=(300, 60)).astype(float)
    table[rng.random(table.shape) < 0.8] = np.nan
    data = Responses.from_wide(table)
    plan = layout("rasch", data, 1, {})
    marginal, psi = Marginal(plan, [data], n_nodes=401), plan.start(data)
    theta, nodes = marginal.nodes(psi, 0)
    joint = np.tile(marginal.log_weights, (300, 1))
    for k in (0, 1):
        joint += (data.scores == k) @ nodes.log_p[:, :, k]
    posterior = np.exp(joint - joint.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    sd = np.sqrt(posterior @ theta**2 - (posterior @ theta) ** 2)
    bound = marginal.smallest_sd(psi)
    assert bound <= sd.min()
    assert bound > 0.7 * sd.min()


def test_persons_of_mean_0_are_what_a_fit_of_that_scale_estimates():
    """The marginal likelihood is the same; errors are those of the inverse information there."""
    known = Calibration.from_parameters("rasch", [[-1.5], [-0.5], [0.2], [0.8], [1.6]])
    data = draw_answers(known, np.random.default_rng(3).normal(0.7, 1.2, size=300), seed=4)
    items = MML().fit(data)
    persons = items.renormalise("persons")
    assert items.latent_mean > 0.4
    assert persons.latent_mean == persons.latent[0].mean == persons.latent[0].mean_se == 0
    np.testing.assert_allclose(persons.threshold, items.threshold - items.latent_mean)
    back = persons.renormalise(items.items)
    np.testing.assert_allclose(back.threshold, items.threshold, atol=1e-12)
    np.testing.assert_allclose(back.vcov, items.vcov, atol=1e-12)
    assert back.latent[0].mean_se == pytest.approx(items.latent[0].mean_se)
    # the search itself fixes the persons' mean at 0: its intercepts are minus these thresholds
    size = len(persons.threshold)
    np.testing.assert_allclose(persons.threshold, -items.eta[:size], atol=1e-9)
    np.testing.assert_allclose(persons.vcov, items.eta_vcov[:size, :size], atol=1e-9)


def test_persons_cannot_be_the_origin_of_what_estimates_none():
    known = Calibration.from_parameters("rasch", [[-0.5], [0.0], [0.5]])
    data = draw_answers(known, np.random.default_rng(0).normal(size=60), seed=1)
    with pytest.raises(ValueError, match="0 distributions of persons are estimated by CML"):
        CML().fit(data).renormalise("persons")
    groups = ["a"] * 30 + ["b"] * 30
    with pytest.raises(ValueError, match="2 distributions"):
        MML().fit(data, groups).renormalise("persons")
