"""A model that learns induction, and the features that carry it."""

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    SnapshotSet,
    Splice,
    TrainConfig,
    ablate_curve,
    estimate_normalisation,
    evaluate,
    fold_normalisation,
    induction_pairs,
    initialise,
    integrated_gradients,
    restore_curve,
    train,
)

VOCABULARY, LENGTH, STEPS = 16, 6, (0, 100, 400)
SITE = "model.layers.0"


def repeated(generator, rows, length):
    """Random tokens, each sequence twice; lengths vary, so that places do not give it away."""
    said = torch.rand(rows, VOCABULARY, generator=generator).argsort(1)[:, :length]
    return torch.cat([said, said], dim=1)


@pytest.fixture(scope="module")
def snapshots():
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, tie_word_embeddings=False,
        initializer_range=0.1, attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    models = {}
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            models[step] = copy.deepcopy(model).eval().requires_grad_(False)
        length = int(torch.randint(3, LENGTH + 4, (1,), generator=generator))
        ids = repeated(generator, 64, length)
        logits = model(ids[:, :-1]).logits[:, length:]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, length + 1 :].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return SnapshotSet.from_modules(models, SITE)


@pytest.mark.slow
def test_few_features_carry_induction_and_it_grows(snapshots):
    generator = torch.Generator().manual_seed(1)
    text = repeated(generator, 600, LENGTH)
    raw = snapshots.activations(text).flatten(0, 1)
    normalisation = estimate_normalisation(raw)
    x = normalisation.apply(raw)
    crosscoder = Crosscoder(
        CrosscoderConfig(d_model=32, n_features=256, steps=STEPS, activation="topk", k=12)
    )
    initialise(crosscoder, x[:512])

    def batches(step):
        while True:
            yield x[torch.randint(len(x), (256,), generator=generator)]
            step += 1

    train(crosscoder, batches, TrainConfig(steps=400, lr=3e-3, penalty="none", dead_after=20_000))
    assert evaluate(crosscoder, [x]).explained_variance[-1] > 0.8
    folded = fold_normalisation(crosscoder.requires_grad_(False), normalisation)
    pairs = induction_pairs(VOCABULARY, n=96, length=LENGTH, seed=0)
    found = {
        step: integrated_gradients(
            Splice(
                crosscoder=folded, activations=snapshots.activations, model=snapshots.model(step),
                site=SITE, step=step,
            ),
            pairs[:48],
        )
        for step in STEPS
    }  # fmt: skip
    accuracy = [found[step].accuracy() for step in STEPS]
    assert accuracy[0] < 0.75
    assert accuracy[-1] > 0.95
    metric = [float(found[step].clean.mean()) for step in STEPS]
    assert metric == sorted(metric)
    splice = Splice(
        crosscoder=folded, activations=snapshots.activations, model=snapshots.model(STEPS[-1]),
        site=SITE, step=STEPS[-1],
    )  # fmt: skip
    rng, ks = np.random.default_rng(0), (0, 8, 32, 256)
    restored = restore_curve(splice, pairs[48:], found[STEPS[-1]], rng=rng, ks=ks)
    ablated = ablate_curve(splice, pairs[48:], found[STEPS[-1]], rng=rng, ks=ks)
    assert restored.faithfulness()[2] > restored.band()[1, 2] + 0.1
    assert ablated.faithfulness()[2] < ablated.band()[0, 2] - 0.1
