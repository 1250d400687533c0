"""Finite shadowing near a degenerate saddle: how the distance depends on the error.

- upper: every d-pseudo-orbit near the saddle is eps-shadowed with eps = finite_shadowing_bound(d)
- lower: the constant pseudo-orbit at z has error |F(z) - z|, and only 0 has a full orbit near the
  saddle, so no eps < |z| serves all lengths; the largest such z lies on a nullcline, where one
  component stands still
- both go like d^(1 / (2 max(k, k') + 1)): the finite shadowing exponent
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from meristem_dynamics._forms import check_degenerate_saddle, finite_shadowing_bound
from meristem_dynamics._systems import Map, jacobians

BISECTIONS = 60
NEWTON_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FiniteShadowing:
    """Bounds of the shadowing distance for each error size, and the exponents they show."""

    errors: Float[np.ndarray, " n"]
    lower: Float[np.ndarray, " n"]  # reached in the limit of long pseudo-orbits
    upper: Float[np.ndarray, " n"]
    exponent: float  # fitted to `lower`
    predicted: float  # 1 / (2 max(k, k') + 1)


def finite_shadowing(system: Map, errors: Sequence[float]) -> FiniteShadowing:
    """Return how far pseudo-orbits with given errors may be from orbits near a degenerate saddle.

    Parameters
    ----------
    system
        A map that fulfils the six conditions of `check_degenerate_saddle`.
    errors
        At least two sizes d > 0.

    Raises
    ------
    ValueError
        If the conditions fail or fewer than two positive sizes are given.
    """
    report = check_degenerate_saddle(system)
    d = np.asarray(errors, dtype=float)
    if len(d) < 2 or not (d > 0).all():
        raise ValueError(f"errors are {d.tolist()}; give at least two positive sizes")
    upper = np.array([finite_shadowing_bound(report, float(x)) for x in d])
    lower = np.array([_standing(system, float(x)) for x in d])
    slope = np.polyfit(np.log(d), np.log(lower), 1)[0]
    return FiniteShadowing(
        errors=d,
        lower=lower,
        upper=upper,
        exponent=float(slope),
        predicted=1 / (2 * max(report.k, report.k2) + 1),
    )


def _standing(system: Map, d: float) -> float:
    """Return the largest |z| of a constant pseudo-orbit on a nullcline with error at most d."""
    best = 0.0
    for axis in (0, 1):
        for side in (1.0, -1.0):
            low, high = 0.0, 0.5
            for _ in range(BISECTIONS):
                middle = 0.5 * (low + high)
                z = _on_nullcline(system, axis, side * middle)
                move = np.abs(system(z) - z).max() if z is not None else np.inf
                low, high = (middle, high) if move <= d else (low, middle)
            best = max(best, low)
    return best


def _on_nullcline(system: Map, axis: int, t: float) -> Float[np.ndarray, " 2"] | None:
    """Return the point with coordinate `axis` equal t at which the other one stands still."""
    other, z = 1 - axis, np.zeros(2)
    z[axis] = t
    for _ in range(NEWTON_STEPS):
        gap = float(system(z)[other] - z[other])
        slope = float(jacobians(system, z[None])[0, other, other]) - 1
        if slope == 0 or abs(gap) < 1e-17:
            break
        z[other] -= gap / slope
    return z if abs(z[other]) <= abs(t) or t == 0 else None
