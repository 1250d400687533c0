"""The loop of search and learning: its task, its guide, and that a model learns from searches."""

from dataclasses import replace

import pytest
import torch

from meristem.reproduce import _line_sums as sums
from meristem.reproduce import _search_loop as loop
from meristem_core import stream


def test_a_solution_is_the_running_sum():
    questions = sums.draw_questions(stream(3, "x"), 200)
    assert len(set(questions)) == 200
    for question in questions:
        lines = sums.solution(question).split("\n")
        signs = [1, *(1 if sign == "+" else -1 for sign in question[1:-1:2])]
        terms = [sign * int(digit, 11) for sign, digit in zip(signs, question[::2], strict=True)]
        assert lines == [sums.DIGITS[sum(terms[: i + 2]) % 11] for i in range(sums.OPERATIONS)]


def test_the_guide_holds_for_right_lines_only():
    question = "3+9-4+1="
    right = "1\n8\n9"
    assert [sums.holds(question, right[:end]) for end in range(1, 6)] == [0, 1, 0, 1, 1]
    for wrong in ("2\n", "1\n7\n", "1\n8", "1\n8\n9\n", "1\n8\n8", "18\n", "\n"):
        assert sums.holds(question, wrong) == 0


def test_the_loop_repeats_itself_and_leaves_the_global_generator_alone(monkeypatch):
    """On sums of two numbers, all of which the model has seen."""
    monkeypatch.setattr(loop, "SAMPLES", 2)
    for name, value in {"OPERATIONS": 1, "POOL": 100, "PROBE": 16}.items():
        monkeypatch.setattr(sums, name, value)
    train, every = sums.trained, sums.draw_questions(stream(0, "every"), 2 * 11**2)
    monkeypatch.setattr(sums, "trained", lambda pool, probe, seed: train(every, probe, seed))
    for name in ("SEARCHED", "HELD_OUT"):
        monkeypatch.setattr(sums, name, {True: 30})
    for name in ("IMITATION", "PREFERENCE"):
        monkeypatch.setattr(loop, name, replace(getattr(loop, name), steps=3))
    state = torch.get_rng_state()
    first, again = (loop.loop_rows(sums.make_worlds(True, 5), 5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert [replace(row, seconds=0.0) for row in first] == [
        replace(row, seconds=0.0) for row in again
    ]


def test_questions_serve_one_purpose(monkeypatch):
    asked = []
    monkeypatch.setattr(sums, "POOL", 300)
    model = sums.blank(sums.ALPHABET, 0)
    monkeypatch.setattr(sums, "trained", lambda *some: asked.extend(some[:2]) or model)
    world = sums.make_world(1, 40, 50)
    groups = [*asked, *world.rounds, world.held_out]
    assert [len(each) for each in groups] == [300, sums.PROBE, 40, 40, 50]
    assert len(set().union(*groups)) == sum(map(len, groups))


@pytest.mark.slow
def test_search_makes_data_from_which_the_model_learns():
    rows = loop.loop_rows(sums.make_worlds(True, 0), 0)
    assert rows[0].measured > 0
    assert rows[0].n == sums.HELD_OUT[True]
    assert "2 of DPO" in rows[3].claim
    for row in rows:
        assert row.low <= row.measured <= row.high
        side = row.low > 0, row.high < 0
        assert row.verdict == {(True, False): "reproduced", (False, True): "refuted"}.get(
            side, "partly"
        )
