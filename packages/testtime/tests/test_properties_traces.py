"""Laws of confidence and of revision chains."""

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core import softmax_entropy
from meristem_core.testing import finite_vectors
from meristem_testtime import (
    Chains,
    chains_by_rounds,
    entropy_bound,
    equal_budget,
    maj_at_k,
    revisions,
    self_certainty,
    stationary,
    window_confidence,
    window_means,
)


@given(x=finite_vectors(min_size=1, bound=50.0), width=st.integers(1, 9))
def test_windows_equal_the_naive_sums(x, width):
    w = min(width, x.size)
    naive = [x[i : i + w].mean() for i in range(x.size - w + 1)]
    assert window_means(x, width) == pytest.approx(naive, abs=1e-10)


@given(x=finite_vectors(min_size=1, bound=50.0), width=st.integers(1, 9))
def test_the_lowest_window_is_below_the_bottom_and_that_below_the_mean(x, width):
    found = window_confidence(x, width)
    assert found.lowest <= found.bottom + 1e-12
    assert found.bottom <= window_means(x, width).mean() + 1e-9
    if width >= x.size:
        assert found.lowest == pytest.approx(x.mean(), abs=1e-9)
        assert found.tail == pytest.approx(found.mean, abs=1e-9)


@given(x=st.lists(st.floats(-6, 6), min_size=2, max_size=6), t=st.integers(1, 3))
def test_self_certainty_is_a_divergence_from_uniform(x, t):
    row = np.array(x)
    logprobs = np.tile(row - np.log(np.exp(row).sum()), (t, 1))
    found = self_certainty(logprobs)
    assert found >= -1e-12
    assert (found < 1e-9) == bool(np.ptp(row) < 1e-4) or found < 1e-7
    uniform = np.full((t, row.size), -np.log(row.size))
    assert self_certainty(uniform) == pytest.approx(0.0, abs=1e-12)


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 2**32))
def test_the_entropy_bound_rises_to_the_entropy(v, t, seed):
    logits = 3 * np.random.default_rng(seed).standard_normal((t, v))
    logprobs = -np.sort(-logits, 1)
    logprobs -= np.log(np.exp(logprobs).sum(1, keepdims=True))
    bounds = [entropy_bound(logprobs[:, :k]) for k in range(1, v + 1)]
    assert all((a <= b + 1e-12).all() for a, b in pairwise(bounds))
    assert bounds[-1] == pytest.approx(softmax_entropy(logits), abs=1e-12)
    even = entropy_bound(np.full((t, 1), -np.log(v)))
    assert even == pytest.approx(np.log(v))


@given(a=st.floats(0.01, 1), b=st.floats(0.01, 1), start=st.floats(0, 1))
def test_a_chain_of_two_states_tends_to_its_stationary_share(a, b, start):
    share = start
    for _ in range(3000):
        share = share * (1 - b) + (1 - share) * a
    assert share == pytest.approx(stationary(a, b), abs=1e-6) or a + b > 1.99


@st.composite
def chains(draw):
    count, rounds = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    shape = (count, rounds)
    answer = np.array(
        [[draw(st.integers(-1, 2)) for _ in range(rounds)] for _ in range(count)], np.int64
    )
    lived = np.array([draw(st.integers(1, rounds)) for _ in range(count)])
    return Chains(
        question=np.arange(count),
        answer=answer,
        correct=answer == 0,
        tokens=np.full(shape, 10),
        alive=np.arange(rounds)[None] < lived[:, None],
    )


@given(c=chains())
def test_rates_account_for_every_change_of_accuracy(c):
    found = revisions(c)
    held = found.accuracy * len(c.question)
    for r in range(1, c.answer.shape[1]):
        ran = c.alive[:, r]
        wrong = int((ran & ~c.correct[:, r - 1]).sum())
        right = int((ran & c.correct[:, r - 1]).sum())
        gain = (found.mended[r - 1] or 0) * wrong - (found.broken[r - 1] or 0) * right
        assert held[r] - held[r - 1] == pytest.approx(gain, abs=1e-9)
    assert (found.coverage >= found.accuracy - 1e-12).all()
    assert (np.diff(found.coverage) >= -1e-12).all()
    assert found.alive.tolist() == c.alive.sum(0).tolist()


@given(c=chains(), data=st.data())
@settings(max_examples=60)
def test_at_a_budget_for_everything_both_sides_use_everything(make, c, data):
    count = len(c.question)
    if count < 2:
        return
    rows = st.lists(st.tuples(st.integers(-1, 2), st.just(7), st.just(0.0)), min_size=3, max_size=3)
    parallel = make([data.draw(rows) for _ in range(count)])
    found = equal_budget(c, parallel, [1, 10_000], draws=8)
    assert (found.sequential[:, 0] == 0).all()
    assert (found.parallel[:, 0] == 0).all()
    last = c.alive.sum(1) - 1
    assert (found.sequential[:, 1] == c.correct[np.arange(count), last]).all()
    assert found.parallel[:, 1] == pytest.approx(maj_at_k(parallel, [3])[:, 0])


