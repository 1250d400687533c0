"""A model that learns which name was said once, and the features that carry it."""

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Harvest,
    SnapshotSet,
    Splice,
    TrainConfig,
    ablate_curve,
    evaluate,
    fold_normalisation,
    initialise,
    integrated_gradients,
    ioi_pairs,
    restore_curve,
    train,
)
from meristem_crosscoders._tasks import IOI_TEMPLATES, NAMES, PLACES, THINGS

STEPS = (0, 100, 500)
KNOWN = 2400  # prompts that the model learns
SITE = "model.layers.0"
WORDS = sorted(
    {word for template in IOI_TEMPLATES for word in template.split() if "{" not in word}
    | {*NAMES, *THINGS}
    | {f"{place}," for place in PLACES}
)
IDS = {word: i for i, word in enumerate(WORDS)}


def encode(text):
    return [IDS[word] for word in text.split()]


@pytest.fixture(scope="module")
def language():
    """Pairs of the task; the model learns the first ones, the others are kept from it."""
    pairs = ioi_pairs(encode, n=KNOWN + 96, seed=0)
    assert pairs.dropped == 0
    return pairs


@pytest.fixture(scope="module")
def snapshots(language):
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, tie_word_embeddings=False,
        initializer_range=0.1, attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    known = language[:KNOWN]
    models = {}
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            models[step] = copy.deepcopy(model).eval().requires_grad_(False)
        rows = torch.randint(len(known), (64,), generator=generator)
        logits = model(known.clean[rows]).logits[torch.arange(64), known.last[rows]]
        loss = torch.nn.functional.cross_entropy(logits, known.clean_answer[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return SnapshotSet.from_modules(models, SITE)


@pytest.mark.slow
def test_few_features_carry_the_indirect_object_and_random_ones_do_not(language, snapshots):
    known, fresh = language[:KNOWN], language[KNOWN:]
    places = torch.arange(known.clean.shape[1])
    raw = Harvest(
        snapshots, known.clean.numpy(), mask=(places <= known.last[:, None]).numpy(),
        batch_tokens=256, window_tokens=4096, epochs=3, drop_first=1,
    )  # fmt: skip
    normalisation = raw.estimate_normalisation()
    harvest = raw.normalised(normalisation)
    crosscoder = Crosscoder(
        CrosscoderConfig(d_model=48, n_features=384, steps=STEPS, activation="topk", k=16)
    )
    initialise(crosscoder, next(harvest())[:64])
    train(crosscoder, harvest, TrainConfig(steps=300, lr=3e-3, penalty="none", dead_after=20_000))
    crosscoder.requires_grad_(False)
    assert evaluate(crosscoder, [next(harvest())]).explained_variance[-1] > 0.8
    folded = fold_normalisation(crosscoder, normalisation)

    def splice(step):
        return Splice(
            crosscoder=folded, activations=snapshots.activations, model=snapshots.model(step),
            site=SITE, step=step,
        )  # fmt: skip

    found = {step: integrated_gradients(splice(step), fresh[:48]) for step in STEPS}
    assert found[0].accuracy() < 0.7, "nothing is learned yet"
    assert found[STEPS[-1]].accuracy() > 0.9, "prompts that it has not seen"
    last, ks = found[STEPS[-1]], (0, 32, 384)
    curves = [
        draw(splice(STEPS[-1]), fresh[48:], last, rng=np.random.default_rng(0), ks=ks)
        for draw in (restore_curve, ablate_curve)
    ]
    restored, ablated = curves
    assert restored.faithfulness()[1] > restored.band()[1, 1] + 0.1
    assert ablated.faithfulness()[1] < ablated.band()[0, 1] - 0.1
