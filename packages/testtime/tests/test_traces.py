"""Reading, errors at the edge, and worked examples."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

import meristem_testtime as tt

HEADER = "question,sample,tokens,answer,correct,wait,score:r\n"


def test_a_table_is_read_in_strata_and_in_launch_order(tmp_path):
    path = tmp_path / "t.csv.gz"
    text = "model," + HEADER + "m,q,1,9,1,0,2,0.5\nm,q,0,8,0,1,3,1.5\nn,q,0,4,-1,0,0,0\n"
    path.write_bytes(gzip.compress(text.encode()))
    found = tt.read_traces(path)
    assert list(found) == ["m", "n"]
    assert found["m"].tokens.tolist() == [8, 9]
    assert found["m"].markers["wait"].tolist() == [3, 2]
    assert found["m"].scores["r"].tolist() == [1.5, 0.5]
    assert found["n"].answer.tolist() == [-1]


def test_json_lines_are_read(tmp_path):
    path = tmp_path / "t.jsonl"
    row = {"question": 3, "sample": 0, "tokens": 5, "answer": 0, "correct": True, "capped": False}
    path.write_text(json.dumps(row) + "\n")
    (found,) = tt.read_traces(path).values()
    assert found.questions == ("3",)
    assert found.capped is not None


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("q,0,8,0,1,3,0\nq,0,9,1,0,2,0\n", r":3: question 'q', sample 0 is also on line 2"),
        ("q,0,8,0,2,3,0\n", r":2: correct is '2'; it must be 0 or 1"),
        ("q,0,eight,0,1,3,0\n", r":2: tokens is 'eight'; it must be a finite number"),
        ("q,0,8.5,0,1,3,0\n", r":2: tokens is '8.5'; it must be a whole number"),
        ("q,0,8,0,1,3,nan\n", r":2: score:r is 'nan'"),
        ("q,0,8,,1,3,0\n", r":2: answer is empty; give it a value"),
        ("q,0,8,0,1,3,0,7\n", r":2: the row has more cells"),
        ("q,0,8,0,1,3,0\nq,1,9,0,0,2,0\n", "question 'q': class 0 is marked both right and wrong"),
        ("q,0,8,-1,1,3,0\n", "a sample without an answer is marked correct"),
        ("q,0,-8,0,1,3,0\n", "tokens of question 'q' is -8"),
        ("", "holds no sample"),
    ],
)
def test_bad_tables_are_refused_by_line(tmp_path, rows, complaint):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + rows)
    with pytest.raises(ValueError, match=complaint):
        tt.read_traces(path)


STEPS = """question,sample,tokens,answer,correct,step
q,0,9,1,0,0
r,0,5,0,1,0
q,0,4,0,1,1
q,1,7,0,1,0
r,0,3,1,0,1
r,0,2,0,1,2
"""


def test_steps_of_a_table_are_chains(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(STEPS)
    (traces,), (chains,) = tt.read_traces(path).values(), tt.read_chains(path).values()
    assert traces.tokens.tolist() == [9, 7, 5]
    assert chains.question.tolist() == [0, 1]
    assert chains.answer.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert chains.correct.tolist() == [[False, True, True], [True, False, True]]
    assert chains.tokens.tolist() == [[9, 4, 0], [5, 3, 2]]
    assert chains.alive.tolist() == [[True, True, False], [True, True, True]]
    path.write_text("\n".join(line.rpartition(",")[0] for line in STEPS.splitlines()[:3]))
    assert tt.read_chains(path) == {}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("q,0,4,0,1,1\n", r":8: question 'q', sample 0, step 1 is also on line 4; keep one"),
        ("q,1,4,0,1,2\n", r":8: question 'q', sample 1 has step 2 but no step 1; number the steps"),
        ("q,1,4,0,1,-1\n", r":8: step is -1; it must be at least 0"),
        ("q,1,4,0,1,\n", r":8: step is ''; it must be a finite number"),
        ("s,0,4,0,1,1\n", r":8: question 's', sample 0 has step 1 but no step 0"),
    ],
)
@pytest.mark.parametrize("read", [tt.read_traces, tt.read_chains])
def test_bad_steps_are_refused_by_line(tmp_path, read, row, complaint):
    path = tmp_path / "t.csv"
    path.write_text(STEPS + row)
    with pytest.raises(ValueError, match=complaint):
        read(path)


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        ({}, "there is no sample"),
        ({"q": []}, "there is no sample"),
        ({"q": [("4", 1)], "r": []}, "question 'r' has no sample; drop it or add one"),
    ],
)
def test_empty_samples_are_named(samples, complaint):
    with pytest.raises(ValueError, match=complaint):
        tt.from_samples(samples, {"q": "4", "r": "4"})


def test_a_broken_line_names_its_column(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"question": }\n')
    with pytest.raises(ValueError, match=r"t\.jsonl:1:14: "):
        tt.read_traces(path)


def test_ties_are_settled_as_named(make):
    traces = make([[(2, 9, 0.0), (0, 5, 0.0), (1, 5, 0.0)]])
    assert tt.vote(traces, tt.majority, ties="first").answer.tolist() == [2]
    assert tt.vote(traces, tt.majority, ties="shortest").answer.tolist() == [0]
    assert tt.vote(traces, tt.majority, ties="none").answer.tolist() == [-1]
    drawn = {int(tt.vote(traces, tt.majority, ties="random", rng=i).answer[0]) for i in range(40)}
    assert drawn == {0, 1, 2}


def test_a_question_without_answers_is_wrong(make):
    traces = make([[(-1, 9, 0.0)], [(0, 9, 0.0)]])
    assert tt.vote(traces, tt.majority).correct.tolist() == [False, True]
    assert tt.maj_at_k(traces, [1], ties="win").tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda t: tt.pass_at_k(t, [3]), r"k \(3\) must lie in \[1, 2\]: question 'q0'"),
        (lambda t: tt.vote(t, tt.weighted("reward")), r"has the weight -1; weights must be"),
        (
            lambda t: tt.vote(t, tt.weighted("reward", lambda r: np.where(r < 0, np.inf, r))),
            r"has the weight inf; weights must be at least 0, and finite",
        ),
        (lambda t: tt.vote(t, tt.best_of("other")), "there is no score 'other'"),
        (lambda t: tt.short_m(0), r"m \(0\) must be at least 1"),
        (lambda t: tt.keep_top("reward", tt.majority, 0.0), r"share \(0.0\)"),
        (lambda t: tt.interval(np.array([1.0])), "an interval needs 2"),
        (lambda t: tt.interval(np.array([1.0, np.nan])), "value 1 is not finite"),
        (lambda t: tt.fit_coverage([1, 2], [0.5, 1.0]), "coverage at k = 2 is 1"),
        (lambda t: tt.self_certainty(np.array([[-1.0, -1.0]])), "give the whole vocabulary"),
        (lambda t: tt.entropy_bound(np.array([[-0.1, -0.1]])), "row 0 has the mass 1.8"),
        (lambda t: tt.token_confidence(np.array([[0.5]])), "at most 0"),
        (lambda t: tt.length_by_outcome(t), "two are needed"),
        (lambda t: tt.window_confidence(np.zeros(0)), "0 tokens"),
    ],
)
def test_bad_calls_are_explained(make, call, complaint):
    traces = make([[(0, 5, -1.0), (1, 6, 1.0)]])
    with pytest.raises(ValueError, match=complaint):
        call(traces)


def test_borda_weighs_ranks_by_their_root(make):
    traces = make([[(0, 5, 3.0), (1, 5, 2.0), (1, 5, 1.0)]])
    found = tt.vote(traces, tt.borda("reward"))
    assert found.score[0] == pytest.approx(2**0.5 + 1)
    assert found.runner_up[0] == pytest.approx(3**0.5)


def test_a_confidence_filter_drops_the_rest(make):
    traces = make([[(0, 5, 9.0), *[(1, 5, 1.0)] * 9]])
    assert tt.vote(traces, tt.keep_top("reward", tt.majority)).correct[0]


def test_length_profile_and_outcomes(make):
    rows = [[(0, 10, 0.0), (1, 30, 0.0)], [(0, 20, 0.0), (1, 20, 0.0)]]
    profile = tt.length_profile(make(rows))
    assert profile.tokens.tolist() == [15.0, 25.0]
    assert profile.accuracy.tolist() == [0.75, 0.25]
    outcome = tt.length_by_outcome(make(rows))
    assert (outcome.correct, outcome.incorrect) == (15.0, 25.0)
    assert outcome.shorter.mean == 0.75


def test_the_law_of_coverage_finds_its_parameters():
    ks = [1, 2, 4, 8]
    found = tt.fit_coverage(ks, [float(np.exp(-2 * k**-0.3)) for k in ks])
    assert (found.a, found.b) == pytest.approx((-2, -0.3))
    assert found.max_residual < 1e-12


def test_warm_ups_set_a_percentile():
    assert tt.early_stop_threshold(np.arange(11.0)) == pytest.approx(1.0)


def test_large_questions_use_probabilities(make):
    rng = np.random.default_rng(0)
    rows = [(int(a), 5, 0.0) for a in rng.integers(0, 3, 600)]
    ks = [1, 300, 600]
    won = sum(tt.maj_at_k(make([rows], (a,)), ks)[0] for a in range(3))
    assert won == pytest.approx(np.ones(3), abs=1e-9)
    wanted = np.mean([a == 0 for a, *_ in rows])
    assert tt.maj_at_k(make([rows]), [1])[0, 0] == pytest.approx(wanted, abs=1e-9)


def test_the_import_is_light_and_every_name_can_be_used():
    code = """
import sys, meristem_testtime as tt
print("numpy" in sys.modules, set(tt.__all__) <= set(dir(tt)))
from meristem_testtime import *
print(len(tt.__all__), len(set(tt.__all__) & set(globals())))
print([m for m in ('torch', 'transformers', 'scipy', 'aiohttp') if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, names, heavy = done.stdout.splitlines()
    assert first == "False True"
    assert len(set(names.split())) == 1
    assert heavy == "[]"


def test_unknown_tie_rules_are_named_without_the_type_checker():
    code = """
import numpy as np, meristem_testtime as tt
t = tt.Traces(question=np.zeros(1, int), answer=np.zeros(1, int), tokens=np.ones(1, int),
              correct=np.ones(1, bool), questions=("q",))
for call in (tt.vote, lambda t, r, ties: tt.maj_at_k(t, [1], ties=ties)):
    try:
        call(t, tt.majority, ties="last")
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "ties is 'last'; choose 'first', 'shortest', 'random' or 'none'"
    assert second == "ties is 'last'; choose 'uniform', 'loss' or 'win'"
