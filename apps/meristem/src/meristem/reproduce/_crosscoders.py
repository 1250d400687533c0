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
from jaxtyping import Bool

from meristem.grow._config import SCALES, GrowConfig
from meristem.grow._features import evolve_features, study_of
from meristem.grow._lineage import Lineage
from meristem.grow._pipeline import Taught, teach
from meristem_core import latest_checkpoint, open_run, read_json, write_json
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    TrainConfig,
    estimate_normalisation,
    evaluate,
    held_out_snapshot,
    initialise,
    load_crosscoder,
    load_normalisation,
    train,
)
from meristem_evolution import Settings
from meristem_evolution.run import Evolved, Study, load_arrays

ScaleName = Literal["micro", "tiny"]
Say = Callable[[str], None]
DEAD = 3  # the kind of features that hardly ever fire
BASELINE_BATCH = 64  # tokens on which a baseline's first norm is searched

# micro: what `meristem grow` trains; tiny: the paper's activation and sparsity, and more tokens
CROSSCODERS = {
    "micro": SCALES["micro"].evolution,
    "tiny": replace(SCALES["tiny"].evolution, activation="jumprelu", tokens=131_072),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One crosscoder with all that was measured of it."""

    seed: int
    evolved: Evolved
    crosscoder: Crosscoder  # folded
    arrays: dict[str, np.ndarray]  # numbers per feature

    @property
    def alive(self) -> Bool[np.ndarray, " F"]:
        """Return which features fire."""
        return self.arrays["kind"] != DEAD


def teach_model(
    out: Path, scale: ScaleName, seed: int, say: Say, *, warmup: int | None = None
) -> Taught:
    """Return the model whose snapshots are studied, if asked for with another warm-up."""
    sizes = SCALES[scale] if warmup is None else replace(SCALES[scale], warmup=warmup)
    name = f"grow-{scale}-{seed}" if warmup is None else f"grow-{scale}-{seed}-warmup-{warmup}"
    return teach(GrowConfig(scale=scale, out=out / name, seed=seed), say=say, scale=sizes)


def train_crosscoder(
    folder: Path, taught: Taught, settings: Settings, say: Say, *, steps: Sequence[int] = ()
) -> Trained:
    """Return a crosscoder over the snapshots, or some of them, with its explorer in `folder`."""
    lineage = _lineage(taught, settings, steps)
    stored = {"grown": taught.config, "steps": lineage.steps, "crosscoder": asdict(settings)}
    with open_run(folder, stored, name="meristem reproduce", version=version("meristem")):
        evolved = evolve_features(
            folder,
            lineage=lineage,
            page=folder / "explorer.html",
            seed=settings.seed,
            say=lambda line: say(f"{folder.name}: {line}"),
        )
    return Trained(
        seed=settings.seed,
        evolved=evolved,
        crosscoder=load_crosscoder(folder / "fit" / "crosscoder.safetensors"),
        arrays=load_arrays(folder / "measure"),
    )


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
    study = study_of(_lineage(taught, settings), settings.seed)
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


def separate_qualities(
    folder: Path, taught: Taught, settings: Settings, opened: dict[int, float]
) -> dict[int, float]:
    """Return the explained variance of a dictionary of its own at each of some snapshots.

    Each has as many features and training tokens as the crosscoder, and as many open features as
    the crosscoder has there: `opened`, by step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, float] = {}
    for step, l0 in opened.items():
        path = folder / f"{step}.json"
        if not path.exists():
            alone = replace(settings, activation="batchtopk", k=max(1, round(l0)))
            study = study_of(_lineage(taught, alone, [step]), settings.seed)
            write_json(path, _own_quality(study, alone))
        found[step] = read_json(path)
    return found


def _lineage(taught: Taught, settings: Settings, steps: Sequence[int] = ()) -> Lineage:
    lineage = taught.lineage
    return replace(
        lineage,
        scale=replace(lineage.scale, evolution=settings),
        steps=list(steps) or lineage.steps,
    )


def _own_quality(study: Study, settings: Settings) -> float:
    """Return the explained variance of the study's snapshot, trained like a crosscoder's."""
    stream = study.train_stream(settings)
    normalisation = estimate_normalisation(next(stream()))
    stream = stream.normalised(normalisation)
    dictionary = Crosscoder(
        CrosscoderConfig(
            d_model=study.snapshots.d_model,
            n_features=settings.features,
            steps=study.snapshots.steps,
            activation="batchtopk",
            k=settings.k,
            seed=settings.seed,
        )
    )
    initialise(dictionary, next(stream())[:BASELINE_BATCH])
    how = TrainConfig(
        steps=settings.tokens // settings.batch,
        lr=settings.learning_rate,
        penalty="none",
        dead_after=max(settings.batch, settings.tokens // 10),
    )
    train(dictionary, stream, how)
    held_out = study.held_out_stream(settings).normalised(normalisation)
    return float(evaluate(dictionary, held_out()).explained_variance[0])
