"""Global one-dimensional manifolds of maps: images of a fundamental interval, refined by need.

- hyperbolic: the piece s in [|l|^(n-1), |l|^n] is F^n(K(t)), t = +-s / l^n; parabolic: F^n of the
  graph over [R(t0), t0] (F^-1 for stable manifolds)
- a new parameter is put between two points that are further apart than `max_gap` or turn by more
  than `max_angle`, and is mapped from the local manifold; points are never interpolated
- errors across the curve contract under the map, so the points stay at rounding distance of it
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from meristem_dynamics._invariant import Manifold
from meristem_dynamics._parabolic import DegenerateGraph
from meristem_dynamics._systems import Map, components, jacobians

SHORT = 1e-6  # gaps below this are not divided for their angle
ROUNDS = 60
NEWTON_STEPS = 40
MOST_PIECES = 20_000
GOOD = 1e-15  # residual up to which a graph's series is used


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A manifold as an ordered sequence of points."""

    points: Float[np.ndarray, "n d"]
    parameter: Float[np.ndarray, " n"]  # on the local manifold
    steps: Int[np.ndarray, " n"]  # how many images of the local manifold
    arc: Float[np.ndarray, " n"]  # length up to the point


def grow(
    manifold: Manifold | DegenerateGraph,
    *,
    length: float | int,
    max_gap: float = 1e-2,
    max_angle: float = 0.3,
    side: int = 1,
) -> Curve:
    """Return a branch of a one-dimensional manifold of a map, at least `length` long.

    Parameters
    ----------
    manifold
        A local curve of a map; a stable one uses the map's `inverse`, or Newton's method.
    length
        Arc length wanted; the curve ends at the first point beyond it.
    max_gap
        Largest distance of neighbouring points.
    max_angle
        Largest turn between neighbouring segments, in radians, above gaps of 1e-6.
    side
        1 or -1: the branch of t > 0 or t < 0.

    Raises
    ------
    ValueError
        If the system is a flow, the manifold no curve, or the branch does not get that long.

    Examples
    --------
    >>> from meristem_dynamics import invariant_manifold, zoo
    >>> henon = zoo.henon()
    >>> curve = grow(invariant_manifold(henon, henon.exact["fixed_point"]), length=20)
    >>> bool(curve.arc[-1] >= 20), bool(np.diff(curve.arc).max() <= 0.01)
    (True, True)
    """
    system = manifold.system
    if not isinstance(system, Map):
        raise ValueError("grow is for maps; a flow's manifold curve is a trajectory")
    if side not in (1, -1):
        raise ValueError(f"side is {side}; a branch has side 1 or -1")
    step = _forward(system) if manifold.kind == "unstable" else inverse_of(system)
    pieces = _pieces(manifold, side)
    rows: list[tuple[Any, Any, int]] = []
    total, last, t = 0.0, None, None
    for n in range(MOST_PIECES):
        local, ends = pieces(n)
        t = ends if t is None or len(t) < 2 or n < 2 else _carried(t, ends)
        t, z = _resolved(t, local, step, n, max_gap, max_angle)
        first = z[:1] if last is None else np.concatenate([last, z[:1]])
        total += float(np.linalg.norm(np.diff(np.concatenate([first, z]), axis=0), axis=1).sum())
        rows.append((z if last is None else z[1:], t if last is None else t[1:], n))
        last = z[-1:]
        if total >= length:
            return _cut(rows, float(length))
        if not np.isfinite(total):
            break
    raise ValueError(
        f"the branch is {total:.4g} long after {len(rows)} images; length ({length}) is out of "
        "reach, so lower it or take the other side"
    )


def _pieces(
    manifold: Manifold | DegenerateGraph, side: int
) -> Callable[[int], tuple[Callable[[Any], Any], Any]]:
    """Return the local parameterization and the ends of the n-th fundamental piece."""
    if isinstance(manifold, DegenerateGraph):
        start = side * reach_of(manifold, side)
        image = float(inverse_point(manifold, start))

        def graph_piece(n: int) -> tuple[Callable[[Any], Any], Any]:
            return manifold, np.linspace(0.0 if n == 0 else start, start if n == 0 else image, 9)

        return graph_piece
    if manifold.dim != 1:
        raise ValueError(f"the manifold has dimension {manifold.dim}; grow takes curves")
    multiplier = manifold.multipliers[0].real
    rate = multiplier if manifold.kind == "unstable" else 1 / multiplier

    def piece(n: int) -> tuple[Callable[[Any], Any], Any]:
        sign = side * (1.0 if rate > 0 or n % 2 == 0 else -1.0)
        low = 0.0 if n == 0 else 1 / abs(rate)
        return manifold, sign * np.linspace(low, 1.0, 9)

    return piece


