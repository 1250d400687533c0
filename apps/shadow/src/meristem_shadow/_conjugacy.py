"""The conjugacy of a planar saddle on a grid: residual, exit times, the grid carried along."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float

import meristem_dynamics as md
from meristem_core import open_run
from meristem_core.command import UsageError, progress_bar
from meristem_core.report import (
    Block,
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
from meristem_shadow._config import ConjugacyConfig
from meristem_shadow._drawing import curves_in_plane
from meristem_shadow._finish import capital, finite, tell, write
from meristem_shadow._report import logs
from meristem_shadow._systems import find_map, found_point

SCHEMA = "meristem-shadow-conjugacy/1"
TOLERANCE = 1e-10  # of the residual; rounding of exit times enters a linear target in full
INNER = 0.97  # of the square: the grid stays inside
LINES = 9  # carried lines of each family that are drawn

Points = Float[np.ndarray, "n n 2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the grid says."""

    system: str
    params: dict[str, str]
    point: list[float]
    point_kind: str
    target: str
    edge: float
    points: int
    infinite: int  # exit times: points on a manifold, or beyond what is counted
    longest: float  # finite exit time, steps
    residual: float
    folds: int  # neighbours along a cone direction whose order h does not keep
    fold_at: list[float] | None  # the first of them, in the saddle's coordinates

    @property
    def ok(self) -> bool:
        """Whether h conjugates to rounding and keeps the order along both families of lines."""
        return self.residual <= TOLERANCE and not self.folds


def run(config: ConjugacyConfig) -> int:
    """Compute, write the folder, print the sentence, and return the exit code."""
    system = find_map(config.system, config.params)
    if config.grid < 2:
        raise UsageError(f"--grid {config.grid}: it must be at least 2")
    if config.edge is not None and not 0 < config.edge < float("inf"):
        raise UsageError(f"--edge {config.edge}: it must be finite and above 0")
    base = found_point(system, config.at)
    names = ("at", "target", "edge", "grid")
    stored = {
        "system": system.name,
        "params": system.exact_parameters(),
        **{name: getattr(config, name) for name in names},
    }
    with open_run(
        config.out, stored, name="meristem shadow conjugacy", version=version("meristem-shadow")
    ):
        h = md.conjugacy(system, base.point, target=config.target, edge=config.edge)
        w, z = _square(h, config.grid)
        image, times, residual = _computed(h, z)
        row, column = _folds(image)
        folds = np.argwhere(row | column)
        finding = Finding(
            system=system.name, params=system.exact_parameters(), point=base.point.tolist(),
            point_kind=base.kind, target=config.target, edge=h.edge, points=config.grid**2,
            infinite=int(np.isinf(times).sum()),
            longest=float(times[np.isfinite(times)].max(initial=0.0)), residual=residual,
            folds=len(folds), fold_at=w[tuple(folds[0])].tolist() if len(folds) else None,
        )  # fmt: skip
        np.savez(config.out / "conjugacy.npz", points=z, image=image, times=times)
        write(
            config, {"schema": SCHEMA, **finite(asdict(finding))}, _page(finding, w, image, times)
        )
    tell(config, sentence(finding))
    return 0 if finding.ok else 1


def _square(h: md.Conjugacy, n: int) -> tuple[Points, Points]:
    """Return a grid in the saddle's coordinates and its points."""
    line = np.linspace(-INNER, INNER, n) * h.edge
    w = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
    zero = h.coordinates(np.zeros((1, 2)))
    back = np.linalg.inv((h.coordinates(np.eye(2)) - zero).T)
    return w, (w - zero) @ back.T


def _computed(h: md.Conjugacy, z: Points) -> tuple[Points, Points, float]:
    image, times, worst = np.empty_like(z), np.empty_like(z), 0.0
    with progress_bar("conjugacy") as show:
        for i, column in enumerate(z):
            image[i] = h(column)
            times[i] = np.stack(h.exit_times(column), axis=-1)
            worst = max(worst, h.residual(column))
            show(i + 1, len(z), {"residual": worst})
    if np.isnan(image).any():
        raise ValueError("h is not a number somewhere in the square; lower --edge")
    return image, times, worst


