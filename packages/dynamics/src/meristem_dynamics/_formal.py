"""Enclosures of the formal series of an invariant curve, in Arb.

- fixed point, and eigenvalue with eigenvector, by interval Newton: if N(box) = m - J(box)^-1 g(m)
  lies in the box, there is exactly one zero of g in the box, and it is in N(box)
- higher coefficients by the recursions of `_invariant`, on balls; they hold the exact ones
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._invariant import Manifold
from meristem_dynamics._systems import Flow, Function, Map, System, arb_parameters, require_flint
from meristem_dynamics._tape import Expansion, Tape

NEAR = 1e-9  # half-width of the first box of Newton's method
ROUNDS = 6


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
    point = _fixed(system, g, rows[0], p)
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


def _fixed(system: System, f: Function, guess: list[float], p: Any) -> list[Any]:
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

    found = _zero(gap, guess, p)
    if found is None:
        raise ValueError(f"no fixed point is proved near {guess}; refine the guess")
    return found


def _eigenpair(A: Any, guess: float, along: list[float]) -> tuple[Any, list[Any]]:
    """Return the eigenvalue near `guess` and its eigenvector, scaled like the float one."""
    arb = require_flint().arb
    rows, d = A.tolist(), len(along)
    i = int(np.argmax(np.abs(along)))

    def gap(z: Sequence[Any], _: Any) -> list[Any]:
        v, value = z[:d], z[d]
        images = [sum((x * a for a, x in zip(row, v, strict=True)), arb(0)) for row in rows]
        return [*(y - value * x for x, y in zip(v, images, strict=True)), v[i] - 1]

    found = _zero(gap, [*(x / along[i] for x in along), guess], None)
    if found is None:
        raise ValueError(f"no eigenvalue with its eigenvector is proved near {guess} and {along}")
    return found[d], [x * arb(along[i]) for x in found[:d]]


def _zero(g: Callable[[Sequence[Any], Any], Sequence[Any]], guess: list[float], p: Any) -> Any:
    """Return balls with a zero of g near `guess`, or None."""
    flint = require_flint()
    arb, box, proved = flint.arb, [flint.arb(x, NEAR) for x in guess], False
    for _ in range(ROUNDS):
        middle = [arb(x.mid()) for x in box]
        J = flint.arb_mat(value_and_jacobian(g, box, p)[1])
        step = J.solve(flint.arb_mat([[y] for y in g(middle, p)])).tolist()
        new = [m - s[0] for m, s in zip(middle, step, strict=True)]
        if not all(x.contains(y) for x, y in zip(box, new, strict=True)):
            break  # at the precision, if one step has been proved
        box, proved = new, True
    return box if proved else None
