"""Revision chains, budget forcing, and the records of a search."""

import dataclasses
import json
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import meristem_testtime as tt
from meristem_core import stream

ALPHABET = "01W\n."
STEP = tt.Step(stop=("\n\n",), max_tokens=2, max_steps=3)


def process(seed):
    @cache
    def probabilities(ids):
        return stream(seed, "process", *ids).dirichlet(np.ones(len(ALPHABET)))

    return probabilities


def even(question, text):
    return text.count("1") % 2 == 0


GUIDE = tt.reward_guide(lambda question, text: float(stream(0, text).random()))


@given(seed=st.integers(0, 30), rounds=st.integers(0, 3))
@settings(max_examples=30)
def test_a_revision_keeps_the_text_before_its_cut(seed, rounds):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    (found,) = tt.search_sync(engine, {"q": "0"}, tt.revise(rounds, "W"), step=STEP, seed=seed)
    chain = found.solutions
    assert len(chain) == rounds + 1
    for before, after in pairwise(chain):
        kept = tt.kept_text(before.text)
        assert before.text.startswith(kept)
        assert after.text.startswith(f"{kept}\n\nW" if kept else "W")
    assert found.cost.tokens == sum(len(node.ids) for node in chain)
    chains = tt.from_revisions([found], {"q": "1"}, kind="number")
    assert chains.tokens.sum() == found.cost.tokens
    assert tt.revisions(chains).alive.tolist() == [1] * (rounds + 1)


@given(seed=st.integers(0, 30), extensions=st.integers(0, 3))
@settings(max_examples=30)
def test_forcing_keeps_everything_and_asks_for_more(seed, extensions):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    (found,) = tt.search_sync(
        engine, {"q": "0"}, tt.force_budget(extensions, "W"), step=STEP, seed=seed
    )
    (last,) = found.solutions
    assert last.text.count("W") >= extensions
    assert found.cost.samples == extensions + 1


@given(seed=st.integers(0, 30), margin=st.floats(0.01, 0.9))
@settings(max_examples=30)
def test_pairs_share_a_prefix_and_are_ranked(seed, margin):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    run = {"step": STEP, "seed": seed, "guide": GUIDE}
    found = tt.search_sync(engine, {"q": "0"}, tt.bfs(2, 3), **run)
    pairs = tt.step_pairs(found, margin=margin)
    values = {(node.parent.path_ids(), node.ids): node.value for node in found[0].nodes}
    for pair in pairs:
        assert pair.chosen_value - pair.rejected_value >= margin
        assert pair.chosen_ids != pair.rejected_ids
        assert values[pair.prefix_ids, pair.chosen_ids] == pair.chosen_value
        assert values[pair.prefix_ids, pair.rejected_ids] == pair.rejected_value
    families = {}
    for prefix, ids in values:
        families.setdefault(prefix, []).append(values[prefix, ids])
    wanted = sum(a - b >= margin for group in families.values() for a in group for b in group)
    assert len(pairs) == wanted


@given(seed=st.integers(0, 30), most=st.integers(1, 4))
@settings(max_examples=30)
def test_records_are_right_unique_and_few(seed, most):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    found = tt.search_sync(engine, {"q": "0", "r": "1"}, tt.best_of_n(8), step=STEP, seed=seed)
    records = tt.expert_iteration_records(found, even, per_question=most, shortest_first=True)
    for name in ("q", "r"):
        mine = [each for each in records if each.question == name]
        assert len(mine) <= most
        assert len({" ".join(each.text.split()) for each in mine}) == len(mine)
        assert [each.tokens for each in mine] == sorted(each.tokens for each in mine)
    for each in records:
        assert even(each.question, each.text)
        assert engine.decode(each.completion_ids) == each.text
        assert json.loads(json.dumps(dataclasses.asdict(each)))["text"] == each.text


def test_labels_estimate_the_chance_of_success():
    engine = tt.FakeEngine(process(3), ALPHABET)
    step = tt.Step(stop=(), max_tokens=1, max_steps=2)
    labels = []
    tt.search_sync(
        engine, {"q": "0"}, tt.process_labels(tt.bfs(9, 9), even, 2000, labels), step=step,
        temperature=1.0,
    )  # fmt: skip
    assert labels
    for label in labels:
        prompt = engine.encode("0") + label.prefix_ids
        exact = sum(
            chance
            for ids, chance in engine.outcomes(prompt, 1)
            if even("q", engine.decode(label.prefix_ids + ids))
        )
        assert abs(label.soft - exact) < 0.06
        assert label.low <= label.soft <= label.high
        assert label.hard == (label.soft > 0)


def test_results_become_traces():
    engine = tt.FakeEngine(process(5), ALPHABET)
    found = tt.search_sync(engine, {"q": "0", "r": "1"}, tt.beam(4, 2), step=STEP, guide=GUIDE)
    traces = tt.from_results(found, {"q": "1", "r": "0"}, kind="number")
    assert traces.sizes().tolist() == [len(each.solutions) for each in found]
    assert traces.tokens.tolist() == [
        len(node.path_ids()) for each in found for node in each.solutions
    ]
    tt.vote(traces, tt.weighted("weight"))
    with pytest.raises(ValueError, match="question 'r' has no gold answer"):
        tt.from_results(found, {"q": "1"})


def test_wrong_settings_are_named():
    for call in (
        lambda: tt.revise(-1),
        lambda: tt.force_budget(1, ""),
        lambda: tt.step_pairs([], margin=0.0),
        lambda: tt.expert_iteration_records([], even, per_question=0),
        lambda: tt.process_labels(tt.beam(4), even, 0, []),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_a_chain_ends_in_a_full_context_and_the_others_go_on():
    engine = tt.FakeEngine(lambda ids: np.array([0.5, 0.1, 0.1, 0.1, 0.2]), ALPHABET)
    engine.context = 14
    step = tt.Step(max_tokens=6, max_steps=1)
    short, long = tt.search_sync(
        engine, {"short": "0", "long": "0000000"}, tt.revise(3, "WW"), step=step
    )
    assert len(long.solutions) == 1
    assert len(short.solutions) > 1
    with pytest.raises(tt.ContextFullError, match="a prompt of 9 tokens and max_tokens 6 exceed"):
        tt.search_sync(engine, {"q": "0" * 9}, tt.best_of_n(1), step=step)
