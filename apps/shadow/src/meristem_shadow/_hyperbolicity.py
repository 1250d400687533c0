"""Cones box by box, the six conditions of degenerate saddles, and rates towards a boundary."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float

import meristem_dynamics as md
from meristem_core import open_run
from meristem_core.command import UsageError, progress_bar
from meristem_shadow._config import HyperbolicityConfig
from meristem_shadow._finish import finite, tell, write
from meristem_shadow._hyperbolicity_report import hyperbolicity_page, sentence
from meristem_shadow._systems import find_map, found_point

SCHEMA = "meristem-shadow-hyperbolicity/1"
REACH = 0.1
PASSAGE = 450  # steps before and after the nearest point; directions settle in them
SETTLE = 50
NEAREST, FARTHEST, BELOW = 3e-4, 1e-2, 0.08  # distances to the boundary
CLOUD = 1500  # points of a figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Cones:
    """Whether the constant cones are invariant and expanding, box by box: proved."""

    centres: Float[np.ndarray, "n 2"]
    half_width: float
    holds: Any  # per box
    expansion: Float[np.ndarray, " n"]  # lower bound on the cone
    worst: list[float]  # centre of the box with the least expansion

    @property
    def failing(self) -> int:
        """Number of boxes without a proof."""
        return int((~self.holds).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known; a part that does not apply is None and `missing` says why."""

    system: str
    params: dict[str, str]
    point: list[float]
    point_kind: str
    cones: Cones | None
    forms: md.SaddleReport | None
    pointwise: md.PointwiseReport | None
    alpha: float | None
    cloud: Float[np.ndarray, "3 n"] | None  # distance, unstable and stable rate minus 1
    missing: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether what decides holds: R, else the six conditions, else the cones of every box."""
        if self.pointwise is not None:
            return self.pointwise.ratio
        if self.forms is not None:
            return self.forms.ok
        return self.cones is not None and not self.cones.failing


def run(config: HyperbolicityConfig) -> int:
    """Test, write the folder, print the sentence, and return the exit code."""
    system = find_map(config.system, config.params)
    _check(config, system)
    base = found_point(system, config.at)
    names = ("at", "reach", "boxes", "alpha", "orbits", "seed")
    stored = {
        "system": system.name,
        "params": system.exact_parameters(),
        **{name: getattr(config, name) for name in names},
    }
    with open_run(
        config.out, stored, name="meristem shadow hyperbolicity",
        version=version("meristem-shadow"),
    ):  # fmt: skip
        finding = _find(config, system, base)
        if finding.cones is None and finding.forms is None and finding.pointwise is None:
            reasons = "; ".join(f"{part}: {why}" for part, why in finding.missing.items())
            raise UsageError(f"{system.name} can be tested in no way: {reasons}")
        write(config, {"schema": SCHEMA, **_plain(finding)}, hyperbolicity_page(finding))
    tell(config, sentence(finding))
    return 0 if finding.ok else 1


def _check(config: HyperbolicityConfig, system: md.Map) -> None:
    if system.dim != 2:
        raise UsageError(f"{system.name} has {system.dim} variables; this command takes the plane")
    for name in ("boxes", "orbits"):
        if getattr(config, name) < 2:
            raise UsageError(f"--{name} {getattr(config, name)}: it must be at least 2")
    for name in ("reach", "alpha"):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} {value}: it must be finite and above 0")


def _find(config: HyperbolicityConfig, system: md.Map, base: md.FixedPoint) -> Finding:
    missing: dict[str, str] = {}
    forms = _forms(system, base, missing)
    alpha = config.alpha
    if alpha is None:
        alpha = float(system.exact.get("beta", 1.0))  # Df of the slow-down is beta-Hoelder
    pointwise, cloud = _pointwise(config, system, base, alpha, missing)
    cones = _cones(config, system, base, forms, missing)
    return Finding(
        system=system.name, params=system.exact_parameters(), point=base.point.tolist(),
        point_kind=base.kind, cones=cones, forms=forms, pointwise=pointwise,
        alpha=alpha if pointwise else None, cloud=cloud, missing=missing,
    )  # fmt: skip


def _forms(system: md.Map, base: md.FixedPoint, missing: dict[str, str]) -> md.SaddleReport | None:
    if base.kind != "degenerate":
        missing["six conditions"] = f"the point is a {base.kind}, not degenerate"
    elif system.jacobian is not None:
        missing["six conditions"] = "the map has its own jacobian, so it is no polynomial"
    else:
        try:
            return md.check_degenerate_saddle(system)
        except ValueError as error:
            missing["six conditions"] = str(error)
    return None


def _cones(
    config: HyperbolicityConfig, system: md.Map, base: md.FixedPoint,
    forms: md.SaddleReport | None, missing: dict[str, str],
) -> Cones | None:  # fmt: skip
    frame = _frame(system, base, forms)
    if system.jacobian is not None or frame is None:
        missing["cones"] = (
            "balls cannot enter a map with its own jacobian"
            if system.jacobian is not None
            else f"the point is {base.kind} and has no two real directions, one expanding"
        )
        return None
    reach = config.reach or (forms.radius if forms is not None and forms.ok else REACH)
    width = reach / config.boxes
    line = np.linspace(-reach + width, reach - width, config.boxes)
    centres = base.point + np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    report = md.cone_check(system, centres, width, frame)
    return Cones(
        centres=centres, half_width=width, holds=report.inside & (report.expansion > 1),
        expansion=report.expansion, worst=centres[report.worst].tolist(),
    )  # fmt: skip


def _frame(
    system: md.Map, base: md.FixedPoint, forms: md.SaddleReport | None
) -> Float[np.ndarray, "2 2"] | None:
    """Return the expanding and the contracting direction as columns."""
    if forms is not None:
        return np.eye(2) if forms.swapped else np.eye(2)[::-1].copy()
    if base.kind != "saddle":
        return None
    pair: Any = np.linalg.eig(md.jacobians(system, base.point[None])[0])
    values, vectors = pair
    return np.real(vectors[:, np.argsort(-np.abs(values))])


def _pointwise(
    config: HyperbolicityConfig, system: md.Map, base: md.FixedPoint, alpha: float,
    missing: dict[str, str],
) -> tuple[md.PointwiseReport | None, Any]:  # fmt: skip
    if system.boundary_distance is None or system.inverse is None or not system.torus:
        missing["rates"] = "they need a map of the torus with inverse and boundary_distance"
        return None, None
    rng = np.random.default_rng(config.seed)
    angle = rng.uniform(0, 2 * np.pi, config.orbits)
    size = np.geomspace(NEAREST, FARTHEST, config.orbits)
    starts = base.point + size[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    orbits = _two_sided(system, starts)
    rates: list[md.Rates] = []
    with progress_bar("rates") as show:
        for i, orbit in enumerate(orbits):
            rates.append(md.pointwise_rates(system, orbit, settle=SETTLE))
            show(i + 1, len(orbits), {})
    report = md.check_pointwise(rates, alpha=alpha, below=BELOW, rng=config.seed)
    columns = [
        np.concatenate([getattr(r, name) for r in rates])
        for name in ("distance", "unstable", "stable")
    ]
    cloud = np.stack([columns[0], columns[1] - 1, columns[2] - 1])
    cloud = cloud[:, (cloud > 0).all(axis=0) & (cloud[0] < BELOW)]
    return report, cloud[:, :: max(1, cloud.shape[1] // CLOUD)]


def _two_sided(system: md.Map, starts: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n m 2"]:
    inverse, p = system.inverse, system.parameters()
    assert inverse is not None
    back = [starts % 1.0]
    for _ in range(PASSAGE):
        parts = inverse([back[-1][:, 0], back[-1][:, 1]], p)
        back.append(np.stack(np.broadcast_arrays(*parts), axis=-1) % 1.0)
    ahead = [back[0]]
    for _ in range(PASSAGE):
        ahead.append(np.asarray(system(ahead[-1])))
    orbit = np.swapaxes(np.array(back[:0:-1] + ahead), 0, 1)
    if not np.isfinite(orbit).all():
        raise ValueError(f"an orbit of {system.name} past the boundary is not finite")
    return orbit


def _plain(found: Finding) -> dict[str, Any]:
    cones, pointwise = found.cones, found.pointwise
    plain: dict[str, Any] = {
        name: getattr(found, name)
        for name in ("system", "params", "point", "point_kind", "alpha", "missing")
    }
    plain["forms"] = None if found.forms is None else asdict(found.forms)
    plain["pointwise"] = None
    if pointwise is not None:
        plain["pointwise"] = asdict(pointwise) | {"worst": pointwise.worst.tolist()}
    plain["cones"] = None if cones is None else {
        "boxes": len(cones.centres), "failing": cones.failing, "half_width": cones.half_width,
        "least_expansion": float(cones.expansion.min()), "worst": cones.worst,
    }  # fmt: skip
    return finite(plain | {"ok": found.ok})
