"""First errors, OmegaPRM, targets of a tree and self-evaluation against exact values.

In this world a text is right if it has no b; a b can never be undone.
"""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import meristem_testtime as tt

LENGTH = 6
STEP = tt.Step(stop=(), max_tokens=1, max_steps=LENGTH)
SHARES = np.array([0.6, 0.2, 0.2])


def right(question, text):
    return "b" not in text


@pytest.fixture(scope="module")
def engine():
    return tt.FakeEngine(lambda ids: SHARES, "ab.")


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_the_first_error_is_the_first_b(engine, seed):
    into = []
    tt.search_sync(
        engine, {"p": "a", "q": "aa"}, tt.first_error(tt.bfs(3, 2), right, 40, into),
        step=STEP, seed=seed, temperature=1.0,
    )  # fmt: skip
    for found in into:
        assert found.step == found.text.index("b") + 1
        assert (found.alive is None) == (found.step == 1)
        assert found.missed is None or found.missed == (1 - found.alive) ** 40
        assert found.rollouts <= 40 * math.ceil(math.log2(max(found.steps, 2)))


@given(seed=st.integers(0, 10**6), segment=st.integers(1, 3))
@settings(max_examples=8)
def test_the_labels_of_omega_prm_are_the_exact_values(engine, seed, segment):
    labels, rollouts = [], 60
    (found,) = tt.search_sync(
        engine, {"q": "a"}, tt.omega_prm(right, rollouts, 3, labels, segment=segment),
        step=STEP, seed=seed, temperature=1.0,
    )  # fmt: skip
    assert found.cost.samples == rollouts * (1 + len(labels))
    for label in labels:
        text = engine.decode(label.prefix_ids)
        if "b" in text:
            assert label.soft == 0
            assert not label.hard
            continue
        exact = sum(0.6**i * 0.2 for i in range(LENGTH)) + 0.6**LENGTH
        assert abs(label.soft - exact) < 6 * math.sqrt(exact * (1 - exact) / rollouts)
        assert label.low <= label.soft <= label.high


def test_omega_prm_takes_the_longest_wrong_rollout_of_the_best_state():
    judge = tt.omega_priority()
    node = tt.Node(question="q", parent=None, place=0, ids=(), logprobs=(), depth=0, text="",
                   finished=False, truncated=False)  # fmt: skip
    good = tt._errors.PoolState(node=node, share=0.9, wrong=[])
    poor = tt._errors.PoolState(node=node, share=0.1, wrong=[])
    assert judge(good, 100, 0) > judge(poor, 100, 0)
    assert judge(good, 100, 0) > judge(good, 900, 0)
    assert judge(good, 500, 0) == pytest.approx(0.5**0.1 * 0.9)
    seen = tt._errors.PoolState(node=node, share=0.9, wrong=[], visits=3)
    assert judge(good, 100, 9) - judge(seen, 100, 9) == pytest.approx(0.125 * 3 * (1 - 1 / 4))


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.1, 4))
@settings(max_examples=20)
def test_targets_are_shares_and_means(engine, seed, temperature):
    (found,) = results = tt.search_sync(
        engine, {"q": "a"}, tt.mcts(12, 3), step=STEP, seed=seed, temperature=1.0,
        guide=tt.reward_guide(lambda question, text: float(right(question, text))),
    )  # fmt: skip
    targets = {
        each.prefix_ids: each
        for each in tt.tree_targets(
            results, lambda q, t: float(right(q, t)), temperature=temperature
        )
    }
    for each in targets.values():
        assert sum(each.policy) == pytest.approx(1)
        assert len(set(each.children)) == len(each.children)
        assert 0 <= each.value <= 1
    if found.solutions:
        root = targets[()]
        gains = [
            w * right("", node.text) for node, w in zip(found.solutions, found.weights, strict=True)
        ]
        assert root.weight == pytest.approx(sum(found.weights))
        assert root.value == pytest.approx(sum(gains) / sum(found.weights))
        cold = tt.tree_targets(results, lambda q, t: 1.0, temperature=1e-3)[0]
        assert max(cold.policy) == pytest.approx(1 / cold.policy.count(max(cold.policy)))


