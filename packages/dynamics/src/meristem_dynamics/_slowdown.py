"""Slow-down of the cat map at its fixed point (Katok's construction before smoothing).

- eigen-coordinates s = V^T z in the centred square; s1 expands, s2 contracts
- the time-1 map of ds1 = l psi s1, ds2 = -l psi s2, psi(u) = min(1, (u / r0)^a), u = s1^2 + s2^2
- s1 s2 is conserved, so s1' = s1 e^delta, s2' = s2 e^(-delta); delta solves
  int_0^delta dx / psi(u(x)) = l along u(x) = s1^2 e^2x + s2^2 e^-2x: Newton, with 20 Gauss
  nodes on the part inside the disc
- outside the disc delta = l, which is the cat map itself
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._systems import Map, Number

GROWTH = math.log((3 + math.sqrt(5)) / 2)
GOLDEN = (1 + math.sqrt(5)) / 2
_NORM = math.sqrt(1 + GOLDEN**2)
EIGENVECTORS = np.array([[GOLDEN, -1.0], [1.0, GOLDEN]]) / _NORM  # columns: expanding, contracting
NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
NEWTON_STEPS = 40
TINY = 1e-280  # squared distance below which a point counts as the fixed point

Vector = Float[np.ndarray, " n"]


def slowdown_cat(a: Number = "0.3", r0: Number = "0.04") -> Map:
    """Return the cat map slowed down at 0: Df(0) = 1, hyperbolic elsewhere; floats only.

    Parameters
    ----------
    a
        Exponent of the slow-down, in (0, 1/2): 1 - rate ~ w^(2a) near 0.
    r0
        The changed region is |s|^2 < r0, and what enters it within one step; at most 0.04, so
        that it lies in one fundamental domain.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> f = slowdown_cat()
    >>> f(np.array([0.5, 0.25])).round(12).tolist()  # outside the disc: (2x + y, x + y) mod 1
    [0.25, 0.75]
    """
    if not 0 < float(a) < 0.5:
        raise ValueError(f"a is {a}; the slow-down needs 0 < a < 1/2")
    if not 0 < float(r0) <= 0.04:
        raise ValueError(f"r0 is {r0}; it must lie in (0, 0.04] to fit one fundamental domain")

    def f(z: Any, p: Any) -> tuple[Any, Any]:
        s, shape = _eigen(z)
        delta, _ = _shift(s[0], s[1], p.a, p.r0)
        return _standard(s[0] * np.exp(delta), s[1] * np.exp(-delta), shape)

    def inverse(z: Any, p: Any) -> tuple[Any, Any]:
        s, shape = _eigen(z)
        delta, _ = _shift(s[1], s[0], p.a, p.r0)
        return _standard(s[0] * np.exp(-delta), s[1] * np.exp(delta), shape)

    def jacobian(z: Any, p: Any) -> Any:
        s, shape = _eigen(z)
        delta, slope = _shift(s[0], s[1], p.a, p.r0)
        image = np.stack([s[0] * np.exp(delta), -s[1] * np.exp(-delta)])
        J = image[:, None] * slope[None]
        J[0, 0] += np.exp(delta)
        J[1, 1] += np.exp(-delta)
        rows = np.einsum("ia,abn,jb->ijn", EIGENVECTORS, J, EIGENVECTORS)
        return rows.reshape(2, 2, *shape)

    return Map(
        f=f,
        inverse=inverse,
        jacobian=jacobian,
        dim=2,
        params={"a": a, "r0": r0},
        torus=True,
        name="slowdown cat",
        boundary_distance=distance_to_origin,
        exact={"fixed_point": (0.0, 0.0), "beta": 2 * float(a), "gamma": 1 + 2 * float(a)},
    )


def distance_to_origin(z: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    """Return the distance on the torus of each point to 0."""
    z = np.asarray(z, dtype=float)
    return np.asarray(np.sqrt(np.sum((z - np.rint(z)) ** 2, axis=-1)))


def _eigen(z: Any) -> tuple[list[Vector], tuple[int, ...]]:
    x, y = np.broadcast_arrays(np.asarray(z[0], dtype=float), np.asarray(z[1], dtype=float))
    flat = np.stack([(x - np.rint(x)).ravel(), (y - np.rint(y)).ravel()])
    s = EIGENVECTORS.T @ flat
    return [s[0], s[1]], x.shape


def _standard(s1: Vector, s2: Vector, shape: tuple[int, ...]) -> tuple[Any, Any]:
    z = EIGENVECTORS @ np.stack([s1, s2])
    return z[0].reshape(shape)[()], z[1].reshape(shape)[()]


def _shift(s1: Vector, s2: Vector, a: float, r0: float) -> tuple[Vector, Float[np.ndarray, "2 n"]]:
    """Return delta and its partial derivatives in s1, s2."""
    x, y = s1 * s1, s2 * s2
    enter, leave = _inside(x, y, r0)
    still = x + y < TINY
    delta = np.where(still, 0.0, GROWTH * np.minimum(1.0, ((x + y) / r0) ** a))
    for _ in range(NEWTON_STEPS):
        low, high, u, _, w = _nodes(x, y, enter, leave, delta)
        slow = (w * np.where(still, 1.0, u / r0) ** -a).sum(axis=0)
        gap = delta - (high - low) + slow - GROWTH
        end = np.where(still, 1.0, x * np.exp(2 * delta) + y * np.exp(-2 * delta))
        step = np.where(still, 0.0, gap * np.minimum(1.0, (end / r0) ** a))
        delta = np.clip(delta - step, 0.0, GROWTH)
        if np.abs(step).max(initial=0.0) < 1e-16:
            break
    _, _, u, e, w = _nodes(x, y, enter, leave, delta)
    end = np.where(still, 1.0, x * np.exp(2 * delta) + y * np.exp(-2 * delta))
    u = np.where(still, 1.0, u)
    kernel = w * a * (np.minimum(r0, end) / u) ** a / u
    slope = np.stack([2 * s1 * (kernel * e).sum(axis=0), 2 * s2 * (kernel / e).sum(axis=0)])
    return delta, np.where(still, 0.0, slope)


def _inside(x: Vector, y: Vector, r0: float) -> tuple[Vector, Vector]:
    """Return the times between which u(t) = x e^2t + y e^-2t is below r0, equal if never."""
    root = np.sqrt(np.maximum(r0 * r0 - 4 * x * y, 0.0))
    with np.errstate(divide="ignore", over="ignore"):
        enter = 0.5 * np.log(2 * y / (r0 + root))
        leave = 0.5 * np.log((r0 + root) / (2 * x))
    never = r0 * r0 <= 4 * x * y
    return np.where(never, 0.0, enter), np.where(never, 0.0, leave)


def _nodes(x: Vector, y: Vector, enter: Vector, leave: Vector, delta: Vector) -> tuple[Any, ...]:
    """Return both ends of the part of [0, delta] in the disc; u, e^2t and weights at nodes."""
    low = np.clip(enter, 0.0, delta)
    high = np.maximum(np.clip(leave, 0.0, delta), low)
    half = 0.5 * (high - low)
    e = np.exp(2 * (low + half * (1 + NODES[:, None])))
    return low, high, x * e + y / e, e, half * WEIGHTS[:, None]
