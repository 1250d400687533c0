"""The crosscoders behind paper 2509.17196: several seeds over the snapshots of one grown model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool

from meristem.grow._config import SCALES, GrowConfig
from meristem.grow._features import evolve_features, study_of
from meristem.grow._lineage import Lineage
from meristem.grow._pipeline import Grown, grow
from meristem_core import open_run, read_json, write_json
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    TrainConfig,
    estimate_normalisation,
    evaluate,
    initialise,
    load_crosscoder,
    train,
)
from meristem_evolution import Settings
from meristem_evolution.run import Evolved, Study, load_arrays

ScaleName = Literal["micro", "tiny"]
DEAD = 3  # the kind of features that hardly ever fire
BASELINE_BATCH = 64  # tokens on which a baseline's first norm is searched


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


def grow_model(out: Path, scale: ScaleName, seed: int, say: Callable[[str], None]) -> Grown:
    """Return the grown model whose snapshots are studied."""
    return grow(GrowConfig(scale=scale, out=_grown(out, scale, seed), seed=seed), say=say)


def train_seeds(
    out: Path, grown: Grown, scale: ScaleName, seed: int, *, seeds: int, say: Callable[[str], None]
) -> list[Trained]:
    """Return crosscoders of several seeds; the first is that of the grown run itself."""
    run = _grown(out, scale, seed)
    found = [_loaded(run / "features", seed, grown.evolution)]
    for other in range(seed + 1, seed + seeds):
        folder = out / f"features-{scale}-{seed}-{other}"
        stored = {"grown": grown.config, "seed": other}
        with open_run(folder, stored, name="meristem reproduce", version=version("meristem")):
            evolved = evolve_features(
                folder,
                lineage=_lineage(run, grown, scale, grown.pretrained.snapshots),
                page=folder / "explorer.html",
                seed=other,
                say=lambda line, seed=other: say(f"seed {seed}: {line}"),
            )
        found.append(_loaded(folder, other, evolved))
    return found


def separate_quality(
    out: Path, grown: Grown, scale: ScaleName, seed: int, steps: list[int]
) -> dict[int, float]:
    """Return the explained variance of a dictionary of its own at each of some snapshots.

    Each has as many features, open ones and training tokens as the crosscoder.
    """
    path = out / f"separate-{scale}-{seed}.json"
    if path.exists():
        return {int(step): value for step, value in read_json(path).items()}
    found = _train_separate(_grown(out, scale, seed), grown, scale, seed, steps)
    write_json(path, {str(step): value for step, value in found.items()})
    return found


def _train_separate(
    run: Path, grown: Grown, scale: ScaleName, seed: int, steps: list[int]
) -> dict[int, float]:
    settings = replace(SCALES[scale].evolution, seed=seed)
    return {
        step: _own_quality(study_of(_lineage(run, grown, scale, [step]), seed), settings)
        for step in steps
    }


def _lineage(run: Path, grown: Grown, scale: ScaleName, steps: list[int]) -> Lineage:
    return Lineage(run=run, scale=SCALES[scale], corpus=grown.corpus, steps=steps)


def _own_quality(study: Study, settings: Settings) -> float:
    """Return the explained variance of the study's snapshots, trained like a crosscoder's."""
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


def _loaded(folder: Path, seed: int, evolved: Evolved) -> Trained:
    return Trained(
        seed=seed,
        evolved=evolved,
        crosscoder=load_crosscoder(folder / "fit" / "crosscoder.safetensors"),
        arrays=load_arrays(folder / "measure"),
    )


def _grown(out: Path, scale: ScaleName, seed: int) -> Path:
    return out / f"grow-{scale}-{seed}"
