"""Enclosures of the formal series of an invariant curve, in Arb.

- fixed point, and eigenvalue with eigenvector, by interval Newton
- higher coefficients by the recursions of `_invariant`, on balls; they hold the exact ones
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._fixed_points import enclosed_fixed_point, proved_zero
from meristem_dynamics._invariant import Manifold
from meristem_dynamics._systems import Flow, Function, arb_parameters, require_flint
from meristem_dynamics._tape import Expansion, Tape


@dataclass(frozen=True, slots=True)
class Formal:
    """Balls of K_0, ..., K_M with G(K(t)) = K(mu t) or, for flows, G(K) = mu t K'."""

    g: Function  # f, or the inverse for stable curves of maps
    p: Any
    flow: bool
    mu: Any
    series: list[list[Any]]
    expansion: Expansion  # of G(K_M), to be continued above the order M

    @property
    def order(self) -> int:
        """M."""
        return len(self.series) - 1

    @property
    def tape(self) -> Tape:
        """The recorded G."""
        return self.expansion.tape


def formal_series(manifold: Manifold) -> Formal:
    """Return the enclosed coefficients of a curve, at the current precision of python-flint.

    Raises
    ------
    ValueError
        If the fixed point, the eigenvector or the kind of the multiplier cannot be proved.
    """
    arb_mat = require_flint().arb_mat
    system, rows = manifold.system, np.array(manifold.coefficients).tolist()
    flow, p, g = isinstance(system, Flow), arb_parameters(system), _function(manifold)
    expansion = Expansion(Tape(g, system.dim, p))
    point = enclosed_fixed_point(system, g, rows[0], p)
    A = arb_mat(value_and_jacobian(g, point, p)[1])
    stable, guess = manifold.kind == "stable", manifold.multipliers[0].real
    mu, direction = _eigenpair(A, 1 / guess if stable and not flow else guess, rows[1])
    if not ((-mu if stable else mu) > 0 if flow else abs(mu) > 1):
        raise ValueError(f"the multiplier {guess} is not proved to be {manifold.kind}")
    series, d = [point, direction], system.dim
    for m, K in enumerate(series):
        expansion.push(m, K)
    for m in range(2, len(rows)):
        rest = expansion.push(m, [mu * 0] * d)
        factor = mu * m if flow else mu**m
        gaps = arb_mat([[factor * int(i == j) for j in range(d)] for i in range(d)]) - A
        series.append([row[0] for row in gaps.solve(arb_mat([[x] for x in rest])).tolist()])
        expansion.push(m, series[-1])
    return Formal(g, p, flow, mu, series, expansion)


def _function(manifold: Manifold) -> Function:
    system = manifold.system
    if isinstance(system, Flow) or manifold.kind == "unstable":
        return system.f
    if system.inverse is None:
        raise ValueError(f"{system.name} has no inverse; give one to certify its stable manifold")
    return system.inverse


def _eigenpair(A: Any, guess: float, along: list[float]) -> tuple[Any, list[Any]]:
    """Return the eigenvalue near `guess` and its eigenvector, scaled like the float one."""
    arb = require_flint().arb
    rows, d = A.tolist(), len(along)
    i = int(np.argmax(np.abs(along)))

    def gap(z: Sequence[Any], _: Any) -> list[Any]:
        v, value = z[:d], z[d]
        images = [sum((x * a for a, x in zip(row, v, strict=True)), arb(0)) for row in rows]
        return [*(y - value * x for x, y in zip(v, images, strict=True)), v[i] - 1]

    found = proved_zero(gap, [*(x / along[i] for x in along), guess], None)
    if found is None:
        raise ValueError(f"no eigenvalue with its eigenvector is proved near {guess} and {along}")
    return found[d], [x * arb(along[i]) for x in found[:d]]
