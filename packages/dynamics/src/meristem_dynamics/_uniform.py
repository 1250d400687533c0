"""The uniform certificate: one radius for the whole orbit, from a norm of the right inverse.

With A the right inverse along the frames, exact for C_n = [[uu, us], [0, ss]],

- K bounds |A| and rho bounds |LA - 1| = max |Q_{n+1} C_su u_n|: what the frames leave over
- x = p + A w is an orbit iff w = -e - (LA - 1) w + q(A w), |q(z)| <= M |z|^2 / 2
- the ball |w| <= s is mapped into itself if delta + rho s + M K^2 s^2 / 2 <= s; Brouwer then gives
  a true orbit within K s of every point
- K comes from widths (u, v) that fulfil the local inequalities for unit errors; they are data
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from meristem_dynamics._ball import Ball
from meristem_dynamics._bounds import CHUNK, coupling, inverse_frames, residuals
from meristem_dynamics._certificate import checked_orbit
from meristem_dynamics._dual import hessian
from meristem_dynamics._splitting import apply, checked_dimension, frames_along, growth_rates
from meristem_dynamics._systems import Map, ball_parameters, jacobians
from meristem_dynamics._widths import SLACK, widths_of

ENLARGE = 1.1  # the neighbourhood for M is this much larger than the radius it must contain
ROUNDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformCertificate:
    """One radius for all points of an orbit, and the numbers that prove it."""

    ok: bool
    radius: float  # a true orbit is within this of every point, sup norm
    gain: float  # K
    residual: float  # delta
    curvature: float  # M over the neighbourhood
    defect: float  # rho
    newton_number: float  # 2 M K^2 delta / (1 - rho)^2; at most 1 if ok
    worst_step: int  # where the gain is largest
    widths: Float[np.ndarray, "n d"]
    reason: str


def certify_uniform(
    system: Map, orbit: Float[np.ndarray, "n d"], *, n_unstable: int | None = None
) -> UniformCertificate:
    """Return one radius within which a true orbit follows the whole of `orbit`.

    Parameters
    ----------
    system, orbit, n_unstable
        As for `certify`, whose pointwise radii are smaller nearly everywhere.

    References
    ----------
    The form of Chow and Palmer (1992) and of Coomes, Kocak and Palmer (1994).
    """
    checked_orbit(system, orbit, None)
    J = jacobians(system, orbit[:-1])
    Q = frames_along(J)
    k = checked_dimension(n_unstable, growth_rates(J, Q))
    bounds = coupling(system, orbit, Q, np.zeros((len(orbit) - 1, system.dim)), k)
    inverse = [sum(entry.mag() for entry in row) for row in inverse_frames(Q[1:])]
    unit = np.stack(inverse, axis=1) * SLACK  # |Q^-1 g| for |g| <= 1
    delta = float(residuals(system, orbit, Q, None).max()) * float(np.abs(Q).sum(axis=2).max())
    left = bounds.su.copy()
    bounds.su[:] = 0.0  # A is exact for the block triangular part
    widths = widths_of(bounds, unit, k)
    gain_n = apply(np.abs(Q), widths).max(axis=1) * SLACK
    gain = float(gain_n.max())
    stable = np.abs(Q[1:, :, k:])
    defect = float(apply(stable, apply(left, widths[:-1, :k])).max(initial=0.0)) * SLACK
    radius, curvature, number = _close(system, orbit, gain, delta * SLACK, defect)
    ok = bool(np.isfinite(radius))
    return UniformCertificate(
        ok=ok,
        radius=radius,
        gain=gain,
        residual=delta * SLACK,
        curvature=curvature,
        defect=defect,
        newton_number=number,
        worst_step=int(np.argmax(gain_n)),
        widths=widths,
        reason="the Newton number is at most 1"
        if ok
        else f"the Newton number is {number:.3g}, above 1; the gain is {gain:.3g} at step "
        f"{int(np.argmax(gain_n))}: certify pointwise, or refine the orbit",
    )


def _close(
    system: Map, orbit: Float[np.ndarray, "n d"], gain: float, delta: float, defect: float
) -> tuple[float, float, float]:
    """Return radius, M and Newton number; an infinite radius if the inequality has no root."""
    if not np.isfinite(gain) or not defect < 1:
        return float("inf"), float("inf"), float("inf")
    reach = 2 * gain * delta / (1 - defect)
    curvature = number = float("inf")
    for _ in range(ROUNDS):
        reach *= ENLARGE
        curvature = _curvature(system, orbit, reach)
        number = 2 * curvature * gain**2 * delta / (1 - defect) ** 2 * SLACK
        if number <= 1:
            s = 2 * delta / ((1 - defect) * (1 + np.sqrt(1 - number))) * SLACK
            if gain * s * SLACK <= reach:
                return float(gain * s * SLACK), curvature, number
    return float("inf"), curvature, number


def _curvature(system: Map, orbit: Float[np.ndarray, "n d"], reach: float) -> float:
    """Return a bound of sum_jk |d_jk f_i| over the cubes of half-width `reach` at all points."""
    top = 0.0
    p = ball_parameters(system)
    for a in range(0, len(orbit), CHUNK):
        z = [Ball(orbit[a : a + CHUNK, i], reach) for i in range(system.dim)]
        for rows in hessian(system.f, z, p):
            total = sum((Ball(1.0) * entry).mag() for row in rows for entry in row)
            top = max(top, float(np.max(total)))
    return top * SLACK
