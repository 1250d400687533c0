"""The state of a training run: what a step changes and a checkpoint holds.

Shape letters: B tokens, F features, S snapshots, D width.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
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
from meristem_crosscoders._files import load_crosscoder, save_part
from meristem_crosscoders._gradients import BLOCK, Terms
from meristem_crosscoders._mesh import Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._normalisation import Normalisation
from meristem_crosscoders._schedule import Progress, TrainConfig
from meristem_crosscoders._step import step_gradients

Batches = Callable[[int], Iterator[Float[Tensor, "B S D"]]]

WORTH_ROUNDING = 2**20  # numbers in the encoder from which a bfloat16 copy of it pays


def load_normalisation(run_dir: Path | str) -> Normalisation:
    """Return the normalisation of the activations that a run in `run_dir` is trained on.

    Raises
    ------
    ValueError
        If the folder holds no checkpoint, or one that was not trained on a `Harvest`.
    """
    found = latest_checkpoint(run_dir)
    states = [] if found is None else sorted(found.path.glob("training*.safetensors"))
    saved = load_state(states[0])["normalisation"] if states else None
    if saved is None:
        raise ValueError(f"{run_dir} holds no run on a normalised harvest; estimate it anew")
    return Normalisation(scale=saved["scale"], mean=saved["mean"])


class Run:
    """The state of a training run on one process."""

    def __init__(
        self, crosscoder: Crosscoder, config: TrainConfig, parts: Mesh, batches: Batches
    ) -> None:
        self.crosscoder, self.config, self.mesh, self.batches = crosscoder, config, parts, batches
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

    def save(self, run_dir: Path | str, step: int) -> None:
        """Write a checkpoint after `step` steps; one process does, part by part."""
        parts = self._parts()
        if not self.mesh.is_main:
            for _ in parts:  # give them away
                pass
            return

        def write(folder: Path) -> None:
            for part, weights, training in parts:
                save_part(_file(folder, "crosscoder", part), self.crosscoder.config, part, weights)
                save_state(_file(folder, "training", part), training)

        save_checkpoint(run_dir, step, write, state=self._settings())

    def _parts(self) -> Iterator[tuple[tuple[int, int], dict[str, Tensor], dict[str, Any]]]:
        """Yield weights and training state of every part; no process holds more than two."""
        cohort = self.mesh.features
        adam = self.adam.state()
        for rank in range(cohort.size):

            def of(tensors: dict[str, Tensor], rank: int = rank) -> dict[str, Tensor]:
                return {name: cohort.broadcast(value, rank) for name, value in tensors.items()}

            weights = of(self.crosscoder.state_dict())
            moments = {kind: of(adam[kind]) for kind in ("first", "second")}
            training = {
                "adam": adam | moments,
                "silent": cohort.broadcast(self.silent_F, rank),
                "normalisation": _scales(self.batches),
            }
            yield (rank, cohort.size), weights, training

    def everywhere(self, value: Tensor) -> Tensor:
        """Return a value per feature of all processes."""
        return torch.cat(self.mesh.features.gather(value))

    def resume(self, run_dir: Path | str) -> int:
        """Load the newest checkpoint, if there is one, and return how many steps it has done."""
        found = latest_checkpoint(run_dir)
        if found is None:
            return 0
        _check_same(found, self._settings())
        part = self.crosscoder.part
        saved = load_crosscoder(_file(found.path, "crosscoder", part))
        self.crosscoder.load_state_dict(saved.state_dict())
        state = load_state(_file(found.path, "training", part))
        _check_scales(state["normalisation"], _scales(self.batches), found.path)
        self.adam.load(state["adam"])
        self.silent_F = state["silent"].to(self.silent_F.device)
        return found.step

    def _settings(self) -> dict[str, Any]:
        identity = getattr(self.batches, "identity", None)
        both: dict[str, Any] = {
            "crosscoder": asdict(self.crosscoder.config),
            "training": asdict(self.config),
            "batches": {"identity": identity() if callable(identity) else None},
            "processes": {
                "data": self.mesh.data.size,
                "features": self.mesh.features.size,
            },
        }
        both["training"]["dtype"] = str(self.crosscoder.W_dec.dtype)
        return json.loads(json.dumps(both))


def _file(folder: Path, kind: str, part: tuple[int, int]) -> Path:
    rank, processes = part
    return folder / f"{kind}{f'-{rank}-of-{processes}' if processes > 1 else ''}.safetensors"


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