def test_self_evaluation_is_the_ratio_of_the_two_words(engine):
    guide = tt.self_evaluation_guide(engine, lambda question, text: text + "a", yes="a", no="b")
    (found,) = tt.search_sync(engine, {"q": "a"}, tt.best_of_n(3), step=STEP, guide=guide)
    for node in found.nodes:
        assert node.value == pytest.approx(0.6 / 0.8)
    with pytest.raises(ValueError, match="have the same tokens"):
        tt.self_evaluation_guide(engine, lambda question, text: text, yes="a", no="a")


def test_scores_are_recorded(engine, tmp_path):
    path = tmp_path / "journal.jsonl"
    pairs = [((0,), (1, 2)), ((0, 0), (2,))]
    with tt.ReplayEngine(path, engine) as recorded:
        first = asyncio.run(recorded.logprobs(pairs))
    engine_without = tt.FakeEngine(lambda ids: 1 / 0, "ab.")
    with tt.ReplayEngine(path, engine_without) as recorded:
        assert asyncio.run(recorded.logprobs(pairs)) == first
        assert recorded.capabilities == engine.capabilities


def test_a_prefix_keeps_tokens_and_is_open(engine):
    async def algorithm(task):
        (whole,) = (await task.expand([task.root], whole=True))[0]
        task.finish(whole)
        if len(whole.ids) > 1:
            cut = task.prefix(whole, 1)
            assert (cut.ids, cut.finished) == (whole.ids[:1], False)
            await task.expand([cut], 2)
        with pytest.raises(ValueError, match=r"length \(0\) must lie in"):
            task.prefix(whole, 0)

    for seed in range(5):
        tt.search_sync(engine, {"q": "a"}, algorithm, step=STEP, seed=seed)


def test_confidence_needs_log_probabilities(engine):
    node = tt.Node(question="q", parent=None, place=0, ids=(0,), logprobs=(), depth=1, text="a",
                   finished=False, truncated=False)  # fmt: skip
    child = tt.Node(question="q", parent=node, place=0, ids=(0,), logprobs=(), depth=1, text="aa",
                    finished=False, truncated=False)  # fmt: skip
    with pytest.raises(ValueError, match="has no log-probabilities; use an engine"):
        asyncio.run(tt.confidence_guide()([child]))


def test_a_curve_is_the_estimators_with_intervals(make):
    traces = make(
        [[(0, 5, 0.1), (1, 9, 0.4), (0, 7, 0.2)], [(1, 5, 0.3), (1, 6, 0.1), (0, 8, 0.9)]]
    )
    rules = {"majority": tt.majority, "smv": tt.shortest_majority, "best": tt.best_of("reward")}
    found = tt.curve(traces, rules, [1, 2, 3])
    assert np.allclose(found.values["majority"], tt.maj_at_k(traces, [1, 2, 3]))
    assert np.allclose(found.values["best"], tt.bon_at_k(traces, [1, 2, 3], "reward"))
    assert found.tokens.tolist() == pytest.approx([20 / 3, 40 / 3, 20])
    gap = found.values["smv"].mean(0) - found.values["majority"].mean(0)
    assert [each.mean for each in found.difference["smv"]] == pytest.approx(gap.tolist())
    assert set(found.difference) == {"smv", "best"}


def test_markers_that_follow_length_have_its_slope():
    rng = np.random.default_rng(0)
    question = np.repeat(np.arange(40), 6)
    tokens = rng.integers(500, 4000, 240)
    correct = rng.random(240) < 0.5
    traces = tt.Traces(
        question=question, answer=np.where(correct, 0, 1), tokens=tokens, correct=correct,
        questions=tuple(map(str, range(40))), markers={"wait": tokens // 100 + 3 * correct},
    )  # fmt: skip
    found = tt.marker_trend(traces, "wait")
    assert found.slope == pytest.approx(10, abs=0.3)
    assert found.excess.low <= 3 <= found.excess.high
    assert found.correlation.low > 0.9
    with pytest.raises(ValueError, match="there is no marker 'so'"):
        tt.marker_trend(traces, "so")
