"""Pre-training speed: our loop, a bare PyTorch loop and transformers' Trainer, side by side.

    uv run --no-sync python apps/meristem/benchmarks/pretrain.py [--rounds 9] [--steps 20]

All three train the same model class from the same weights on the same batches with the same
optimiser and precision; their losses are compared before their times are. Each round runs the
three in turn, so a slow moment of the machine hits all of them; ratios are taken round by round.
The last table is one `meristem grow --scale tiny` pre-training stage: what snapshots, checkpoints
and one resumption cost.
"""

import argparse
import copy
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from meristem.grow._batches import Batches, plan_batches
from meristem.grow._config import SCALES, snapshot_steps
from meristem.grow._corpus import build_corpus
from meristem.grow._model import build_model, native_bfloat16
from meristem.grow._pretrain import learning_rate, make_optimizer, pretrain, train_step
from meristem.grow._tokens import build_tokens, load_tokenizer, load_tokens

SCALE = SCALES["tiny"]


class Ours:
    """The loop of `meristem grow`: planned batches, accelerate, a loss that is checked."""

    def __init__(self, model, batches: Batches, bf16: bool) -> None:
        self.accelerator = Accelerator(cpu=True, mixed_precision="bf16" if bf16 else "no")
        self.optimizer = make_optimizer(model, SCALE)
        self.model, self.optimizer = self.accelerator.prepare(model, self.optimizer)
        self.batches, self.step = batches, 0

    def run(self, steps: int) -> float:
        for _ in range(steps):
            rows = torch.from_numpy(self.batches.at(self.step))
            rate = learning_rate(self.step, SCALE.steps, SCALE)
            loss = train_step(
                self.model, self.optimizer, rows, rate, SCALE.micro_batch, self.accelerator
            )
            self.step += 1
        return loss.item()


class Bare:
    """The least a PyTorch loop can do: batches lie in memory, nothing is logged."""

    def __init__(self, model, rows: torch.Tensor, bf16: bool) -> None:
        self.model, self.rows, self.bf16, self.step = model, rows, bf16, 0
        self.optimizer = make_optimizer(model, SCALE)

    def run(self, steps: int) -> float:
        for _ in range(steps):
            rows = self.rows[self.step]
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.step, SCALE.steps, SCALE)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                logits = self.model(input_ids=rows[:, :-1]).logits
            loss = cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
        return loss.item()


class Rows(torch.utils.data.Dataset):
    """The same batches in the form that Trainer takes."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows.flatten(0, 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        # Trainer shifts the labels itself: context + 1 tokens give context predictions
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


class InOrderTrainer(Trainer):
    """Trainer without shuffling, so that all three see the same batches."""

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Clock(TrainerCallback):
    """Times the steps alone, without Trainer's start."""

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == 0:
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.seconds = time.perf_counter() - self.start


