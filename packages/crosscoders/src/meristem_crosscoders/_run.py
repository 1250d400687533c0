"""The state of a training run: what a step changes and a checkpoint holds.

Shape letters: B tokens, F features, S snapshots, D width.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
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
from meristem_crosscoders._mesh import Cohort, Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._normalisation import Normalisation
from meristem_crosscoders._schedule import Progress, TrainConfig
from meristem_crosscoders._step import step_gradients

Batches = Callable[[int], Iterator[Float[Tensor, "B S D"]]]

TRAINING = "training.safetensors"
BY_FEATURE = ("W_enc", "W_dec", "b_enc", "log_threshold")  # have a row per feature
WORTH_ROUNDING = 2**20  # numbers in the encoder from which a bfloat16 copy of it pays


def load_normalisation(run_dir: Path | str) -> Normalisation:
    """Return the normalisation of the activations that a run in `run_dir` is trained on.

    Raises
    ------
    ValueError
        If the folder holds no checkpoint, or one that was not trained on a `Harvest`.
    """
    found = latest_checkpoint(run_dir)
    saved = None if found is None else load_state(found.path / TRAINING)["normalisation"]
    if saved is None:
        raise ValueError(f"{run_dir} holds no run on a normalised harvest; estimate it anew")
    return Normalisation(scale=saved["scale"], mean=saved["mean"])


class Run:
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
        mine = self.crosscoder.state_dict()
        for name, value in self.whole.state_dict().items():
            rows = name in BY_FEATURE
            value.copy_(self.everywhere(mine[name]) if rows else mine[name])

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
            save_state(folder / TRAINING, training)

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
        state = load_state(found.path / TRAINING)
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
        rows = name in BY_FEATURE
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
