"""Laws of aborted samples and of the budget of a run, on exactly known processes."""

import asyncio
from functools import cache
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import meristem_testtime as tt
from meristem_core import stream
from meristem_testtime._confidence import Window

ALPHABET = "ab;."
STEP = tt.Step(stop=(), max_tokens=12, max_steps=1)
QUESTIONS = {"one": "a", "two": "b", "three": "ab", "four": "ba"}


def first_symbol(text):
    return text[:1]


class Pieces(tt.FakeEngine):
    """Takes the requests of one question at a time."""

    max_batch = 1


class Concurrent(tt.FakeEngine):
    concurrent = True

    async def generate(self, requests, watches=MappingProxyType({})):
        await asyncio.sleep(0)
        return await super().generate(requests, watches)


@cache
def process(seed):
    @cache
    def probabilities(ids):
        return stream(seed, "process", *ids).dirichlet(np.ones(len(ALPHABET)))

    return probabilities


def engine_of(seed, kind=tt.FakeEngine):
    return kind(process(seed), ALPHABET)


def search(engine, algorithm, questions=QUESTIONS, **options):
    return tt.search_sync(engine, questions, algorithm, **{"step": STEP, "seed": 2} | options)


def tokens(results):
    return sum(each.cost.tokens for each in results)


@given(seed=st.integers(0, 40), batch=st.integers(2, 8))
@settings(max_examples=12)
def test_samples_that_run_together_stop_where_single_ones_do(seed, batch):
    """Nothing but the tokens of samples after the stop depends on how many run together."""
    whole = search(engine_of(seed), tt.best_of_n(8))
    single = search(engine_of(seed), tt.adaptive(tt.beta(0.8), 8, first_symbol))
    several = search(engine_of(seed), tt.adaptive(tt.beta(0.8), 8, first_symbol, batch=batch))
    for alone, together, full in zip(single, several, whole, strict=True):
        assert [n.text for n in alone.solutions] == [n.text for n in together.solutions]
        assert alone.cost.tokens <= together.cost.tokens <= full.cost.tokens
        assert together.cost.tokens == sum(len(node.ids) for node in together.nodes)
        longest = max(len(node.ids) for node in together.solutions)
        for node, drawn in zip(together.nodes, full.nodes, strict=False):
            assert node.ids == drawn.ids[: len(node.ids)]
            if not node.finished:
                assert node.truncated
                assert len(node.ids) <= longest


@given(seed=st.integers(0, 40), m=st.integers(1, 6))
@settings(max_examples=25)
def test_the_first_to_finish_are_the_shortest(seed, m):
    whole = search(engine_of(seed), tt.best_of_n(6))
    first = search(engine_of(seed), tt.first_finished(6, m))
    for full, found in zip(whole, first, strict=True):
        ranked = sorted(full.solutions, key=lambda node: len(node.ids))[:m]
        assert [node.text for node in found.solutions] == [node.text for node in ranked]
        most = len(ranked[-1].ids)
        assert found.cost.tokens == sum(min(len(node.ids), most) for node in full.nodes)


@pytest.mark.parametrize("kind", [Pieces, Concurrent])
@given(seed=st.integers(0, 20), limit=st.integers(0, 60))
@settings(max_examples=15)
def test_the_budget_of_a_run_ends_questions_and_changes_no_other(kind, seed, limit):
    algorithm = tt.adaptive(tt.certain, 4, first_symbol)
    whole = search(engine_of(seed), algorithm)
    budget = tt.Budget(run_tokens=limit)
    found = search(engine_of(seed, kind), algorithm, budget=budget, concurrency=1)
    assert tokens(found) < limit + STEP.max_tokens
    assert (tokens(found) > 0) == (limit > 0)
    assert any(each.exhausted for each in found) or tokens(found) == tokens(whole)
    for each, full in zip(found, whole, strict=True):
        texts = [node.text for node in each.nodes]
        assert texts == [node.text for node in full.nodes][: len(texts)]
        assert each.exhausted == (len(texts) < len(full.nodes))
    if any(each.exhausted for each in found):
        assert tokens(found) >= limit


