"""Train a crosscoder in one process, resumable bit for bit.

- Adam; linear warm-up, constant, linear cool-down; thresholds have a smaller learning rate
- the sparsity weight grows linearly over the first steps
- batches are a function of the step, so that a resumed run sees the ones it has not seen
- a checkpoint holds the crosscoder, the optimiser and how long each feature has been silent

Shape letters: B tokens, F features, S snapshots, D width.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_core import Checkpoint, latest_checkpoint, save_checkpoint
from meristem_core.torch import load_state, save_state
from meristem_crosscoders._files import load_crosscoder, save_crosscoder
from meristem_crosscoders._losses import (
    auxk_loss,
    l1_penalty,
    preactivation_penalty,
    reconstruction_error,
    strengths,
    tanh_penalty,
    tanh_quad_penalty,
)
from meristem_crosscoders._model import Codes, Crosscoder

Batches = Callable[[int], Iterator[Float[Tensor, "B S D"]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train.

    Penalty, its weight and the shape of the schedule are those of the script of arXiv 2509.17196.

    Parameters
    ----------
    steps
        Number of batches, at least 1.
    lr, threshold_lr_ratio
        Peak learning rate, and the thresholds' as a share of it.
    warmup, cooldown, final_lr_ratio
        Shares of the run in which the rate grows to and falls from its peak, and where it ends.
    penalty, sparsity, sparsity_warmup
        Which penalty, its weight, and the share of the run over which the weight grows from 0.
        "none" for "topk" and "batchtopk", which need no other.
    preactivation
        Weight of `preactivation_penalty`.
    auxk, dead_after
        Weight of `auxk_loss`, and after how many tokens without firing a feature is dead: give a
        tenth of a run of less than 100 M tokens.
    checkpoint_every, progress_every
        In steps.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    steps: int
    lr: float = 3e-4
    threshold_lr_ratio: float = 0.1
    warmup: float = 0.1
    cooldown: float = 0.2
    final_lr_ratio: float = 1 / 32
    penalty: Literal["tanh_quad", "tanh", "l1", "none"] = "tanh_quad"
    sparsity: float = 0.3
    sparsity_warmup: float = 0.1
    preactivation: float = 0.0
    auxk: float = 1 / 32
    dead_after: int = 10_000_000
    checkpoint_every: int = 1000
    progress_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "dead_after", "checkpoint_every", "progress_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        for name in ("lr", "threshold_lr_ratio", "sparsity", "preactivation", "auxk"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} ({getattr(self, name)}) must be finite and at least 0")
        for name in ("warmup", "cooldown", "final_lr_ratio", "sparsity_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} ({getattr(self, name)}) is a share; give 0 to 1")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        up = (step + 1) / max(self.warmup * self.steps, 1)
        left = (self.steps - step) / max(self.cooldown * self.steps, 1)
        down = self.final_lr_ratio + (1 - self.final_lr_ratio) * left
        return self.lr * min(1.0, up, down)

    def sparsity_at(self, step: int) -> float:
        """Return the weight of the penalty at a step, counted from 0."""
        return self.sparsity * min(1.0, step / max(self.sparsity_warmup * self.steps, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the training loss was made of at one step."""

    step: int  # steps done
    loss: float
    reconstruction: float  # squared error per token and snapshot
    l0: Float[Tensor, " S"]  # open features per token
    dead: int  # features silent for `dead_after` tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """Where training began and ended."""

    resumed_from: int  # steps done before this call, 0 for a new run
    steps: int
    tokens_since_fired: Int[Tensor, " F"]


