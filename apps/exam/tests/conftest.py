"""Fixtures: the command run in this process, and drawn evaluation results."""

import numpy as np
import pytest

from meristem_core.testing import data_dir, open_page, pytest_configure  # noqa: F401


@pytest.fixture
def sit(tmp_path, capsys):
    """Return a function that runs the command and returns exit code, stdout, stderr and folder."""
    from meristem_core.command import run_command
    from meristem_exam.__main__ import main

    def run(*words, out="report.html"):
        arguments = [*map(str, words), "--out", str(tmp_path / out)]
        code = run_command(main, arguments, name="meristem")
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def draw():
    """Return a function that draws 0/1 answers of a Rasch scale, with its abilities."""

    def make(rng, systems, items):
        theta, b = rng.normal(size=systems), rng.normal(size=items) * 1.5
        p = 1 / (1 + np.exp(b - theta[:, None]))
        return (rng.random(p.shape) < p).astype(int), theta, b

    return make


@pytest.fixture
def write():
    """Return a function that writes a wide table as CSV."""

    def make(path, table):
        rows = ["system," + ",".join(f"q{i}" for i in range(len(table[0])))]
        rows += [f"s{v}," + ",".join(map(str, row)) for v, row in enumerate(table)]
        path.write_text("\n".join(rows) + "\n")
        return path

    return make
