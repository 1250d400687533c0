"""Ratings with facets: planted severities, long and wide tables, refusals, the page."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meristem_rasch import Facets, Ratings

STEPS = (-0.8, 0.8)


def draw_ratings(rng, essays=60, raters=5, items=3, *, odd=0.0):
    """Return rows of (essay, rater, item, score) and the severities; every essay has two raters."""
    ability, severity = rng.normal(size=essays) * 1.5, np.linspace(-1, 1, raters)
    hardness = np.linspace(-0.5, 0.5, items)
    found = []
    for e in range(essays):
        for r in (e % raters, (e + 1) % raters):
            for i in range(items):
                eta = ability[e] - severity[r] - hardness[i] + odd * (r == 0 and i == 0)
                logits = np.concatenate([[0], np.cumsum(eta - np.array(STEPS))])
                p = np.exp(logits - logits.max())
                score = int(rng.choice(len(p), p=p / p.sum())) + 1
                found.append((f"e{e}", f"r{r}", f"i{i}", score))
    return found, severity


def long_table(path, rows, names=("essay", "rater", "criterion", "score")):
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]))
    return path


def wide_table(path, rows):
    cells = {}
    for essay, rater, item, score in rows:
        cells.setdefault((essay, rater), {})[item] = score
    items = sorted({row[2] for row in rows})
    body = [f"{e},{r}," + ",".join(str(c.get(i, "")) for i in items) for (e, r), c in cells.items()]
    path.write_text("\n".join([f"essay,rater,{','.join(items)}", *body]))
    return path, items


LONG = ("--person", "essay", "--facet", "rater", "--item", "criterion")


def numbers(tmp_path, sit, *words):
    code, out, said = sit(*words, "--json", tmp_path / "a.json")
    assert code == 0, said
    return json.loads((tmp_path / "a.json").read_text()), out


def test_planted_severities_are_recovered(tmp_path, sit):
    rows, severity = draw_ratings(np.random.default_rng(0), essays=200)
    found, out = numbers(tmp_path, sit, long_table(tmp_path / "a.csv", rows), *LONG)
    rater = found["facets"]["rater"]
    order = np.argsort(rater["labels"])
    error = np.array(rater["measure"])[order] - severity
    assert np.abs(error).max() < 5 * max(rater["se"])
    assert rater["p"] < 1e-6
    assert 1 <= min(rater["fair_mean"]) < max(rater["fair_mean"]) <= 3, "in the scores as given"
    assert found["source"]["lowest_score"] == 1
    assert out.splitlines()[:-1] == [each["text"] for each in found["findings"]]


def test_measures_are_those_of_the_package(tmp_path, sit):
    rows, _ = draw_ratings(np.random.default_rng(1))
    found, _ = numbers(tmp_path, sit, long_table(tmp_path / "a.csv", rows), *LONG)
    columns = dict(zip(("essay", "rater", "criterion", "score"), zip(*rows, strict=True),
                       strict=True))  # fmt: skip
    score = np.array(columns.pop("score")) - 1
    exact = Facets(person="essay").fit(Ratings.from_long(score, columns))
    for name, facet in exact.facets.items():
        assert found["facets"][name]["labels"] == list(facet.labels)
        np.testing.assert_allclose(found["facets"][name]["measure"], facet.measure, atol=1e-9)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), gaps=st.floats(0, 0.2))
def test_criteria_as_columns_are_criteria_as_rows(tmp_path, sit, seed, gaps):
    rng = np.random.default_rng(seed)
    rows, _ = draw_ratings(rng, essays=40)
    rows = [(*row[:3], "" if rng.random() < gaps else row[3]) for row in rows]
    one, _ = numbers(tmp_path, sit, long_table(tmp_path / "a.csv", rows), *LONG)
    path, items = wide_table(tmp_path / "b.csv", rows)
    two, _ = numbers(tmp_path, sit, path, "--person", "essay", "--facet", "rater", "--item", *items)
    assert two["source"]["missing"] == one["source"]["missing"]
    for name, other in (("essay", "essay"), ("rater", "rater"), ("criterion", "item")):
        a, b = one["facets"][name], two["facets"][other]
        a, b = (dict(zip(x["labels"], x["measure"], strict=True)) for x in (a, b))
        assert a == pytest.approx(b, abs=1e-4)


def test_a_rater_with_a_favourite_criterion_stands_out(tmp_path, sit):
    rows, _ = draw_ratings(np.random.default_rng(2), essays=300, odd=2.5)
    found, out = numbers(tmp_path, sit, long_table(tmp_path / "a.csv", rows), *LONG)
    (bias,) = found["bias"]
    surest = int(np.argmin(bias["p_holm"]))
    assert bias["labels"][surest] == ["r0", "i0"]
    assert bias["logits"][surest] > 0
    assert "surest r0 with i0 (+" in out


def test_items_with_scales_of_their_own_get_steps_of_their_own(tmp_path, sit):
    rows, _ = draw_ratings(np.random.default_rng(3), essays=150)
    rows = [(*row[:3], min(row[3], 2) if row[2] == "i0" else row[3]) for row in rows]
    path = long_table(tmp_path / "a.csv", rows)
    found, _ = numbers(tmp_path, sit, path, *LONG)
    assert found["calibration"]["steps_by"] == "criterion"
    assert [sum(x is not None for x in row) for row in found["calibration"]["steps"]] == [1, 2, 2]
    shared, _ = numbers(tmp_path, sit, path, *LONG, "--model", "rsm")
    assert shared["calibration"]["step_groups"] == ["all"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--facet", "judge"), "no column 'judge'; there are ['essay', 'rater', 'criterion'"),
        (("--facet", "rater", "rater"), "--facet rater rater: one is named twice"),
        (("--facet", "essay"), "one is named twice, or is the person"),
        (("--facet", "rater", "--graders", "g.csv"), "--graders does not go with --facet"),
        (("--facet", "rater", "--max-score", "3"), "--max-score does not go with --facet"),
        (("--facet", "rater", "--layout", "wide"), "name the columns of scores with --item"),
        (("--facet", "rater", "--model", "rasch"), "takes scores 0 and 1, not 2; take rsm or pcm"),
        (("--facet", "rater", "--model", "pcm"), "name items with --item"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, sit, words, message):
    rows, _ = draw_ratings(np.random.default_rng(4), essays=20)
    path = long_table(tmp_path / "a.csv", rows)
    code, _, said = sit(path, "--person", "essay", *words)
    assert code == 2
    assert message in said


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("e1", "", "i0", 2), "the score of row 121 has no rater"),
        (("e1", "r1", "i0", 1.5), "score 0.5 is not a non-negative integer"),
        (("e1", "r1", "i0", "good"), "row 121, column score"),
    ],
)
def test_a_rating_that_cannot_be_used_is_named(tmp_path, sit, row, message):
    rows, _ = draw_ratings(np.random.default_rng(4), essays=20)
    code, _, said = sit(long_table(tmp_path / "a.csv", [*rows, row]), *LONG)
    assert code == 2
    assert message in said


def test_raters_who_share_nothing_are_not_compared(tmp_path, sit):
    rows, _ = draw_ratings(np.random.default_rng(5), essays=30, raters=2, items=1)
    apart = [(f"{e}{r}", r, f"{i}{r}", s) for e, r, i, s in rows]
    code, _, said = sit(long_table(tmp_path / "a.csv", apart), *LONG)
    assert code == 3
    assert "2 subsets that share no level" in said


def test_the_page_opens(tmp_path, sit, open_page):
    rows, _ = draw_ratings(np.random.default_rng(6))
    assert sit(long_table(tmp_path / "a.csv", rows), *LONG)[0] == 0
    with open_page(tmp_path / "report.html", width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it scrolls sideways"
        titles = page.locator("h2").all_text_contents()
    assert titles[:4] == ["In short", "Essay", "Rater", "Criterion"]
    assert "Rater with criterion" in titles
