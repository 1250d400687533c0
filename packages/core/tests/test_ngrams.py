"""Unigrams and bigrams: examples by hand, laws, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_core import count_ngrams
from meristem_core.testing import assert_close, token_ids

V = 5
texts = token_ids(st.integers(2, 40).map(lambda n: (n,)), vocab=V)


def dense(ngrams):
    """Return p2 as a matrix; a row that was never seen is p1."""
    table = np.tile(ngrams.unigram, (V, 1))
    for u in range(V):
        row = slice(ngrams.row_start[u], ngrams.row_start[u + 1])
        if row.stop > row.start:
            table[u] = 0
            table[u, ngrams.successor[row]] = ngrams.probability[row]
    return table


def test_counts_by_hand():
    found = count_ngrams([np.array([0, 1, 0, 1, 1])], vocabulary=3)
    assert_close(found.unigram, np.array([3, 4, 1]) / 8)
    assert dense_of(found, 0).tolist() == [0, 1, 0]
    assert dense_of(found, 1).tolist() == [0.5, 0.5, 0]
    assert found.unigram_entropy == pytest.approx(-(0.4 * np.log(0.4) + 0.6 * np.log(0.6)))
    assert found.bigram_entropy == pytest.approx(0.5 * np.log(2))


def dense_of(ngrams, u):
    row = np.zeros(ngrams.unigram.size)
    part = slice(ngrams.row_start[u], ngrams.row_start[u + 1])
    row[ngrams.successor[part]] = ngrams.probability[part]
    return row


@given(ids=texts)
def test_rows_are_distributions_and_context_never_hurts(ids):
    found = count_ngrams([ids], vocabulary=V)
    assert_close(found.unigram.sum(), 1.0)
    assert_close(dense(found).sum(1), np.ones(V))
    # over the pairs alone, the entropy given the token before is at most that of the second token
    second = np.bincount(ids[1:], minlength=V) / (ids.size - 1)
    marginal = -(second[second > 0] * np.log(second[second > 0])).sum()
    assert 0 <= found.bigram_entropy <= marginal + 1e-12


@given(ids=texts, times=st.integers(1, 3))
def test_a_text_mixed_with_itself_changes_only_the_smoothing(ids, times):
    once = count_ngrams([ids], vocabulary=V)
    mixed = count_ngrams([ids] * times, vocabulary=V, weights=[0.5] * times)
    assert_close(mixed.probability, once.probability)
    assert_close(mixed.bigram_entropy, once.bigram_entropy, scale=10.0)
    assert_close(mixed.unigram_entropy, once.unigram_entropy, scale=10.0)


@given(ids=texts, previous=st.integers(0, V - 1))
def test_interpolated_bigrams_sum_to_one(ids, previous):
    found = count_ngrams([ids], vocabulary=V)
    following = np.arange(V)
    logs = found.bigram_logprobs(np.full(V, previous), following)
    assert_close(np.exp(logs).sum(), 1.0)
    share = np.where((np.diff(found.row_start) > 0)[previous], 0.9, 0.0)
    assert_close(np.exp(logs), share * dense(found)[previous] + (1 - share) * found.unigram)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, r"texts is empty"),
        ({"texts": [np.array([1])]}, r"texts\[0\] has 1 tokens; a bigram needs at least 2"),
        ({"texts": [np.array([0, 5])]}, r"ids from 0 to 5; they must lie in \[0, 5\)"),
        (
            {"texts": [np.array([0, 1])], "weights": [0.0]},
            r"weights .* must be 1 positive",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        count_ngrams(vocabulary=V, **arguments)
