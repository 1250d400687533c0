"""What a crosscoder is compared with: dictionaries of one snapshot, and principal components.

Shape letters: B tokens, S snapshots, D width, E = S D.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from meristem.grow._features import study_of
from meristem.grow._pipeline import Taught
from meristem.reproduce._crosscoders import lineage_of
from meristem_core import read_json, write_json
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    TrainConfig,
    estimate_normalisation,
    evaluate,
    initialise,
    train,
)
from meristem_evolution import Settings
from meristem_evolution.run import Study

BASELINE_BATCH = 64  # tokens on which a baseline's first norm is searched
COMPONENT_TOKENS = 32_768  # from which principal components are computed


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
            study = study_of(lineage_of(taught, alone, [step]), settings.seed)
            write_json(path, _own_quality(study, alone))
        found[step] = read_json(path)
    return found


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


def component_qualities(
    path: Path, taught: Taught, settings: Settings, counts: set[int]
) -> dict[int, list[float]]:
    """Return the variance of each snapshot that principal components of all of them explain.

    Parameters
    ----------
    path
        Where the result is kept.
    counts
        Numbers of components, of activations of all snapshots side by side.
    """
    found = read_json(path) if path.exists() else {}
    if not {str(k) for k in counts} <= found.keys():
        study = study_of(lineage_of(taught, settings), settings.seed)
        train = study.train_stream(settings)
        normalisation = estimate_normalisation(next(train()))
        batches = islice(train.normalised(normalisation)(), COMPONENT_TOKENS // settings.batch)
        held_out = torch.cat(list(study.held_out_stream(settings).normalised(normalisation)()))
        mean_E, rows_EE = _components(batches)
        for k in counts:
            found[str(k)] = _explained(held_out, mean_E, rows_EE[:, -k:]).tolist()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return {k: found[str(k)] for k in counts}


def _components(
    batches: Iterable[Float[Tensor, "B S D"]],
) -> tuple[Float[Tensor, " E"], Float[Tensor, "E E"]]:
    """Return the mean, and the principal components as columns, the largest last."""
    n, total_E, square_EE = 0, torch.zeros(()), torch.zeros(())
    for x_BSD in batches:
        x_BE = x_BSD.flatten(1).double()
        n, total_E, square_EE = n + len(x_BE), total_E + x_BE.sum(0), square_EE + x_BE.T @ x_BE
    mean_E = total_E / n
    return mean_E, torch.linalg.eigh(square_EE / n - mean_E.outer(mean_E)).eigenvectors


def _explained(
    x_BSD: Float[Tensor, "B S D"], mean_E: Float[Tensor, " E"], rows_Ek: Float[Tensor, "E k"]
) -> Float[Tensor, " S"]:
    """Return the share of each snapshot's variance that the components explain."""
    centred_BE = x_BSD.flatten(1).double() - mean_E
    left_BSD = (centred_BE - centred_BE @ rows_Ek @ rows_Ek.T).view(x_BSD.shape)
    variance_S = (x_BSD.double() - x_BSD.double().mean(0)).square().sum((0, 2))
    return 1 - left_BSD.square().sum((0, 2)) / variance_S
