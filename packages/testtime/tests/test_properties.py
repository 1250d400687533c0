"""Laws of votes, exact expectations and intervals."""

from fractions import Fraction
from itertools import combinations, permutations
from math import comb, log

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from meristem_testtime import (
    at_k,
    best_of,
    bon_at_k,
    borda,
    explain_smv,
    g_pass_at_k,
    interval,
    keep_top,
    longest_majority,
    maj_at_k,
    majority,
    pass_at_k,
    pass_hat_k,
    short_m,
    shortest_majority,
    vote,
    weighted,
)

samples = st.tuples(st.integers(-1, 3), st.integers(2, 40), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
questions = st.lists(st.lists(samples, min_size=1, max_size=7), min_size=1, max_size=3)
one = st.lists(samples, min_size=1, max_size=7)
RULES = [
    majority,
    shortest_majority,
    longest_majority,
    weighted("reward"),
    best_of("reward"),
    borda("reward"),
    keep_top("reward", majority, 0.5),
]
few = settings(max_examples=60)  # several variants, or many rules in each example
TIES = ["uniform", "loss", "win"]


def brute(rows, k, ties, right):
    """Mean credit of majority over all k-subsets, in exact rationals."""
    total = Fraction(0)
    for chosen in combinations(rows, k):
        counts = {}
        for answer, *_ in chosen:
            if answer >= 0:
                counts[answer] = counts.get(answer, 0) + 1
        top = [a for a, c in counts.items() if c == max(counts.values())]
        share = Fraction(sum(a in right for a in top), len(top)) if top else Fraction(0)
        total += {"uniform": share, "loss": Fraction(share == 1), "win": Fraction(share > 0)}[ties]
    return float(total / comb(len(rows), k))


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("right", [(0,), (0, 1), (0, 1, 2)])
@given(rows=one)
@example(rows=[(0, 2, 0.0), (1, 2, 0.0), (2, 2, 0.0), (0, 2, 0.0), (1, 2, 0.0), (-1, 2, 0.0)])
@few
def test_majority_at_k_is_the_mean_over_all_subsets(make, ties, right, rows):
    ks = range(1, len(rows) + 1)
    wanted = [brute(rows, k, ties, right) for k in ks]
    assert maj_at_k(make([rows], right), ks, ties=ties)[0] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("ties", TIES)
@given(several=questions)
@few
def test_majority_at_k_equals_the_enumeration_of_any_rule(make, ties, several):
    traces = make(several)
    ks = range(1, min(map(len, several)) + 1)
    found = at_k(traces, majority, ks, ties=ties)
    assert found.exact
    assert found.values == pytest.approx(maj_at_k(traces, ks, ties=ties), abs=1e-12)


@given(rows=one)
def test_every_class_or_none_wins(make, rows):
    ks = range(1, len(rows) + 1)
    classes = {answer for answer, *_ in rows if answer >= 0}
    empty = sum(answer < 0 for answer, *_ in rows)
    won = sum(maj_at_k(make([rows], (a,)), ks)[0] for a in classes)
    nobody = np.array([comb(empty, k) / comb(len(rows), k) for k in ks])
    assert won + nobody == pytest.approx(np.ones(len(rows)), abs=1e-12)


@given(several=questions)
@few
def test_bounds_and_ends(make, several):
    traces = make(several)
    n = min(map(len, several))
    ks = range(1, n + 1)
    middle, low, high = (maj_at_k(traces, ks, ties=ties) for ties in TIES)
    assert (low <= middle + 1e-12).all()
    assert (middle <= high + 1e-12).all()
    coverage, all_right = pass_at_k(traces, ks), pass_hat_k(traces, ks)
    assert (high <= coverage + 1e-12).all()
    assert (np.diff(coverage, axis=1) >= -1e-12).all()
    assert (np.diff(all_right, axis=1) <= 1e-12).all()
    accuracy = [np.mean([a == 0 for a, *_ in rows]) for rows in several]
    for found in (middle, coverage, all_right):
        assert found[:, 0] == pytest.approx(accuracy)
    for rule in RULES:
        assert (at_k(traces, rule, ks).values <= coverage + 1e-12).all()


@pytest.mark.parametrize("rule", RULES)
@given(rows=one, data=st.data())
@few
def test_the_order_of_samples_and_the_names_of_classes_are_irrelevant(make, rule, rows, data):
    ks = range(1, len(rows) + 1)
    shuffled = data.draw(st.permutations(rows))
    names = dict(enumerate(data.draw(st.permutations(range(4)))), **{}) | {-1: -1}
    renamed = [(names[answer], tokens, score) for answer, tokens, score in shuffled]
    before = at_k(make([rows]), rule, ks).values
    after = at_k(make([renamed], (names[0],)), rule, ks).values
    assert after == pytest.approx(before, abs=1e-12)


@given(rows=one)
def test_best_of_n_knows_its_ends(make, rows):
    ks = range(1, len(rows) + 1)
    verdict = make([[(a, t, float(a == 0)) for a, t, _ in rows]])
    opposite = make([[(a, t, -float(a == 0)) for a, t, _ in rows]])
    constant = make([[(a, t, 1.0) for a, t, _ in rows]])
    assert bon_at_k(verdict, ks, "reward") == pytest.approx(pass_at_k(verdict, ks))
    assert bon_at_k(opposite, ks, "reward") == pytest.approx(pass_hat_k(verdict, ks))
    alone = np.repeat(pass_at_k(verdict, [1]), len(rows), axis=1)
    assert bon_at_k(constant, ks, "reward") == pytest.approx(alone)


@given(rows=one)
def test_best_of_n_is_the_mean_over_all_subsets(make, rows):
    ks = range(1, len(rows) + 1)
    wanted = []
    for k in ks:
        credits = []
        for chosen in combinations(rows, k):
            best = max(score for *_, score in chosen)
            credits.append(np.mean([a == 0 for a, _, score in chosen if score == best]))
        wanted.append(np.mean(credits))
    assert bon_at_k(make([rows]), ks, "reward")[0] == pytest.approx(wanted, abs=1e-12)


@given(rows=one)
def test_launch_order_has_on_average_the_even_share_of_ties(make, rows):
    assume(len(rows) <= 5)
    orders = list(permutations(rows))
    first = vote(make(orders), majority, ties="first").correct.mean()
    assert first == pytest.approx(maj_at_k(make([rows]), [len(rows)])[0, 0], abs=1e-12)


@given(rows=one, length=st.integers(2, 10**6))
def test_equal_lengths_make_the_shortest_vote_a_majority(make, rows, length):
    traces = make([[(a, length, s) for a, _, s in rows]])
    ks = range(1, len(rows) + 1)
    found = at_k(traces, shortest_majority, ks).values
    assert found == pytest.approx(maj_at_k(traces, ks), abs=1e-12)


@given(a=st.integers(2, 6), b=st.integers(1, 5), la=st.integers(3, 10**9), lb=st.integers(3, 1000))
@example(a=2, b=1, la=9_000_001, lb=3000)
@example(a=2, b=1, la=8_999_999, lb=3000)
def test_the_shortest_vote_overturns_a_plurality_exactly_beyond_a_power(make, a, b, la, lb):
    assume(a > b)
    ratio, needed = log(la) / log(lb), a / b
    assume(abs(ratio - needed) > 1e-10)
    traces = make([[(1, la, 0.0)] * a + [(0, lb, 0.0)] * b])
    overturns = ratio > needed
    assert bool(vote(traces, shortest_majority).correct[0]) == overturns
    assert explain_smv(traces).overturn == float(overturns)


@given(rows=one, factor=st.floats(0.01, 100))
@few
def test_scaling_weights_changes_no_vote(make, rows, factor):
    scaled = make([[(a, t, s * factor) for a, t, s in rows]])
    ks = range(1, len(rows) + 1)
    before = at_k(make([rows]), weighted("reward"), ks).values
    assert at_k(scaled, weighted("reward"), ks).values == pytest.approx(before, abs=1e-12)


def test_scaling_lengths_can_change_the_shortest_vote(make):
    rows = [(1, 5, 0.0)] * 3 + [(0, 2, 0.0)] * 2
    scaled = [(a, 1000 * t, s) for a, t, s in rows]
    assert vote(make([rows]), shortest_majority).correct[0]
    assert not vote(make([scaled]), shortest_majority).correct[0]


@given(rows=one)
@few
def test_a_supporter_of_typical_length_keeps_the_winner(make, rows):
    traces = make([rows])
    for rule in (majority, shortest_majority, longest_majority):
        winner = int(vote(traces, rule, ties="none").answer[0])
        assume(winner >= 0)
        length = [t for a, t, _ in rows if a == winner]
        grown = [(a, t * len(length), s) for a, t, s in rows]
        before = int(vote(make([grown]), rule, ties="none").answer[0])
        assume(before >= 0)
        mine = sum(t for a, t, _ in rows if a == before)
        count = sum(a == before for a, *_ in rows)
        assume((mine * len(length)) % count == 0)
        more = [*grown, (before, mine * len(length) // count, 0.0)]
        assert int(vote(make([more]), rule, ties="none").answer[0]) == before


@given(rows=one, m=st.integers(1, 9))
@few
def test_short_m_of_all_is_a_majority(make, rows, m):
    assume(m >= len(rows))
    traces = make([rows])
    for ties in ("first", "shortest", "none"):
        found, wanted = vote(traces, short_m(m), ties=ties), vote(traces, majority, ties=ties)
        assert (found.answer == wanted.answer).all()


@given(several=questions)
def test_a_vote_says_how_it_was_won(make, several):
    traces = make(several)
    found = vote(traces, majority, ties="none")
    for q, rows in enumerate(several):
        counts = [sum(a == c for a, *_ in rows) for c in range(4)]
        assert found.tied[q] == (counts.count(max(counts)) if max(counts) else 0)
        assert found.score[q] == (max(counts) or -np.inf)
        if found.tied[q] == 1:
            assert found.answer[q] == int(np.argmax(counts))
        else:
            assert found.answer[q] == -1
            assert not found.correct[q]
    shares = explain_smv(traces)
    total = shares.same + shares.tie_break + shares.overturn + shares.unanswered
    assert total == pytest.approx(1.0)


@given(seed=st.integers(0, 100))
def test_random_orders_agree_with_the_exact_value(make, seed):
    rng = np.random.default_rng(seed)
    rows = [(int(rng.integers(-1, 3)), int(rng.integers(2, 90)), 0.0) for _ in range(17)]
    traces = make([rows])
    found = at_k(traces, majority, [1, 5, 17], draws=512, seed=seed)
    assert not found.exact
    error = np.abs(found.values - maj_at_k(traces, [1, 5, 17]))
    assert (error <= 5 * found.mc_se + 0.02).all()
    again = at_k(traces, majority, [1, 5, 17], draws=512, seed=seed)
    assert (again.values == found.values).all()


@given(rows=one, tau=st.floats(0.01, 1))
def test_g_pass_is_a_tail_of_subsets(make, rows, tau):
    traces, ks = make([rows]), range(1, len(rows) + 1)
    wanted = []
    for k in ks:
        least = max(-(-tau * k // 1), 1) if abs(tau * k - round(tau * k)) > 1e-9 else round(tau * k)
        hits = [sum(a == 0 for a, *_ in c) >= max(least, 1) for c in combinations(rows, k)]
        wanted.append(np.mean(hits))
    assert g_pass_at_k(traces, ks, tau)[0] == pytest.approx(wanted, abs=1e-12)


values = st.lists(st.floats(0, 1), min_size=2, max_size=12).map(np.array)


@given(x=values, seed=st.integers(0, 9))
def test_intervals_hold_their_mean_and_ignore_order(x, seed):
    found = interval(x, resamples=200, seed=seed)
    assert found.low <= found.mean + 0.5
    assert found.low <= found.high
    turned = interval(x[::-1].copy(), resamples=200, seed=seed)
    assert (turned.low, turned.high) == (found.low, found.high)
    self_difference = interval(x, minus=x, resamples=50)
    assert (self_difference.low, self_difference.mean, self_difference.high) == (0, 0, 0)


@given(c=st.floats(-5, 5), n=st.integers(2, 9))
def test_the_interval_of_a_constant_is_a_point(c, n):
    found = interval(np.full(n, c), resamples=50)
    assert found.low == pytest.approx(c, abs=1e-12)
    assert found.high == pytest.approx(c, abs=1e-12)


@given(x=values, copies=st.integers(2, 4))
def test_copies_within_a_cluster_add_no_certainty(x, copies):
    plain = interval(x, resamples=100, clusters=np.arange(x.size))
    repeated = interval(
        np.repeat(x, copies), resamples=100, clusters=np.repeat(np.arange(x.size), copies)
    )
    assert repeated.se == pytest.approx(plain.se, abs=1e-12)
    assert repeated.low == pytest.approx(plain.low, abs=1e-9)
