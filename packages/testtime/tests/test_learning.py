"""Revision chains, budget forcing, and the records of a search."""

import asyncio
import dataclasses
import json
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import gmean

import meristem_testtime as tt
from meristem_core import stream

ALPHABET = "01W\n."
STEP = tt.Step(stop=("\n\n",), max_tokens=2, max_steps=3)


@cache
def process(seed, alphabet=ALPHABET):
    @cache
    def probabilities(ids):
        return stream(seed, "process", *ids).dirichlet(np.ones(len(alphabet)))

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


@given(
    seed=st.integers(0, 60),
    least=st.integers(0, 12),
    more=st.integers(0, 8),
    cue=st.sampled_from(["W", "WWW"]),
)
@settings(max_examples=60)
@example(seed=3, least=6, more=0, cue="WWW")
def test_thinking_stays_between_its_limits(seed, least, more, cue):
    """Its tokens are those before the mark; at the limit a new line, the mark and "0" are added."""
    engine = tt.FakeEngine(process(seed, "01W;\n."), "01W;\n.")
    most = max(least + more, 1)
    forced = tt.force_budget(least, most, cue=cue, end=";", answer="0")
    (found,) = tt.search_sync(engine, {"q": "0"}, forced, step=STEP, seed=seed, temperature=1.5)
    (last,) = found.solutions
    assert engine.decode(last.path_ids()) == last.text
    thinking, mark, rest = last.text.partition(";")
    if not mark:  # the model ended all
        assert thinking[-1] == "."
        assert least <= len(thinking) - 1 <= most
        return
    line = len(thinking) == most + 1 and thinking.endswith("\n") and rest.startswith("0")
    reached = least if len(cue) <= more else least - len(cue) + 1
    assert reached <= len(thinking) - line <= most


def test_a_thought_in_a_full_context_is_marked():
    engine = tt.FakeEngine(lambda ids: np.array([0.9, 0.1, 0.0, 0.0, 0.0]), ALPHABET)
    engine.context = 12
    forced = tt.force_budget(0, 10, cue="W", end="1111", answer="0")
    with pytest.raises(tt.ContextFullError, match="a prompt of 3 tokens and max_tokens 10 exceed"):
        tt.search_sync(engine, {"q": "000"}, forced, step=STEP)
    (found,) = tt.search_sync(engine, {"q": "0"}, forced, step=STEP)
    (last,) = found.solutions
    assert last.truncated
    assert len(last.ids) == 10


@pytest.mark.parametrize("likely", ["0", "1"])
def test_a_revision_takes_the_likelier_cue(likely):
    """After a new paragraph the process prefers one symbol; the cues have one and two tokens."""

    def probabilities(ids):
        start = len(ids) > 1 and ids[-2:] == (3, 3)
        first = {"0": [0.7, 0.3, 0, 0, 0], "1": [0.3, 0.7, 0, 0, 0]}[likely]
        return np.array(first if start else [0.2, 0.2, 0.2, 0.2, 0.2])

    engine = tt.FakeEngine(probabilities, ALPHABET)
    step = tt.Step(max_tokens=12, max_steps=1)
    names = {f"q{i}": "0" for i in range(12)}
    found = tt.search_sync(engine, names, tt.revise(2, ("0", "1")), step=step)
    cued = [node for each in found for node in each.nodes if node.text and not node.logprobs]
    ends = [node.text[-1] for node in cued if node.parent is not None and node.parent.text]
    assert len(ends) > 3
    assert set(ends) == {likely}
    assert all(each.cost.requests == 3 + 2 * 2 for each in found)
    plain = tt.search_sync(engine, names, tt.revise(2, likely), step=step)
    assert plain[0].solutions[0].text == found[0].solutions[0].text


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
    exact = [
        np.exp(asyncio.run(engine.logprobs([(engine.encode(prompt), node.path_ids())]))[0])
        for each, prompt in zip(found, "01", strict=True)
        for node in each.solutions
    ]
    assert traces.scores["probability"] == pytest.approx([gmean(each) for each in exact])
    silent = tt.search_sync(engine, {"q": "0"}, tt.best_of_n(2), step=STEP, logprobs=False)
    assert set(tt.from_results(silent, {"q": "1"}, kind="number").scores) == {"value", "weight"}
    with pytest.raises(ValueError, match="question 'r' has no gold answer"):
        tt.from_results(found, {"q": "1"})


def test_wrong_settings_are_named():
    for call in (
        lambda: tt.revise(-1),
        lambda: tt.revise(1, ("W", "")),
        lambda: tt.force_budget(5, 4),
        lambda: tt.force_budget(1, 2, cue=""),
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