class Peer:
    """transformers' Trainer with the same optimiser, schedule, clipping and precision."""

    def __init__(self, model, rows: torch.Tensor, bf16: bool) -> None:
        self.model, self.rows, self.bf16, self.step = model, rows, bf16, 0
        self.optimizer = make_optimizer(model, SCALE)

    def run(self, steps: int) -> tuple[float, float]:
        first = self.step
        schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: learning_rate(first + step, SCALE.steps, SCALE) / SCALE.learning_rate,
        )
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = InOrderTrainer(
                model=self.model,
                args=TrainingArguments(
                    output_dir=folder,
                    max_steps=steps,
                    per_device_train_batch_size=SCALE.batch,
                    bf16=self.bf16,
                    use_cpu=True,
                    max_grad_norm=1.0,
                    logging_strategy="no",
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    dataloader_pin_memory=False,
                ),
                train_dataset=Rows(self.rows[first : first + steps]),
                optimizers=(self.optimizer, schedule),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            result = trainer.train()
        self.step += steps
        return clock.seconds, result.training_loss


def main() -> None:
    """Run the rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20, help="steps of each loop in a round")
    options = parser.parse_args()
    bf16 = native_bfloat16()
    with tempfile.TemporaryDirectory() as folder:
        batches, tokenizer = prepare(Path(folder))
        steps = options.steps * (options.rounds + 1)
        rows = torch.from_numpy(np.stack([batches.at(step) for step in range(steps)]))
        model = build_model(SCALE, seed=0, end=0)
        loops = {
            "meristem grow": Ours(copy.deepcopy(model), batches, bf16),
            "bare PyTorch loop": Bare(copy.deepcopy(model), rows, bf16),
            "transformers Trainer": Peer(copy.deepcopy(model), rows, bf16),
        }
        speeds = race(loops, options.rounds, options.steps)
        print(heading(bf16))
        print(speed_table(speeds))
        print(overhead_table(Path(folder) / "stage", batches, tokenizer, bf16))


def prepare(folder: Path) -> tuple[Batches, object]:
    """Return the tiny scale's batches on this Python's own text, and the tokenizer."""
    texts, tokens = folder / "corpus", folder / "tokens"
    texts.mkdir()
    tokens.mkdir()
    corpus = build_corpus(texts, sources=(), encoding="utf-8", seed=0, max_characters=10**9)
    build_tokens(tokens, corpus=corpus, texts=texts, vocabulary=SCALE.vocabulary)
    batches = plan_batches(
        {domain.name: load_tokens(tokens, domain.name, "train") for domain in corpus.domains},
        {domain.name: domain.weight for domain in corpus.domains},
        steps=SCALE.steps,
        batch=SCALE.batch,
        context=SCALE.context,
        seed=0,
    )
    return batches, load_tokenizer(tokens)


def race(loops: dict, rounds: int, steps: int) -> dict[str, list[float]]:
    """Return tokens per second of each loop and round; the first round warms up and is dropped."""
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        order = list(loops) if turn % 2 else list(reversed(loops))
        losses: dict[str, float] = {}
        for name in order:
            start = time.perf_counter()
            result = loops[name].run(steps)
            seconds = time.perf_counter() - start
            if isinstance(result, tuple):  # Trainer's own start is not counted
                seconds = result[0]
            else:
                losses[name] = result
            if turn:
                speeds[name].append(steps * SCALE.batch * SCALE.context / seconds)
        ours, bare = losses["meristem grow"], losses["bare PyTorch loop"]
        if not np.isclose(ours, bare, rtol=0.01):
            raise SystemExit(f"losses differ in round {turn}: ours {ours}, bare {bare}")
    return speeds


def speed_table(speeds: dict[str, list[float]]) -> str:
    """Return the Markdown table of speeds and of our ratio to each peer."""
    ours = speeds["meristem grow"]
    lines = ["| loop | tokens/s, median | ours / it, median (min-max) |", "|---|---|---|"]
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(ours, values, strict=True)]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        lines.append(f"| {name} | {statistics.median(values):,.0f} | {spread} |")
    return "\n".join(lines) + "\n"


def overhead_table(folder: Path, batches: Batches, tokenizer, bf16: bool) -> str:
    """Return what snapshots, checkpoints and one resumption cost in a whole tiny stage."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if bf16 else "no")
    options = {
        "scale": SCALE,
        "batches": batches,
        "snapshots": snapshot_steps(SCALE.steps, SCALE.linear_snapshots),
        "tokenizer": tokenizer,
        "seed": 0,
        "accelerator": accelerator,
        "progress": lambda done, total, metrics: None,
    }
    folder.mkdir()
    found = pretrain(folder, **options)
    start = time.perf_counter()
    pretrain(folder, **options)  # nothing is left to train: this is the cost of a resumption
    resume = time.perf_counter() - start
    seconds = found.seconds
    whole = sum(seconds.values())
    rows = [
        ("training", seconds["training"]),
        (f"{len(found.snapshots)} snapshots", seconds["snapshots"]),
        (f"{SCALE.steps // SCALE.checkpoint_every} checkpoints", seconds["checkpoints"]),
        ("one resumption", resume),
    ]
    lines = ["| part of the pre-training stage | seconds | share |", "|---|---|---|"]
    lines += [f"| {name} | {value:.2f} | {100 * value / whole:.1f} % |" for name, value in rows]
    return "\n".join(lines)


def heading(bf16: bool) -> str:
    """Return versions and machine."""
    names = ("meristem", "torch", "transformers", "accelerate")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{time.strftime('%Y-%m-%d')}; {versions}; Python {platform.python_version()}; "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{'bf16' if bf16 else 'fp32'}; tiny: {SCALE.batch} x {SCALE.context} tokens a step\n"
    )


if __name__ == "__main__":
    main()
