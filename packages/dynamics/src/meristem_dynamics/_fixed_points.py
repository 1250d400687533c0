"""Fixed points of maps and equilibria of flows: by Newton's method, and proved in Arb.

- interval Newton: if N(box) = m - J(box)^-1 g(m) lies in the box, m its midpoint, then the box
  holds exactly one zero of g, and it is in N(box)
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._systems import (
    Flow,
    Function,
    Map,
    System,
    arb_parameters,
    jacobians,
    require_flint,
)

NEUTRAL = 1e-9
NEWTON_STEPS = 30
BITS = 106
NEAR = 1e-9  # half-width of the first box of the interval Newton method
ROUNDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """A fixed point of a map or an equilibrium of a flow."""

    point: Float[np.ndarray, " d"]
    multipliers: Any  # eigenvalues, complex
    residual: float
    kind: str  # "saddle", "sink", "source", "degenerate", or "neutral"
    radius: float | None = None  # proved: the true one is this near, sup norm; None: not asked


def fixed_point(system: System, guess: Any, *, certify: bool = False) -> FixedPoint:
    """Return the fixed point (equilibrium of a flow) that Newton's method finds from `guess`.

    Parameters
    ----------
    system
        A map or flow; on a torus the point is fixed modulo 1.
    guess
        d numbers.
    certify
        Prove that there is exactly one near, and how near; needs the extra `rigorous`.

    Raises
    ------
    ValueError
        If Newton's method does not settle: there is no fixed point near the guess. With `certify`,
        if none is proved: at a degenerate point the derivative of f(z) - z is singular.

    Examples
    --------
    >>> from meristem_dynamics import zoo
    >>> found = fixed_point(zoo.henon(), [0.6, 0.2], certify=True)
    >>> found.kind, found.radius < 1e-15
    ('saddle', True)
    """
    z = np.asarray(guess, dtype=float)
    if z.shape != (system.dim,):
        raise ValueError(f"guess has shape {z.shape}; {system.name} has {system.dim} components")
    offset = np.eye(system.dim) if isinstance(system, Map) else np.zeros((system.dim, system.dim))
    for _ in range(NEWTON_STEPS):
        gap = _defect(system, z)
        J = jacobians(system, z[None])[0] - offset
        step = np.linalg.lstsq(J, gap, rcond=1e-12)[0]
        z = z - step
        if np.abs(step).max() <= 4e-16 * (1 + np.abs(z).max()):
            break
    residual = float(np.abs(_defect(system, z)).max())
    if not residual <= 1e-12 * (1 + np.abs(z).max()):
        raise ValueError(
            f"{np.asarray(guess).tolist()} is not near a fixed point of {system.name}: Newton's "
            f"method ends at {z.tolist()} with residual {residual:.3g}; give a nearer guess"
        )
    eigenvalues = np.linalg.eigvals(jacobians(system, z[None])[0]).astype(complex)
    return FixedPoint(
        point=z,
        multipliers=eigenvalues,
        residual=residual,
        kind=_classify(system, eigenvalues),
        radius=_radius(system, z.tolist()) if certify else None,
    )


def _defect(system: System, z: Any) -> Any:
    image = np.array([float(x) for x in system.f(z.tolist(), system.parameters())])
    if isinstance(system, Flow):
        return image
    gap = image - z
    return gap - np.rint(gap) if system.torus else gap


def strength(system: System, eigenvalues: Any) -> Any:
    """Return log |multiplier| or the real part of the exponent: > 0 expands."""
    if isinstance(system, Flow):
        return eigenvalues.real
    return np.log(np.maximum(np.abs(eigenvalues), 1e-300))


def _classify(system: System, eigenvalues: Any) -> str:
    rates = strength(system, eigenvalues)
    neutral = np.abs(rates) < NEUTRAL
    if neutral.all():
        return "degenerate"
    if neutral.any():
        return "neutral"
    return (
        "saddle"
        if (rates > 0).any() and (rates < 0).any()
        else ("source" if (rates > 0).all() else "sink")
    )


def _radius(system: System, point: list[float]) -> float:
    if isinstance(system, Map) and system.jacobian is not None:
        raise ValueError(f"{system.name} gives its own jacobian, which Arb cannot check")
    flint = require_flint()
    with flint.ctx.workprec(BITS):
        box = enclosed_fixed_point(system, system.f, point, arb_parameters(system))
        far = [abs(x - y).upper() for x, y in zip(box, point, strict=True)]
    return max(float(x) for x in far) * (1 + 2.0**-50)


def enclosed_fixed_point(system: System, f: Function, guess: list[float], p: Any) -> list[Any]:
    """Return balls that contain the fixed point of f, near `guess`, at the current precision.

    Raises
    ------
    ValueError
        If none is proved.
    """
    arb = require_flint().arb
    turns = [0] * len(guess)
    if isinstance(system, Map) and system.torus:
        image = f([arb(x) for x in guess], p)
        turns = [round(float((y - x).mid())) for x, y in zip(guess, image, strict=True)]

    def gap(z: Sequence[Any], q: Any) -> list[Any]:
        image = f(z, q)
        if isinstance(system, Flow):
            return list(image)
        return [y - x - n for x, y, n in zip(z, image, turns, strict=True)]

    found = proved_zero(gap, guess, p)
    if found is None:
        raise ValueError(
            f"no fixed point is proved near {guess}; refine the guess, unless it is degenerate"
        )
    return found


def proved_zero(
    g: Callable[[Sequence[Any], Any], Sequence[Any]], guess: list[float], p: Any
) -> list[Any] | None:
    """Return balls with a zero of g near `guess`, or None."""
    flint = require_flint()
    arb, box, proved = flint.arb, [flint.arb(x, NEAR) for x in guess], False
    for _ in range(ROUNDS):
        middle = [arb(x.mid()) for x in box]
        J = flint.arb_mat(value_and_jacobian(g, box, p)[1])
        try:
            step = J.solve(flint.arb_mat([[y] for y in g(middle, p)])).tolist()
        except ZeroDivisionError:
            break  # J may be singular in the box
        new = [m - s[0] for m, s in zip(middle, step, strict=True)]
        if not all(x.contains(y) for x, y in zip(box, new, strict=True)):
            break  # at the precision, if one step has been proved
        box, proved = new, True
    return box if proved else None