@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=4), budget=st.integers(1, 80))
@settings(max_examples=60)
def test_a_budget_buys_the_samples_that_fit_in_a_random_order(make, lengths, budget):
    """Against every order of samples, and every round of a chain, counted one by one."""
    rows = [(i % 2, length, 0.0) for i, length in enumerate(lengths)]
    chain = np.array(lengths)
    sequential = Chains(
        question=np.arange(2),
        answer=np.tile(np.arange(chain.size) % 2, (2, 1)),
        correct=np.tile(np.arange(chain.size) % 2 == 0, (2, 1)),
        tokens=np.tile(chain, (2, 1)),
        alive=np.ones((2, chain.size), bool),
    )
    found = equal_budget(sequential, make([rows, rows]), [budget], draws=2000)
    credits = []
    for order in permutations(rows):
        spent, votes = 0, [0, 0]
        for answer, length, _ in order:
            spent += length
            if spent > budget:
                break
            votes[answer] += 1
        credits.append(0.5 if votes[0] == votes[1] > 0 else float(votes[0] > votes[1]))
    assert found.parallel[:, 0] == pytest.approx([np.mean(credits)] * 2, abs=0.06)
    rounds = sum(int(chain[: i + 1].sum()) <= budget for i in range(chain.size))
    assert found.sequential[:, 0].tolist() == [float(rounds % 2 == 1)] * 2


@given(seed=st.integers(0, 10**6), most=st.integers(1, 4), rounds=st.integers(0, 3))
@settings(max_examples=20)
def test_chains_by_rounds_equals_the_vote_of_every_subset_of_chains(make, seed, most, rounds):
    """By enumeration; chains end at random, and questions come in any order."""
    rng = np.random.default_rng(seed)
    question = rng.permutation(np.repeat([0, 1], most))
    shape = (question.size, rounds + 1)
    answer = rng.integers(-1, 3, shape)
    lived = rng.integers(1, rounds + 2, question.size)
    c = Chains(
        question=question,
        answer=answer,
        correct=answer == 0,
        tokens=rng.integers(0, 9, shape),
        alive=np.arange(rounds + 1) < lived[:, None],
    )
    samples = make([[(int(a), 7, 0.0) for a in rng.integers(-1, 3, 5)] for _ in range(2)])
    cells = chains_by_rounds(c, samples)
    assert {(cell.chains, cell.rounds) for cell in cells} == {
        (m, r - 1)
        for m in {1, 2, 4, most} if m <= most
        for r in {1, 2, 4, rounds + 1} if r <= rounds + 1
    }  # fmt: skip
    for cell in cells:
        credit, spent = [], []
        for q in range(2):
            ends = [(i, min(cell.rounds, lived[i] - 1)) for i in np.flatnonzero(question == q)]
            every = list(combinations(ends, cell.chains))
            credit.append(np.mean([_vote([answer[end] for end in ends]) for ends in every]))
            spent.append(np.mean([sum(c.tokens[i, : r + 1].sum() for i, r in e) for e in every]))
        assert cell.accuracy.mean == pytest.approx(np.mean(credit))
        assert cell.tokens == pytest.approx(np.mean(spent))
        assert cell.answers == cell.chains * (cell.rounds + 1)
        if cell.rounds == 0 or cell.answers > 5:
            assert cell.minus_sampling is None
        else:
            plain = maj_at_k(samples, [cell.answers]).mean()
            assert cell.minus_sampling.mean == pytest.approx(np.mean(credit) - plain)


def _vote(answers):
    counts = np.bincount([a for a in answers if a >= 0], minlength=1)
    top = np.flatnonzero(counts == counts.max())
    return float(counts[0] == counts.max() > 0) / top.size


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"counts": [1, 3]}, r"counts are \[1, 3\]; give numbers from 1 to 2"),
        ({"rounds": [-1]}, r"rounds are \[-1\]; give numbers from 0 to 1"),
        ({"counts": []}, r"counts are \[\]"),
    ],
)
def test_numbers_that_no_chain_has_are_named(make, options, complaint):
    c = Chains(
        question=np.array([0, 0]),
        answer=np.zeros((2, 2), np.int64),
        correct=np.ones((2, 2), bool),
        tokens=np.ones((2, 2), np.int64),
        alive=np.ones((2, 2), bool),
    )
    with pytest.raises(ValueError, match=complaint):
        chains_by_rounds(c, make([[(0, 1, 0.0)]]), **options)
    with pytest.raises(ValueError, match="chains name 2 questions, the samples 2; every question"):
        chains_by_rounds(c, make([[(0, 1, 0.0)], [(0, 1, 0.0)]]))
