"""Fixtures: a small corpus on disk, and the command run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meristem_core.testing import data_dir, open_page, pytest_configure, xp  # noqa: F401

WORDS = 400
DOCUMENTS = 80


def _write_corpus(folder: Path, *, documents: int = DOCUMENTS, seed: int = 0) -> Path:
    """Write documents whose words follow each other by a fixed Markov chain."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, size=rng.integers(2, 8))) for _ in range(WORDS)]
    follow = rng.integers(WORDS, size=(WORDS, 4))
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        word, text = int(rng.integers(WORDS)), []
        for _ in range(300):
            text.append(words[word])
            word = int(follow[word, rng.integers(4)])
        (folder / f"{number:03d}.txt").write_text(" ".join(text) + ".\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_corpus():
    """Return the function that writes a folder of documents."""
    return _write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Return a folder of 80 documents, about 130 kB."""
    return _write_corpus(tmp_path_factory.mktemp("corpus") / "words")


@pytest.fixture(scope="session")
def meristem():
    """Return a function that runs the command in a process of its own."""

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meristem", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )

    return run
