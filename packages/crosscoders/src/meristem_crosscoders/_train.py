"""Train a crosscoder, resumable bit for bit, on one process or several.

- gradients come from lists of open entries where few are open, and are applied block by block
- Adam; linear warm-up, constant, linear cool-down; thresholds have a smaller learning rate
- the sparsity weight grows linearly over the first steps
- batches are a function of the step, so that a resumed run sees the ones it has not seen
- a checkpoint holds the crosscoder, the optimiser, how long each feature has been silent and the
  normalisation of the activations
- several processes share the batch, or the features; either way the loss is that of one

Shape letters: B tokens, F features, S snapshots, D width.
"""

import json
import math
from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_core import Checkpoint, latest_checkpoint, save_checkpoint
from meristem_core.torch import load_state, save_state
from meristem_crosscoders._adam import BlockAdam
from meristem_crosscoders._entries import (
    Coarse,
    coarse_rows,
    empty_coarse,
    multiplies_bfloat16,
)
from meristem_crosscoders._files import load_crosscoder, save_crosscoder
from meristem_crosscoders._gradients import BLOCK, Terms
from meristem_crosscoders._memory import require, training_bytes
from meristem_crosscoders._mesh import Cohort, Cut, Mesh, mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._normalisation import Normalisation
from meristem_crosscoders._step import step_gradients

