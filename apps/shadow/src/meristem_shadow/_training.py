"""How long and how closely exact training can follow rounded training."""

import math
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from meristem_core import open_run
from meristem_core.command import UsageError, progress_bar
from meristem_core.report import (
    Check,
    Checks,
    LineChart,
    Page,
    Section,
    Series,
    Table,
    Text,
    Tile,
    Tiles,
)
from meristem_shadow._config import TrainingConfig
from meristem_shadow._finish import tell, write
from meristem_shadow._memory import check_memory
from meristem_shadow._report import logs

if TYPE_CHECKING:
    from torch import Tensor

    from meristem_shadow._optimiser import Optimiser

SCHEMA = "meristem-shadow-training/1"
TOLERANCES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the distance that the whole run travels
NOT_CERTIFIED = (
    "What is shown: float64 trajectories of the optimiser's map, and their measured distances. "
    "What is not: float64 is not exact arithmetic, its own rounding is not enclosed, and no "
    "theorem says that a true trajectory lies near; the state has too many variables for the "
    "boxes of a certificate. A failure to follow is no proof either: only the start is moved, "
    "along the few directions that grow most."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Distances over the parameters at each step, and what they say."""

    snapshot: int
    parameters: int
    travelled: list[float]
    errors: list[float]
    same_start: list[float]
    shadow: list[float]
    growth: list[float]
    moved: float
    horizon_same_start: dict[str, int]  # tolerance: steps until the distance exceeds it
    horizon_shadow: dict[str, int]
    closer: float  # root mean square distance from the same start over that of the shadow


def run(config: TrainingConfig) -> int:
    """Train twice, look for the shadow, write the folder, and print the sentence."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise UsageError("training needs torch: pip install 'meristem-shadow[training]'")
    for name in ("steps", "directions", "sequences", "tokens"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name} {getattr(config, name)}: it must be at least 1")
    if not 0 < config.lr < 1:
        raise UsageError(f"--lr {config.lr}: it must lie between 0 and 1")
    stored = {k: v for k, v in asdict(config).items() if k not in ("run", "out", "json")}
    with open_run(
        config.out, stored | {"run": str(config.run)}, name="meristem shadow training",
        version=version("meristem-shadow"),
    ):  # fmt: skip
        finding = _find(config)
        result = {"schema": SCHEMA, **stored, **asdict(finding)}
        write(config, result, training_page(config, finding))
    tell(config, sentence(config, finding))
    return 0


def _find(config: TrainingConfig) -> Finding:

    from meristem_shadow._follow import follow
    from meristem_shadow._optimiser import load_model, optimiser_of

    model, snapshot = load_model(config.run, config.snapshot)
    parameters = sum(each.numel() for each in model.parameters())
    check_memory(parameters, config.steps, config.directions)
    optimiser, state = optimiser_of(
        model, config.run, steps=config.steps, sequences=config.sequences,
        length=config.tokens, lr=config.lr, seed=config.seed,
    )  # fmt: skip
    given = rounded(optimiser, state, config.steps, config.rounding)
    with progress_bar("shadow") as show:
        found = follow(optimiser, given, directions=config.directions, progress=show)
    lists = {
        name: [float(x) for x in getattr(found, name)]
        for name in ("travelled", "errors", "same_start", "shadow", "growth")
    }
    mean = [math.hypot(*lists[name]) for name in ("same_start", "shadow")]
    return Finding(
        snapshot=snapshot,
        parameters=given.shape[1] // 3,
        **lists,
        moved=found.moved,
        horizon_same_start=_horizons(lists["same_start"], lists["travelled"][-1]),
        horizon_shadow=_horizons(lists["shadow"], lists["travelled"][-1]),
        closer=mean[0] / mean[1] if mean[1] else 1.0,
    )


def rounded(optimiser: "Optimiser", state: "Tensor", steps: int, rounding: str) -> "Tensor":
    """Return the states of rounded training, whose weights and moments are float32, as rows."""
    import torch

    options: dict[str, Any] = {
        "bfloat16": {"compute": torch.bfloat16},
        "float32": {},
        "reordered": {"one_by_one": True},
    }[rounding]
    states = torch.empty(steps + 1, len(state))
    states[0] = state
    for t in range(steps):
        states[t + 1] = optimiser.step(states[t], t, **options)
        if not bool(states[t + 1].isfinite().all()):
            raise ValueError(f"rounded training is not finite at step {t}; lower --lr")
    return states


def _horizons(distance: list[float], travelled: float) -> dict[str, int]:
    """Return for each tolerance the steps until the distance exceeds it."""
    return {
        f"{tol:g}": next(
            (t for t, d in enumerate(distance[1:]) if d > tol * travelled), len(distance) - 1
        )
        for tol in TOLERANCES
    }


def sentence(config: TrainingConfig, finding: Finding) -> str:
    """Return the finding in one sentence."""
    worst = max(finding.shadow) / finding.travelled[-1]
    return (
        f"a float64 trajectory follows all {config.steps} steps of {config.rounding} training "
        f"within {worst:.2g} of the distance that they travel, {finding.closer:.2f} times as close "
        "as float64 training from the same start (exhibited, not certified)"
    )


def training_page(config: TrainingConfig, finding: Finding) -> Page:
    """Return the report."""
    text = sentence(config, finding)
    steps = list(range(1, config.steps + 1))
    last = finding.travelled[-1]
    relative = [[d / last for d in values[1:]] for values in (finding.same_start, finding.shadow)]
    charts = [
        LineChart(
            title="Distance to the rounded training",
            x_label="step",
            y_label="log10 share of the way",
            series=[
                Series(name="float64 from the same start", x=steps, y=logs(relative[0])),
                Series(name="float64 from the moved start", x=steps, y=logs(relative[1])),
            ],
            first="linear",
        ),
        LineChart(
            title="Error of each rounded step",
            x_label="step",
            y_label="log10 distance",
            series=[
                Series(name="error of the step", x=steps, y=logs(finding.errors)),
                Series(name="travelled so far", x=steps, y=logs(finding.travelled[1:])),
            ],
            first="linear",
        ),
    ]
    rows = [
        [f"{float(tol):.2%}", finding.horizon_same_start[tol], finding.horizon_shadow[tol]]
        for tol in finding.horizon_shadow
    ]
    return Page(
        title="Shadowing a training run",
        subtitle=text[0].upper() + text[1:] + ".",
        sections=[
            Section(title="What is and what is not certified", blocks=[Text(NOT_CERTIFIED)]),
            Section(
                title="How long and how closely",
                blocks=[_checks(finding), _tiles(finding), *charts],
            ),
            Section(
                title="Until when",
                blocks=[
                    Text("Steps until the distance exceeds a share of all that is travelled."),
                    Table(
                        columns=["share", "from the same start", "from the moved start"], rows=rows
                    ),
                    Text(
                        "Growth of the directions found, from first to last step: "
                        + ", ".join(f"{g:.3g}" for g in finding.growth)
                        + ". Above 1 a displacement of the start grows."
                    ),
                ],
            ),
        ],
    )  # fmt: skip


def _checks(finding: Finding) -> Checks:
    grows = max(finding.growth) > 1
    return Checks(
        [
            Check(
                claim="Some displacements of the start grow over the run",
                verdict="yes" if grows else "no",
                holds=grows,
                detail=f"the largest by {max(finding.growth):.3g}.",
            ),
            Check(
                claim="Moving the start brings exact training nearer to the rounded one",
                verdict=f"{finding.closer:.2f} times",
                holds=True if finding.closer > 1.1 else None,
                detail="root mean square of the distance, same start over moved start.",
            ),
        ]
    )


def _tiles(finding: Finding) -> Tiles:
    last = finding.travelled[-1]
    return Tiles(
        [
            Tile(label="parameters", value=f"{finding.parameters:,}"),
            Tile(label="travelled", value=f"{last:.3g}", note="distance of the parameters"),
            Tile(label="at the end, same start", value=f"{finding.same_start[-1] / last:.2%}"),
            Tile(label="at the end, moved start", value=f"{finding.shadow[-1] / last:.2%}"),
            Tile(label="start moved by", value=f"{finding.moved:.2g}"),
        ]
    )
