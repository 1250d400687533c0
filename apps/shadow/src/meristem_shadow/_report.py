"""The page of an orbit: the verdict first, in a sentence one can quote."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from meristem_core.report import (
    Block,
    Check,
    Checks,
    Drawing,
    LineChart,
    Page,
    Section,
    Series,
    Table,
    Text,
    Tile,
    Tiles,
)

if TYPE_CHECKING:
    from meristem_shadow._orbit import Shadow

FIGURE_POINTS = 4000
SIZE = 340  # of the figure's square, in its own units
SMALLEST = 1e-18  # radii below are drawn there
MAP_THEOREM = (
    "The theorem is about the exact map with these exact parameters. Around each point is a box; "
    "the map carries each box across the next along the expanding directions and into it along the "
    "others, so by Brouwer's theorem one true orbit passes through all. It is one of many: the "
    "shadow is not unique."
)
FLOW_THEOREM = (
    "The theorem is about the exact equations with these exact parameters. Through each point goes "
    "a section across the flow, with a box on it; following the solutions from one section to the "
    "next carries each box across the next along the expanding directions and into it along the "
    "others, so by Brouwer's theorem one true solution passes through all, not exactly at the "
    "times of the points. It is one of many: the shadow is not unique."
)


def sentence(shadow: "Shadow") -> str:
    """Return the finding in one sentence."""
    params = ", ".join(f"{key} = {value}" for key, value in shadow.params.items())
    of = f"{shadow.system} with {params}" if params else shadow.system
    orbit = "the refined orbit" if shadow.moved is not None else "the computed orbit"
    if shadow.verdict is not None and not shadow.verdict.ok and shadow.ok:
        return f"the certificate of {orbit} of {of} was rejected: {shadow.verdict.reason}"
    if shadow.ok and shadow.time_shift is not None:
        return (
            f"a true solution of {of} passes within {shadow.radius_max:.2g} of all "
            f"{shadow.steps + 1:,} points of {orbit}, at times {shadow.time_shift:.2g} off at "
            f"most; the median bound is {shadow.radius_median:.2g}"
        )
    if shadow.ok:
        return (
            f"a true orbit of {of} stays within {shadow.radius_max:.2g} of all "
            f"{shadow.steps + 1:,} points of {orbit}; the median bound is "
            f"{shadow.radius_median:.2g}"
        )
    last = shadow.first + shadow.certified_steps
    what = "orbit" if shadow.step is None else "solution"
    return (
        f"no true {what} of {of} is proved near all {shadow.steps + 1:,} points of {orbit}: it "
        f"fails at step {shadow.failed_at:,}; steps {shadow.first:,} to {last:,} are certified"
    )


def orbit_page(shadow: "Shadow") -> Page:
    """Return the report."""
    sections = [
        Section(title="Verdict", blocks=_verdict(shadow)),
        Section(title="Along the orbit", blocks=_along(shadow)),
        Section(title="What the theorem is about", blocks=_hypotheses(shadow)),
    ]
    if shadow.around is not None:
        sections.insert(1, Section(title="Where it fails", blocks=_failure(shadow)))
    return Page(
        title=f"Shadowing: {shadow.system}",
        subtitle=sentence(shadow)[0].upper() + sentence(shadow)[1:] + ".",
        sections=sections,
    )


def _verdict(shadow: "Shadow") -> list[Block]:
    verdict = shadow.verdict
    checks = [
        Check(
            claim="The inequalities of every step close",
            verdict="certified" if shadow.ok else "refused",
            holds=shadow.ok,
            detail=shadow.reason + ".",
        ),
        Check(
            claim="An independent verifier in Arb arithmetic agrees",
            verdict="not run" if verdict is None else "proved" if verdict.ok else "rejected",
            holds=None if verdict is None else verdict.ok,
            detail="" if verdict is None else f"{verdict.n_steps:,} steps; {verdict.reason}.",
        ),
    ]
    tiles = [
        Tile(label="steps certified", value=f"{shadow.certified_steps:,}"),
        Tile(label="largest radius", value=f"{shadow.radius_max:.2g}", note="sup norm"),
        Tile(label="median radius", value=f"{shadow.radius_median:.2g}"),
        Tile(label="largest step error", value=f"{shadow.residual_max:.2g}"),
    ]
    if shadow.time_shift is not None:
        tiles.append(
            Tile(label="drift in time", value=f"{shadow.time_shift:.2g}", note="at most, in all")
        )
    if shadow.moved is not None:
        tiles.append(
            Tile(
                label="refined by",
                value=f"{shadow.moved:.2g}",
                note="distance of the refined to the computed orbit",
            )
        )
    return [Checks(checks), Tiles(tiles)]


def _along(shadow: "Shadow") -> list[Block]:
    profile = shadow.profile
    blocks: list[Block] = [
        LineChart(
            title="Radius against step",
            x_label="step",
            y_label="log10 radius",
            series=[
                Series(name="largest of a bin", x=profile.step, y=logs(profile.largest)),
                Series(name="median of a bin", x=profile.step, y=logs(profile.median)),
            ],
            first="linear",
            note="A true orbit is within the radius of each point; peaks are near tangencies.",
        )
    ]
    if profile.radius:
        blocks.append(
            LineChart(
                title="How many points have a larger radius",
                x_label="radius in units of the smallest",
                y_label="log10 share",
                series=[
                    Series(
                        name="share of larger radii",
                        x=[r / profile.radius[0] for r in profile.radius],
                        y=logs(profile.exceeding),
                    )
                ],
            )
            if profile.radius[0] > 0
            else Text("The smallest radius is 0.")
        )
    if shadow.points.shape[1] >= 2:
        blocks.append(_portrait(shadow.points))
    if shadow.gains is not None:
        rows = [[level, value] for level, value in shadow.gains.items()]
        blocks.append(
            Text("Gain: how much errors of size 1 at every step move the shadow at a point.")
        )
        blocks.append(Table(columns=["quantile", "gain"], rows=rows))
    return blocks


def _portrait(points: Float[np.ndarray, "n d"]) -> Drawing:
    """Return the first two variables of the orbit as dots."""
    xy = points[:: max(1, len(points) // FIGURE_POINTS), :2]
    low, high = xy.min(axis=0), xy.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    place = 10 + (xy - low) / span * (SIZE - 20)
    dots = "".join(f"M{x:.1f} {SIZE - y:.1f}h.1" for x, y in place.tolist())
    texts = (
        f'<text class="start" x="0" y="{SIZE + 14}">{low[0]:.3g}</text>'
        f'<text class="y" x="{SIZE}" y="{SIZE + 10}">{high[0]:.3g}</text>'
    )
    return Drawing(
        title="The orbit",
        svg=f'<svg viewBox="0 0 {SIZE} {SIZE + 20}" role="img" aria-label="points of the orbit">'
        f'<path class="c0" stroke-linecap="round" d="{dots}"/>{texts}</svg>',
        note=f"First variable to the right, second upward from {low[1]:.3g} to {high[1]:.3g}; "
        f"{len(xy):,} of {len(points):,} points.",
    )


def _failure(shadow: "Shadow") -> list[Block]:
    first, gain = shadow.around or (0, [])
    some = [(first + i, math.log10(value)) for i, value in enumerate(gain) if math.isfinite(value)]
    text = Text(
        f"{shadow.reason[0].upper()}{shadow.reason[1:]}. Where the orbit neither expands nor "
        "contracts enough, errors add up faster than any shadow can follow."
    )
    if not some:
        return [text]
    chart = LineChart(
        title="Gain around the failure",
        x_label="step",
        y_label="log10 gain",
        series=[Series(name="gain", x=[x for x, _ in some], y=[y for _, y in some])],
        first="linear",
    )
    return [text, chart]


def _hypotheses(shadow: "Shadow") -> list[Block]:
    rows = [
        ["system", shadow.system],
        *([f"parameter {key}", f"exactly {value}"] for key, value in shadow.params.items()),
        ["start", ", ".join(f"{x!r}" for x in shadow.start)],
        ["steps", f"{shadow.steps:,}"],
        *([["time between points", f"{shadow.step!r}"]] if shadow.step is not None else []),
        ["noise added to each step", f"{shadow.noise:g}"],
        ["expanding directions", str(shadow.n_unstable)],
        *([f"seconds: {name}", f"{value:.2f}"] for name, value in shadow.seconds.items()),
    ]
    return [
        Text(MAP_THEOREM if shadow.step is None else FLOW_THEOREM),
        Table(columns=["hypothesis", "value"], rows=rows),
    ]


def logs(values: Sequence[float]) -> list[float]:
    """Return base-10 logarithms, of the smallest radius where a value is below it."""
    return [math.log10(max(value, SMALLEST)) for value in values]
