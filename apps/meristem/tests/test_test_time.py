"""The reproductions of test-time scaling: their rules, their data, and that they run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import meristem_testtime as tt
from meristem.reproduce import _revision, _search_and_learning, _search_loop, _test_time_scaling
from meristem.reproduce._data import judge, pooled
from meristem_core import stream
from meristem_core.command import UsageError


def interval(low, high):
    return tt.MeanInterval(
        mean=(low + high) / 2, low=low, high=high, se=1.0, minimal_detectable=2.8, n_questions=9,
        n_clusters=9, level=0.95,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "sign", "verdict"),
    [
        (0.1, 0.2, 1, "reproduced"), (-0.2, -0.1, -1, "reproduced"), (-0.1, 0.1, 1, "partly"),
        (-0.2, -0.1, 1, "refuted"), (0.1, 0.2, -1, "refuted"), (0.0, 0.2, 1, "partly"),
        (0.0, 0.0, 1, "partly"),
    ],
)  # fmt: skip
def test_the_interval_decides(low, high, sign, verdict):
    assert judge(interval(low, high), sign) == verdict


def test_no_model_hides_another():
    assert pooled(["reproduced", "reproduced", "not testable here"]) == "reproduced"
    assert pooled(["reproduced", "refuted"]) == "partly"
    assert pooled(["refuted", "refuted"]) == "refuted"
    assert pooled(["not testable here"]) == "not testable here"


def test_without_the_data_every_claim_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(tmp_path))
    rows = _search_and_learning.published_rows(0)
    assert {row.verdict for row in rows} == {"not testable here"}
    assert all("MERISTEM_DATA" in row.note for row in rows)
    monkeypatch.setenv("MERISTEM_DATA", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="is not a folder; correct or unset it"):
        _search_and_learning.published_rows(0)


@pytest.mark.data
@pytest.mark.paper
def test_the_logs_of_tree_search_and_verifiers(data_dir, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(data_dir))
    rows = {row.claim: row for row in _search_and_learning.published_rows(0)}
    assert {row.verdict for row in rows.values()} == {"reproduced"}
    found = [row.measured for row in rows.values()]
    assert found[0] == pytest.approx(0.4900 - 0.0403, abs=1e-4)
    assert found[1] == pytest.approx(0.026, abs=1e-3)
    assert found[2] == 1
    assert found[4] == pytest.approx(0.3904 - 0.2168, abs=1e-4)
    assert found[5] == pytest.approx(0.5625 - 0.3472, abs=1e-4)


@pytest.mark.data
@pytest.mark.paper
def test_the_shortest_vote_on_published_samples(data_dir, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(data_dir))
    rows = _test_time_scaling.published_rows(0)
    assert len(rows) == 4 * 2 * 17 + 1
    votes = [row for row in rows if row.claim.startswith("shortest majority") and row.n]
    assert not any(row.verdict == "reproduced" for row in votes)
    assert rows[-1].measured == 0
    assert rows[-1].verdict == "reproduced"


@pytest.mark.slow
def test_revision_helps_where_the_skill_is(tmp_path):
    rows = {row.claim: row for row in _revision.revision_rows(tmp_path, True, 0)}
    assert rows["revising helps: a model that repairs well"].verdict == "reproduced"
    assert rows["revising fails: a model that repairs badly"].measured < 0


def test_a_solution_is_the_running_sum():
    questions = _search_loop.draw_questions(stream(3, "x"), 200)
    assert len(set(questions)) == 200
    for question in questions:
        lines = _search_loop.solution(question).split("\n")
        for i, line in enumerate(lines, start=1):
            value = eval(question[: 2 * i + 1].replace("A", "10")) % 11
            assert line == _search_loop.DIGITS[value]
        assert i == _search_loop.OPERATIONS


def test_the_guide_holds_for_right_lines_only():
    question = "3+9-4+1="
    right = "1\n8\n9"
    assert [_search_loop.holds(question, right[:end]) for end in range(1, 6)] == [0, 1, 0, 1, 1]
    for wrong in ("2\n", "1\n7\n", "1\n8", "1\n8\n9\n", "1\n8\n8", "18\n", "\n"):
        assert _search_loop.holds(question, wrong) == 0


def test_the_loop_repeats_itself_and_leaves_the_global_generators_alone(monkeypatch):
    sizes = {"POOL": 500, "PROBE": 16, "MOST_STEPS": 60, "SAMPLES": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(_search_loop, name, value)
    for name in ("SEARCHED", "HELD_OUT"):
        monkeypatch.setattr(_search_loop, name, {True: 30})
    for name in ("IMITATION", "PREFERENCE"):
        monkeypatch.setattr(_search_loop, name, replace(getattr(_search_loop, name), steps=3))
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, again = (_search_loop.loop_rows(True, 5) for _ in range(2))
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.equal(torch.get_rng_state(), states[1])
    assert [replace(row, seconds=0) for row in first] == [replace(row, seconds=0) for row in again]


def test_questions_serve_one_purpose(monkeypatch):
    asked = []
    monkeypatch.setattr(_search_loop, "POOL", 300)
    monkeypatch.setattr(_search_loop, "trained", lambda *some: asked.extend(some[:2]) or (0, 0))
    world = _search_loop.make_world(1, 40, 50)
    groups = [*asked, *world.rounds, world.held_out]
    assert [len(each) for each in groups] == [300, _search_loop.PROBE, 40, 40, 50]
    assert len(set().union(*groups)) == sum(map(len, groups))


@pytest.mark.slow
def test_search_makes_data_from_which_the_model_learns():
    rows = _search_loop.loop_rows(True, 0)
    assert rows[0].verdict == "reproduced"
    assert rows[0].n == _search_loop.HELD_OUT[True]
    assert "2 of DPO" in rows[3].claim
    for row in rows:
        assert row.low <= row.measured <= row.high
        assert row.verdict == judge(interval(row.low, row.high), 1)