def test_a_run_goes_on_with_a_larger_budget(tmp_path):
    whole = search(engine_of(1), tt.best_of_n(3))
    path = tmp_path / "journal.jsonl"
    for limit, calls in ((1, 1), (tokens(whole), 3), (None, 0)):
        behind = engine_of(1, Pieces)
        with tt.ReplayEngine(path, behind) as recorded:
            found = search(recorded, tt.best_of_n(3), budget=tt.Budget(run_tokens=limit))
        assert behind.calls == calls
    assert [[n.text for n in each.nodes] for each in found] == [
        [n.text for n in each.nodes] for each in whole
    ]
    assert not any(each.exhausted for each in found)


def test_seconds_end_a_run():
    found = search(engine_of(1), tt.best_of_n(3), budget=tt.Budget(run_seconds=0))
    assert all(each.exhausted and not each.nodes for each in found)


def test_a_journal_serves_the_rule_that_it_was_written_under(tmp_path):
    """Another rule asks again, the same one does not, and whole samples stay apart."""
    path = tmp_path / "journal.jsonl"
    early = tt.first_finished(6, 1)
    late = tt.first_finished(6, 5)
    for algorithm, calls in ((early, 1), (early, 0), (late, 1), (late, 0), (early, 0)):
        behind = engine_of(3)
        with tt.ReplayEngine(path, behind) as recorded:
            found = search(recorded, algorithm, {"one": "a"})
        assert behind.calls == calls
        (alone,) = search(engine_of(3), algorithm, {"one": "a"})
        assert [n.text for n in found[0].solutions] == [n.text for n in alone.solutions]
    behind = engine_of(3)
    with tt.ReplayEngine(path, behind) as recorded:
        (whole,) = search(recorded, tt.best_of_n(6), {"one": "a"})
    assert behind.calls == 1
    assert all(node.finished for node in whole.nodes)


@given(
    values=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    width=st.integers(1, 12),
    least=st.integers(0, 40),
)
def test_a_window_falls_where_its_mean_is_below(values, width, least):
    confidence = np.array(values) / 8  # exact sums
    growing = Window(width, least / 8)
    fall = next((i for i, value in enumerate(confidence) if growing.falls(float(value))), None)
    full = len(values) >= width
    below = np.flatnonzero(tt.window_means(confidence, width) < least / 8) if full else []
    assert fall == (below[0] + width - 1 if len(below) else None)


@given(
    seed=st.integers(0, 40),
    warmup=st.integers(1, 6),
    more=st.integers(0, 8),
    keep=st.floats(0.05, 0.95),
    width=st.integers(1, 6),
)
@settings(max_examples=30)
def test_deepconf_keeps_the_samples_that_never_fall(seed, warmup, more, keep, width):
    """Its solutions are those of plain sampling whose least window reaches the threshold."""
    engine, n = engine_of(seed), warmup + more
    (found,) = search(
        engine, tt.deepconf(n, warmup=warmup, keep=keep, width=width, top=2), {"one": "a"}
    )
    (plain,) = search(engine, tt.best_of_n(n), {"one": "a"})
    lowest = np.array([least_window(engine, node.ids, width) for node in plain.solutions])
    least = tt.early_stop_threshold(lowest[:warmup], keep)
    kept = lowest >= least - 1e-9
    assert [node.ids for node in found.solutions] == [
        node.ids for node, keep in zip(plain.solutions, kept, strict=True) if keep
    ]
    assert found.weights == pytest.approx(lowest[kept].tolist())
    for node, whole, above in zip(found.nodes, plain.nodes, kept, strict=True):
        assert node.ids == whole.ids[: len(node.ids)]
        assert len(node.ids) == len(node.confidence)
        assert node.finished or not above
    assert found.cost.tokens == sum(len(node.ids) for node in found.nodes) <= tokens([plain])


