"""Rigorous error of a one-dimensional hyperbolic manifold of a planar polynomial map, in Arb.

- the exact formal coefficients K_0, ..., K_M are enclosed: fixed point by interval Newton,
  multiplier and eigenvector in closed form, higher ones by the recursion
- the tail h solves h = [G((K_M + h)(. / mu))]_{> M} in the l^1 norm of coefficients on |t| <= 1,
  G = F, mu = lambda (unstable) or G = F^-1, mu = 1 / lambda (stable); since
  |h(. / mu)| <= |mu|^-(M+1) |h| it is a contraction of the ball of radius 2 eps, where eps is the
  norm of the right side at h = 0, if |mu|^-(M+1) sup |DG| <= 1/2
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._invariant import Manifold
from meristem_dynamics._systems import Map, arb_parameters, require_flint
from meristem_dynamics._tape import Expansion, Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """Proof that the manifold's floats are within `radius` of the true manifold on |t| <= 1."""

    ok: bool
    radius: float  # sup norm, series and rounding of its coefficients together
    tail: float  # of it: bound of the orders that were left out
    contraction: float
    reason: str


class _Size:
    """An upper bound of an l^1 norm, for majorants: + and - add, * multiplies."""

    __slots__ = ("top",)
    __array_ufunc__ = None

    def __init__(self, top: Any) -> None:
        self.top = top

    def __neg__(self) -> "_Size":
        return self

    def __add__(self, other: Any) -> "_Size":
        return _Size(self.top + (other.top if isinstance(other, _Size) else abs(other)))

    def __mul__(self, other: Any) -> "_Size":
        return _Size(self.top * (other.top if isinstance(other, _Size) else abs(other)))

    def __truediv__(self, other: Any) -> "_Size":
        return _Size(self.top / abs(other))

    def __pow__(self, power: int) -> "_Size":
        return _Size(self.top**power)

    __radd__ = __sub__ = __rsub__ = __add__
    __rmul__ = __mul__


def certify_manifold(manifold: Manifold, *, bits: int = 106) -> Enclosure:
    """Return a proved bound of the error of a local manifold curve.

    Parameters
    ----------
    manifold
        Of one dimension, of a planar polynomial map; the stable one needs a polynomial `inverse`.
    bits
        Precision of the balls.

    Raises
    ------
    ValueError
        If the manifold is another one.

    Examples
    --------
    >>> from meristem_dynamics import invariant_manifold, zoo
    >>> henon = zoo.henon()
    >>> curve = invariant_manifold(henon, henon.exact["fixed_point"])
    >>> certify_manifold(curve).radius < 1e-14
    True
    """
    system = manifold.system
    if not isinstance(system, Map) or system.dim != 2 or manifold.dim != 1:
        raise ValueError("certify_manifold takes curves of planar maps")
    f = system.f if manifold.kind == "unstable" else system.inverse
    if f is None:
        raise ValueError(f"{system.name} has no inverse; give one to certify its stable manifold")
    flint = require_flint()
    before, flint.ctx.prec = flint.ctx.prec, bits
    try:
        tape = Tape(f, 2, arb_parameters(system))
        if not tape.polynomial:
            raise ValueError(f"{system.name} is no polynomial; its tail has no majorant here")
        return _enclosed(manifold, f, tape, arb_parameters(system))
    finally:
        flint.ctx.prec = before


