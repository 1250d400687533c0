"""A real run killed at random moments: the same command goes on to the same bits."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("MERISTEM_KILL_SEED", "0"))


def snapshot_hashes(out):
    folders = sorted((out / "pretrain" / "snapshots").iterdir())
    return {
        folder.name: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        for folder in folders
    }


def command(corpus, out):
    words = [
        "grow",
        "--scale",
        "micro",
        "--steps",
        "300",
        "--corpus",
        str(corpus),
        "--out",
        str(out),
    ]
    return [sys.executable, "-m", "meristem", *words]


def test_a_run_killed_at_three_random_moments_ends_the_same(tmp_path, corpus):
    start = time.monotonic()
    whole = subprocess.run(command(corpus, tmp_path / "whole"), capture_output=True, check=False)
    seconds = time.monotonic() - start
    assert whole.returncode in (0, 1), whole.stderr
    drawn = random.Random(SEED)
    out = tmp_path / "killed"
    for _ in range(3):
        with subprocess.Popen(
            command(corpus, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(drawn.uniform(0.2, 0.9) * seconds)
            process.send_signal(signal.SIGKILL)
    last = subprocess.run(command(corpus, out), capture_output=True, text=True, check=False)
    assert last.returncode == whole.returncode, last.stderr
    assert snapshot_hashes(out) == snapshot_hashes(tmp_path / "whole")
    for name in ("0.json", "300.json"):
        assert (out / "phases" / name).read_bytes() == (
            tmp_path / "whole" / "phases" / name
        ).read_bytes()


def test_an_interrupt_ends_with_130_and_the_run_goes_on(tmp_path, corpus):
    out = tmp_path / "run"
    # a job in the background of a shell ignores interrupts, and its children with it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command(corpus, out), stderr=subprocess.PIPE, text=True) as process:
        while not (out / "pretrain" / "metrics.jsonl").exists():
            time.sleep(0.1)
            assert process.poll() is None, "the run ended before it was interrupted"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    done = subprocess.run(command(corpus, out), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
