"""Figures in the plane: curves and boxes in a square of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from meristem_core.report import Drawing, clean

SIZE = 340  # of the figure's square, in its own units
EDGE = 10
MOST_POINTS = 4000  # of a curve


def curves_in_plane(
    title: str, lines: Mapping[str, Sequence[Float[np.ndarray, "n d"]]], note: str = ""
) -> Drawing:
    """Return curves by their first two variables; lines of one name share a colour."""
    every = [line[:, :2] for group in lines.values() for line in group]
    low, high = _frame(np.concatenate(every))
    paths = [
        f'<path class="c{i}" d="{"".join(_path(line[:, :2], low, high) for line in group)}"/>'
        for i, group in enumerate(lines.values())
    ]
    legend = [(f"c{i}", name) for i, name in enumerate(lines)]
    return _drawn(title, "".join(paths), low, high, note, legend)


def boxes_in_plane(
    title: str,
    centres: Float[np.ndarray, "n 2"],
    half_width: float,
    holds: Bool[np.ndarray, " n"],
    names: tuple[str, str],
) -> Drawing:
    """Return square boxes filled by whether something holds on them."""
    low, high = _frame(np.concatenate([centres - half_width, centres + half_width]))
    parts = []
    for i, chosen in enumerate((holds, ~holds)):
        corners = _places(centres[chosen] - half_width, low, high)
        side = 2 * half_width / (high - low) * (SIZE - 2 * EDGE) * 0.94
        d = "".join(
            f"M{x:.1f} {SIZE - y:.1f}h{side[0]:.2f}v{-side[1]:.2f}h{-side[0]:.2f}z"
            for x, y in corners.tolist()
        )
        parts.append(f'<path class="fill c{i}" d="{d}"/>')
    legend = [("c0", names[0]), ("c1", names[1])]
    return _drawn(title, "".join(parts), low, high, "", legend)


def _frame(xy: Float[np.ndarray, "n 2"]) -> tuple[Any, Any]:
    low, high = xy.min(axis=0), xy.max(axis=0)
    return low, np.where(high > low, high, low + 1.0)


def _places(xy: Float[np.ndarray, "n 2"], low: Any, high: Any) -> Any:
    return EDGE + (xy - low) / (high - low) * (SIZE - 2 * EDGE)


def _path(line: Float[np.ndarray, "n 2"], low: Any, high: Any) -> str:
    thin = line[:: max(1, len(line) // MOST_POINTS)]
    places = np.concatenate([thin, line[-1:]])
    points = [f"{x:.1f} {SIZE - y:.1f}" for x, y in _places(places, low, high).tolist()]
    return "M" + "L".join(points)


def _drawn(
    title: str, body: str, low: Any, high: Any, note: str, legend: list[tuple[str, str]]
) -> Drawing:
    texts = (
        f'<text class="start" x="0" y="{SIZE + 14}">{low[0]:.3g}</text>'
        f'<text style="text-anchor:end" x="{SIZE}" y="{SIZE + 14}">{high[0]:.3g}</text>'
    )
    svg = (
        f'<svg viewBox="0 0 {SIZE} {SIZE + 20}" role="img" aria-label="{clean(title)}">'
        f"{body}{texts}</svg>"
    )
    span = f"First variable to the right, second upward from {low[1]:.3g} to {high[1]:.3g}."
    return Drawing(title=title, svg=svg, note=f"{note} {span}".strip(), legend=legend)
