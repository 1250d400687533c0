"""Fixtures: a small corpus on disk, the command run as a user runs it, and a whole small run."""

import contextlib
import fcntl
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meristem.__main__ import main
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
def once(tmp_path_factory):
    """Return a function that makes a folder in the first of pytest's processes that needs it."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make) -> Path:
        folder, done = root / name, root / f"{name}.made"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def corpus(once) -> Path:
    """Return a folder of 80 documents, about 130 kB."""
    return once("words", _write_corpus)


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


@pytest.fixture(scope="session")
def command():
    """Return a function that runs the command in this process, without the imports' seconds."""
    from accelerate.state import AcceleratorState

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        arguments = list(map(str, words))
        AcceleratorState._reset_state(reset_partial_state=True)  # it is one for a whole process
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(arguments)
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def grown(once, corpus, meristem):
    """Return a finished run of 30 steps, the words that made it and what the command said."""
    words = ["grow", "--scale", "micro", "--steps", 30, "--corpus", corpus]

    def make(out: Path) -> None:
        done = meristem(*words, "--out", out)
        assert done.returncode in (0, 1), done.stderr
        out.with_suffix(".json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))

    out = once("grown", make)
    said = json.loads(out.with_suffix(".json").read_text())
    return out, words, subprocess.CompletedProcess(words, *said)
