"""Half-widths of boxes along an orbit that fulfil the inequalities of a certificate.

- v forward and u backward by scans with a little more than the errors, once more for C_su u
- every inequality is then checked with outward rounding; a width that is not certain is infinite
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._bounds import Bounds
from meristem_dynamics._splitting import apply, backward_scan, scan

SLACK = 1.0 + 2.0**-45  # covers the rounding of the inequalities' sums, d <= 12
UNDERFLOW = 1e-300  # covers what products of tiny numbers lose
GROW = 1.02  # widths are scanned with this factor on the errors,
STEP = 1.0 + 2.0**-40  # and with this one on the step, so that the checks have room

Points = Float[np.ndarray, "n d"]
Steps = Float[np.ndarray, "m d"]


def widths_of(
    bounds: Bounds,
    errors: Steps,
    k: int,
    start: Float[np.ndarray, " m"] | None = None,
    end: Float[np.ndarray, " k"] | None = None,
) -> Points:
    """Return widths (u, v) of the inequalities by two scans, and once more for C_su u.

    Widths that are not finite, or violate an inequality after rounding, come back infinite.
    """
    n, d = errors.shape
    v0 = np.zeros(d - k) if start is None else start
    su_u: Any = 0.0
    u: Any = np.zeros((n + 1, k))
    v: Any = np.zeros((n + 1, d - k))
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(2):
            v = scan(bounds.ss * STEP, GROW * (errors[:, k:] + su_u), v0)
            source = GROW * errors[:, :k] + apply(bounds.us, v[:-1])
            u = backward_scan(bounds.inverse * STEP, source, end)
            su_u = apply(bounds.su, np.where(np.isfinite(u[:-1]), u[:-1], 0.0))
    return settle(bounds, errors, np.concatenate([u, v], axis=1), k)


def settle(bounds: Bounds, errors: Steps, widths: Points, k: int) -> Points:
    """Return the widths with infinity at each step whose inequality is not certain."""
    with np.errstate(over="ignore", invalid="ignore"):
        u, v = widths[:, :k], widths[:, k:]
        right = apply(bounds.inverse, (u[1:] + apply(bounds.us, v[:-1]) + errors[:, :k]) * SLACK)
        rise = apply(bounds.su, u[:-1]) + apply(bounds.ss, v[:-1]) + errors[:, k:]
        bad_u = ~(right * SLACK + UNDERFLOW <= u[:-1])
        bad_v = ~(rise * SLACK + UNDERFLOW <= v[1:])
    out = widths.copy()
    out[:-1, :k][bad_u] = np.inf
    out[1:, k:][bad_v] = np.inf
    return out


def fits(widths: Points, box: Steps) -> bool:
    """Return whether all widths lie in the box over which the bounds were taken."""
    return bool((widths[:-1] <= box).all() and np.isfinite(widths[-1]).all())


def worst(linear: Points, errors: Steps, k: int) -> int:
    """Return the step that fails first, from the widths over boxes of size 0.

    Where the linear problem has no solution, that is where widths become infinite; otherwise where
    (gain)^2 times error, the measure of what curvature adds, is largest.
    """
    unbounded = ~np.isfinite(linear)
    backward = np.flatnonzero(unbounded[:-1, :k].any(axis=1))
    if backward.size:
        return int(backward[-1])
    forward = np.flatnonzero(unbounded[1:, k:].any(axis=1))
    if forward.size:
        return int(forward[0])
    size = np.maximum(linear[:-1].max(axis=1), linear[1:].max(axis=1))
    return int(np.argmax(2 * np.log(size) + np.log(errors.max(axis=1))))
