"""The claims of paper 2509.17196 about phases; each rule was written before the runs."""

from collections.abc import Sequence

import numpy as np

from meristem.reproduce._claims import Claim, bounds, judge
from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._pythia import Trajectory
from meristem_core import Interval


def phases(runs: Sequence[Trained]) -> list[Claim]:
    """Judge whether turning point, end of the bigrams and least dimensionality fall together."""
    held: list[bool | None] = []
    gaps: list[Interval] = []
    notes: list[str] = []
    for run in runs:
        measured = run.measured
        turn = measured.steps.index(measured.turning.step)
        end = measured.steps.index(measured.learning.statistical_end)
        least = int(np.argmin(measured.dimensionality))
        places = (turn, end, least)
        near = [abs(a - b) <= 1 for a, b in ((turn, end), (turn, least), (end, least))]
        held.append(True if near[0] and near[1] else (None if any(near) else False))
        gaps.append(bounds(max(places) - min(places)))
        notes.append(f"{measured.turning.step}/{measured.learning.statistical_end}/"
                     f"{measured.steps[least]}")  # fmt: skip
    return [
        Claim(
            claim="a statistical phase comes before the features: snapshots from the first to the "
            "last of turning point, end of the bigrams and least dimensionality",
            claimed="both within one snapshot of the turning point",
            found=gaps,
            verdict=judge(held),
            note=f"steps of the three: {'; '.join(notes)}",
        ),
        dimensions(runs),
    ]


def dimensions(runs: Sequence[Trained]) -> Claim:
    """Judge whether the dimensionality of features falls, and rises to most of the width."""
    found: list[Interval] = []
    held: list[bool | None] = []
    courses: list[str] = []
    for run in runs:
        curve = run.measured.dimensionality
        least = min(curve)
        inside = 0 < int(np.argmin(curve)) < len(curve) - 1
        bends = inside and curve[0] - least > 0.1 and curve[-1] - least > 0.1
        held.append(True if bends and curve[-1] >= 0.6 else (None if bends else False))
        found.append(bounds(curve[-1]))
        courses.append(f"{curve[0]:.2f} to {least:.2f} to {curve[-1]:.2f}")
    return Claim(
        claim="total dimensionality falls, then rises to most of the width: share at the end",
        claimed="about 0.7 (rule: a fall and a rise by 0.1, an end of at least 0.6)",
        found=found,
        verdict=judge(held),
        note="; ".join(courses),
    )


def pythia(trajectories: Sequence[Trajectory]) -> Claim:
    """Judge whether Pythia leaves chance where the paper sees its directions turn."""
    found = {each.task: each.leaves(0.1) for each in trajectories}
    steps = sorted(found.values())
    held = [True if 512 <= step <= 3000 else None for step in found.values()]
    return Claim(
        claim="Pythia-160M leaves chance where its features turn (about step 1000): step of a "
        "tenth of the gain in accuracy",
        claimed="512 to 3000, the evaluated steps beside 1000",
        found=[bounds(steps[len(steps) // 2], low=steps[0], high=steps[-1])],
        verdict=judge(held),
        note="public evaluations of one run, the bounds are the tasks: "
        + ", ".join(f"{task} {step}" for task, step in found.items()),
    )
