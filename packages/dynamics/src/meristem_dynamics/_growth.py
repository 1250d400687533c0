"""Global one-dimensional manifolds of maps: images of a fundamental interval, refined by need.

- hyperbolic: the piece s in [|l|^(n-1), |l|^n] is F^n(K(t)), t = +-s / l^n; parabolic: F^n of the
  graph over [R(t0), t0] (F^-1 for stable manifolds)
- a few points of each piece are mapped on until their polygon is long enough; then all pieces are
  refined together, and the curve is cut where it is too long: refining only lengthens a polygon
- a new parameter is put between two points that are further apart than `max_gap` or turn by more
  than `max_angle`, and is mapped from the local manifold; points are never interpolated
- errors across the curve contract under the map, so the points stay at rounding distance of it
- a map without inverse may fold: the branch ends where no preimage follows
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from meristem_dynamics._invariant import Manifold
from meristem_dynamics._parabolic import DegenerateGraph
from meristem_dynamics._steps import NEWTON_STEPS, Columns, Step, backward, forward
from meristem_dynamics._systems import Map

SHORT = 1e-6  # gaps below this are not divided for their angle
ROUNDS = 60
MOST_PIECES = 20_000
COARSE = 17  # points of a piece before it is refined
MOST_PARTS = 16  # of a gap in one round
SHARP_PARTS = 4  # of a gap beside a sharp turn
END = 1e-7  # the parameter of a branch's end is found to this share of a piece
GOOD = 1e-15  # residual up to which a graph's series is used

JUMP = "its points jump there, however finely it is divided"
NO_IMAGE = "no point follows there: the map folds, or its values overflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A manifold as an ordered sequence of points."""

    points: Float[np.ndarray, "n d"]
    parameter: Float[np.ndarray, " n"]  # on the local manifold
    steps: Int[np.ndarray, " n"]  # how many images of the local manifold
    arc: Float[np.ndarray, " n"]  # length up to the point
    reason: str  # why it is shorter than asked; empty if it is not


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Of a branch: piece n is the n-th image of the local points from `start` to `stop`.

    Piece 0 begins at 0. If the multiplier is negative, `flips`: pieces of odd n have parameters of
    the other sign.
    """

    local: Callable[[Any], Any]
    step: Step
    start: float
    stop: float
    flips: bool

    def sign(self, n: Any) -> Any:
        return np.where(n % 2, -1.0, 1.0) if self.flips else np.ones(np.shape(n))

    def mapped(self, t: Any, n: Any) -> Columns:
        """Return the points of parameters t in the pieces n, which ascend."""
        z = np.ascontiguousarray(self.local(t).T)
        for done in range(int(n.max(initial=0))):
            a = int(np.searchsorted(n, done, side="right"))
            z[:, a:] = self.step(z[:, a:])
        return z


class _Path(NamedTuple):
    """Points in order; the last one is not finite where the branch ends."""

    t: Float[np.ndarray, " n"]
    n: Int[np.ndarray, " n"]
    z: Columns

    def until(self, stop: int) -> "_Path":
        return _Path(self.t[:stop], self.n[:stop], self.z[:, :stop])


def grow(
    manifold: Manifold | DegenerateGraph,
    *,
    length: float | int,
    max_gap: float | int = 1e-2,
    max_angle: float | int = 0.3,
    side: int = 1,
    throw: bool = True,
) -> Curve:
    """Return a branch of a one-dimensional manifold of a map, at least `length` long.

    Parameters
    ----------
    manifold
        A local curve of a map; a stable one uses the map's `inverse`, or Newton's method.
    length
        Arc length wanted, > 0; the curve ends at the first point beyond it.
    max_gap
        Largest distance of neighbouring points.
    max_angle
        Largest turn between neighbouring segments, in radians, above gaps of 1e-6.
    side
        1 or -1: the branch of t > 0 or t < 0.
    throw
        Raise if the branch does not get that long; else return what there is, with the reason.

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
    if not isinstance(manifold.system, Map):
        raise ValueError("grow is for maps; a flow's manifold curve is a trajectory")
    if side not in (1, -1):
        raise ValueError(f"side is {side}; a branch has side 1 or -1")
    for name, value in (("length", length), ("max_gap", max_gap), ("max_angle", max_angle)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} is {value}; it must be finite and above 0")
    pieces = _pieces(manifold, side)
    with np.errstate(over="ignore", invalid="ignore"):
        path, reason = _coarse(pieces, float(length))
        for _ in range(ROUNDS):
            path = _trimmed(path, float(length))
            parts = _parts(path, max_gap, max_angle)
            if not parts.any():
                break
            path = _refined(pieces, path, parts)
    curve = _curve(path, max_gap)
    if curve.arc[-1] >= length:
        return curve
    images = f"{curve.arc[-1]:.4g} long after {curve.steps[-1]} images"
    reason = f"the branch is {images}: {reason or JUMP}"
    if throw:
        raise ValueError(f"{reason}; lower length ({length}), or take the other side")
    return replace(curve, reason=reason)