def train(
    crosscoder: Crosscoder,
    batches: Batches,
    config: TrainConfig,
    *,
    run_dir: Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a crosscoder in place, or go on with the run in `run_dir`.

    Parameters
    ----------
    crosscoder
        From `initialise`; overwritten by the newest checkpoint in `run_dir`.
    batches
        Given a step, returns the normalised batches from that step on, each of shape (B, S, D).
    config
        How to train.
    run_dir
        Where checkpoints lie; None keeps none.
    progress
        Called every `progress_every` steps and after the last.

    Returns
    -------
    Where training began and ended. A killed and resumed run ends with the same bits as one that
    was left alone, on one machine with one number of threads.

    Raises
    ------
    ValueError
        If the crosscoder is folded, the penalty does not suit its activation, a batch is not
        finite or of another shape, the batches end early, or `run_dir` holds another run.
    RuntimeError
        If the loss is not finite.
    """
    _check(crosscoder, config)
    run = _Run(crosscoder, config)
    begin = run.resume(run_dir) if run_dir is not None else 0
    crosscoder.train()
    stream = batches(begin)
    for step in range(begin, config.steps):
        x_BSD = next(stream, None)
        if x_BSD is None:
            raise ValueError(f"the batches end after {step} of {config.steps} steps; give more")
        done = run.step(step, x_BSD)
        last = step + 1 == config.steps
        if run_dir is not None and (last or (step + 1) % config.checkpoint_every == 0):
            run.save(run_dir, step + 1)
        if progress is not None and (last or (step + 1) % config.progress_every == 0):
            progress(done())
    crosscoder.eval()
    return TrainResult(resumed_from=begin, steps=config.steps, tokens_since_fired=run.silent_F)


class _Run:
    """The state of a training run."""

    def __init__(self, crosscoder: Crosscoder, config: TrainConfig) -> None:
        self.crosscoder, self.config = crosscoder, config
        weights = [p for n, p in crosscoder.named_parameters() if n != "log_threshold"]
        thresholds = [p for n, p in crosscoder.named_parameters() if n == "log_threshold"]
        groups = [{"params": weights, "ratio": 1.0}]
        if thresholds:
            groups.append({"params": thresholds, "ratio": config.threshold_lr_ratio})
        self.optimizer = torch.optim.Adam(groups)
        self.silent_F = torch.zeros_like(crosscoder.b_enc, dtype=torch.int64)

    def step(self, step: int, x_BSD: Tensor) -> Callable[[], Progress]:
        """Take one step and return a function that says how it went."""
        _check_finite(x_BSD, step)
        codes = self.crosscoder.encode(x_BSD)
        rebuilt_BSD = self.crosscoder.decode(codes.value)
        error = reconstruction_error(rebuilt_BSD, x_BSD)
        dead_F = self.silent_F >= self.config.dead_after
        loss = error + self._regularisers(step, codes, x_BSD - rebuilt_BSD, dead_F)
        if not bool(loss.isfinite()):
            raise RuntimeError(
                f"the loss is {float(loss)} at step {step}; lower lr ({self.config.lr})"
            )
        if self.crosscoder.config.activation == "batchtopk":
            self.crosscoder.update_threshold(codes)  # with the weights that chose
        self._descend(loss, self.config.lr_at(step))
        fired_F = codes.fired().any(0)
        self.silent_F = torch.where(fired_F, 0, self.silent_F + x_BSD.shape[0])
        return lambda: Progress(
            step=step + 1,
            loss=float(loss.detach()),
            reconstruction=float(error.detach()),
            l0=codes.l0(),
            dead=int((self.silent_F >= self.config.dead_after).sum()),
        )

    def _regularisers(self, step: int, codes: Codes, error_BSD: Tensor, dead_F: Tensor) -> Tensor:
        config, total = self.config, error_BSD.new_zeros(())
        if config.penalty != "none":
            y_BFS = strengths(self.crosscoder, codes)
            total = total + config.sparsity_at(step) * _PENALTIES[config.penalty](y_BFS)
        if config.auxk > 0:
            total = total + config.auxk * auxk_loss(self.crosscoder, codes, error_BSD, dead_F)
        if config.preactivation > 0:
            total = total + config.preactivation * preactivation_penalty(self.crosscoder, codes)
        return total

    def _descend(self, loss: Tensor, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["ratio"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def save(self, run_dir: Path | str, step: int) -> None:
        """Write a checkpoint after `step` steps."""

        def write(folder: Path) -> None:
            save_crosscoder(self.crosscoder, folder / "crosscoder.safetensors")
            state = {"optimizer": self.optimizer.state_dict(), "silent": self.silent_F}
            save_state(folder / "optimizer.safetensors", state)

        save_checkpoint(run_dir, step, write, state=self._settings())

    def resume(self, run_dir: Path | str) -> int:
        """Load the newest checkpoint, if there is one, and return how many steps it has done."""
        found = latest_checkpoint(run_dir)
        if found is None:
            return 0
        _check_same(found, self._settings())
        saved = load_crosscoder(found.path / "crosscoder.safetensors")
        self.crosscoder.load_state_dict(saved.state_dict())
        state = load_state(found.path / "optimizer.safetensors")
        self.optimizer.load_state_dict(state["optimizer"])
        self.silent_F = state["silent"].to(self.silent_F.device)
        return found.step

    def _settings(self) -> dict[str, Any]:
        both = {"crosscoder": asdict(self.crosscoder.config), "training": asdict(self.config)}
        both["training"]["dtype"] = str(self.crosscoder.W_dec.dtype)
        return json.loads(json.dumps(both))


_PENALTIES = {"tanh_quad": tanh_quad_penalty, "tanh": tanh_penalty, "l1": l1_penalty}


def _check(crosscoder: Crosscoder, config: TrainConfig) -> None:
    kind = crosscoder.config.activation
    if crosscoder.config.raw:
        raise ValueError("this crosscoder is folded; train first, fold_normalisation afterwards")
    if kind in ("topk", "batchtopk") and config.penalty != "none":
        raise ValueError(f"penalty {config.penalty!r} with {kind!r} counts sparsity twice; "
                         'give penalty="none"')  # fmt: skip
    if kind != "jumprelu" and config.preactivation > 0:
        raise ValueError(f"preactivation ({config.preactivation}) needs thresholds, which {kind!r} "
                         "has not; give 0")  # fmt: skip


def _check_finite(x_BSD: Tensor, step: int) -> None:
    bad = (~x_BSD.isfinite()).nonzero()
    if bad.numel():
        b, s, d = bad[0].tolist()
        raise ValueError(
            f"the batch of step {step} holds {float(x_BSD[b, s, d])} at token {b}, snapshot {s}; "
            "drop such tokens"
        )


def _check_same(found: Checkpoint, settings: dict[str, Any]) -> None:
    for part, fields in settings.items():
        saved = found.state.get(part, {})
        for name, value in fields.items():
            if saved.get(name) != value:
                raise ValueError(
                    f"{found.path} was written with {part} {name} = {saved.get(name)!r}, this run "
                    f"has {value!r}; give the same or another run_dir"
                )
