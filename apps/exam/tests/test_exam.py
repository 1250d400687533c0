"""The command from files to report: choices, numbers, findings, refusals."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from meristem_exam._choice import choose

KEYS = [
    "schema", "source", "calibration", "persons", "item_fit", "person_fit", "tests", "alignment",
    "overdispersion", "length", "dif", "agreement", "facets", "findings", "warnings", "nulls",
    "seed", "versions",
]  # fmt: skip


def rows(path, names, values):
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in values)]))
    return path


@pytest.mark.parametrize(
    ("shape", "method", "conditional"), [((300, 12), None, "cml"), ((12, 300), None, "dual")]
)
def test_a_planted_scale_is_recovered(tmp_path, sit, draw, write, shape, method, conditional):
    table, theta, b = draw(np.random.default_rng(0), *shape)
    code, out, _ = sit(write(tmp_path / "a.csv", table), "--json", tmp_path / "a.json")
    assert code == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert list(found) == KEYS
    assert found["schema"] == "meristem-exam/1"
    assert found["calibration"]["method"] == conditional
    ability = np.array(found["persons"]["ability"], dtype=float)
    assert np.corrcoef(ability, theta)[0, 1] > 0.75
    difficulty = np.array(found["calibration"]["difficulty"], dtype=float)
    assert np.corrcoef(difficulty, b)[0, 1] > 0.85
    assert abs(difficulty.mean()) < 1e-9, "items average 0"
    best, worst = found["persons"]["best_rank"], found["persons"]["worst_rank"]
    true = np.argsort(np.argsort(-theta)) + 1
    inside = [a <= t <= z for a, t, z in zip(best, true, worst, strict=True)]
    assert np.mean(inside) > 0.7
    assert out.splitlines()[:-1] == [each["text"] for each in found["findings"]]


def test_direct_and_dual_measures_agree(tmp_path, sit, draw, write):
    table, _, _ = draw(np.random.default_rng(1), 60, 60)
    path = write(tmp_path / "a.csv", table)
    found = []
    for method in ("cml", "dual", "mml", "fractional"):
        assert sit(path, "--method", method, "--json", tmp_path / "a.json")[0] == 0
        found.append(json.loads((tmp_path / "a.json").read_text()))
    ability = np.array([each["persons"]["ability"] for each in found], dtype=float)
    difficulty = np.array([each["calibration"]["difficulty"] for each in found], dtype=float)
    for measures in (ability, difficulty):
        r = np.corrcoef(measures)
        assert r.min() > 0.98


def test_graded_answers_take_partial_credit_and_sparse_ones_marginal_likelihood():
    rng = np.random.default_rng(0)
    graded = rng.integers(0, 4, size=(40, 6)).astype(float)
    assert choose(graded, model=None, method=None).model == "pcm"
    sparse = rng.integers(0, 2, size=(900, 12)).astype(float)
    sparse[rng.random(sparse.shape) < 0.4] = np.nan
    assert choose(sparse, model=None, method=None).method == "mml"
    assert choose(sparse / 2, model=None, method=None).method == "fractional"
    with pytest.raises(ValueError, match="use model pcm"):
        choose(graded, model="rasch", method=None)
    with pytest.raises(ValueError, match="fractions need method fractional"):
        choose(sparse / 2, model=None, method="cml")


def test_everything_at_once(tmp_path, sit):
    rng = np.random.default_rng(0)
    b = np.linspace(-2, 2, 30)
    theta = np.linspace(-1, 2, 8)
    values = []
    for v in range(8):
        for i in range(30):
            passed = rng.binomial(10, 1 / (1 + np.exp(b[i] - theta[v])))
            length = int(np.exp(5 + b[i] / 3 + rng.normal() / 4))
            label = ["easy", "medium", "hard"][i // 10]
            values.append([f"s{v}", f"q{i}", passed * 10, label, "ab"[i % 2], length, i != 3])
    names = ["model", "question", "score", "level", "subject", "tokens", "answered"]
    path = rows(tmp_path / "a.csv", names, values)
    ratings = [[f"u{u}", f"r{r}", min(6, max(0, u % 7 - (r == 2) + rng.integers(2)))]
               for u in range(25) for r in range(3)]  # fmt: skip
    graders = rows(tmp_path / "g.csv", ["unit", "rater", "score"], ratings)
    path.write_text(path.read_text().replace("True", "1").replace("False", "0"))
    code, out, err = sit(
        path, "--max-score", 100, "--weight", 10, "--difficulty", "level", "--subject", "subject",
        "--length", "tokens", "--answered", "answered", "--graders", graders, "--human", graders,
        "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["calibration"]["method"] == "fractional"
    rungs = {rung["name"]: rung["r2"] for rung in found["alignment"]["rungs"]}
    assert rungs["system"] > 0.5
    assert len(found["alignment"]["correlations"]) == 16
    assert found["overdispersion"]["held_out"]["ratio"] < 1.6
    assert found["length"]["answered"]["dropped"] == 8
    assert found["length"]["all"]["items"]["r"] < -0.5
    severity = dict(
        zip(*(found["facets"]["graders"][k] for k in ("labels", "severity")), strict=True)
    )
    assert max(severity, key=severity.get) == "r2", "the strict grader is found"
    severity = found["facets"]["graders"]
    fair, harsh = (np.array(severity[key]) for key in ("fair_mean", "severity"))
    assert fair.argmin() == harsh.argmax()
    assert "harder labels do mean lower scores" in out
    text = (tmp_path / "report.html").read_text()
    for title in ("difficulty labels", "one number per system", "Length", "graders agree"):
        assert title in text


def test_graders_that_share_no_unit_are_not_compared(tmp_path, sit, draw, write):
    table, _, _ = draw(np.random.default_rng(0), 20, 15)
    ratings = [
        [f"u{u}", f"r{2 * (u % 2) + k}", (u // 2 + k) % 3] for u in range(12) for k in (0, 1)
    ]
    graders = rows(tmp_path / "g.csv", ["unit", "rater", "score"], ratings)
    code, _, err = sit(write(tmp_path / "a.csv", table), "--graders", graders)
    assert code == 3
    assert "2 subsets that share no level" in err


def test_groups_are_compared(tmp_path, sit, draw):
    rng = np.random.default_rng(2)
    table, _, _ = draw(rng, 400, 8)
    table[200:, 3] = rng.random(200) < 0.1
    values = [
        [v, f"q{i}", x, "ab"[v >= 200]] for v, row in enumerate(table) for i, x in enumerate(row)
    ]
    path = rows(tmp_path / "a.csv", ["person", "item", "score", "group"], values)
    assert sit(path, "--group", "group", "--json", tmp_path / "a.json")[0] == 0
    dif = json.loads((tmp_path / "a.json").read_text())["dif"]
    assert dif["class"][3] == "C"
    assert dif["effect_logits"][3] > 1


def test_sections_without_input_are_absent(tmp_path, sit, draw, write):
    table, _, _ = draw(np.random.default_rng(0), 20, 15)
    assert sit(write(tmp_path / "a.csv", table))[0] == 0
    text = (tmp_path / "report.html").read_text()

    class Finder(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attributes):
            self.found += [value or "" for name, value in attributes if name in ("src", "href")]

    Finder().feed(text)
    assert not Finder.found, "nothing is loaded from elsewhere"
    for absent in ("difficulty labels mean", "graders agree", "Length of the answers"):
        assert absent not in text


def test_logs_of_the_harness_are_read(tmp_path, sit, draw):
    table, _, _ = draw(np.random.default_rng(3), 6, 40)
    for v, row in enumerate(table):
        folder = tmp_path / "logs" / f"model{v}"
        folder.mkdir(parents=True)
        lines = [
            json.dumps({"doc_id": i, "filter": "none", "metrics": ["acc"], "acc": int(x)})
            for i, x in enumerate(row)
        ]
        path = folder / "samples_arc_2026-01-02T03-04-05.678901.jsonl"
        path.write_text("\n".join(lines))
    assert sit(tmp_path / "logs", "--json", tmp_path / "a.json")[0] == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["persons"]["labels"] == [f"model{v}" for v in range(6)]
    assert found["calibration"]["items"][0] == "arc/0"


def test_constant_items_are_set_aside_and_said(tmp_path, sit, draw, write):
    table, _, _ = draw(np.random.default_rng(0), 200, 6)
    table[:, 2] = 1
    assert sit(write(tmp_path / "a.csv", table), "--json", tmp_path / "a.json")[0] == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["source"]["set_aside"] == ["q2"]
    assert found["calibration"]["difficulty"][2] is None
    assert "q2" in found["warnings"][0]


@pytest.mark.parametrize(
    ("text", "words", "code", "message"),
    [
        ("m,q1,q2\na,1,x\n", [], 2, "'x' is not a number"),
        ("m,q1,q2\na,1,0\na,0,1\n", [], 2, "'a' names two rows"),
        ("model,item,score\na,q,1\na,q,0\n", [], 2, "a answers q 2 times"),
        ("m,q1,q2\na,1,0\nb,0,-1\n", [], 2, "non-negative"),
        ("m,q1,q2\na,1.5,0\nb,0,1\n", [], 2, "--max-score"),
        ("m,q1,q2\na,3,0\nb,0,1\n", ["--max-score", "2"], 2, "above"),
        ("m,q1,q2\na,1,0\nb,0,1\n", ["--length", "tokens"], 2, "needs a long table"),
        ("m,q1,q2,q3,q4\na,1,0,0,0\nb,0,1,0,0\nc,1,1,1,0\nd,1,1,0,1\n", ["--method", "cml"], 3,
         "sets"),
        ("m,q1,q2\na,1,\nb,,\n", [], 2, "b has no score"),
        ("m,q1,q2\na,1,0.5\nb,0,1\n", ["--model", "rasch"], 2, "a score is 0.5; model rasch"),
        ("m,q1,q2\na,2,0\nb,0,1\n", ["--model", "rasch"], 2, "use model pcm"),
        ("m,q1,q2,q3,q4\na,1,0,,\nb,0,1,,\nc,,,1,0\nd,,,0,1\n", [], 3, "q1, q2 | q3, q4"),
        ("model,item,score\na,q,1\n", ["--item", "question"], 2, "no column 'question'"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_a_line_and_a_code(tmp_path, sit, text, words, code, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    found, _, err = sit(path, *words)
    assert found == code, err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "report.html").exists()


def test_disordered_thresholds_and_systems_that_do_not_differ_are_said(tmp_path, sit, write):
    table = np.random.default_rng(0).choice([0, 1, 2], p=[0.45, 0.1, 0.45], size=(60, 6))
    code, out, _ = sit(write(tmp_path / "a.csv", table))
    assert code == 0
    assert "On 6 of 6 items, q0 first, thresholds are out of order" in out
    assert "these answers do not rank them (reliability 0)" in out


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_opens_at_any_width(tmp_path, sit, draw, write, open_page, width):
    table, _, _ = draw(np.random.default_rng(0), 25, 40)
    assert sit(write(tmp_path / "a.csv", table))[0] == 0
    with open_page(tmp_path / "report.html", width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        assert page.locator("h2").first.text_content() == "In short"
        assert page.locator("figure.drawing circle").count() > 60


@pytest.mark.data
@pytest.mark.parametrize("name", ["arc", "truthfulqa"])
def test_leaderboards_against_the_stored_abilities(tmp_path, sit, write, data_dir, name):
    path = data_dir / "irt" / f"metabench_{name}.npz"
    if not path.exists():
        pytest.skip("the leaderboard matrices are absent")
    stored = np.load(path)
    table = write(tmp_path / "a.csv", stored["responses"][:1500])
    assert sit(table, "--json", tmp_path / "a.json")[0] == 0
    found = json.loads((tmp_path / "a.json").read_text())
    ability = np.array(found["persons"]["ability"], dtype=float)
    theta = stored["theta"][:1500, 0]
    ranks = [np.argsort(np.argsort(x)) for x in (ability, theta)]
    assert np.corrcoef(*ranks)[0, 1] > 0.93
    assert found["persons"]["reliability"] > 0.9
