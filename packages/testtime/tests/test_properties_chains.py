"""Laws of revision chains: one or several of a question, several cues, full contexts, budgets."""

import asyncio
import itertools
from dataclasses import replace
from functools import cache
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import meristem_testtime as tt
from meristem_core import stream

PAGE = "012\nWait."
STEP = tt.Step(stop=(), max_tokens=8, max_steps=1)
QUESTIONS = {"short": "0", "long": "0120120"}
GOLD = {"short": "1", "long": "2"}

seeds = st.integers(0, 60)
rounds_ = st.integers(0, 4)
chains_ = st.integers(1, 4)
cues_ = st.sampled_from(["Wait", ("Wait",), ("Wait", "ait"), ("t", "W", "Wait")])
contexts = st.sampled_from([None, 15, 18, 22, 30])
laws = settings(max_examples=40)


@cache
def paragraphs(seed):
    @cache
    def probabilities(ids):
        return stream(seed, "page", *ids).dirichlet([1, 1, 1, 3, 0.1, 0.1, 0.1, 0.1, 1])

    return probabilities


class Recorder(tt.FakeEngine):
    """Keeps what it is asked, and refuses what exceeds its context."""

    def __init__(self, seed, context=None):
        super().__init__(paragraphs(seed), PAGE)
        self.context, self.asked = context, []

    async def generate(self, requests, watches=MappingProxyType({})):
        for request in requests:
            self._note(request, len(request.prompt) + request.max_tokens)
        return await super().generate(requests, watches)

    async def logprobs(self, pairs):
        for pair in pairs:
            self._note(pair, len(pair[0]) + len(pair[1]))
        return await super().logprobs(pairs)

    def _note(self, asked, length):
        assert self.context is None or length <= self.context
        self.asked.append(asked)


def searched(engine, algorithm, seed, questions=QUESTIONS, **options):
    found = tt.search_sync(engine, questions, algorithm, step=STEP, seed=seed, **options)
    return dict(zip(questions, found, strict=True))


def told(results):
    """Return all that results say, nodes by their addresses."""

    def plain(nodes):
        return [(node.address(), node.ids, node.text, node.truncated) for node in nodes]

    return {
        name: (plain(each.solutions), each.weights, plain(each.nodes), each.cost, each.exhausted)
        for name, each in results.items()
    }


def split(found, chains):
    """Return the chains of a result by a second way: first answers hold the first places."""
    several = []
    for node in found.solutions:
        address = node.address()
        if len(address) == 1 and address[0] < chains:
            several.append([])
        several[-1].append(node)
    return several


@cache
def score(seed, before, after):
    """Return the log-probability of a text."""
    engine = tt.FakeEngine(paragraphs(seed), PAGE)
    (found,) = asyncio.run(engine.logprobs([(engine.encode(before), engine.encode(after))]))
    return sum(found)


def table(results):
    return tt.from_revisions(list(results.values()), GOLD, kind="number")


@given(
    seed=seeds, rounds=rounds_, cue=cues_, context=contexts,
    tokens=st.none() | st.integers(0, 40),
)  # fmt: skip
@laws
@example(seed=0, rounds=4, cue=("Wait", "ait"), context=18, tokens=None)
def test_a_grid_of_one_chain_asks_and_finds_what_revise_does(seed, rounds, cue, context, tokens):
    one, many = Recorder(seed, context), Recorder(seed, context)
    budget = tt.Budget(tokens=tokens)
    revised = searched(one, tt.revise(rounds, cue), seed, budget=budget)
    gridded = searched(many, tt.grid(1, rounds, cue), seed, budget=budget)
    assert one.asked == many.asked
    assert told(revised) == told(gridded)


@given(seed=seeds, chains=chains_, rounds=rounds_, cue=cues_, context=contexts)
@laws
def test_every_chain_of_a_grid_revises_its_own_answers_until_the_context_is_full(
    seed, chains, rounds, cue, context
):
    engine = Recorder(seed, context)
    first = searched(engine, tt.best_of_n(chains), seed)
    ends = searched(engine, tt.grid(chains, rounds, cue, last=True), seed)
    cues = [cue] if isinstance(cue, str) else cue
    for name, found in searched(engine, tt.grid(chains, rounds, cue), seed).items():
        several = split(found, chains)
        assert [chain[0].text for chain in several] == [n.text for n in first[name].solutions]
        assert [chain[-1].text for chain in several] == [n.text for n in ends[name].solutions]
        for chain in several:
            for before, after in itertools.pairwise(chain):
                kept = tt.kept_text(before.text)
                head = QUESTIONS[name] + (f"{kept}\n\n" if kept else "")
                likeliest = max(cues, key=lambda each, head=head: score(seed, head, each))
                assert QUESTIONS[name] + after.parent.text == head + likeliest
                assert after.text.startswith(after.parent.text)
            if len(chain) <= rounds:
                kept = tt.kept_text(chain[-1].text)
                longest = max(map(len, cues)) + len(f"{kept}\n\n" if kept else "")
                assert len(QUESTIONS[name]) + longest + STEP.max_tokens > context
    assert all(not found.exhausted for found in ends.values())


