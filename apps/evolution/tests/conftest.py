"""Fixtures: a small explorer whose texts, norms and numbers are known, and its page."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from meristem_core.report import LineChart, Series, Text
from meristem_core.testing import data_dir, open_page, pytest_configure, xp  # noqa: F401
from meristem_evolution import Column, Contexts, Explorer, Features, render_explorer

STEPS = (0, 1, 4, 16, 64)
F, K, T = 60, 3, 12
WORDS = [
    " the",
    " cat",
    " sat",
    "s",
    " on",
    "ing",
    " Mat",
    ".",
    "\n",
    "é"[:1],
    " </script>",
    " a",
    "b",
]
EURO = "€".encode()  # cut into two tokens, as a byte-level tokenizer does
VOCABULARY = [word.encode() for word in WORDS] + [EURO[:1], EURO[1:]]


def _explorer(seed: int = 0, features: int = F) -> Explorer:
    """Return an explorer with drawn contexts; features 0 to 3 are of the four kinds."""
    rng = np.random.default_rng(seed)
    S = len(STEPS)
    kind = np.arange(features) % 4
    norms = rng.uniform(0.1, 1.0, (features, S))
    emergence = np.where(kind == 0, 0, rng.integers(1, S, features))
    tokens = rng.integers(0, 13, (features, K, T))
    euro = rng.integers(0, T - 1, (features, K))
    for f, k in np.ndindex(features, K):
        tokens[f, k, euro[f, k] : euro[f, k] + 2] = (13, 14)
    tokens[1, 2] = -1
    tokens[2, 0, :4] = -1
    activation = rng.gamma(2, 1, (features, K, T)) * (rng.random((features, K, T)) < 0.3)
    activation[:, 0, 6] = 9
    activation[tokens < 0] = 0
    directions = rng.normal(size=(features, S, 8))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    cosines = np.einsum("fsd,ftd->fst", directions, directions).clip(-1, 1)
    frequency = rng.permutation(features) / features
    return Explorer(
        title="Cats & mats",
        subtitle="drawn",
        steps=STEPS,
        features=Features(
            norms=norms,
            threshold=np.full((features, S), 0.5),
            kind=kind,
            emergence=np.where(kind == 3, -1, emergence),
            peak=np.where(kind == 3, -1, norms.argmax(1)),
            lifetime=rng.uniform(size=features),
            frequency=frequency,
            dimensionality=rng.uniform(size=features),
            cosines=cosines,
            neighbours=np.stack([(np.arange(features) + i) % features for i in (1, 2)], 1),
            similarity=rng.uniform(size=(features, 2)),
            contexts=Contexts(tokens=tokens, activation=activation, vocabulary=VOCABULARY),
            columns=[Column(name="task", values=rng.normal(size=features), note="drawn")],
        ),
        rotation=cosines.mean(0),
        turning=(4, 1, 16),
        overview=[
            LineChart(
                title="Dimensionality",
                x_label="step",
                y_label="share",
                series=[Series(name="total", x=STEPS, y=[1, 0.9, 0.5, 0.6, 0.8])],
            )
        ],
        about=[Text("drawn")],
    )


@pytest.fixture(scope="session")
def make_explorer():
    """Return the function that draws an explorer."""
    return _explorer


@pytest.fixture(scope="session")
def explorer() -> Explorer:
    """Return an explorer of 60 features."""
    return _explorer()


@pytest.fixture(scope="session")
def page_path(explorer, tmp_path_factory):
    """Return the explorer's page on disk."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_text(render_explorer(explorer), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def change():
    """Return a function that changes features of an explorer."""

    def changed(explorer: Explorer, **fields: object) -> Explorer:
        features = dataclasses.replace(explorer.features, **fields)
        return dataclasses.replace(explorer, features=features)

    return changed


@dataclasses.dataclass(frozen=True)
class Grown:
    """Snapshots of a small model that was trained on a corpus, and that corpus."""

    corpus: Path
    snapshots: Path
    steps: tuple[int, ...]

    @property
    def last(self) -> Path:
        """Return the folder of the last snapshot."""
        return self.snapshots / f"step-{self.steps[-1]}"


def _write_corpus(path: Path) -> list[str]:
    """Write documents whose words follow each other by a fixed Markov chain."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, size=rng.integers(2, 7))) for _ in range(120)]
    follow = rng.integers(120, size=(120, 3))
    texts: list[str] = []
    for _ in range(60):
        word, text = int(rng.integers(120)), []
        for _ in range(120):
            text.append(words[word])
            word = int(follow[word, rng.integers(3)])
        texts.append(" ".join(text) + ".")
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return texts


@pytest.fixture(scope="session")
def grown(tmp_path_factory) -> Grown:
    """Return five snapshots of a two-layer model, trained for 160 steps."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("grown")
    texts = _write_corpus(folder / "corpus.jsonl")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    ids = [i for text in texts for i in [*backend.encode(text).ids, 0]]
    rows = torch.tensor(ids[: len(ids) // 32 * 32]).view(-1, 32)
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    steps = (0, 4, 16, 60, 160)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(steps[-1] + 1):
            if step in steps:
                model.save_pretrained(folder / "snapshots" / f"step-{step}")
                tokenizer.save_pretrained(folder / "snapshots" / f"step-{step}")
            batch = rows[torch.randint(len(rows), (16,))]
            loss = model(input_ids=batch, labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Grown(corpus=folder / "corpus.jsonl", snapshots=folder / "snapshots", steps=steps)
