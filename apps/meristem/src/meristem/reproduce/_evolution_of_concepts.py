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

from meristem._rows import Row, measured_text
from meristem.grow._pipeline import Taught
from meristem.reproduce import _feature_claims as claims
from meristem.reproduce import _sensitivity_claims as sensitivity
from meristem.reproduce._activation_claims import activations
from meristem.reproduce._baselines import component_qualities, separate_qualities
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
from meristem.reproduce._order_claims import order
from meristem.reproduce._pythia import Trajectory, read_trajectories
from meristem_core import write_atomic
from meristem_core.report import (
    Check,
    Checks,
    LineChart,
    Page,
    Section,
    Series,
    Text,
    render,
)
from meristem_evolution import Settings

SEEDS = 3  # of the crosscoder
WARMUPS = (30, 240)  # steps, of two models of the smallest scale
HOLDS = {"reproduced": True, "refuted": False, "partly": None, "not testable here": None}
CAVEATS = (
    "A model of a million parameters or less on a few megabytes of text; its crosscoders see a "
    "hundred thousand tokens. The paper's models are a hundred and more times as large. Decoder "
    "norms are trained quantities, the number of snapshots limits every step that is named, and "
    "logarithmic axes exaggerate the beginning."
)


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
    components = component_qualities(
        out / f"components-{scale}-{seed}.json", taught, settings, counts
    )
    judged = [
        claims.two_classes(runs),
        *claims.directions(runs, seed),
        *filter(None, [claims.complexity(runs)]),
        *order(runs, kinds, seed),
        *claims.tasks(runs),
        *claims.phases(runs),
        *claims.norms(runs),
        _separate(out / f"separate-{scale}-{seed}", taught, settings, runs[0]),
        claims.components(runs, components),
        *sensitivity.seeds(runs, seed),
        *_half(out / f"half-{scale}-{seed}", folders[0], taught, settings, runs[0]),
        *activations({settings.activation: runs, **_others(folders, taught, every, runs)}, seed),
        *([] if quick else [_warmup(out, seed)]),
        *([claims.pythia(trajectories)] if trajectories else []),
    ]
    seconds = time.perf_counter() - start
    n = runs[0].measured.alive
    rows = taught.rows + [each.row(n=n, seconds=seconds, seed=seed) for each in judged]
    write_atomic(out / "reproduction.html", render(_page(rows, runs, trajectories)))
    return rows


def _separate(folder: Path, taught: Taught, settings: Settings, run: Trained) -> claims.Claim:
    """Judge the first crosscoder against dictionaries of one snapshot, at every third one."""
    measured = run.measured
    opened = dict(zip(measured.steps, measured.l0, strict=True))
    chosen = {step: opened[step] for step in measured.steps[::3]}
    return claims.quality(run, separate_qualities(folder, taught, settings, chosen))


def _others(
    folders: Sequence[Path], taught: Taught, every: Sequence[Settings], runs: Sequence[Trained]
) -> dict[str, list[Trained]]:
    """Return crosscoders with the other activations, one for each seed."""
    found: dict[str, list[Trained]] = {}
    for own, settings, run in zip(folders, every, runs, strict=True):
        for name, other in other_activations(settings, run).items():
            folder = own.with_name(own.name.replace("crosscoder", name))
            found.setdefault(name, []).append(measure_crosscoder(folder, taught, other, _say))
    return found


def _half(
    folder: Path, whole: Path, taught: Taught, settings: Settings, run: Trained
) -> list[claims.Claim]:
    """Judge a crosscoder over every second snapshot, also on those that it does not know."""
    steps = taught.lineage.steps
    kept = sorted({*steps[::2], steps[-1]})
    half = train_crosscoder(folder, taught, settings, _say, steps=kept)
    unknown = held_out_qualities(whole, folder, taught, settings,
                                 [step for step in steps if step not in kept])  # fmt: skip
    measured = run.measured
    known = dict(zip(measured.steps, measured.explained_variance, strict=True))
    return [
        *sensitivity.spacing(run, half, seed=settings.seed),
        sensitivity.held_out(known, unknown),
    ]


def _warmup(out: Path, seed: int) -> claims.Claim:
    """Judge models of the smallest scale that differ in their warm-up alone."""
    settings = replace(CROSSCODERS["micro"], seed=seed)
    runs: dict[int, Trained] = {}
    for steps in WARMUPS:
        taught = teach_model(out, "micro", seed, _say, warmup=steps)
        folder = out / f"crosscoder-micro-{seed}-warmup-{steps}"
        runs[steps] = train_crosscoder(folder, taught, settings, _say)
    return sensitivity.warmup(runs, seed)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _page(rows: Sequence[Row], runs: Sequence[Trained], trajectories: Sequence[Trajectory]) -> Page:
    checks = [
        Check(
            claim=row.claim,
            verdict=row.verdict,
            holds=HOLDS[row.verdict],
            detail=f"measured {measured_text(row)}, claimed {row.claimed}; {row.note}",
        )
        for row in rows
    ]
    return Page(
        title="Evolution of Concepts, reproduced",
        subtitle="arXiv 2509.17196 at the scale of a laptop: "
        f"{len(runs)} crosscoders over the snapshots of one model",
        sections=[
            Section(title="Verdicts", blocks=[Text(CAVEATS), Checks(checks)]),
            Section(title="Curves of every seed", blocks=_curves(runs)),
            *_overlay(runs, trajectories),
        ],
    )


def _curves(runs: Sequence[Trained]) -> list[LineChart]:
    curves = {
        "Features that emerge": ("features", lambda found: found.emergence["0.5"]),
        "Dimensionality": ("share of the width", lambda found: found.dimensionality),
        "Explained variance": ("share", lambda found: found.explained_variance),
        "Distance to bigrams": ("KL(q ‖ p2), nats", lambda found: found.learning.from_bigram),
    }  # fmt: skip
    return [
        LineChart(
            title=title,
            x_label="step",
            y_label=unit,
            series=[
                Series(name=f"seed {run.seed}", x=run.measured.steps,
                       y=value(run.measured))
                for run in runs
            ],
        )
        for title, (unit, value) in curves.items()
    ]  # fmt: skip


def _overlay(runs: Sequence[Trained], trajectories: Sequence[Trajectory]) -> list[Section]:
    """Return accuracy of Pythia, if it is there, and emergence here, over their own training."""
    if not trajectories:
        return []
    measured = runs[0].measured
    emerged = [sum(measured.emergence["0.5"][: place + 1]) for place in range(len(measured.steps))]
    ours = Series(
        name="ours: share of features that have emerged",
        x=[step / measured.steps[-1] for step in measured.steps],
        y=[count / measured.alive for count in emerged],
    )
    theirs = [
        Series(
            name=f"Pythia-160M: {each.task}",
            x=[step / each.steps[-1] for step in each.steps],
            y=each.accuracy,
        )
        for each in trajectories
    ]
    blocks = [
        Text(
            "The paper sees the features of Pythia turn at about step 1000. Its public evaluations "
            "leave chance between steps 512 and 3000."
        ),
        LineChart(
            title="Over the share of training that is done",
            x_label="share of training",
            y_label="share",
            series=[ours, *theirs],
            note="Public zero-shot evaluations of EleutherAI/pythia; step 1000 is 0.7 %.",
        ),
        LineChart(
            title="Pythia-160M over its own steps",
            x_label="step",
            y_label="accuracy",
            series=[Series(name=each.task, x=each.steps, y=each.accuracy) for each in trajectories],
        ),
    ]
    return [Section(title="Beside Pythia", blocks=blocks)]
