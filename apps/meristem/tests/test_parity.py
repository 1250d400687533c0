"""Our numbers against transformers' own, on a model with real structure."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from meristem.grow._config import SCALES
from meristem.grow._model import build_model
from meristem.grow._pretrain import learning_rate
from meristem.grow._score import continue_text, induction_gain
from meristem_core.testing import seeds
from meristem_core.torch import score_rows

SCALE = replace(SCALES["micro"], layers=1, width=16, vocabulary=40, context=12)
MODEL = build_model(SCALE, seed=1, end=0).eval()


@given(seed=seeds(), rows=st.integers(1, 70), width=st.integers(2, 12))
def test_losses_equal_the_models_own(seed, rows, width):
    ids = torch.from_numpy(np.random.default_rng(seed).integers(40, size=(rows, width)))
    ours = torch.cat([block.loss() for block in score_rows(MODEL, ids)])
    with torch.no_grad():
        theirs = MODEL(input_ids=ids, labels=ids).loss
    assert float(ours.mean()) == pytest.approx(float(theirs), rel=1e-5)


def test_blocks_are_the_rows_in_order_whatever_their_size(monkeypatch):
    ids = torch.from_numpy(np.random.default_rng(0).integers(40, size=(5, 9)))
    whole = torch.cat([block.logprobs for block in score_rows(MODEL, ids)])
    monkeypatch.setattr("meristem_core.torch._scoring.BLOCK_BYTES", 4 * 40 * 7)
    parts = list(score_rows(MODEL, ids))
    assert max(len(block.target) for block in parts) == 7
    assert torch.allclose(torch.cat([block.logprobs for block in parts]), whole, atol=1e-6)
    assert torch.equal(torch.cat([block.target for block in parts]), ids[:, 1:].flatten())
    assert torch.equal(torch.cat([block.previous for block in parts]), ids[:, :-1].flatten())


@given(steps=st.integers(20, 500), warmup=st.integers(1, 19))
def test_the_rate_equals_the_schedule_of_transformers(steps, warmup):
    scale = replace(SCALE, warmup=warmup, learning_rate=1.0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, warmup, steps, min_lr_rate=0.1
    ).lr_lambdas[0]
    for step in range(warmup, steps):
        assert learning_rate(step, steps, scale) == pytest.approx(schedule(step), abs=1e-9)


def test_a_model_that_cannot_look_back_gains_nothing_by_repetition():
    assert abs(induction_gain(MODEL, 12, seed=0)) < 0.1


def test_samples_follow_the_models_distribution():
    prompt = np.array([3, 1, 4])
    drawn = [continue_text(MODEL, prompt, tokens=1, seed=seed)[0] for seed in range(300)]
    with torch.no_grad():
        logits = MODEL(input_ids=torch.from_numpy(prompt)[None]).logits[0, -1] / 0.8
    expected = 300 * logits.softmax(0).numpy()
    counts = np.bincount(drawn, minlength=40)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 85, f"chi-square {chi_square:.1f} with 39 degrees of freedom"