def _pieces(manifold: Manifold | DegenerateGraph, side: int) -> _Pieces:
    system = manifold.system
    assert isinstance(system, Map)
    step = forward(system) if manifold.kind == "unstable" else backward(system)
    if isinstance(manifold, DegenerateGraph):
        end = side * reach_of(manifold, side)
        start = _inward(manifold, end)
        return _Pieces(manifold, step, start=start, stop=end, flips=False)
    if manifold.dim != 1:
        raise ValueError(f"the manifold has dimension {manifold.dim}; grow takes curves")
    multiplier = manifold.multipliers[0].real
    rate = float(multiplier if manifold.kind == "unstable" else 1 / multiplier)
    return _Pieces(manifold, step, start=side / abs(rate), stop=float(side), flips=rate < 0)


def _coarse(pieces: _Pieces, length: float) -> tuple[_Path, str]:
    """Return a few points of each piece until their polygon is long, or why it does not get so."""
    share = np.linspace(0.0, 1.0, COARSE)
    later = pieces.start + share[1:] * (pieces.stop - pieces.start)
    t, n = [share * pieces.stop], [np.zeros(COARSE, dtype=int)]
    z = [pieces.mapped(t[0], n[0])]
    total, back, reason = _sizes(z[0]).sum(), 2 if pieces.flips else 1, ""
    while total < length and not reason:
        k = len(t)
        t.append(pieces.sign(np.array(k)) * later)
        n.append(np.full(len(later), k))
        if k <= back:
            z.append(pieces.mapped(t[k], n[k]))
        else:
            z.append(pieces.step(z[k - 1]) if back == 1 else pieces.step(pieces.step(z[k - 2])))
        total += _sizes(np.concatenate([z[k - 1][:, -1:], z[k]], axis=1)).sum()
        if not np.isfinite(z[k]).all():
            reason = NO_IMAGE
        elif k == MOST_PIECES:
            reason = "it hardly grows any more"
    return _Path(np.concatenate(t), np.concatenate(n), np.concatenate(z, axis=1)), reason


def _sizes(z: Columns) -> Float[np.ndarray, " m"]:
    d = z[:, 1:] - z[:, :-1]
    return np.sqrt(_dot(d, d))


def _dot(a: Columns, b: Columns) -> Float[np.ndarray, " m"]:
    return sum((x * y for x, y in zip(a, b, strict=True)), np.zeros(a.shape[1]))


