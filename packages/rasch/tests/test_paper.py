"""Printed numbers: of arXiv 2412.10056's measures, and of mirt's and TAM's own documentation."""

import csv
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from meristem_core.testing import rngs
from meristem_rasch import (
    CML,
    MML,
    Calibration,
    Facets,
    Fractional,
    Ratings,
    Responses,
    isr,
    score_persons,
    score_table,
)

pytestmark = pytest.mark.paper


@settings(max_examples=10)
@given(rng=rngs())
def test_bell_shaped_grades_alone_make_the_papers_inconsistency(rng):
    """Eq. 4: "more than 32 %" inconsistent scores is P(|z| > 1) = 31.7 % of any normal grades."""
    grades = rng.normal(size=(40, 2000)) * rng.uniform(0.1, 9, (40, 1))
    unit = np.repeat(np.arange(40), 2000)
    found = isr(grades.ravel(), unit, grid=np.linspace(-40, 40, 801), rng=rng)
    assert found.rate == pytest.approx(2 * norm.sf(1), abs=0.01)


@pytest.mark.data
def test_gaokao_scores_follow_a_rasch_surface_only_half(data_dir):
    """The in-sample Rasch surface explains 0.519 of the released scores' variance."""
    with (data_dir / "irt/gaokao_eval_2024_scores.csv").open() as file:
        rows = [{**row, "model": row["model"].split("+")[0]} for row in csv.DictReader(file)]
    seen: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        share = min(float(row["score"]) / float(row["max_score"]), 1.0)
        seen.setdefault((row["model"], row["paper"], row["subject"]), []).append(share)
    models = sorted({row["model"] for row in rows})
    papers = sorted({key[1:] for key in seen})
    usual = {paper: min(len(seen[m, *paper]) for m in models) for paper in papers}
    table = np.array(
        [np.concatenate([seen[m, *paper][: usual[paper]] for paper in papers]) for m in models]
    )
    assert table.shape == (7, 295)
    fit = Fractional(ridge=0.3, bootstrap=1).fit(table)
    r2 = 1 - np.sum((table - fit.fitted) ** 2) / np.sum((table - table.mean()) ** 2)
    assert r2 == pytest.approx(0.519, abs=0.02)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "model", "printed", "unit"),
    [("resp2", "rasch", -1255, 1), ("resp", "pcm", -2470, 10)],
)
def test_log_likelihoods_that_psychotools_prints(data_dir, name, model, printed, unit):
    """psychotools, help pages of raschmodel and pcmodel: twelve items of VerbalAggression."""
    path = data_dir / f"irt/classical/psychotools_VerbalAggression_{name}.csv.gz"
    table = np.loadtxt(path, delimiter=",", skiprows=1)[:, :12]
    largest = [2 if model == "pcm" else 1] * 12
    cal = CML(model=model).fit(Responses.from_wide(table, max_score=largest))
    assert abs(cal.loglik - printed) <= unit / 2


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("arc", 0.998),
        ("gsm8k", 0.998),
        ("mmlu", 0.998),
        ("truthfulqa", 0.998),
        ("winogrande", 0.97),
    ],
)
def test_abilities_of_mirt_on_five_leaderboards(data_dir, name, least):
    """EAP at mirt's item parameters is the ability that mirt stored, up to its quadrature.

    WinoGrande's fit has upper asymptotes, which are left out here.
    """
    stored = np.load(data_dir / f"irt/metabench_{name}.npz")
    with (data_dir / f"irt/metabench_{name}_items.csv").open() as file:
        rows = list(csv.DictReader(file))
    a, d, g = (np.array([float(row[f"{key}.x"]) for row in rows]) for key in ("a1", "d", "g"))
    cal = Calibration.from_parameters(
        "3pl" if g.any() else "2pl", (-d / a)[:, None], slope=a, guess=g
    )
    answers = stored["responses"][:1500].astype(float)
    answers[answers < 0] = np.nan
    data = Responses.from_wide(answers, items=cal.items, max_score=cal.max_score)
    found = score_persons(cal, data, method="eap").theta
    assert np.corrcoef(found, stored["theta"][:1500, 0])[0, 1] > least


