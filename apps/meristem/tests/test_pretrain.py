"""The training loop: resumption to the bit, micro-batches, processes, errors."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from meristem.grow._batches import plan_batches
from meristem.grow._config import SCALES, snapshot_steps
from meristem.grow._model import build_model, load_snapshot
from meristem.grow._pretrain import make_optimizer, pretrain, snapshot_path, train_step
from meristem.grow._tokens import END
from meristem_core import Journal
from meristem_core.command import UsageError
from meristem_core.torch import load_state

SCALE = replace(
    SCALES["micro"], layers=1, width=16, vocabulary=32, context=8, batch=4, micro_batch=4,
    steps=12, checkpoint_every=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    words = {END: 0, **{f"w{n}": n for n in range(1, 32)}}
    backend = Tokenizer(models.WordLevel(words, unk_token=END))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def batches_of(scale, steps=12):
    tokens = np.random.default_rng(0).integers(32, size=400).astype(np.uint16)
    return plan_batches(
        {"d": tokens}, {"d": 1.0}, steps=steps, batch=scale.batch, context=scale.context, seed=0
    )


def train(folder, tokenizer, scale=SCALE, progress=lambda *_: None):
    folder.mkdir(exist_ok=True)
    return pretrain(
        folder,
        scale=scale,
        batches=batches_of(scale),
        snapshots=snapshot_steps(scale.steps, 3),
        tokenizer=tokenizer,
        seed=0,
        accelerator=Accelerator(cpu=True),
        progress=progress,
    )


def weights(folder, step=12):
    return (snapshot_path(folder / "snapshots", step) / "model.safetensors").read_bytes()


class StopError(Exception):
    """Ends a run from its progress callback."""


@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, tokenizer, stop):
    whole = train(tmp_path / "whole", tokenizer)

    def stopper(done, total, metrics):
        if done == stop:
            raise StopError

    with pytest.raises(StopError):
        train(tmp_path / "cut", tokenizer, progress=stopper)
    resumed = train(tmp_path / "cut", tokenizer)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert resumed.snapshots == whole.snapshots
    records = [
        [(record["step"], record["loss"]) for record in Journal(tmp_path / run / "metrics.jsonl")]
        for run in ("whole", "cut")
    ]
    assert records[0] == records[1], "the loss curve has neither gaps nor repeats"


def test_a_snapshot_is_an_ordinary_hugging_face_model(tmp_path, tokenizer):
    train(tmp_path / "run", tokenizer)
    model = load_snapshot(snapshot_path(tmp_path / "run" / "snapshots", 12), context=8)
    saved = load_state(tmp_path / "run/checkpoints/step-00000012/training.safetensors")["model"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_micro_batches_do_not_change_the_step():
    rows = torch.from_numpy(batches_of(SCALE).at(0))
    found = []
    for micro_batch in (4, 1, 3):
        model = build_model(SCALE, seed=0, end=0).double()
        optimizer = make_optimizer(model, SCALE)
        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(model, optimizer)
        loss = train_step(model, optimizer, rows, 1e-3, micro_batch, accelerator)
        found.append((loss, model.state_dict()["lm_head.weight"].clone()))
    for loss, matrix in found[1:]:
        assert torch.allclose(loss, found[0][0], rtol=1e-6)
        assert torch.allclose(matrix, found[0][1], rtol=1e-6, atol=1e-9)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator():
    before = torch.random.get_rng_state()
    one, other = (build_model(SCALE, seed=5, end=0).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_diverging_run_says_so(tmp_path, tokenizer):
    wild = replace(SCALE, learning_rate=1e30, warmup=1)
    with pytest.raises(UsageError, match=r"the training loss is (nan|inf) at step \d+; the run"):
        train(tmp_path / "wild", tokenizer, scale=wild)


def test_a_damaged_checkpoint_is_named_and_kept(tmp_path, tokenizer):
    train(tmp_path / "run", tokenizer)
    damaged = tmp_path / "run/checkpoints/step-00000012/training.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(UsageError, match="step-00000012") as caught:
        train(tmp_path / "run", tokenizer)
    assert "\n" not in str(caught.value)
    assert damaged.read_bytes() == data


@pytest.mark.slow
def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, corpus):
    words = ["grow", "--scale", "micro", "--corpus", corpus, "--out", tmp_path / "run"]
    done = torchrun(3, *words, "--steps", 1, "--precision", "fp32")
    assert done.returncode != 0
    assert "3 processes cannot share a batch of 16 rows evenly" in done.stderr


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path, corpus):
    words = ["grow", "--scale", "micro", "--corpus", corpus, "--steps", 20, "--precision", "fp32"]
    curves = []
    for processes in (1, 2):
        out = tmp_path / f"run{processes}"
        done = torchrun(processes, *words, "--out", out)
        assert done.returncode == 0, done.stderr[-6000:]
        assert done.stdout.count("verdict: ") == 1, "one of the processes speaks"
        lines = (out / "pretrain" / "metrics.jsonl").read_text().splitlines()
        curves.append([json.loads(line)["loss"] for line in lines])
    one, two = map(np.array, curves)
    assert len(one) == 20
    assert np.abs(one - two).max() <= 1e-6 * one.max(), f"differ by {np.abs(one - two).max():.2g}"


def torchrun(processes, *words):
    script = str(Path(__file__).with_name("two_processes.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
