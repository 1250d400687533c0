"""Paper 2509.17196 on a model grown for the purpose, with crosscoders of three seeds.

The statistical phase is judged on the model, everything else on its features; `reproduction.html`
shows the curves of all seeds beside the public evaluations of Pythia.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from meristem._rows import Row
from meristem.grow._pipeline import Taught
from meristem.reproduce import _sensitivity_claims as sensitivity
from meristem.reproduce._activation_claims import activations
from meristem.reproduce._baselines import component_qualities, separate_qualities
from meristem.reproduce._claims import Claim
from meristem.reproduce._crosscoders import (
    CROSSCODERS,
    ScaleName,
    Trained,
    held_out_qualities,
    measure_crosscoder,
    other_activations,
    teach_model,
    train_crosscoder,
    trigger_kinds,
)
from meristem.reproduce._evolution_page import page
from meristem.reproduce._feature_claims import complexity, directions, norms, two_classes
from meristem.reproduce._order_claims import order
from meristem.reproduce._phase_claims import phases, pythia
from meristem.reproduce._pythia import read_trajectories
from meristem.reproduce._quality_claims import components, held_out, separate
from meristem.reproduce._task_claims import tasks
from meristem_core import write_atomic
from meristem_core.report import render
from meristem_evolution import Settings

SEEDS = 3  # of the crosscoder; for the warm-up, of model and crosscoder
WARMUPS = (30, 240)  # steps, of two models of the smallest scale


def reproduce(out: Path, quick: bool, seed: int) -> list[Row]:
    """Grow a model (micro if quick, else tiny), train three crosscoders, and return the verdicts.

    Parameters
    ----------
    out
        Where the runs are kept; finished ones are not repeated.
    quick
        Whether to take the smallest scale.
    seed
        Of the model; the crosscoders have this and the next two.

    Notes
    -----
    MERISTEM_DATA may name a folder with `scaling/pythia_evals_by_step.parquet`, the public
    evaluations of Pythia; without it they are not laid beside.
    """
    scale: ScaleName = "micro" if quick else "tiny"
    data = os.environ.get("MERISTEM_DATA")
    trajectories = read_trajectories(Path(data)) if data else []
    start = time.perf_counter()
    taught = teach_model(out, scale, seed, _say)
    settings = replace(CROSSCODERS[scale], seed=seed)
    every = [replace(settings, seed=each) for each in range(seed, seed + SEEDS)]
    folders = [out / f"crosscoder-{scale}-{seed}-{each.seed}" for each in every]
    runs = [
        train_crosscoder(folder, taught, each, _say)
        for folder, each in zip(folders, every, strict=True)
    ]
    kinds = [
        trigger_kinds(folder, taught, each, run)
        for folder, each, run in zip(folders, every, runs, strict=True)
    ]
    counts = {max(1, round(run.measured.l0_union)) for run in runs}
    explained = component_qualities(
        out / f"components-{scale}-{seed}.json", taught, settings, counts
    )
    judged = [
        two_classes(runs),
        *directions(runs, seed),
        complexity(runs),
        *order(runs, kinds, seed),
        *tasks(runs),
        *phases(runs),
        *norms(runs),
        _separate(folders, taught, every, runs),
        components(runs, explained),
        *sensitivity.seeds(runs, seed),
        *_half(folders, taught, every, runs),
        *activations({settings.activation: runs, **_others(folders, taught, every, runs)}, seed),
        *([] if quick else [_warmup(out, seed)]),
        *([pythia(trajectories)] if trajectories else []),
    ]
    seconds = time.perf_counter() - start
    rows = taught.rows + [each.row(seconds=seconds, seed=seed) for each in judged]
    write_atomic(out / "reproduction.html", render(page(rows, runs, trajectories)))
    return rows


def _separate(
    folders: Sequence[Path], taught: Taught, every: Sequence[Settings], runs: Sequence[Trained]
) -> Claim:
    """Judge each crosscoder against dictionaries of one snapshot, at every third one."""
    found: list[dict[int, float]] = []
    for own, settings, run in zip(folders, every, runs, strict=True):
        opened = dict(zip(run.measured.steps, run.measured.l0, strict=True))
        chosen = {step: opened[step] for step in run.measured.steps[::3]}
        found.append(separate_qualities(_beside(own, "separate"), taught, settings, chosen))
    return separate(runs, found)


def _others(
    folders: Sequence[Path], taught: Taught, every: Sequence[Settings], runs: Sequence[Trained]
) -> dict[str, list[Trained]]:
    """Return crosscoders with the other activations, one for each seed."""
    found: dict[str, list[Trained]] = {}
    for own, settings, run in zip(folders, every, runs, strict=True):
        for name, other in other_activations(settings, run).items():
            folder = _beside(own, name)
            found.setdefault(name, []).append(measure_crosscoder(folder, taught, other, _say))
    return found


def _half(
    folders: Sequence[Path], taught: Taught, every: Sequence[Settings], runs: Sequence[Trained]
) -> list[Claim]:
    """Judge crosscoders over every second snapshot, also on those that they do not know."""
    steps = taught.lineage.steps
    kept = sorted({*steps[::2], steps[-1]})
    left = [step for step in steps if step not in kept]
    halves: list[Trained] = []
    unknown: list[dict[int, float]] = []
    for whole, settings in zip(folders, every, strict=True):
        half = _beside(whole, "half")
        halves.append(measure_crosscoder(half, taught, settings, _say, steps=kept))
        unknown.append(held_out_qualities(whole, half, taught, settings, left))
    return [*sensitivity.spacing(runs, halves, every[0].seed), held_out(runs, unknown)]


def _warmup(out: Path, seed: int) -> Claim:
    """Judge models of the smallest scale that differ in their warm-up alone, of several seeds."""
    return sensitivity.warmup(
        [{steps: _warmed(out, steps, each) for steps in WARMUPS}
         for each in range(seed, seed + SEEDS)],
        seed,
    )  # fmt: skip


def _warmed(out: Path, steps: int, seed: int) -> Trained:
    taught = teach_model(out, "micro", seed, _say, warmup=steps)
    folder = out / f"crosscoder-micro-{seed}-warmup-{steps}"
    return measure_crosscoder(folder, taught, replace(CROSSCODERS["micro"], seed=seed), _say)


def _beside(folder: Path, name: str) -> Path:
    """Return the folder of something else with the seed of a crosscoder's folder."""
    return folder.with_name(folder.name.replace("crosscoder", name))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
