"""Weights and masks for samples that are not the policy's own, and the losses that use them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import meristem_losses as ml

F64 = torch.float64
MASK = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
ADV = torch.tensor([[1.3], [-0.7], [-0.2], [2.0]], dtype=F64)
NOTHING = torch.zeros(4, 4, dtype=F64)


def stats_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 4, 6, generator=generator, dtype=F64)
    targets = torch.arange(16).view(4, 4) % 6
    return ml.token_logprobs_from_logits(logits, targets, mask=MASK, entropy=True)


S = stats_of()


@given(seed=st.integers(0, 2**31), low=st.floats(0, 0.9), width=st.floats(0.2, 4))
def test_sampler_weights_mask_or_truncate(seed, low, width):
    old, engine, high = stats_of(seed).logprobs, stats_of(seed + 1).logprobs, low + width
    masked, cut = (
        ml.sampler_weights(S, old, engine, low=low, high=high, drop=drop) for drop in (True, False)
    )
    for i, t in MASK.nonzero().tolist():  # plain numbers as the oracle
        ratio = math.exp(float(old[i, t] - engine[i, t]))
        assert float(masked[i, t]) == pytest.approx(ratio if low <= ratio <= high else 0.0)
        assert float(cut[i, t]) == pytest.approx(min(max(ratio, low), high))
    whole = ml.sampler_weights(S, old, engine, low=0.0, high=math.inf, sequence=True)
    torch.testing.assert_close(whole[:, 0], (old - engine).sum(1).exp())


def test_responses_that_became_improbable_are_dropped_where_they_were_bad():
    engine = S.logprobs + MASK * torch.tensor([[9.0], [0.4], [0.6], [9.0]])
    kept = ml.off_policy_mask(S, engine, ADV, threshold=0.5)
    assert kept.tolist() == [[True], [True], [False], [True]]


@given(seed=st.integers(0, 2**31), fraction=st.floats(0, 1))
def test_the_tokens_of_highest_entropy_are_kept(seed, fraction):
    s = stats_of(seed)
    kept = ml.high_entropy_mask(s, fraction=fraction)
    assert not bool((kept & ~MASK).any())
    inside, outside = s.entropy[kept], s.entropy[MASK & ~kept]
    assert len(inside) >= max(1, fraction * (int(MASK.sum()) - 1))
    assert len(inside) <= 1 + fraction * (int(MASK.sum()) - 1)
    assert not len(outside) or inside.min() > outside.max()


def test_dual_importance_needs_ratios():
    weights = ml.sampler_weights(S, stats_of(1).logprobs, stats_of(2).logprobs)
    ratio = (S.logprobs - stats_of(1).logprobs).exp()
    found = ml.dual_importance_loss(S, stats_of(1).logprobs, ADV, weights)
    torch.testing.assert_close(found, -weights * ratio * ADV * S.logprobs * MASK)


def test_an_empty_response_counts_for_nothing():
    assert float(ml.rloo_loss(S, NOTHING, ADV)[3]) == 0
    assert not bool(ml.dual_importance_loss(S, NOTHING, ADV, torch.ones(4, 1))[3].any())
    none = ml.TokenStats(logprobs=NOTHING, lse=NOTHING, mask=MASK & False, entropy=NOTHING)
    assert not bool(ml.high_entropy_mask(none).any())


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.05, 50))
def test_optimal_values_lie_between_mean_and_maximum(rewards, beta):
    r = torch.tensor([rewards], dtype=F64)
    value = float(ml.optimal_values(r, beta=beta))
    assert float(r.mean()) - 1e-9 <= value <= float(r.max()) + 1e-9
    shifted = float(ml.optimal_values(r + 2, beta=beta))
    assert shifted == pytest.approx(value + 2, abs=1e-9)


TWO = ADV.repeat(1, 2)
NAN = S.logprobs * torch.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ml.sampler_weights(S, NOTHING, NAN), "mask that token"),
        (lambda: ml.sampler_weights(S, NOTHING, NOTHING, low=2.0, high=1.0), "low < high"),
        (lambda: ml.off_policy_mask(S, NOTHING, ADV, threshold=0.0), "threshold is 0.0"),
        (lambda: ml.off_policy_mask(S, NOTHING, TWO, threshold=1.0), "advantages have shape"),
        (lambda: ml.high_entropy_mask(S, fraction=1.5), "fraction is 1.5"),
        (lambda: ml.dual_importance_loss(S, NOTHING, ADV, ADV), "negative value"),
        (lambda: ml.dual_importance_loss(S, NOTHING, ADV, TWO), "weights have shape"),
        (lambda: ml.rloo_loss(S, NOTHING, NOTHING), "a response has one"),
        (lambda: ml.a2po_loss(ADV[:, 0], ADV[:, 0] * torch.nan), "non-finite"),
        (lambda: ml.optimal_values(ADV * torch.nan), "finite number"),
        (lambda: ml.optimal_values(ADV, beta=0.0), "beta is 0.0"),
    ],
)
def test_bad_input_gets_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