def reach_of(graph: DegenerateGraph, side: int) -> float:
    """Return a |t| up to which the series of a graph has residuals of rounding size."""
    t = 0.9 ** np.arange(60)
    with np.errstate(over="ignore", invalid="ignore"):
        good = graph.residual_at(side * t) <= GOOD
    return float(t[np.flatnonzero(~good)[-1] + 1]) if not good.all() else 1.0


def inverse_point(graph: DegenerateGraph, t: float) -> float:
    """Return the free coordinate of the next point outwards: R^-1(t) (stable) or R(t)."""
    if graph.kind == "unstable":
        return float(graph.inner(np.array([t]))[0])
    s = t
    for _ in range(NEWTON_STEPS):
        s += t - float(graph.inner(np.array([s]))[0])  # R is near the identity
    return s


def _carried(t: Any, ends: Any) -> Any:
    """Return the parameters of the piece before, moved onto this one."""
    scaled = np.abs(t - t[0]) / abs(t[-1] - t[0])
    return ends[0] + scaled * (ends[-1] - ends[0])


def _resolved(
    t: Any,
    local: Callable[[Any], Any],
    step: Callable[[Any], Any],
    n: int,
    gap: float,
    angle: float,
) -> tuple[Any, Any]:
    def mapped(s: Any) -> Any:
        z = local(s)
        for _ in range(n):
            z = step(z)
        return z

    z = mapped(t)
    for _ in range(ROUNDS):
        d = np.diff(z, axis=0)
        size = np.sqrt((d * d).sum(axis=1))
        wide = size > gap
        cross = (d[1:] * d[:-1]).sum(axis=1) < np.cos(angle) * size[1:] * size[:-1]
        cross &= np.maximum(size[1:], size[:-1]) > SHORT
        wide[1:] |= cross & (size[1:] >= 0.5 * size[:-1])
        wide[:-1] |= cross & (size[:-1] >= 0.5 * size[1:])
        at = np.flatnonzero(wide)
        if not at.size:
            break
        parts = np.clip(np.ceil(size[at] / gap).astype(int), 2, 64)
        owner = np.repeat(at, parts - 1)
        share = np.concatenate([np.arange(1, m) / m for m in parts])
        new = t[owner] + share * (t[owner + 1] - t[owner])
        t = np.insert(t, owner + 1, new)
        z = np.insert(z, owner + 1, mapped(new), axis=0)
    return t, z


def _cut(rows: list[tuple[Any, Any, int]], length: float) -> Curve:
    points = np.concatenate([row[0] for row in rows])
    parameter = np.concatenate([row[1] for row in rows])
    steps = np.concatenate([np.full(len(row[0]), row[2]) for row in rows])
    sizes = np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1))
    arc = np.concatenate([[0.0], np.cumsum(sizes)])
    stop = min(int(np.searchsorted(arc, length)) + 1, len(arc))
    return Curve(
        points=points[:stop], parameter=parameter[:stop], steps=steps[:stop], arc=arc[:stop]
    )


def _forward(system: Map) -> Callable[[Any], Any]:
    p = system.parameters()

    def step(z: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.stack(np.broadcast_arrays(*system.f(components(z), p)), axis=-1)

    return step


def inverse_of(system: Map) -> Callable[[Any], Any]:
    """Return the inverse as a function of a batch of points: closed form, or Newton's method.

    Newton starts at 2 z - f(z), which suits maps near the identity.
    """
    p, given = system.parameters(), system.inverse

    def closed(z: Any) -> Any:
        assert given is not None
        with np.errstate(over="ignore", invalid="ignore"):
            return np.stack(np.broadcast_arrays(*given(components(z), p)), axis=-1)

    forward = _forward(system)

    def newton(z: Any) -> Any:
        w = 2 * z - forward(z)
        for _ in range(NEWTON_STEPS):
            change = np.linalg.solve(jacobians(system, w), (forward(w) - z)[..., None])[..., 0]
            w = w - change
            if np.abs(change).max(initial=0.0) <= 2e-15 * (1 + np.abs(w).max(initial=0.0)):
                return w
        raise ValueError(
            f"Newton's method does not invert {system.name} there; give inverse= or a shorter curve"
        )

    return closed if given is not None else newton