@given(
    seed=st.integers(0, 40),
    warmup=st.integers(1, 5),
    more=st.integers(0, 8),
    consensus=st.floats(0.3, 1),
    batch=st.integers(1, 4),
)
@settings(max_examples=40)
def test_deepconf_draws_until_its_answers_agree(seed, warmup, more, consensus, batch):
    """Its samples are the first ones of those without a look at the answers."""

    def letter(text):
        return text[0] if text[0] in "ab" else None

    def share(drawn):
        kept = [
            (node, weight)
            for node, weight in zip(full.solutions, full.weights, strict=True)
            if node.place < drawn and letter(node.text) is not None
        ]
        votes = [sum(w for node, w in kept if letter(node.text) == key) for key in "ab"]
        return max(votes) / sum(votes) if kept else 0

    engine, n = engine_of(seed), warmup + more
    options = {"warmup": warmup, "keep": 0.5, "width": 2, "top": 2}
    (full,) = search(engine, tt.deepconf(n, **options), {"one": "a"})
    (found,) = search(
        engine, tt.deepconf(n, **options, answer=letter, consensus=consensus, batch=batch),
        {"one": "a"},
    )  # fmt: skip
    looks = [*range(warmup, n, batch), n]
    drawn = next((look for look in looks if share(look) >= consensus - 1e-12), n)
    assert [node.ids for node in found.nodes] == [node.ids for node in full.nodes[:drawn]]
    kept = [node.ids for node in full.solutions if node.place < drawn]
    assert [node.ids for node in found.solutions] == kept


def least_window(engine, ids, width):
    """From the process itself, by the mean of every window."""
    prompt = engine.encode("a")
    rows = [np.log(engine.process(prompt + ids[:i])) for i in range(len(ids))]
    values = [-np.sort(row)[-2:].mean() for row in rows]
    width = min(width, len(values))
    return min(np.mean(values[i : i + width]) for i in range(len(values) - width + 1))


def test_a_deterministic_process_has_no_likeliest_two():
    certain = tt.FakeEngine(lambda ids: np.array([0.0, 1.0, 0.0, 0.0]), ALPHABET)
    with pytest.raises(ValueError, match=r"the 2 likeliest tokens is asked for, 1 of 4 have a"):
        search(certain, tt.deepconf(3, warmup=1, top=2), {"one": "a"})


def test_mistakes_are_explained():
    class Endless(tt.FakeEngine):
        capabilities = frozenset({"continue"})

    for call, error, complaint in [
        (lambda: tt.first_finished(2, 3), ValueError, r"m \(3\) must be at most n \(2\)"),
        (lambda: tt.Budget(run_tokens=-1), ValueError, r"run_tokens \(-1\) must be at least 0"),
        (lambda: tt.Budget(run_seconds=float("nan")), ValueError, r"run_seconds \(nan\)"),
        (lambda: search(engine_of(0), tt.best_of_n(1), concurrency=0), ValueError, "concurrency"),
        (
            lambda: search(engine_of(0, Endless), tt.first_finished(3, 1)),
            tt.UnsupportedError,
            "engine fake:ab;. lacks the capability 'abort'; ask for one sample at a time",
        ),
        (
            lambda: search(engine_of(0, Endless), tt.deepconf(3, warmup=1)),
            tt.UnsupportedError,
            "engine fake:ab;. lacks the capability 'confidence'; use hf.HFEngine",
        ),
        (
            lambda: tt.deepconf(3, warmup=4),
            ValueError,
            r"warmup \(4\) must lie in \[1, n\], n is 3",
        ),
        (lambda: tt.deepconf(3, warmup=1, keep=1.0), ValueError, r"keep \(1.0\) must lie in"),
        (lambda: tt.deepconf(3, warmup=1, consensus=0.0), ValueError, r"consensus \(0.0\) must"),
        (lambda: tt.Confidence(top=0), ValueError, r"top \(0\) and width \(2048\) must be"),
        (lambda: tt.Confidence(least=float("nan")), ValueError, r"least \(nan\) must be finite"),
    ]:
        with pytest.raises(error, match=complaint):
            call()
