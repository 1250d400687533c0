"""Stage 3: pre-train the model and keep log-then-linear snapshots of it.

- AdamW with betas (0.9, 0.95), weight decay 0.1 on matrices, gradient norm clipped at 1; linear
  warm-up, then a cosine down to a tenth of the rate
- one loop for 1 process, several (gradients averaged by accelerate) and GPUs; a step's batch is
  cut over processes and micro-batches, so the loss depends on neither
- snapshots are ordinary Hugging Face folders; a checkpoint holds weights and optimiser, which with
  the step number is all that a bit-exact continuation needs: rate and data are functions of it
"""

import math
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from meristem.grow._batches import Batches
from meristem.grow._config import Scale
from meristem.grow._model import build_model
from meristem_core import Journal, latest_checkpoint, save_checkpoint
from meristem_core.command import Progress, UsageError
from meristem_core.torch import load_state, save_state

LOGGED_POINTS = 400  # of the loss curve
FINAL_RATE = 0.1  # of the peak learning rate
CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """What training cost; snapshots, checkpoints and `metrics.jsonl` lie beside."""

    parameters: int
    steps: int
    snapshots: list[int]  # steps
    seconds: dict[str, float]  # of training, snapshots, checkpoints
    tokens_per_second: float  # while training
    passes: list[float]  # over each domain's training text
    processes: int


@dataclass(slots=True)
class Clock:
    """Seconds by activity, carried over from one session of a run to the next."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, activity: str) -> Generator[None, None, None]:
        """Add the time spent inside to an activity."""
        start = time.perf_counter()
        yield
        self.seconds[activity] = self.seconds.get(activity, 0.0) + time.perf_counter() - start


def pretrain(
    folder: Path,
    *,
    scale: Scale,
    batches: Batches,
    snapshots: list[int],
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    accelerator: Accelerator,
    progress: Progress,
) -> Pretrained:
    """Train for `snapshots[-1]` steps, from the last checkpoint in `folder` if there is one.

    Raises
    ------
    UsageError
        If the batch cannot be cut evenly over the processes, or the loss is not finite.
    """
    steps, world = snapshots[-1], accelerator.num_processes
    if scale.batch % world:
        raise UsageError(
            f"{world} processes cannot share a batch of {scale.batch} rows evenly; "
            f"use a number of processes that divides it"
        )
    end: Any = tokenizer.eos_token_id
    model = build_model(scale, seed=seed, end=end)
    optimizer = make_optimizer(model, scale)
    start, clock = _restore(folder / "checkpoints", model, optimizer)
    model, optimizer = accelerator.prepare(model, optimizer)
    bare = accelerator.unwrap_model(model)

    def save(step: int) -> None:
        state = {"model": bare.state_dict(), "optimizer": optimizer.state_dict()}
        save_checkpoint(
            folder / "checkpoints",
            step,
            lambda path: save_state(path / "training.safetensors", state),
            state={"seconds": clock.seconds},
        )

    log_every = max(1, steps // LOGGED_POINTS)
    main = accelerator.is_main_process
    with Journal(folder / "metrics.jsonl") if main else nullcontext() as journal:
        if journal is not None:
            journal.rewind(lambda record: record["step"] <= start)
        for step in range(start, steps + 1):
            if step in snapshots and main:
                with clock.measure("snapshots"):
                    save_snapshot(folder / "snapshots", step, bare, tokenizer)
            if step > start and step % scale.checkpoint_every == 0 and main:
                with clock.measure("checkpoints"):
                    save(step)
            if step == steps:
                break
            with clock.measure("training"):
                rate = learning_rate(step, steps, scale)
                rows = torch.from_numpy(batches.at(step)[accelerator.process_index :: world])
                loss = train_step(model, optimizer, rows, rate, scale.micro_batch, accelerator)
                if (step + 1) % log_every == 0 or step + 1 == steps:
                    mean: Any = accelerator.reduce(loss, "mean")
                    value = _finite(mean.item(), step)
                    metrics = {"loss": value, "learning_rate": rate}
                    if journal is not None:
                        journal.append({"step": step + 1, **metrics}, sync=False)
                        progress(step + 1, steps, metrics)
    tokens = steps * scale.batch * scale.context
    return Pretrained(
        parameters=sum(each.numel() for each in bare.parameters()),
        steps=steps,
        snapshots=snapshots,
        seconds=clock.seconds,
        tokens_per_second=tokens / clock.seconds["training"],
        passes=batches.passes(steps),
        processes=world,
    )


def train_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: Int[Tensor, "batch context_and_one"],
    rate: float,
    micro_batch: int,
    accelerator: Accelerator,
) -> Float[Tensor, ""]:
    """Take one optimiser step on this process's rows and return their mean loss in nats a token."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    parts = rows.to(accelerator.device, non_blocking=True).split(micro_batch)
    total = torch.zeros((), device=accelerator.device)
    for index, part in enumerate(parts):
        last = index + 1 == len(parts)
        with nullcontext() if last else accelerator.no_sync(model):
            logits = model(input_ids=part[:, :-1]).logits
            loss = cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
            loss = loss * (len(part) / len(rows))
            accelerator.backward(loss)
        total += loss.detach()
    accelerator.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return total


def make_optimizer(model: PreTrainedModel, scale: Scale) -> torch.optim.Optimizer:
    """Return fused AdamW with weight decay on matrices only."""
    matrices = [each for each in model.parameters() if each.ndim > 1]
    vectors = [each for each in model.parameters() if each.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=scale.learning_rate, betas=(0.9, 0.95), fused=True)


def learning_rate(step: int, steps: int, scale: Scale) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to a tenth of the peak."""
    warmup = min(scale.warmup, steps)
    if step < warmup:
        return scale.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return scale.learning_rate * (
        FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))
    )


def snapshot_path(folder: Path, step: int) -> Path:
    """Return where the snapshot of a step lies."""
    return folder / f"step-{step:09d}"


def save_snapshot(
    folder: Path, step: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Save an ordinary Hugging Face checkpoint, whole or not at all."""
    target = snapshot_path(folder, step)
    if target.exists():
        return
    partial = folder / f".partial-{target.name}"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def _restore(
    folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[int, Clock]:
    """Load the last checkpoint, if there is one, and return its step and clock."""
    try:
        checkpoint = latest_checkpoint(folder)
        if checkpoint is None:
            return 0, Clock()
        saved = load_state(checkpoint.path / "training.safetensors")
    except ValueError as error:
        raise UsageError(str(error)) from error
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return checkpoint.step, Clock(dict(checkpoint.state["seconds"]))


def _finite(loss: float, step: int) -> float:
    if math.isfinite(loss):
        return loss
    raise UsageError(
        f"the training loss is {loss} at step {step + 1}; the run diverged, try --precision fp32"
    )