WORTH_ROUNDING = 2**20  # numbers in the encoder from which a bfloat16 copy of it pays

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
    clip
        Largest norm of the whole gradient; None leaves it. It costs the gradients once more.
    parity
        Whether the encoder bias moves S times as fast, as the one per snapshot of the authors' code
        does, whose sum is what counts.
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
    clip: float | None = None
    parity: bool = False
    checkpoint_every: int = 1000
    progress_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "dead_after", "checkpoint_every", "progress_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        for name in ("lr", "threshold_lr_ratio", "sparsity", "preactivation", "auxk"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} ({getattr(self, name)}) must be finite and at least 0")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip ({self.clip}) must be positive and finite; None leaves it out")
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
    cut: Cut = "data",
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a crosscoder in place, or go on with the run in `run_dir`.

    Parameters
    ----------
    crosscoder
        From `initialise`; overwritten by the newest checkpoint in `run_dir`.
    batches
        Given a step, returns the normalised batches from that step on, each of shape (B, S, D): a
        `Harvest`, or a function. A harvest's tokens, order and normalisation are kept with the run
        and compared when it is resumed.
    config
        How to train.
    run_dir
        Where checkpoints lie; None keeps none. All processes see the same folder.
    cut
        What several processes share, if `torch.distributed` is initialised (accelerate's
        `Accelerator()` does that): "data", where each gives its own part of the batch, or
        "features", where each gives the same batch and holds the moments and does the work of its
        share of the features. All end with the same crosscoder.
    progress
        Called every `progress_every` steps and after the last, on every process.

    Returns
    -------
    Where training began and ended. A killed and resumed run ends with the same bits as one that
    was left alone, on one machine with one number of threads.

    Raises
    ------
    ValueError
        If the crosscoder is folded, the penalty does not suit its activation, a batch is not
        finite or of another shape, there are too few batches, memory is too small, or `run_dir`
        holds another run: another configuration, source, normalisation or number of processes.
    RuntimeError
        If the loss is not finite.
    """
    _check(crosscoder, config)
    _check_length(batches, config)
    run = _Run(crosscoder, config, mesh(cut), batches)
    begin = run.resume(run_dir) if run_dir is not None else 0
    run.crosscoder.train()
    stream = batches(begin)
    for step in range(begin, config.steps):
        x_BSD = next(stream, None)
        if x_BSD is None:
            raise ValueError(f"the batches end after {step} of {config.steps} steps; give more")
        crosscoder.check_shape(x_BSD)
        if step == begin:
            _check_memory(crosscoder, x_BSD, run.mesh)
        done = run.step(step, x_BSD)
        last = step + 1 == config.steps
        if run_dir is not None and (last or (step + 1) % config.checkpoint_every == 0):
            run.save(run_dir, step + 1)
        if progress is not None and (last or (step + 1) % config.progress_every == 0):
            progress(done())
    run.gather()
    crosscoder.eval()
    return TrainResult(
        resumed_from=begin, steps=config.steps, tokens_since_fired=run.everywhere(run.silent_F)
    )


class _Run:
    """The state of a training run on one process."""

    def __init__(
        self, whole: Crosscoder, config: TrainConfig, parts: Mesh, batches: Batches
    ) -> None:
        self.whole, self.config, self.mesh, self.batches = whole, config, parts, batches
        self.part = _part(whole.config.n_features, parts.features)
        self.crosscoder = whole if parts.features.size == 1 else _shard(whole, self.part)
        self.adam = BlockAdam(self.crosscoder, data=parts.data, features=parts.features)
        self.silent_F = torch.zeros_like(self.crosscoder.b_enc, dtype=torch.int64)
        self.coarse = None

    def step(self, step: int, x_BSD: Tensor) -> Callable[[], Progress]:
        """Take one step and return a function that says how it went."""
        _check_finite(x_BSD, step)
        config = self.config
        terms = Terms(
            penalty=config.penalty,
            sparsity=config.sparsity_at(step),
            preactivation=config.preactivation,
            auxk=config.auxk,
            dead_F=self.silent_F >= config.dead_after,
        )
        found = step_gradients(self.crosscoder, x_BSD, terms, coarse=self._coarse(), mesh=self.mesh)
        if not bool(found.loss.isfinite()):
            raise RuntimeError(
                f"the loss is {float(found.loss)} at step {step}; lower lr ({config.lr})"
            )
        if self.crosscoder.config.activation == "batchtopk":
            self.crosscoder.update_threshold(found.least_G)  # with the weights that chose
        self.adam.step(found, self._rates(step), clip=config.clip, coarse=self.coarse)
        tokens = len(x_BSD)
        if self.mesh.data.size > 1:
            tokens = int(self.mesh.data.sum(torch.tensor(tokens)))
        self.silent_F = torch.where(found.fired_F, 0, self.silent_F + tokens)
        dead = self.mesh.features.sum((self.silent_F >= config.dead_after).sum())
        return lambda: Progress(
            step=step + 1,
            loss=float(found.loss),
            reconstruction=float(found.reconstruction),
            l0=found.open_S.double(),
            dead=int(dead),
        )

    def _rates(self, step: int) -> dict[str, float]:
        lr, parity = self.config.lr_at(step), len(self.crosscoder.config.encoded)
        return {
            "W_enc": lr,
            "W_dec": lr,
            "b_enc": lr * parity if self.config.parity else lr,
            "b_dec": lr,
            "log_threshold": lr * self.config.threshold_lr_ratio,
        }

    def _coarse(self) -> Coarse | None:
        """Return the encoder in bfloat16 where it pays: kept up to date by the optimiser."""
        config, W_enc = self.crosscoder.config, self.crosscoder.W_enc.detach()
        shared = config.k is not None and config.gate == "shared"
        if not (shared and W_enc.dtype == torch.float32 and W_enc.numel() >= WORTH_ROUNDING):
            return None
        if self.coarse is None and multiplies_bfloat16(W_enc.device):
            rows_FE = W_enc.flatten(1)
            self.coarse = empty_coarse(rows_FE)
            for start in range(0, len(rows_FE), BLOCK):
                coarse_rows(rows_FE[start : start + BLOCK], self.coarse, start)
        return self.coarse

    def gather(self) -> None:
        """Bring the features of all processes into the whole crosscoder."""
        if self.mesh.features.size == 1:
            return
        for name, parameter in self.whole.named_parameters():
            if name != "b_dec":
                mine = self.crosscoder.get_parameter(name).detach()
                parameter.data.copy_(torch.cat(self.mesh.features.gather(mine)))

    def save(self, run_dir: Path | str, step: int) -> None:
        """Write a checkpoint after `step` steps; one process does."""
        self.gather()
        state = self.adam.state()
        for kind in ("first", "second"):
            state[kind] = {name: self._all(name, value) for name, value in state[kind].items()}
        silent_F = self.everywhere(self.silent_F)
        if not self.mesh.is_main:
            return

        def write(folder: Path) -> None:
            save_crosscoder(self.whole, folder / "crosscoder.safetensors")
            training = {"adam": state, "silent": silent_F, "normalisation": _scales(self.batches)}
            save_state(folder / "training.safetensors", training)

        save_checkpoint(run_dir, step, write, state=self._settings())

    def everywhere(self, value: Tensor) -> Tensor:
        """Return a value per feature of all processes."""
        return torch.cat(self.mesh.features.gather(value))

    def _all(self, name: str, value: Tensor) -> Tensor:
        return value if name == "b_dec" else self.everywhere(value)

    def resume(self, run_dir: Path | str) -> int:
        """Load the newest checkpoint, if there is one, and return how many steps it has done."""
        found = latest_checkpoint(run_dir)
        if found is None:
            return 0
        _check_same(found, self._settings())
        saved = load_crosscoder(found.path / "crosscoder.safetensors")
        self.whole.load_state_dict(saved.state_dict())
        if self.crosscoder is not self.whole:
            _copy_part(self.whole, self.crosscoder, self.part)
        state = load_state(found.path / "training.safetensors")
        _check_scales(state["normalisation"], _scales(self.batches), found.path)
        self.adam.load(state["adam"], self.part)
        self.silent_F = state["silent"][self.part].to(self.silent_F.device)
        return found.step

    def _settings(self) -> dict[str, Any]:
        identity = getattr(self.batches, "identity", None)
        both = {
            "crosscoder": asdict(self.whole.config),
            "training": asdict(self.config),
            "batches": {"identity": identity() if callable(identity) else None},
            "processes": {
                "data": self.mesh.data.size,
                "features": self.mesh.features.size,
            },
        }
        both["training"]["dtype"] = str(self.whole.W_dec.dtype)
        return json.loads(json.dumps(both))


def _part(features: int, cohort: Cohort) -> slice:
    if features % cohort.size:
        raise ValueError(
            f"{features} features cannot be cut evenly over {cohort.size} processes; "
            f"take {math.ceil(features / cohort.size) * cohort.size}"
        )
    size = features // cohort.size
    return slice(cohort.rank * size, (cohort.rank + 1) * size)


def _shard(whole: Crosscoder, part: slice) -> Crosscoder:
    """Return a crosscoder of a part of the features; its config is that of the whole."""
    config = whole.config
    size = part.stop - part.start
    narrow = replace(config, n_features=size, k=None if config.k is None else min(config.k, size))
    shard = Crosscoder(narrow).to(whole.W_dec)
    shard.config = config
    _copy_part(whole, shard, part)
    return shard.train()


@torch.no_grad()
def _copy_part(whole: Crosscoder, shard: Crosscoder, part: slice) -> None:
    for name, value in whole.state_dict().items():
        rows = name in ("W_enc", "W_dec", "b_enc", "log_threshold")
        shard.state_dict()[name].copy_(value[part] if rows else value)


def _scales(batches: Batches) -> dict[str, Tensor] | None:
    """Return the normalisation of a harvest, None of a plain function."""
    normalisation: Normalisation | None = getattr(batches, "normalisation", None)
    if normalisation is None:
        return None
    return {"scale": normalisation.scale, "mean": normalisation.mean}


def _check_scales(saved: Any, mine: dict[str, Tensor] | None, path: Path) -> None:
    same = (saved is None) == (mine is None)
    if not same or (mine is not None and any(not torch.equal(saved[n], mine[n]) for n in mine)):
        raise ValueError(
            f"{path} was trained on activations of another normalisation; use the one that "
            "load_normalisation reads from that folder"
        )


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


def _check_length(batches: Batches, config: TrainConfig) -> None:
    """Refuse a harvest that ends before the run does."""
    if isinstance(batches, Sized) and len(batches) < config.steps:
        raise ValueError(
            f"there are {len(batches)} batches for {config.steps} steps; give more tokens or epochs"
        )


def _check_memory(crosscoder: Crosscoder, x_BSD: Tensor, parts: Mesh) -> None:
    needed = training_bytes(crosscoder.config, len(x_BSD), parts.features.size)
    require(needed, "training", crosscoder.W_dec.device)


def _check_finite(x_BSD: Tensor, step: int) -> None:
    if not bool(x_BSD.sum().isfinite()) and not bool(x_BSD.isfinite().all()):
        b, s, d = (~x_BSD.isfinite()).nonzero()[0].tolist()
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
