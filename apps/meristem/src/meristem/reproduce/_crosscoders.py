"""The crosscoders behind paper 2509.17196: several seeds over the snapshots of one grown model.

Every model, crosscoder and dictionary has a folder of its own below `out`; what is finished is not
made again, and a run that was stopped goes on at its last checkpoint.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int

from meristem.grow._config import SCALES, GrowConfig
from meristem.grow._features import evolve_features, study_of
from meristem.grow._lineage import Lineage
from meristem.grow._pipeline import Taught, teach
from meristem_core import RunDir, latest_checkpoint, open_run, read_json, stream, write_json
from meristem_crosscoders import (
    Crosscoder,
    feature_triggers,
    held_out_snapshot,
    load_crosscoder,
    load_normalisation,
    top_contexts,
)
from meristem_evolution import Settings
from meristem_evolution.run import (
    Attributed,
    Measured,
    Stages,
    fit_and_measure,
    load_arrays,
)

ScaleName = Literal["micro", "tiny"]
Say = Callable[[str], None]
DEAD = 3  # the kind of features that hardly ever fire

TRIGGER_CONTEXTS = 3  # of a feature, whose tokens are put among random ones
L1 = 0.2  # weight of ReLU's penalty: opens about as many features as JumpReLU at the tiny scale

# tiny: twice the steps of `meristem grow`, to have snapshots well after the bigrams
GROWN = {"micro": SCALES["micro"], "tiny": replace(SCALES["tiny"], steps=1600)}

# micro: what `meristem grow` trains; tiny: the paper's activation and sparsity, and more tokens
CROSSCODERS = {
    "micro": SCALES["micro"].evolution,
    "tiny": replace(SCALES["tiny"].evolution, activation="jumprelu", tokens=131_072),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One crosscoder with all that was measured of it."""

    seed: int
    measured: Measured
    crosscoder: Crosscoder  # folded
    arrays: dict[str, np.ndarray]  # numbers per feature
    attributed: Attributed = Attributed(tasks=[], without={})  # noqa: RUF009 frozen

    @property
    def alive(self) -> Bool[np.ndarray, " F"]:
        """Return which features fire."""
        return self.arrays["kind"] != DEAD


def teach_model(
    out: Path, scale: ScaleName, seed: int, say: Say, *, warmup: int | None = None
) -> Taught:
    """Return the model whose snapshots are studied, if asked for with another warm-up."""
    sizes = GROWN[scale] if warmup is None else replace(GROWN[scale], warmup=warmup)
    name = f"grow-{scale}-{seed}" if warmup is None else f"grow-{scale}-{seed}-warmup-{warmup}"
    return teach(GrowConfig(scale=scale, out=out / name, seed=seed), say=say, scale=sizes)


def train_crosscoder(folder: Path, taught: Taught, settings: Settings, say: Say) -> Trained:
    """Return a crosscoder over all snapshots, with tasks, and its explorer in `folder`."""
    lineage = lineage_of(taught, settings)
    with _opened(folder, taught, lineage):
        evolved = evolve_features(
            folder,
            lineage=lineage,
            page=folder / "explorer.html",
            seed=settings.seed,
            say=lambda line: say(f"{folder.name}: {line}"),
        )
    return Trained(
        seed=settings.seed,
        measured=evolved.measured,
        attributed=evolved.attributed,
        crosscoder=load_crosscoder(folder / "fit" / "crosscoder.safetensors"),
        arrays=load_arrays(folder / "measure"),
    )


def measure_crosscoder(
    folder: Path, taught: Taught, settings: Settings, say: Say, *, steps: Sequence[int] = ()
) -> Trained:
    """Return a crosscoder over all snapshots, or some of them, without tasks and explorer."""
    lineage = lineage_of(taught, settings, steps)
    with _opened(folder, taught, lineage):
        stages = Stages(folder, say, prefix=f"{folder.name}: ")
        _, crosscoder, measured = fit_and_measure(
            stages, study_of(lineage, settings.seed), settings
        )
    return Trained(
        seed=settings.seed,
        measured=measured,
        crosscoder=crosscoder,
        arrays=load_arrays(folder / "measure"),
    )


def _opened(folder: Path, taught: Taught, lineage: Lineage) -> RunDir:
    settings = asdict(lineage.scale.evolution)
    stored = {"grown": taught.config, "steps": lineage.steps, "crosscoder": settings}
    return open_run(folder, stored, name="meristem reproduce", version=version("meristem"))


def other_activations(settings: Settings, run: Trained) -> dict[str, Settings]:
    """Return settings with the other activations, BatchTopK with the open features of `run`."""
    opened = max(1, round(float(np.mean(run.measured.l0))))
    others: dict[str, Settings] = {
        "jumprelu": replace(settings, activation="jumprelu"),
        "batchtopk": replace(settings, activation="batchtopk", k=opened),
        "relu": replace(settings, activation="relu", sparsity=L1),
    }
    del others[settings.activation]
    return others


def trigger_kinds(
    folder: Path, taught: Taught, settings: Settings, run: Trained
) -> Int[np.ndarray, " F"]:
    """Return what makes each feature of a finished crosscoder fire, as places in `TRIGGERS`."""
    path = folder / "triggers.json"
    if not path.exists():
        study = study_of(lineage_of(taught, settings), settings.seed)
        tokens = torch.from_numpy(np.asarray(study.text.held_out, dtype=np.int64))
        activations = study.snapshots.activations
        contexts = top_contexts(run.crosscoder, activations, tokens, n=TRIGGER_CONTEXTS)
        ids = np.setdiff1d(np.unique(study.text.train), study.text.special)
        rng = stream(settings.seed, "triggers")
        found = feature_triggers(run.crosscoder, activations, contexts, ids, rng=rng)
        length = torch.from_numpy(run.arrays["context_length"])
        write_json(path, found.kind(length).tolist())
    return np.array(read_json(path))


def held_out_qualities(
    whole: Path, part: Path, taught: Taught, settings: Settings, steps: Sequence[int]
) -> dict[int, float]:
    """Return the explained variance of snapshots that a crosscoder was not trained on.

    Parameters
    ----------
    whole, part
        Folders of a crosscoder over all snapshots, whose normalisation is used, and of one over
        some of them.
    steps
        Of the snapshots between those of `part`.
    """
    study = study_of(lineage_of(taught, settings), settings.seed)
    checkpoint = latest_checkpoint(part / "fit" / "checkpoints")
    assert checkpoint is not None
    crosscoder = load_crosscoder(checkpoint.path / "crosscoder.safetensors").requires_grad_(False)
    stream = study.held_out_stream(settings).normalised(
        load_normalisation(whole / "fit" / "checkpoints")
    )
    places = {step: place for place, step in enumerate(study.snapshots.steps)}
    known = [places[step] for step in crosscoder.config.steps]
    return {
        step: held_out_snapshot(
            crosscoder, ((x[:, known], x[:, places[step]]) for x in stream()), step=step
        ).interpolated
        for step in steps
    }


def lineage_of(taught: Taught, settings: Settings, steps: Sequence[int] = ()) -> Lineage:
    """Return what was grown, with these settings of the crosscoder and some of its snapshots."""
    lineage = taught.lineage
    return replace(
        lineage,
        scale=replace(lineage.scale, evolution=settings),
        steps=list(steps) or lineage.steps,
    )
