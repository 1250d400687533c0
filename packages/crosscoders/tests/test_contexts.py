"""Contexts of features, how much of them a feature needs, and phases, on the grown model."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core import count_ngrams
from meristem_core.testing import assert_close, seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Normalisation,
    context_length,
    fold_normalisation,
    ngram_phases,
    top_contexts,
)


def embedding(seed, *, vocabulary=11, S=2, D=3, F=6, gate="snapshot"):
    """A crosscoder over snapshots whose activation is the token's own embedding.

    All numbers are multiples of 1/16, so that codes are exact and equal tokens tie.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (16 * torch.randn(shape, generator=generator)).round() / 16

    table = draw(vocabulary, S, D)
    config = CrosscoderConfig(
        d_model=D, n_features=F, steps=tuple(range(S)), activation="jumprelu", gate=gate
    )
    crosscoder = Crosscoder(config)
    with torch.no_grad():
        for parameter in (crosscoder.W_enc, crosscoder.W_dec):
            parameter.copy_(draw(*parameter.shape))
    plain = Normalisation(scale=torch.ones(S), mean=torch.zeros(S, D))
    return fold_normalisation(crosscoder, plain).requires_grad_(False), lambda ids: table[ids]


@settings(max_examples=40)
@given(
    seed=seeds(), rows=st.integers(1, 7), T=st.integers(2, 9), n=st.integers(1, 5),
    width=st.integers(1, 12), drop=st.integers(0, 1), gate=st.sampled_from(("snapshot", "shared")),
)  # fmt: skip
def test_contexts_are_the_strongest_tokens_of_the_strongest_rows(
    seed, rows, T, n, width, drop, gate
):
    crosscoder, activations = embedding(seed, gate=gate)
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(0, 11, (rows, T)))
    found = top_contexts(crosscoder, activations, tokens, n=n, width=width, drop_first=drop)
    codes = crosscoder.encode(activations(tokens).flatten(0, 1)).value.unflatten(0, (rows, T))
    before = width - 1 - width // 4
    for i in range(6):
        y = codes[:, :, i].amax(-1) * crosscoder.norms()[i].max()
        y[:, :drop] = 0
        best = sorted(((float(-row.max()), r) for r, row in enumerate(y)))[:n]
        best = [(-value, r) for value, r in best if value < 0]
        assert found.counts()[i] == len(best)
        assert_close(found.strength[i, : len(best)], torch.tensor([v for v, _ in best]))
        for c, (_, r) in enumerate(best):
            at = int(y[r].argmax())
            assert (int(found.row[i, c]), int(found.position[i, c])) == (r, at)
            window = range(at - before, at - before + width)
            ids = [int(tokens[r, t]) if 0 <= t < T else -1 for t in window]
            assert found.tokens[i, c].tolist() == ids
            inside = [float(y[r, t]) if 0 <= t < T else 0.0 for t in window]
            assert_close(found.strengths[i, c], torch.tensor(inside))
            assert found.is_open[i, c].tolist() == (codes[r, at, i] != 0).tolist()
        assert (found.row[i, len(best) :] == -1).all()
        assert (found.tokens[i, len(best) :] == -1).all()
        assert not found.strengths[i, len(best) :].any()


def test_blocks_do_not_change_the_contexts(grown, monkeypatch):
    tokens = grown.tokens[:60]
    whole = top_contexts(grown.folded, grown.activations, tokens, n=4, width=8)
    monkeypatch.setattr("meristem_crosscoders._contexts.BLOCK_CODES", 12 * 96)
    monkeypatch.setattr("meristem_crosscoders._blocks.BLOCK_CODES", 96 * 4 * 5)
    parts = top_contexts(grown.folded, grown.activations, tokens, n=4, width=8)
    assert (whole.strength - parts.strength).abs().max() < 1e-4
    same = (whole.row == parts.row) & (whole.position == parts.position)
    assert same.double().mean() > 0.95  # a tie, up to rounding, may fall either way
    assert whole.to_frame()["feature"].size == 96 * 4


