"""Searches by guides of known quality: the value function, the noise, and the rows."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import meristem_testtime as tt
from meristem.reproduce import _guided_searches as searches
from meristem.reproduce import _line_sums as sums
from meristem_core import stream
from meristem_testtime.hf import HFEngine


@pytest.fixture(scope="module")
def engine():
    """A model that was not trained."""
    model, tokenizer = sums.blank(sums.ALPHABET, 3)
    return HFEngine(model.eval(), tokenizer, name="blank", max_batch=512)


def test_the_value_of_a_prefix_is_the_chance_of_the_rest(engine):
    question, lines = "3+9-4+1-A+5=", ["1", "8", "9", "A", "4"]
    assert sums.solution(question) == "\n".join(lines)
    value = searches.exact_value(engine, [question, "1+1+1+1+1+1="])
    for done in range(1, 5):
        before = "".join(f"{line}\n" for line in lines[:done])
        rest = "\n".join(lines[done:]) + "."
        pair = engine.encode(question + before), engine.encode(rest)
        ((*scores,),) = asyncio.run(engine.logprobs([pair]))
        assert value(question, before) == pytest.approx(np.exp(sum(scores)), rel=1e-5)
    assert value(question, "\n".join(lines)) == 1
    wrong = ("", "2\n", "1", "1\n8\n8\n", "1\n8\n9\nA\n4\n", "1\n8\n9\nA\n5")
    assert [value(question, text) for text in wrong] == [0] * len(wrong)


def test_the_value_is_the_share_of_samples_that_are_right(engine, monkeypatch):
    monkeypatch.setattr(searches, "OPERATIONS", 2)
    question, draws = "3+9-4=", 1000
    value = searches.exact_value(engine, [question])
    request = tt.Request(
        prompt=engine.encode(f"{question}1\n"), seed=0, n=draws, max_tokens=2, temperature=1.0
    )
    (found,) = asyncio.run(engine.generate([request]))
    share = np.mean([each.ids == engine.encode("8.") for each in found])
    error = np.sqrt(value(question, "1\n") / draws)
    assert 0 < value(question, "1\n") < 0.1
    assert abs(share - value(question, "1\n")) < 4 * error


@given(st.floats(0.5, 0.999), st.integers(0, 2**32))
def test_noise_puts_right_above_wrong_as_often_as_asked(area, seed):
    weight, rng = searches.noise_weight(area), np.random.default_rng(seed)
    right, wrong = rng.random((2, 4000))
    above = (1 - weight + weight * right > weight * wrong).mean()
    assert abs(above - area) < 5 * 0.5 / np.sqrt(4000)


def test_a_spoilt_guide_errs_again_at_the_same_text():
    guides = [searches.spoilt(sums.holds, 0.8, seed) for seed in (0, 0, 1)]
    said = [[guide("1+1=", text) for text in ("2", "3", "4", "3")] for guide in guides]
    assert said[0] == said[1] != said[2]
    assert len({*said[0]}) == 3
    assert said[0][1] == said[0][3]
    assert searches.spoilt(sums.holds, 1.0, 0)("1+1=", "2") == 1.0


def test_an_answer_has_most_weight_or_most_value():
    def node(place, text, value):
        return tt.Node(
            question="q", parent=None, place=place, ids=(), logprobs=(), depth=1, text=text,
            finished=True, truncated=False, value=value,
        )  # fmt: skip

    nodes = (node(0, "a", 0.5), node(1, "b", 0.9), node(2, "a", 0.5), node(3, "c", 0.1))
    result = tt.SearchResult(
        question="q", solutions=nodes, weights=(1.0, 1.5, 1.0, 0.5), nodes=nodes, cost=tt.Cost(),
        exhausted=False, log_normaliser=None,
    )  # fmt: skip
    assert searches.answer(result, True) == "a"
    assert searches.answer(result, False) == "b"
    assert searches.answer(replace(result, solutions=(), weights=()), True) == ""


def test_the_rows_follow_from_the_guides(monkeypatch):
    """On sums of two numbers, all of which the model has seen."""
    monkeypatch.setattr(searches, "OPERATIONS", 1)
    monkeypatch.setattr(searches, "QUESTIONS", 8)
    monkeypatch.setattr(searches, "DRAWS", 64)
    monkeypatch.setattr(sums, "MODELS", {True: 2})
    for name in ("SEARCHED", "HELD_OUT"):
        monkeypatch.setattr(sums, name, {True: 8})
    for name, value in {"OPERATIONS": 1, "POOL": 100, "PROBE": 16}.items():
        monkeypatch.setattr(sums, name, value)
    train, every = sums.trained, sums.draw_questions(stream(0, "every"), 2 * 11**2)
    monkeypatch.setattr(sums, "trained", lambda pool, probe, seed: train(every, probe, seed))
    state = torch.get_rng_state()
    worlds = sums.make_worlds(True, 5)
    rows = searches.search_rows(worlds, 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert len({row.claim for row in rows}) == len(rows) == 6 + 1 + 6 + 30
    by_claim = {row.claim: row for row in rows}
    exact, vote = (
        by_claim[f"{what} among 64 instead of 4 helps, guide of area 1.0"]
        for what in ("choosing", "voting by its values")
    )
    assert exact.verdict == "reproduced"
    assert vote.measured == pytest.approx(exact.measured, abs=0.02)  # orders of samples are drawn
    assert {row.n for row in rows} == {16}
    for row in rows:
        assert row.low is None or row.low <= row.measured <= row.high