@given(seed=seeds, chains=chains_, rounds=rounds_, cue=cues_, context=contexts)
@laws
def test_a_table_of_chains_holds_each_chain_as_if_it_were_alone(seed, chains, rounds, cue, context):
    results = searched(Recorder(seed, context), tt.grid(chains, rounds, cue), seed)
    found = table(results)
    assert found.question.tolist() == [0] * chains + [1] * chains
    assert found.tokens.sum() == sum(each.cost.tokens for each in results.values())
    row = 0
    for name, result in results.items():
        for chain in split(result, chains):
            alone = table({name: replace(result, solutions=tuple(chain), nodes=tuple(chain))})
            assert found.alive[row].sum() == len(chain) == alone.alive.sum()
            assert found.tokens[row].tolist() == [
                *(len(node.ids) for node in chain), *[0] * (found.alive.shape[1] - len(chain))
            ]  # fmt: skip
            for column in range(found.alive.shape[1]):
                place = min(column, len(chain) - 1)
                assert found.correct[row, column] == alone.correct[0, place]
                assert (found.answer[row, column] < 0) == (alone.answer[0, place] < 0)
            row += 1
    texts = [node.text for node in results["short"].solutions]
    votes = tt.from_samples({"short": [(text, 1) for text in texts]}, GOLD, kind="number")
    assert found.answer[:chains][found.alive[:chains]].tolist() == votes.answer.tolist()


@given(seed=seeds, chains=chains_, order=st.permutations(range(4)), context=contexts)
@laws
def test_no_order_of_questions_or_chains_changes_a_chain(seed, chains, order, context):
    algorithm = tt.grid(chains, 2, ("Wait", "ait"))
    results = searched(Recorder(seed, context), algorithm, seed)
    turned = searched(Recorder(seed, context), algorithm, seed, dict(reversed(QUESTIONS.items())))
    assert told(turned) == told(results)
    plain, back = table(results), table(turned)
    for name in ("correct", "answer", "tokens", "alive"):
        ours, theirs = getattr(plain, name), getattr(back, name)
        np.testing.assert_array_equal(ours, np.roll(theirs, chains, axis=0))
    several = split(results["short"], chains)
    rows = [i for i in order if i < chains]
    moved = replace(results["short"], solutions=tuple(node for i in rows for node in several[i]))
    other = table({"short": moved, "long": results["long"]})
    for name in ("correct", "tokens", "alive"):
        np.testing.assert_array_equal(
            getattr(other, name)[:chains], getattr(plain, name)[:chains][rows]
        )


@pytest.mark.parametrize("last", [True, False])
def test_a_budget_leaves_the_answers_that_it_paid_for(last):
    algorithm, budget = tt.grid(2, 3, last=last), tt.Budget(tokens=1)
    (cut,) = searched(Recorder(0), algorithm, 0, {"short": "0"}, budget=budget).values()
    assert cut.exhausted
    assert [node.address() for node in cut.solutions] == [(0,), (1,)]
    assert table({"short": cut}).alive.tolist() == [[True], [True]]


@pytest.mark.parametrize(
    "algorithm",
    [
        tt.grid(3, 2, last=True),
        tt.grid(1, 1, last=True),
        tt.beam(4, 2),
        tt.force_budget(3, 6, end="W", answer="0"),
    ],
    ids=["last", "last of one", "beam", "forced"],
)
def test_solutions_that_are_no_chains_are_refused(algorithm):
    engine = tt.FakeEngine(lambda ids: np.full(len(PAGE), 1 / len(PAGE)), PAGE)
    step = tt.Step(stop=("\n",), max_tokens=4, max_steps=3)
    found = tt.search_sync(engine, {"short": "0"}, algorithm, step=step)
    with pytest.raises(ValueError, match="question 'short' has solutions that are no chains"):
        tt.from_revisions(found, GOLD)


def test_last_answers_are_no_chains_even_if_the_first_is_a_first_answer():
    """The first chain has no room for a revision, another one has."""
    engine = Recorder(0, context=18)
    (whole,) = searched(engine, tt.grid(4, 1), 0, {"short": "0"}).values()
    assert [len(chain) for chain in split(whole, 4)] == [1, 2, 2, 1]
    with pytest.raises(ValueError, match="that are no chains"):
        table(searched(engine, tt.grid(4, 1, last=True), 0, {"short": "0"}))


def test_mistakes_are_explained():
    for call, complaint in [
        (lambda: tt.grid(0, 1), r"chains \(0\) must be at least 1"),
        (lambda: tt.grid(1, -1), r"rounds \(-1\) at least 0"),
        (lambda: tt.grid(1, 1, ""), "cue is ''; it must be a text or several, none empty"),
        (lambda: tt.grid(1, 1, ()), r"cue is \(\); it must be"),
        (lambda: tt.revise(1, ("Wait", "")), r"cue is \('Wait', ''\); it must be"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            call()