@given(seed=seeds(), reach=st.integers(1, 6))
@settings(max_examples=20)
def test_a_feature_of_r_tokens_needs_the_next_power_of_two(seed, reach):
    """Activation: do the last `reach` tokens hold no 0, and is token -1 a 1? Needs them all."""
    generator = np.random.default_rng(seed)
    tokens = torch.from_numpy(generator.integers(1, 3, (8, 9)))

    def activations(ids):
        out = torch.zeros(*ids.shape, 1, 1)
        for t in range(ids.shape[1]):
            if t + 1 >= reach:
                out[:, t, 0, 0] = (ids[:, t] == 1).float()
        return out

    crosscoder = Crosscoder(
        CrosscoderConfig(d_model=1, n_features=1, steps=(0,), activation="relu")
    )
    with torch.no_grad():
        crosscoder.W_enc.fill_(1)
        crosscoder.W_dec.fill_(1)
    plain = Normalisation(scale=torch.ones(1), mean=torch.zeros(1, 1))
    folded = fold_normalisation(crosscoder, plain).requires_grad_(False)
    contexts = top_contexts(folded, activations, tokens, n=5, width=4, drop_first=0)
    found = context_length(folded, activations, tokens, contexts)
    power = 1 << (reach - 1).bit_length()
    for place, length in zip(contexts.position[0].tolist(), found.length[0].tolist(), strict=True):
        assert length == (0 if place < 0 else min(power, place + 1))


def test_a_feature_of_the_subject_needs_more_context_than_one_of_the_word(grown):
    contexts = top_contexts(grown.folded, grown.activations, grown.tokens, n=6, width=8)
    found = context_length(grown.folded, grown.activations, grown.tokens, contexts)
    some = contexts.counts() > 0
    fired = grown.folded.encode(grown.activations(grown.tokens)[:, 1:].flatten(0, 1)).value != 0
    assert (some == fired.any(0).any(1)).all()
    assert (found.median[some] >= 1).all()
    assert (found.median[~some] == 0).all()
    assert ((found.length > 0) == (contexts.row >= 0)).all()
    assert found.median.max() >= 2  # the verb's number depends on a word before
    assert found.to_frame()["median"].size == 96


def test_phases_of_the_grown_model(grown):
    train = grown.tokens[:300].flatten().numpy()
    ngrams = count_ngrams([train], vocabulary=len(grown.words))
    found = ngram_phases(grown.models.__getitem__, list(grown.models), ngrams, grown.tokens[300:])
    loss = found.loss.mean(1)
    assert loss[0] > found.unigram_loss > found.bigram_loss > loss[-1]  # agreement is no bigram
    for divergence in (found.from_unigram, found.from_bigram, found.of_bigram):
        assert divergence.min() > -1e-5
    end = found.statistical_end(np.random.default_rng(0), n_resamples=50)
    assert end.low <= end.estimate <= end.high
    assert found.to_frame()["step"].tolist() == list(grown.models)
    assert found.from_bigram.shape == (4, 100)


def test_a_bigram_model_is_at_no_distance_from_its_bigrams():
    """A model whose logits are the interpolated bigrams: KL(q || p2) = 0, loss is the bigrams'."""
    ids = torch.randint(5, (4, 30), generator=torch.Generator().manual_seed(0))
    ngrams = count_ngrams([ids.flatten().numpy()], vocabulary=5)
    before, after = np.divmod(np.arange(25), 5)
    table = torch.from_numpy(ngrams.bigram_logprobs(before, after)).float().view(5, 5)
    head = torch.nn.Linear(5, 5, bias=False)

    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head
            with torch.no_grad():
                head.weight.copy_(torch.eye(5))

        def get_output_embeddings(self):
            return self.head

        def base_model(self, input_ids):
            return SimpleNamespace(last_hidden_state=table[input_ids])

        def forward(self, input_ids):
            return SimpleNamespace(logits=self.head(table[input_ids]))

    found = ngram_phases(lambda step: Bigram(), [0], ngrams, ids)
    assert found.from_bigram.abs().max() < 1e-6
    assert float(found.loss.mean()) == pytest.approx(found.bigram_loss, rel=1e-6)


def test_bad_input_is_refused(grown):
    with pytest.raises(ValueError, match="fold_normalisation"):
        top_contexts(grown.crosscoder, grown.activations, grown.tokens)
    with pytest.raises(ValueError, match="drop_first"):
        top_contexts(grown.folded, grown.activations, grown.tokens, drop_first=12)
    contexts = top_contexts(grown.folded, grown.activations, grown.tokens, n=1)
    with pytest.raises(ValueError, match="other tokens"):
        context_length(grown.folded, grown.activations, grown.tokens[:3], contexts)