def _folds(image: Points) -> tuple[Any, Any]:
    """Return where h_x does not grow with x, and where h_y does not grow with y."""
    row, column = np.zeros(image.shape[:2], bool), np.zeros(image.shape[:2], bool)
    row[:-1] = np.diff(image[..., 0], axis=0) <= 0
    column[:, :-1] = np.diff(image[..., 1], axis=1) <= 0
    return row, column


def sentence(found: Finding) -> str:
    """Return the finding in one sentence."""
    text = (
        f"the equation h F = G h holds within {found.residual:.2g} at {found.points:,} points of "
        f"the square of half-side {found.edge:.3g} around the {found.point_kind} point of "
        f"{found.system}"
    )
    if found.folds:
        return f"{text}, but h does not keep the order at {found.folds} of them"
    return f"{text}, and h keeps the order along both axes (measured, not proved)"


def _page(found: Finding, w: Points, image: Points, times: Points) -> Page:
    place = "" if found.fold_at is None else f"first at {found.fold_at}; lower --edge"
    checks = [
        Check(
            claim="h(F z) = G(h z)",
            verdict=f"{found.residual:.2g}",
            holds=found.residual <= TOLERANCE,
            detail=f"largest gap on the grid; {TOLERANCE:g} is allowed.",
        ),
        Check(
            claim="h keeps the order along the contracting and the expanding axis",
            verdict="yes" if not found.folds else f"no, {found.folds} times",
            holds=not found.folds,
            detail=f"{place or 'each line of the grid is carried onto an ordered one'}.",
        ),
    ]
    tiles = [
        Tile(label="points", value=f"{found.points:,}"),
        Tile(label="half-side", value=f"{found.edge:.3g}", note="in the saddle's coordinates"),
        Tile(label="longest exit", value=f"{found.longest:,.0f}", note="steps"),
        Tile(label="exits at infinity", value=f"{found.infinite:,}"),
    ]
    rows: list[list[str]] = [
        ["system", found.system],
        *([f"parameter {key}", f"exactly {value}"] for key, value in found.params.items()),
        ["fixed point", ", ".join(f"{x!r}" for x in found.point)],
        ["target", found.target],
    ]
    about = (
        "T_u counts the steps until a point leaves the square forward, T_s backward, with a "
        "fraction for the last step; h turns them into places along orbits of the decoupled map G. "
        "h F = G h then holds by construction, up to rounding. Under the cone conditions two "
        "points differ by a vector along which one of the times is monotone, so h is a "
        "homeomorphism; the order on the grid is evidence for it, not proof."
    )
    return Page(
        title=f"Conjugacy: {found.system}",
        subtitle=capital(sentence(found)),
        sections=[
            Section(title="Verdict", blocks=[Checks(checks), Tiles(tiles)]),
            Section(title="The conjugacy", blocks=_figures(w, image, times)),
            Section(
                title="What it is about",
                blocks=[Text(about), Table(columns=["hypothesis", "value"], rows=rows)],
            ),
        ],
    )


def _figures(w: Points, image: Points, times: Points) -> list[Block]:
    kept = np.unique(np.linspace(0, len(w) - 1, min(LINES, len(w))).round().astype(int))

    def lines(grid: Points) -> dict[str, Any]:
        return {
            "along the expanding axis": [grid[i] for i in kept],
            "along the contracting axis": [grid[:, i] for i in kept],
        }

    column = times[len(w) // 2]
    height, unstable = np.abs(w[len(w) // 2, :, 1]), column[:, 1]
    some = np.flatnonzero(np.isfinite(unstable) & (unstable > 0) & (height > 0))
    some = some[np.argsort(height[some])]
    steps: list[float] = unstable[some].tolist()
    blocks: list[Block] = [
        curves_in_plane("Lines in the saddle's coordinates", lines(w)),
        curves_in_plane("The same lines in the target", lines(image), "Carried by h."),
    ]
    if some.size:
        blocks.append(
            LineChart(
                title="Steps until the exit, on a line across the stable manifold",
                x_label="distance to the contracting axis",
                y_label="log10 T_u",
                series=[Series(name="T_u", x=height[some].tolist(), y=logs(steps))],
                note="At a degenerate saddle a power of the distance to the manifold, at a "
                "hyperbolic one its logarithm.",
            )
        )
    return blocks
