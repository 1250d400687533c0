"""Stage: train the crosscoder over all snapshots, resumable, with nothing but it on disk."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meristem_core import Journal, latest_checkpoint
from meristem_core.command import Progress
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    SnapshotSet,
    TrainConfig,
    fold_normalisation,
    initialise,
    load_crosscoder,
    save_crosscoder,
    train,
)
from meristem_crosscoders import Progress as Trained
from meristem_evolution._config import Settings
from meristem_evolution._study import Study

Penalty = Literal["tanh_quad", "l1", "none"]

FOLDED = "crosscoder.safetensors"
INITIAL_TOKENS = 64  # on which the first norm is searched, 70 times
NORMALISATION_TOKENS = 16_384
CHECKPOINTS, RECORDS = 20, 200  # of a run, about
PENALTIES: dict[str, Penalty] = {"jumprelu": "tanh_quad", "relu": "l1", "batchtopk": "none"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What training was; the folded crosscoder and `metrics.jsonl` lie beside."""

    steps: int
    tokens: int
    epochs: float  # how often the corpus was read
    window_bytes: int  # of the activations in memory, twice
    scale: list[float]  # per snapshot: what its activations were multiplied by


def fit(folder: Path, study: Study, settings: Settings, progress: Progress) -> Fitted:
    """Train from the last checkpoint in `folder`, if there is one, and save the folded result.

    A run killed between a checkpoint and the record of its step lacks that record in
    `metrics.jsonl`; everything else ends as it would have.

    Raises
    ------
    ValueError
        If the text is too short for one batch, or an activation is not finite.
    RuntimeError
        If the loss is not finite.
    """
    stream = study.train_stream(settings)
    steps = max(1, settings.tokens // settings.batch)
    normalisation = stream.estimate_normalisation(
        tokens=min(NORMALISATION_TOKENS, stream.epoch_tokens)
    )
    stream = stream.normalised(normalisation)
    crosscoder = Crosscoder(crosscoder_config(study.snapshots, settings))
    found = latest_checkpoint(folder / "checkpoints")
    if found is None:
        initialise(crosscoder, next(stream())[:INITIAL_TOKENS])
    with Journal(folder / "metrics.jsonl") as journal:
        start = 0 if found is None else found.step
        journal.rewind(lambda record: record["step"] <= start)

        def tell(state: Trained) -> None:
            record = {
                "loss": state.loss,
                "reconstruction": state.reconstruction,
                "l0": float(state.l0.mean()),
                "dead": state.dead,
            }
            journal.append({"step": state.step, **record}, sync=False)
            progress(state.step, steps, {name: record[name] for name in ("loss", "l0")})

        train(
            crosscoder,
            stream,
            train_config(settings, steps),
            run_dir=folder / "checkpoints",
            progress=tell,
            cut="none",
        )
    save_crosscoder(fold_normalisation(crosscoder, normalisation), folder / FOLDED)
    return Fitted(
        steps=steps,
        tokens=steps * settings.batch,
        epochs=steps * settings.batch / stream.epoch_tokens,
        window_bytes=stream.window_bytes,
        scale=normalisation.scale.tolist(),
    )


def load_fitted(folder: Path) -> Crosscoder:
    """Return the folded crosscoder of a finished stage: it reads what the models give."""
    return load_crosscoder(folder / FOLDED)


def crosscoder_config(snapshots: SnapshotSet, settings: Settings) -> CrosscoderConfig:
    """Return the crosscoder that the settings describe."""
    return CrosscoderConfig(
        d_model=snapshots.d_model,
        n_features=settings.features,
        steps=snapshots.steps,
        activation=settings.activation,
        k=settings.k if settings.activation == "batchtopk" else None,
        seed=settings.seed,
    )


def train_config(settings: Settings, steps: int) -> TrainConfig:
    """Return how the settings train."""
    penalty = PENALTIES[settings.activation]
    return TrainConfig(
        steps=steps,
        lr=settings.learning_rate,
        penalty=penalty,
        sparsity=0.0 if penalty == "none" else settings.sparsity,
        dead_after=max(settings.batch, steps * settings.batch // 10),
        checkpoint_every=max(1, math.ceil(steps / CHECKPOINTS)),
        progress_every=max(1, steps // RECORDS),
    )