def _enclosed(manifold: Manifold, f: Any, tape: Tape, p: Any) -> Enclosure:
    flint = require_flint()
    arb = flint.arb
    rows: list[list[float]] = np.array(manifold.coefficients).tolist()
    point = _fixed(f, rows[0], p)
    multiplier = manifold.multipliers[0].real
    guess = multiplier if manifold.kind == "unstable" else 1 / multiplier
    mu, direction = _eigenpair(value_and_jacobian(f, point, p)[1], guess, rows[1])
    expansion, order = Expansion(tape), len(rows) - 1
    expansion.push(0, point)
    expansion.push(1, direction)
    series = [point, direction]
    J = flint.arb_mat(value_and_jacobian(f, point, p)[1])
    for m in range(2, order + 1):
        rest = expansion.push(m, [arb(0), arb(0)])
        A = flint.arb_mat([[mu**m, 0], [0, mu**m]]) - J
        series.append([row[0] for row in A.solve(flint.arb_mat([[x] for x in rest])).tolist()])
        expansion.push(m, series[-1])
    eps = [arb(0), arb(0)]
    for n in range(order + 1, order * tape.degree() + 1):
        image = expansion.push(n, [arb(0), arb(0)])
        eps = [e + abs(x) / abs(mu) ** n for e, x in zip(eps, image, strict=True)]
    tail = 2 * max(float(e.upper()) for e in eps) + 2.0**-1000
    small = abs(mu) ** (-order - 1)
    sizes = [
        _Size(sum((abs(K[i]) / abs(mu) ** m for m, K in enumerate(series)), arb(0)) + tail * small)
        for i in range(2)
    ]
    slopes = value_and_jacobian(f, sizes, p)[1]
    norms: list[Any] = [small * sum((_top(x) for x in row), arb(0)) for row in slopes]
    q = max(float(norm.upper()) for norm in norms)
    gap = 0.0
    for i in range(2):
        total: Any = arb(0)
        for K, c in zip(series, rows, strict=True):
            total = total + abs(K[i] - c[i])
        gap = max(gap, float(total.upper()))
    ok = q <= 0.5
    return Enclosure(
        ok=ok,
        radius=(gap + tail) * (1 + 1e-15) if ok else float("inf"),
        tail=tail,
        contraction=q,
        reason="the tail is a contraction"
        if ok
        else f"the tail's contraction factor is {q:.3g}, above 1/2; raise order",
    )


def _top(x: Any) -> Any:
    return x.top if isinstance(x, _Size) else require_flint().arb(abs(x))


def _fixed(f: Any, guess: list[float], p: Any) -> list[Any]:
    """Return balls that contain the fixed point near `guess`, by interval Newton."""
    flint = require_flint()
    arb, box, proved = flint.arb, [flint.arb(x, 1e-9) for x in guess], False
    for _ in range(6):
        middle = [arb(x.mid()) for x in box]
        gap = [y - x for x, y in zip(middle, f(middle, p), strict=True)]
        J = flint.arb_mat(value_and_jacobian(f, box, p)[1]) - flint.arb_mat([[1, 0], [0, 1]])
        step = J.solve(flint.arb_mat([[g] for g in gap])).tolist()
        new = [m - s[0] for m, s in zip(middle, step, strict=True)]
        if not all(x.contains(y) for x, y in zip(box, new, strict=True)):
            break  # at the precision, if one step has been proved
        box, proved = new, True
    if not proved:
        raise ValueError(f"no fixed point is proved near {guess}; refine the guess")
    return box


def _eigenpair(J: Any, guess: float, along: list[float]) -> tuple[Any, list[Any]]:
    """Return the eigenvalue near `guess` and its eigenvector, scaled like the float one."""
    arb = require_flint().arb
    (a, b), (c, d) = [[arb(x) for x in row] for row in J]
    half, det = (a + d) / 2, a * d - b * c
    root = (half * half - det).sqrt()
    mu = half + root if abs(float((half + root).mid()) - guess) < abs(
        float((half - root).mid()) - guess
    ) else half - root  # fmt: skip
    first, second = [b, mu - a], [mu - d, c]
    vector = first if float(abs(first[0]).lower()) + float(abs(first[1]).lower()) > float(
        abs(second[0]).lower()
    ) + float(abs(second[1]).lower()) else second  # fmt: skip
    i = 0 if abs(along[0]) >= abs(along[1]) else 1
    return mu, [x * arb(along[i]) / vector[i] for x in vector]
