"""What makes planted features fire is found."""

import numpy as np
import pytest
import torch

from meristem_crosscoders import (
    TRIGGERS,
    Crosscoder,
    CrosscoderConfig,
    Normalisation,
    context_length,
    feature_triggers,
    fold_normalisation,
    top_contexts,
)

VOCABULARY, S, LONG = 40, 2, 24
PLANTED = ("token", "previous", "induction", "context")


def signals(tokens):
    """Return what the planted features read: four numbers a token, 0 or 1."""
    before = tokens.roll(1, 1)
    before[:, 0] = -1
    seen = torch.stack(
        [(tokens[:, :t] == tokens[:, t, None]).any(1) for t in range(tokens.shape[1])]
    )
    odd = (tokens % 2).cumsum(1)
    odd[:, LONG:] -= odd[:, :-LONG].clone()
    full = torch.arange(tokens.shape[1]) >= LONG - 1
    parts = (tokens == 3, before == 5, seen.T & (tokens > 19), (odd <= 7) & full)
    return torch.stack(parts, -1).float()


def activations(tokens):
    return signals(tokens)[:, :, None].expand(-1, -1, S, -1)


@pytest.fixture(scope="module")
def planted():
    config = CrosscoderConfig(d_model=4, n_features=5, steps=(0, 1), activation="relu")
    crosscoder = Crosscoder(config)
    with torch.no_grad():
        crosscoder.W_enc.zero_()[:4] = torch.eye(4)[:, None] / S
        crosscoder.W_dec.zero_()[:4] = torch.eye(4)[:, None]
        crosscoder.b_enc[4] = -1  # never fires
    plain = Normalisation(scale=torch.ones(S), mean=torch.zeros(S, 4))
    return fold_normalisation(crosscoder, plain).requires_grad_(False)


def found(planted, seed):
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(rng.integers(0, VOCABULARY, (64, 48)))
    contexts = top_contexts(planted, activations, tokens, n=4)
    length = context_length(planted, activations, tokens, contexts).median
    triggers = feature_triggers(
        planted, activations, contexts, np.arange(VOCABULARY), rng=rng, half=16
    )
    return triggers, length


@pytest.mark.parametrize("seed", range(3))
def test_planted_features_are_told_apart(planted, seed):
    triggers, length = found(planted, seed)
    kinds = [TRIGGERS[place] for place in triggers.kind(length)]
    assert kinds == [*PLANTED, "other"], triggers.to_frame()
    assert triggers.token[0] == triggers.previous[1] == 1
    assert triggers.repeated[2] > 2 * triggers.fresh[2]


def test_bad_numbers_are_refused(planted):
    tokens = torch.zeros(2, 8, dtype=torch.int64)
    contexts = top_contexts(planted, activations, tokens, n=1, width=4)
    with pytest.raises(ValueError, match=r"windows \(4 tokens\) at least 5"):
        feature_triggers(planted, activations, contexts, np.arange(9), rng=np.random.default_rng(0))