@pytest.mark.data
def test_lsat7_sum_scores_of_mirt(data_dir):
    """philchalmers/mirt, tests/testthat: EAP for sum scores under the 2PL, and their errors."""
    table = np.loadtxt(data_dir / "irt/classical/mirt_LSAT7_freq.csv", delimiter=",", skiprows=1)
    cal = MML(model="2pl").fit(Responses.from_wide(table[:, -6:-1], weight=table[:, -1]))
    found = score_table(cal, method="eap_sum")
    published = [-1.8698, -1.4319, -0.9488, -0.4132, 0.1517, 0.7272]
    np.testing.assert_allclose(found.theta, published, atol=3e-3)
    np.testing.assert_allclose(found.se, [0.693, 0.684, 0.694, 0.721, 0.759, 0.801], atol=3e-3)


@pytest.mark.data
def test_example_10_of_tam(data_dir):
    """TAM, man/tam.mml.Rd, example 10, items only: a rater's row is a repetition of the items.

    Repetitions share the item's difficulty by an LLTM design. TAM's normal ability and the
    conditional likelihood differ by less than 0.02 logits in these 3,375 answers.
    """
    table = np.genfromtxt(
        data_dir / "irt/classical/tam_ex10_facets.csv", delimiter=",", skip_header=1
    )
    persons, place = np.unique(table[:, 0], return_inverse=True)
    repetition = np.array([np.sum(place[:row] == p) for row, p in enumerate(place)])
    most = int(repetition.max()) + 1
    wide = np.full((len(persons), most, 5), np.nan)
    wide[place, repetition] = table[:, 2:]
    cal = CML(design=np.tile(np.eye(5), (most, 1))[:, 1:]).fit(
        Responses.from_wide(wide.reshape(len(persons), -1))
    )
    found = cal.difficulty[:5] - cal.difficulty[:5].mean()
    published = np.array([-1.931, -1.023, -0.089, 1.015, 1.918])
    np.testing.assert_allclose(found, published - published.mean(), atol=0.02)


@pytest.mark.data
def test_example_10_of_tam_by_marginal_likelihood(data_dir):
    """TAM, man/tam.mml.Rd, example 10a: items alone, mean ability 0, printed to three decimals."""
    path = data_dir / "irt/classical/tam_ex10_facets.csv"
    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    person, rater = (np.repeat(table[:, k].astype(int), 5) for k in (0, 1))
    item, score = np.tile(np.arange(5), len(table)), table[:, 2:].ravel()
    alone = Facets(method="mml").fit(Ratings.from_long(score, {"person": person, "item": item}))
    found = alone.facets["item"].measure - alone.latent.mean
    np.testing.assert_allclose(found, [-1.931, -1.023, -0.089, 1.015, 1.918], atol=1e-3)
    # its full model: raters differ, and there is no interaction with items to speak of
    data = Ratings.from_long(score, {"person": person, "item": item, "rater": rater})
    main = Facets(method="mml").fit(data)
    rich = Facets(method="mml", interactions=(("item", "rater"),)).fit(data)
    assert 2 * (main.loglik - alone.loglik) > 50
    assert rich.compare(main).df == 8
    assert rich.compare(main).p > 0.05


@settings(max_examples=15)
@given(rng=rngs(), n_items=st.integers(2, 5))
def test_a_sum_score_averages_the_patterns_that_make_it(rng, n_items):
    """Lord and Wingersky (1984): E(theta | r) = sum P(x) E(theta | x) / sum P(x) over r's x."""
    cal = Calibration.from_parameters(
        "2pl", rng.normal(size=(n_items, 1)), slope=np.exp(0.4 * rng.normal(size=n_items))
    )
    every = np.array(list(itertools.product([0, 1], repeat=n_items)))
    data = Responses.from_wide(every, items=cal.items, max_score=cal.max_score)
    pattern = score_persons(cal, data, method="eap").theta
    nodes = np.linspace(-6, 6, 161)
    p = 1 / (1 + np.exp(-cal.slope * (nodes[:, None] - cal.threshold)))
    likelihood = np.prod(np.where(every[:, None], p, 1 - p), axis=2) @ np.exp(-(nodes**2) / 2)
    raw = every.sum(axis=1)
    expected = [
        np.average(pattern[raw == r], weights=likelihood[raw == r]) for r in range(n_items + 1)
    ]
    np.testing.assert_allclose(score_table(cal, method="eap_sum").theta, expected, atol=1e-9)
    by_row = score_persons(cal, data, method="eap_sum").theta
    np.testing.assert_allclose(by_row, np.array(expected)[raw], atol=1e-9)
