"""The page beside the rows of paper 2509.17196: verdicts, curves of every seed, Pythia."""

from collections.abc import Sequence

from meristem._rows import Row, measured_text
from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._pythia import Trajectory
from meristem_core.report import Check, Checks, LineChart, Page, Section, Series, Text

HOLDS = {"reproduced": True, "refuted": False, "partly": None, "not testable here": None}
CAVEATS = (
    "A model of a million parameters or less on a few megabytes of text; its crosscoders see a "
    "hundred thousand tokens. The paper's models are a hundred and more times as large. Decoder "
    "norms are trained quantities, the number of snapshots limits every step that is named, and "
    "logarithmic axes exaggerate the beginning."
)


def page(rows: Sequence[Row], runs: Sequence[Trained], trajectories: Sequence[Trajectory]) -> Page:
    """Return the page."""
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
