"""A small language whose verbs agree with their subjects, a model that learns it, a crosscoder."""

import copy
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from meristem_core.testing import data_dir, open_page, pytest_configure, xp  # noqa: F401
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    SnapshotSet,
    TrainConfig,
    estimate_normalisation,
    fold_normalisation,
    initialise,
    train,
)
from meristem_crosscoders._tasks import NOUNS, PLACES_BESIDE, VERBS

STEPS = (0, 20, 60, 300)
SERIES = (0, 5, 10, 20, 30, 45, 60, 90, 120, 200, 300)  # for the phases
SITE = "model.layers.0"
LENGTH = 12


class Words:
    """Each word is a token."""

    def __init__(self):
        texts = itertools.chain.from_iterable((*NOUNS, *VERBS, *PLACES_BESIDE))
        self.words = ["The", ".", *sorted({word for text in texts for word in text.split()})]
        self.ids = {word: i for i, word in enumerate(self.words)}

    def encode(self, text):
        return [self.ids[word] for word in text.split()]


@dataclass
class Grown:
    """Snapshots of one run, a crosscoder over them, and both kinds of activations."""

    encode: object
    words: list
    series: dict
    snapshots: SnapshotSet
    tokens: torch.Tensor
    crosscoder: Crosscoder
    folded: Crosscoder
    normalised: torch.Tensor
    site: str = SITE

    @property
    def models(self):
        return {step: self.snapshots.model(step) for step in self.snapshots.steps}

    def activations(self, tokens):
        return self.snapshots.activations(tokens)


def sentences(encode, rng, rows):
    """Rows of LENGTH tokens of sentences such as "The dogs near the car want ."."""
    out = []
    while len(out) < rows:
        ids = []
        while len(ids) < LENGTH:
            number = int(rng.integers(2))
            subject = NOUNS[rng.integers(len(NOUNS))][number]
            beside = PLACES_BESIDE[rng.integers(len(PLACES_BESIDE))][rng.integers(2)]
            verb = VERBS[rng.integers(len(VERBS))][number]
            between = beside if rng.random() < 0.5 else ""
            ids += encode(f"The {subject} {between} {verb} .")
        out.append(ids[:LENGTH])
    return torch.tensor(out)


@pytest.fixture(scope="session")
def grown():
    """Train for a few seconds."""
    words, rng = Words(), np.random.default_rng(0)
    config = LlamaConfig(
        vocab_size=len(words.words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        initializer_range=0.15,
        attn_implementation="eager",
        use_cache=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    models = {}
    for step in range(STEPS[-1] + 1):
        if step in SERIES:
            models[step] = copy.deepcopy(model).eval().requires_grad_(False)
        batch = sentences(words.encode, rng, 32)
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = sentences(words.encode, rng, 400)
    snapshots = SnapshotSet.from_modules({step: models[step] for step in STEPS}, SITE)
    raw = snapshots.activations(tokens)[:, 1:].flatten(0, 1)
    normalisation = estimate_normalisation(raw)
    x = normalisation.apply(raw)
    crosscoder = Crosscoder(
        CrosscoderConfig(d_model=32, n_features=96, steps=STEPS, activation="topk", k=6)
    )
    initialise(crosscoder, x[:512])
    order = torch.from_numpy(rng.permutation(len(x)))

    def batches(step):
        while True:
            yield x[order[torch.arange(step * 256, (step + 1) * 256) % len(x)]]
            step += 1

    train(
        crosscoder,
        batches,
        TrainConfig(steps=300, lr=3e-3, penalty="none", dead_after=20_000),
    )
    return Grown(
        encode=words.encode,
        words=words.words,
        series=models,
        snapshots=snapshots,
        tokens=tokens,
        crosscoder=crosscoder.requires_grad_(False),
        folded=fold_normalisation(crosscoder, normalisation).requires_grad_(False),
        normalised=x,
    )