def _trimmed(path: _Path, length: float) -> _Path:
    """Return the path up to the first point beyond the length, or to the first not finite."""
    bad = np.flatnonzero(~np.isfinite(path.z).all(axis=0))
    path = path.until(int(bad[0]) + 1 if bad.size else len(path.t))
    arc = np.cumsum(_sizes(path.z))  # its last is NaN if the last point is
    path = path.until(int(np.searchsorted(arc, length)) + 2)
    ends = not np.isfinite(path.z[:, -1]).all()
    near = len(path.t) > 1 and path.n[-1] == path.n[-2] and (
        abs(path.t[-1] - path.t[-2]) <= END * abs(path.t[-1])
    )  # fmt: skip
    return path.until(len(path.t) - 1) if ends and near else path


def _parts(path: _Path, gap: float, angle: float) -> Int[np.ndarray, " m"]:
    """Return into how many parts each gap is to be divided; 0: none."""
    d = path.z[:, 1:] - path.z[:, :-1]
    size = np.sqrt(_dot(d, d))
    parts = np.where(size > gap, np.minimum(np.ceil(size / gap), MOST_PARTS), 0.0)
    parts[np.isnan(size)] = MOST_PARTS  # seeks the end
    a, b = size[:-1], size[1:]
    sharp = _dot(d[:, 1:], d[:, :-1]) < np.cos(angle) * a * b
    sharp &= np.maximum(a, b) > SHORT
    after, before = sharp & (b >= 0.5 * a), sharp & (a >= 0.5 * b)
    parts[1:][after] = np.maximum(parts[1:][after], SHARP_PARTS)
    parts[:-1][before] = np.maximum(parts[:-1][before], SHARP_PARTS)
    return parts.astype(int)


def _refined(pieces: _Pieces, path: _Path, parts: Int[np.ndarray, " m"]) -> _Path:
    """Return the path with new points, evenly spaced in the parameter, in the gaps."""
    new = np.maximum(parts - 1, 0)
    owner = np.repeat(np.arange(len(new)), new)
    place = np.arange(1, len(owner) + 1) - np.repeat(np.cumsum(new) - new, new)
    share = place / parts[owner]
    n = path.n[owner + 1]
    entry = pieces.sign(n) * pieces.start  # of the piece, which is the end of the one before
    left = np.where(path.n[owner] == n, path.t[owner], entry)
    t = left + share * (path.t[owner + 1] - left)
    z = pieces.mapped(t, n)
    fresh = np.zeros(len(path.t) + len(t), dtype=bool)
    fresh[owner + 1 + np.arange(len(owner))] = True
    merged: list[Any] = []
    for old, more in zip(path, (t, n, z), strict=True):
        whole = np.empty((*old.shape[:-1], len(fresh)), dtype=old.dtype)
        whole[..., ~fresh], whole[..., fresh] = old, more
        merged.append(whole)
    return _Path(*merged)


def _curve(path: _Path, gap: float) -> Curve:
    """Return the finite points up to the first gap that could not be closed."""
    size = _sizes(path.z)
    open_ = np.flatnonzero(~(size <= gap))
    path = path.until(int(open_[0]) + 1 if open_.size else len(path.t))
    arc = np.concatenate([[0.0], np.cumsum(_sizes(path.z))])
    return Curve(
        points=np.ascontiguousarray(path.z.T), parameter=path.t, steps=path.n, arc=arc, reason=""
    )


def reach_of(graph: DegenerateGraph, side: int) -> float:
    """Return a |t| up to which the series of a graph has residuals of rounding size."""
    t = 0.9 ** np.arange(60)
    with np.errstate(over="ignore", invalid="ignore"):
        good = graph.residual_at(side * t) <= GOOD
    return float(t[np.flatnonzero(~good)[-1] + 1]) if not good.all() else 1.0


def _inward(graph: DegenerateGraph, t: float) -> float:
    """Return the free coordinate of the point that the branch's map sends to the one over t."""
    if graph.kind == "stable":
        return float(graph.inner(np.array([t]))[0])
    s = t
    for _ in range(NEWTON_STEPS):
        s += t - float(graph.inner(np.array([s]))[0])  # R is near the identity
    return s
