"""Local manifold as a series, its proved error, its branches."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

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
from meristem_shadow._config import ManifoldConfig
from meristem_shadow._drawing import curves_in_plane
from meristem_shadow._finish import capital, finite, tell, write
from meristem_shadow._report import logs
from meristem_shadow._systems import find_system, found_point

SCHEMA = "meristem-shadow-manifold/1"
GRAPH_REACH = 0.1  # of a degenerate graph whose map has no radius
NEAR = 1e-3  # Newton's method stops about here at a degenerate point
SAMPLES = 60

Local = md.Manifold | md.DegenerateGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One branch: how long it got, or why not."""

    side: int
    length: float
    points: int
    reason: str  # empty if it is as long as asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A bound of the distance of the series' floats to the true manifold on one side."""

    side: int
    ok: bool
    bound: float
    reach: float  # parameters up to which it holds
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known of the manifold."""

    system: str
    params: dict[str, str]
    kind: str
    point: list[float]
    point_kind: str
    multipliers: list[str]
    order: int
    coefficients: list[Any]
    reach: float  # of the parameter
    residual: float | None  # of the invariance equation up to there
    branches: list[Branch]
    proofs: list[Proof]

    @property
    def complete(self) -> bool:
        """Whether every branch is as long as asked."""
        return all(not branch.reason for branch in self.branches)

    @property
    def proved(self) -> bool:
        """Whether a bound is proved on both sides."""
        return bool(self.proofs) and all(proof.ok for proof in self.proofs)


def run(config: ManifoldConfig) -> int:
    """Compute, write the folder, print the sentence, and return the exit code."""
    system = find_system(config.system, config.params)
    if not 0 <= config.length < float("inf"):
        raise UsageError(f"--length {config.length}: it must be finite and at least 0")
    if config.order is not None and config.order < 2:
        raise UsageError(f"--order {config.order}: it must be at least 2")
    base = found_point(system, config.at)
    names = ("at", "kind", "dim", "order", "length", "certify")
    stored = {
        "system": system.name,
        "params": system.exact_parameters(),
        **{name: getattr(config, name) for name in names},
    }
    with open_run(
        config.out, stored, name="meristem shadow manifold", version=version("meristem-shadow")
    ):
        local, reach = _local(config, system, base)
        curves, branches = _branches(config, local)
        finding = _finding(config, system, base, local, reach, branches)
        arrays = {f"branch_{side}": curve.points for side, curve in curves.items()}
        np.savez(config.out / "manifold.npz", **arrays)  # pyright: ignore[reportArgumentType]
        write(config, {"schema": SCHEMA, **finite(asdict(finding))}, _page(finding, local, curves))
    tell(config, sentence(finding))
    return 0 if finding.complete and (finding.proved or not config.certify) else 1


def _local(
    config: ManifoldConfig, system: md.Map | md.Flow, base: md.FixedPoint
) -> tuple[Local, float]:
    if base.kind != "degenerate" or system.dim != 2:
        made = md.invariant_manifold(
            system, base.point, config.kind, dim=config.dim, order=config.order
        )
        return made, 1.0
    if np.abs(base.point).max() > NEAR:
        raise UsageError(
            f"{base.point.tolist()} is degenerate; series there are for the origin, so shift the "
            "variables of the system"
        )
    if config.dim == 2:
        raise UsageError("--dim 2: a degenerate saddle of the plane has curves; take --dim 1")
    report = md.check_degenerate_saddle(system)
    if not report.ok:
        raise UsageError(_failing(report, system.name))
    graph = md.degenerate_graph(system, config.kind, order=config.order or 40)
    return graph, min(report.radius, GRAPH_REACH)


def _failing(report: md.SaddleReport, name: str) -> str:
    failing = [
        f"{key} is {form.margin:.3g} at {tuple(round(x, 4) for x in form.witness)}"
        for key, form in report.forms.items()
        if not form.definite
    ]
    return (
        f"{name} fails the six conditions of a degenerate saddle: {'; '.join(failing)}; each must "
        "be positive off 0"
    )


def _branches(config: ManifoldConfig, local: Local) -> tuple[dict[int, md.Curve], list[Branch]]:
    curve = isinstance(local, md.DegenerateGraph) or local.dim == 1
    if not curve or isinstance(local.system, md.Flow) or not config.length:
        return {}, []
    curves: dict[int, md.Curve] = {}
    branches: list[Branch] = []
    with progress_bar("grow") as show:
        for done, side in enumerate((1, -1)):
            grown = curves[side] = md.grow(local, length=config.length, side=side, throw=False)
            size, count = float(grown.arc[-1]), len(grown.points)
            branches.append(Branch(side=side, length=size, points=count, reason=grown.reason))
            show(done + 1, 2, {})
    return curves, branches


def _finding(
    config: ManifoldConfig, system: md.Map | md.Flow, base: md.FixedPoint, local: Local,
    reach: float, branches: list[Branch],
) -> Finding:  # fmt: skip
    series = isinstance(local, md.Manifold)
    if series:
        residual: float | None = local.residual
        coefficients = [[str(x) for x in np.ravel(c)] for c in local.coefficients]
        if local.dim == 1:
            coefficients = [[float(x) for x in c] for c in local.coefficients]
    else:
        t = np.linspace(-reach, reach, 2 * SAMPLES)
        residual = None if isinstance(system, md.Flow) else float(local.residual_at(t).max())
        coefficients = [float(c) for c in local.coefficients]
    multipliers = local.multipliers if series else base.multipliers
    return Finding(
        system=system.name, params=system.exact_parameters(), kind=config.kind,
        point=(base.point if series else np.zeros(2)).tolist(), point_kind=base.kind,
        multipliers=[f"{complex(x):.8g}" if x.imag else f"{x.real:.8g}" for x in multipliers],
        order=len(local.coefficients) - 1, coefficients=coefficients, reach=reach,
        residual=residual, branches=branches, proofs=_proofs(local) if config.certify else [],
    )  # fmt: skip


def _proofs(local: Local) -> list[Proof]:
    try:
        if isinstance(local, md.Manifold):
            found = md.certify_manifold(local)
            return [
                Proof(side=0, ok=found.ok, bound=found.radius, reach=found.reach,
                      reason=found.reason)
            ]  # fmt: skip
        out: list[Proof] = []
        for side in (1, -1):
            wedge = md.certify_graph(local, side=side)
            bound = wedge.width(wedge.reach) if wedge.ok else float("inf")
            out.append(
                Proof(side=side, ok=wedge.ok, bound=bound, reach=wedge.reach, reason=wedge.reason)
            )
        return out
    except ValueError as error:
        nothing = float("inf")
        return [Proof(side=0, ok=False, bound=nothing, reach=0.0, reason=str(error))]


def sentence(found: Finding) -> str:
    """Return the finding in one sentence."""
    params = ", ".join(f"{key} = {value}" for key, value in found.params.items())
    of = f"{found.system} with {params}" if params and len(params) < 60 else found.system
    text = f"the local {found.kind} manifold of {of} at {_point(found.point)}"
    if found.proved:
        bound, reach = max(p.bound for p in found.proofs), min(p.reach for p in found.proofs)
        text += f" is within {bound:.2g} of its series for |t| <= {reach:.3g}, proved"
    elif found.residual is not None:
        text += f" solves its equation within {found.residual:.2g} (measured, not proved)"
    else:
        text += f" is a series of order {found.order} (not proved)"
    bad = [branch for branch in found.branches if branch.reason]
    return text + "".join(f"; branch {b.side:+d} ends at length {b.length:.2g}" for b in bad)


def _point(point: list[float]) -> str:
    return "(" + ", ".join(f"{x:.6g}" for x in point) + ")"


def _page(found: Finding, local: Local, curves: dict[int, md.Curve]) -> Page:
    return Page(
        title=f"{found.kind.capitalize()} manifold: {found.system}",
        subtitle=capital(sentence(found)),
        sections=[
            Section(title="Verdict", blocks=_verdict(found)),
            Section(title="The manifold", blocks=_figures(found, local, curves)),
            Section(title="What it is about", blocks=_about(found)),
        ],
    )


def _verdict(found: Finding) -> list[Block]:
    checks = [
        Check(
            claim="The local series is near the true manifold"
            + (f" on side {proof.side:+d}" if proof.side else ""),
            verdict="proved" if proof.ok else "not proved",
            holds=proof.ok,
            detail=f"{proof.reason}.",
        )
        for proof in found.proofs
    ]
    checks += [
        Check(
            claim=f"Branch {branch.side:+d} is as long as asked",
            verdict="no" if branch.reason else "yes",
            holds=not branch.reason,
            detail=f"{branch.reason or f'length {branch.length:.4g}, {branch.points:,} points'}.",
        )
        for branch in found.branches
    ]
    tiles = [
        Tile(label="fixed point", value=found.point_kind, note=_point(found.point)),
        Tile(label="multipliers", value=", ".join(found.multipliers)),
        Tile(label="order", value=str(found.order)),
    ]
    if found.residual is not None:
        note = f"of the invariance equation on |t| <= {found.reach:.3g}"
        tiles.append(Tile(label="residual", value=f"{found.residual:.2g}", note=note))
    return [Checks(checks), Tiles(tiles)] if checks else [Tiles(tiles)]


def _figures(found: Finding, local: Local, curves: dict[int, md.Curve]) -> list[Block]:
    if isinstance(local, md.Manifold) and local.dim == 2:
        angle = np.linspace(0, 2 * np.pi, 121)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        rings = [local(r * ring) for r in (0.25, 0.5, 0.75, 1.0)]
        spokes = [local(np.linspace(-1, 1, 61)[:, None] * ring[i]) for i in range(0, 60, 10)]
        return [curves_in_plane("The surface", {"circles": rings, "spokes": spokes})]
    t = np.linspace(-found.reach, found.reach, 2 * SAMPLES)
    lines: dict[str, list[Any]] = {"local series": [local(t)]}
    for side, curve in curves.items():
        lines[f"branch {side:+d}"] = [curve.points]
    title = f"The {found.kind} manifold"
    blocks: list[Block] = []
    if local.system.dim >= 2:
        blocks.append(curves_in_plane(title, dict(reversed(lines.items()))))
    if found.residual is not None:
        size = np.geomspace(1e-3, 1, SAMPLES) * found.reach
        blocks.append(
            LineChart(
                title="Residual along the local manifold",
                x_label="|t|",
                y_label="log10 residual",
                series=[
                    Series(name=name, x=size.tolist(), y=logs(local.residual_at(e * size).tolist()))
                    for e, name in ((1, "t > 0"), (-1, "t < 0"))
                ],
                note="How far the image of a point is from the point that the equation names.",
            )
        )
    return blocks


def _about(found: Finding) -> list[Block]:
    rows: list[list[str]] = [
        ["system", found.system],
        *([f"parameter {key}", f"exactly {value}"] for key, value in found.params.items()),
        ["fixed point", ", ".join(f"{x!r}" for x in found.point)],
        *([f"proved on side {p.side:+d}", f"{p.bound:.3g} for |t| <= {p.reach:.4g}"]
          for p in found.proofs if p.ok),
    ]  # fmt: skip
    graph = found.point_kind == "degenerate"
    text = (
        "The manifold is a graph over one variable, t. Its series diverges in general and is cut "
        "after its smallest term; the bound is a wedge that the map carries into itself."
        if graph
        else "K(t) solves F(K(t)) = K(R t); t is scaled so that the last coefficient is about "
        "1e-16 on |t| <= 1. The bound holds for the exact map with these exact parameters, on the "
        "local series alone: branches are its images, whose errors across the curve contract."
    )
    return [Text(text), Table(columns=["hypothesis", "value"], rows=rows)]
