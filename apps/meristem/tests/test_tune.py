"""The stage that tunes a grown model: what it shows, and that finished ways are not repeated."""

import json
import shutil

from meristem.grow._config import SCALES


def test_every_rate_and_divergence_is_compared(grown):
    out, *_ = grown
    plan = SCALES["micro"].tuning
    tuning = json.loads((out / "result.json").read_text())["tuning"]
    assert len(tuning["cells"]) == len(plan.rates) * plan.divergences
    assert tuning["before"] < 0.1
    plain = [c for c in tuning["cells"] if c["divergence"] == "total variation"]
    best = max(plain, key=lambda c: c["after_sft"])
    assert best["after_sft"] > 10 * tuning["before"], "demonstrations teach something"
    assert all(cell["kl"] > 0 for cell in tuning["cells"])
    assert "Fine-tuning and preferences" in (out / "report.html").read_text()


def test_finished_ways_are_not_repeated(grown, tmp_path, command):
    whole, words, _ = grown
    out = shutil.copytree(whole, tmp_path / "run")
    journal = out / "tuning" / "cells.jsonl"
    before = journal.read_bytes()
    (out / "tuning" / "stage.json").unlink()
    lines = before.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    assert command(*words, "--out", out).returncode in (0, 1)
    assert journal.read_bytes() == before, "the missing way was done again, to the same bits"
