"""Refinement: Newton's method with the right inverse brings an orbit nearer to a true one.

- x <- x - A F(x), F(x)_n = x_{n+1} - f(x_n): A is the right inverse along the frames
- residuals are evaluated in Arb at 160 bits; the orbit is kept as a sum of two float64 arrays
- quadratic until the residual reaches the rounding of the pair, about 1e-32
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._bounds import arb_gap
from meristem_dynamics._splitting import (
    apply,
    backward_scan,
    checked_dimension,
    frames_along,
    growth_rates,
    in_frames,
    scan,
)
from meristem_dynamics._systems import Map, check_finite, jacobians

Points = Float[np.ndarray, "n d"]
Steps = Float[np.ndarray, "m d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """An orbit `points` + `low` with its largest residual before and after each round."""

    points: Points
    low: Points
    residuals: tuple[float, ...]
    moved: Float[np.ndarray, " n"]  # distance of each point to the orbit that was given


def right_inverse(
    J: Float[np.ndarray, "m d d"], frames: Float[np.ndarray, "n d d"], k: int, g: Steps
) -> Points:
    """Return A g, shape (N + 1, d): xi with xi_{n+1} - Df(p_n) xi_n = g_n.

    Parameters
    ----------
    J
        Df(p_0), ..., Df(p_(N-1)).
    frames
        Orthonormal frames at N + 1 points, of which k columns follow the expanding directions.
    k
        Number of expanding directions.
    g
        Right-hand sides, shape (N, d).

    Notes
    -----
    In frame coordinates the stable part runs forward from 0, the unstable part backward from 0.
    """
    C = in_frames(J, frames)
    h = apply(frames[1:].transpose(0, 2, 1), g)
    d = J.shape[-1]
    v = scan(C[:, k:, k:], h[:, k:], np.zeros(d - k))
    inverse: Any = 1 / C[:, :1, :1] if k == 1 else np.linalg.inv(C[:, :k, :k])
    u = backward_scan(inverse, -apply(C[:, :k, k:], v[:-1]) - h[:, :k])
    return apply(frames, np.concatenate([u, v], axis=1))


def refine(
    system: Map,
    orbit: Points,
    *,
    n_unstable: int | None = None,
    tol: float = 1e-30,
    max_steps: int = 8,
) -> Refined:
    """Return a nearby orbit whose steps have an error of about `tol`.

    Parameters
    ----------
    system
        A map that Arb can enter; needs the extra `rigorous`.
    orbit
        p_0, ..., p_N, shape (N + 1, d).
    n_unstable
        Number of expanding directions; by default that of positive exponents of this orbit.
    tol
        Largest residual wanted.
    max_steps
        Rounds at most; it also stops when a round no longer halves the residual.

    Raises
    ------
    ValueError
        If the first round does not bring the orbit nearer: it is not shadowed closely enough.
    """
    check_finite(orbit, system.name)
    hi, lo = orbit.copy(), np.zeros_like(orbit)
    history = [_residual(system, hi, lo)]
    for _ in range(max_steps):
        size = float(np.abs(history[-1]).max())
        if size <= tol:
            break
        J = jacobians(system, hi[:-1])
        frames = frames_along(J)
        k = checked_dimension(n_unstable, growth_rates(J, frames))
        step = right_inverse(J, frames, k, history[-1])
        new_hi, new_lo = _two_sum(hi, lo - step)
        gap = _residual(system, new_hi, new_lo)
        if not float(np.abs(gap).max()) < size / 2:
            if len(history) == 1 and not float(np.abs(gap).max()) < size:
                raise ValueError(
                    f"a Newton step moves the residual from {size:.3g} to "
                    f"{float(np.abs(gap).max()):.3g}; the orbit is too rough to refine, so shorten "
                    "it or look where certify fails"
                )
            break
        hi, lo = new_hi, new_lo
        history.append(gap)
    return Refined(
        points=hi,
        low=lo,
        residuals=tuple(float(np.abs(gap).max()) for gap in history),
        moved=np.abs((hi - orbit) + lo).max(axis=1),
    )


def _residual(system: Map, hi: Points, lo: Points) -> Steps:
    """Return x_{n+1} - f(x_n) to float64 accuracy."""
    return np.stack([gap.mid for gap in arb_gap(system, hi, lo)], axis=1)


def _two_sum(a: Points, b: Points) -> tuple[Any, Any]:
    """Return s = fl(a + b) and the exact rest a + b - s."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)
