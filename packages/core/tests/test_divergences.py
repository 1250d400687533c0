"""Divergences from n-grams against the dense sums, in float64; needs torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_core import count_ngrams
from meristem_core.testing import assert_close, logits, seeds, token_ids

torch = pytest.importorskip("torch")

from meristem_core.torch import ngram_divergences, ngram_tables  # noqa: E402

V, N = 5, 6
texts = token_ids(st.integers(2, 40).map(lambda n: (n,)), vocab=V)


def p2_of(ngrams, u):
    row = np.zeros(V)
    part = slice(ngrams.row_start[u], ngrams.row_start[u + 1])
    if part.stop == part.start:
        return ngrams.unigram, ngrams.unigram
    row[ngrams.successor[part]] = ngrams.probability[part]
    return row, 0.9 * row + 0.1 * ngrams.unigram


def kl(p, q):
    kept = p > 0
    return float((p[kept] * (np.log(p[kept]) - np.log(q[kept]))).sum())


def measured(scores, previous, ngrams):
    logprobs = torch.from_numpy(scores).log_softmax(-1)
    tables = ngram_tables(ngrams, dtype=torch.float64)
    return logprobs.exp().numpy(), ngram_divergences(logprobs, torch.from_numpy(previous), tables)


@given(ids=texts, scores=logits((N, V)), previous=token_ids((N,), vocab=V))
def test_sparse_sums_equal_dense_ones(ids, scores, previous):
    ngrams = count_ngrams([ids], vocabulary=V)
    q, found = measured(scores, previous, ngrams)
    for n, u in enumerate(previous):
        plain, smooth = p2_of(ngrams, u)
        assert_close(found.from_unigram[n], kl(q[n], ngrams.unigram), scale=100.0)
        assert_close(found.from_bigram[n], kl(q[n], smooth), scale=100.0)
        assert_close(found.of_bigram[n], kl(plain, q[n]), scale=100.0)
        assert min(found.from_unigram[n], found.from_bigram[n], found.of_bigram[n]) > -1e-12


@given(ids=texts, previous=token_ids((N,), vocab=V))
def test_the_n_gram_models_are_at_distance_zero_from_themselves(ids, previous):
    ngrams = count_ngrams([ids], vocabulary=V)
    unigram = np.tile(np.log(ngrams.unigram), (N, 1))
    bigram = np.log([p2_of(ngrams, u)[1] for u in previous])
    assert_close(measured(unigram, previous, ngrams)[1].from_unigram, np.zeros(N), scale=10.0)
    assert_close(measured(bigram, previous, ngrams)[1].from_bigram, np.zeros(N), scale=10.0)


@given(ids=texts, scores=logits((N, V)), cut=st.integers(0, N), seed=seeds())
def test_positions_are_independent(ids, scores, cut, seed):
    ngrams = count_ngrams([ids], vocabulary=V)
    previous = np.random.default_rng(seed).integers(V, size=N)
    _, whole = measured(scores, previous, ngrams)
    parts = [measured(scores[part], previous[part], ngrams)[1] for part in _halves(cut)]
    joined = torch.cat([part.of_bigram for part in parts])
    assert_close(joined, whole.of_bigram, scale=100.0)


def _halves(cut):
    return (slice(0, cut), slice(cut, N)) if 0 < cut < N else (slice(0, N),)


def test_an_impossible_token_is_no_nan():
    ngrams = count_ngrams([np.array([0, 1, 2, 3, 4, 0])], vocabulary=V)
    scores = np.zeros((1, V))
    scores[0, 3] = -np.inf
    _, found = measured(scores, np.array([0]), ngrams)
    assert torch.isfinite(found.from_unigram).all()
    assert found.of_bigram.item() == pytest.approx(np.log(4))


def test_nan_and_another_vocabulary_are_refused():
    ngrams = count_ngrams([np.array([0, 1, 0])], vocabulary=V)
    tables = ngram_tables(ngrams, dtype=torch.float64)
    scores = torch.zeros(2, V, dtype=torch.float64).log_softmax(-1)
    scores[1, 2] = float("nan")
    with pytest.raises(ValueError, match="log-probability of position 1 is nan"):
        ngram_divergences(scores, torch.tensor([0, 1]), tables)
    with pytest.raises(ValueError, match="cover 7 tokens but the n-grams 5"):
        ngram_divergences(torch.zeros(1, 7, dtype=torch.float64), torch.tensor([0]), tables)
