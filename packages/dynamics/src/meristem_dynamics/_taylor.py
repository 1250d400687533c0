"""Rigorous Taylor steps of flows, with tangents: one step of length h of dz/dt = f(z).

- tube: if N = Z + [0, h] f(W) lies in W, the Picard operator maps the continuous curves in W into
  themselves, so every solution from Z exists on [0, h] and stays in N
- step: phi_h(z) is in sum_{k < K} c_k(z) h^k + c_K(tube) h^K by Taylor's theorem with the
  Lagrange remainder, component by component; c_k are the Taylor coefficients as functions of z
- tangents: (z, xi) -> (f(z), Df(z) xi) is a flow of its own, so the same two steps enclose
  D phi_h(z) xi for all z of a box
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._ball import ETA, INFLATE, Ball
from meristem_dynamics._dual import Dual
from meristem_dynamics._systems import Flow, Map, check_finite, checked_start
from meristem_dynamics._tape import Expansion, Tape

ORDER = 18  # of the points; at h = 1/64 its remainder on the Lorenz attractor is below 1e-13
TANGENT_ORDER = 12  # of the tangents, whose errors are multiplied by a box's width
TUBE_ROUNDS = 30
TUBE_GROWTH = 1.1

Field = Callable[[Sequence[Any], Any], Sequence[Any]]


def with_tangents(flow: Flow, columns: int) -> Field:
    """Return (z, xi_1, ..., xi_columns) -> (f(z), Df(z) xi_1, ...), components of z first.

    Component i of tangent j is number d + i columns + j.
    """
    d = flow.dim

    def f(z: Sequence[Any], p: Any) -> list[Any]:
        seeds = [z[d + i * columns : d + (i + 1) * columns] for i in range(d)]
        image = flow.f([Dual(x, seed) for x, seed in zip(z[:d], seeds, strict=True)], p)
        values = [y.value if isinstance(y, Dual) else y for y in image]
        zero = [0.0] * columns
        slopes = [a for y in image for a in (y.parts if isinstance(y, Dual) else zero)]
        return [*values, *slopes]

    return f


def coefficients(tape: Tape, z: Sequence[Any], order: int) -> list[list[Any]]:
    """Return c_0 = z, ..., c_order of the solution from z, in the arithmetic of z."""
    expansion = Expansion(tape)
    series = [list(z)]
    for k in range(order):
        series.append([y / (k + 1) for y in expansion.push(k, series[k])])
    return series


def polynomial(series: list[list[Any]], h: float) -> list[Any]:
    """Return the sum of c_k h^k for each component."""
    total = list(series[-1])
    for row in reversed(series[:-1]):
        total = [c + t * h for c, t in zip(row, total, strict=True)]
    return total


def tube(f: Field, z: Sequence[Ball], p: Any, h: float) -> list[Ball]:
    """Return boxes that hold every solution from the boxes `z` during [0, h].

    Raises
    ------
    ValueError
        If none is found: names the first box.
    """
    wide = list(z)
    for _ in range(TUBE_ROUNDS):
        try:
            found = [x + _hull(y, h) for x, y in zip(z, f(wide, p), strict=True)]
        except OverflowError:
            break
        inside: Any = [
            (np.abs(n.mid - w.mid) + n.rad) * INFLATE <= w.rad
            for n, w in zip(found, wide, strict=True)
        ]
        if np.all(inside):
            return found
        wide = [Ball(n.mid, n.rad * TUBE_GROWTH) for n in found]
    raise ValueError(
        f"no tube holds the solutions for a step of {h}; take a smaller step, or fewer "
        "steps if the orbit leaves its domain"
    )


def _hull(y: Any, h: float) -> Ball:
    """Return a ball around [0, h] y."""
    b = Ball(1.0) * y
    low = np.minimum(b.mid - b.rad, 0.0) * h
    high = np.maximum(b.mid + b.rad, 0.0) * h
    # each end and the half sum carries a few roundings of at most u times its size
    return Ball((low + high) / 2, (high - low) / 2 * INFLATE + ETA)


def step_box(tape: Tape, z: Sequence[Ball], around: Sequence[Ball], h: float, order: int) -> Any:
    """Return balls around phi_h of the boxes `z`, given their tube `around`."""
    series = coefficients(tape, z, order - 1)
    rest = coefficients(tape, around, order)[order]
    return polynomial([*series, rest], h)


def integrate(
    flow: Flow, z0: Sequence[float] | Float[np.ndarray, " d"], n: int, *, step: float | int
) -> Float[np.ndarray, "m d"]:
    """Return n + 1 points of a solution, `step` apart, by Taylor series of order 18 in floats.

    Parameters
    ----------
    flow
        The flow.
    z0
        Start, d numbers.
    n
        Number of steps.
    step
        Time between points.

    Raises
    ------
    ValueError
        If `z0` has the wrong length, or a point is not finite: names the step.

    Examples
    --------
    >>> decay = Flow(f=lambda z, p: (-z[0],), dim=1)
    >>> round(float(integrate(decay, [1.0], 8, step=0.125)[-1, 0]), 12)
    0.367879441171
    """
    z = checked_start(flow, z0)
    tape, h = Tape(flow.f, flow.dim, flow.parameters()), float(step)
    mend = f"take a step below {h:g}, fewer steps or another start"
    rows = [z]
    for k in range(n):
        try:
            z = polynomial(coefficients(tape, z, ORDER), h)
        except (OverflowError, ZeroDivisionError, ValueError) as error:
            raise ValueError(
                f"{flow.name} fails at step {k + 1} from {z}: {error}; {mend}"
            ) from error
        rows.append(z)
    orbit = np.array(rows)
    check_finite(orbit, flow.name, mend)
    return orbit


def time_map(flow: Flow, step: float | int, *, order: int = 26) -> Map:
    """Return the map that follows a flow for the time `step`, by its Taylor series.

    Parameters
    ----------
    flow
        The flow.
    step
        Time, finite and not 0; negative times go back.
    order
        Degree of the series in time, >= 1. With terms c_k step^k that still change, the map is
        another one than the flow's: take a smaller step.

    Returns
    -------
    Map
        For every arithmetic, with an exact Jacobian: exponents, covariant vectors and manifolds of
        a flow are those of it. A certificate of it is about the series; `certify_flow` is about
        the flow.

    Raises
    ------
    ValueError
        If the step or the order is outside of its range.

    Examples
    --------
    >>> turn = Flow(f=lambda z, p: (-z[1], z[0]), dim=2)
    >>> time_map(turn, np.pi / 2)(np.array([1.0, 0.0])).round(12).tolist()
    [0.0, 1.0]
    """
    h = float(step)
    if h == 0 or not np.isfinite(h):
        raise ValueError(f"step is {step}; it is a time and must be finite and not 0")
    if order < 1:
        raise ValueError(f"order is {order}; it is the degree of a series and must be at least 1")

    def f(z: Sequence[Any], p: Any) -> list[Any]:
        return polynomial(coefficients(Tape(flow.f, flow.dim, p), z, order), h)

    return Map(f=f, dim=flow.dim, params=flow.params, name=f"{flow.name} after {h:g}")
