"""Rigorous error of a one-dimensional hyperbolic manifold of a map or flow, in Arb.

- the formal coefficients K_0, ..., K_M are enclosed by `_formal`; G = F and mu = lambda (unstable
  curves of maps), G = F^-1 and mu = 1 / lambda (stable ones), G = f and mu = lambda (flows)
- the tail h, orders above M, solves h_n = w_n [G(K_M + h)]_n with w_n = mu^-n for maps and
  1 / (n mu) for flows
- [.]_s is the l^1 norm of coefficients at |t| = s, [.] that at 1, s = 1 / |mu| for maps, 1 for
  flows. The right side has the Lipschitz constant q = |w_{M+1}| sup [DG(K_M + h)]_s: for maps
  sum |w_n g_n| = [g]_s and [h]_s <= s^(M+1) [h], for flows |w_n| <= |w_{M+1}|. If q <= 1/2 over
  the ball [h] <= 2 eps, eps the norm of the right side at h = 0, then it maps that ball into
  itself as a contraction, and K_M + h with its fixed point h is the invariant curve
- eps is the sum of |w_n c_n| over the orders M < n <= N of G(K_M), plus at most
  |w_{N+1}| rho^-(N+1) [G(K_M)]_rho, any rho >= 1, for those above; a polynomial has none above
- [G(K_M)]_rho and [DG(K_M + h)]_s are bounded by `Majorant`, which refuses to leave the domain of
  G; if |t| <= 1 does not close, |t| <= 1/2, 1/4, ... are tried
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._formal import Formal, formal_series
from meristem_dynamics._invariant import Manifold
from meristem_dynamics._majorant import Majorant
from meristem_dynamics._systems import require_flint

HALVINGS = 12
ORDERS = 3  # N is this many times M, if G is no polynomial
RADII = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0)  # rho
MARGIN = 1 + 1e-15


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """Proof that the manifold's floats are within `radius` of the true one on |t| <= `reach`."""

    ok: bool
    radius: float  # sup norm, series and rounding of its coefficients together
    reach: float  # 1, or a power of 1/2 if the proof does not close on |t| <= 1
    tail: float  # of the radius: bound of the orders that were left out
    contraction: float
    reason: str


def certify_manifold(manifold: Manifold, *, bits: int = 106) -> Enclosure:
    """Return a proved bound of the error of a local manifold curve.

    Parameters
    ----------
    manifold
        Of one dimension, of a map or flow made of + - * / ** and `meristem_dynamics.ops`; the
        stable one of a map needs an `inverse`, and the theorem is about that function.
    bits
        Precision of the balls.

    Raises
    ------
    ValueError
        If the manifold is another one, or its fixed point or eigenvector cannot be proved.

    Examples
    --------
    >>> from meristem_dynamics import invariant_manifold, zoo
    >>> for system in (zoo.standard("0.97"), zoo.lorenz()):
    ...     proof = certify_manifold(invariant_manifold(system, system.exact["fixed_point"]))
    ...     print(proof.ok, proof.radius < 1e-13, proof.reach)
    True True 1.0
    True True 1.0
    """
    if manifold.dim != 1:
        raise ValueError("certify_manifold takes curves; this manifold is a surface")
    flint = require_flint()
    before, flint.ctx.prec = flint.ctx.prec, bits
    try:
        return _widest(formal_series(manifold), np.array(manifold.coefficients).tolist())
    except ZeroDivisionError as error:
        raise ValueError(
            f"the series of {manifold.system.name} cannot be enclosed with {bits} bits: {error}; "
            "raise bits"
        ) from error
    finally:
        flint.ctx.prec = before


def _widest(formal: Formal, floats: list[list[float]]) -> Enclosure:
    """Return the proof for the largest reach that closes, or the refusal at 1."""
    M, polynomial = formal.order, formal.tape.polynomial
    last = M * formal.tape.degree() if polynomial else ORDERS * M
    zero = [formal.mu * 0] * len(floats[0])
    beyond = [formal.expansion.push(n, zero) for n in range(M + 1, last + 1)]
    whole = _at(1.0, formal, beyond, floats)
    parts = (_at(2.0**-k, formal, beyond, floats) for k in range(1, HALVINGS + 1))
    return whole if whole.ok else next((part for part in parts if part.ok), whole)


def _at(
    reach: float, formal: Formal, beyond: list[list[Any]], floats: list[list[float]]
) -> Enclosure:
    """Return the proof, or the refusal, on |t| <= reach."""
    n = formal.order + 1
    tail = 2 * _defect(formal, beyond, reach) + 2.0**-1000
    s = 1 if formal.flow else 1 / abs(formal.mu)
    q = _weight(formal, n) * _slope(formal, reach * s, tail * s**n)
    radius = (_gap(formal, floats, reach) + _upper(tail)) * MARGIN
    ok = bool(q <= 0.5) and bool(np.isfinite(radius))
    return Enclosure(
        ok=ok,
        radius=radius if ok else float("inf"),
        reach=reach,
        tail=_upper(tail),
        contraction=_upper(q),
        reason="the tail is a contraction"
        if ok
        else f"the tail's contraction factor is {_upper(q):.3g}, above 1/2; raise order",
    )


def _weight(formal: Formal, n: int) -> Any:
    """Return |w_n|."""
    return 1 / (n * abs(formal.mu)) if formal.flow else 1 / abs(formal.mu) ** n


def _sizes(formal: Formal, radius: Any, more: Any = 0) -> list[Majorant]:
    """Return K_M at |t| = radius, plus any series of order above M and norm at most `more`."""
    above = list(enumerate(formal.series))[1:]
    return [
        Majorant(c, sum((abs(K[i]) * radius**m for m, K in above), more))
        for i, c in enumerate(formal.series[0])
    ]


def _defect(formal: Formal, beyond: list[list[Any]], reach: float) -> Any:
    """Return eps."""
    r, first = require_flint().arb(reach), formal.order + 1
    eps = [formal.mu * 0] * len(formal.series[0])
    for n, image in enumerate(beyond, start=first):
        weight = _weight(formal, n) * r**n
        eps = [e + weight * abs(x) for e, x in zip(eps, image, strict=True)]
    total = max(eps, key=_upper)
    if formal.tape.polynomial:
        return total
    n = first + len(beyond)
    return total + min((_rest(formal, n, r, rho) for rho in RADII), key=_upper)


def _rest(formal: Formal, n: int, r: Any, rho: float) -> Any:
    """Return a bound of the orders n, n + 1, ... of eps."""
    try:
        image = formal.g(_sizes(formal, r * rho), formal.p)
    except ArithmeticError:
        return require_flint().arb("inf")
    largest = max((_norm(y) for y in image), key=_upper)
    return largest * _weight(formal, n) / require_flint().arb(rho) ** n


def _slope(formal: Formal, radius: Any, more: Any) -> Any:
    """Return a bound of [DG(K_M + h)] at |t| = radius, [h] <= more: the largest sum of a row."""
    try:
        sizes = _sizes(formal, radius, more)
        rows = value_and_jacobian(formal.g, sizes, formal.p)[1]
    except ArithmeticError:
        return require_flint().arb("inf")
    return max((sum(map(_norm, row), formal.mu * 0) for row in rows), key=_upper)


def _gap(formal: Formal, floats: list[list[float]], reach: float) -> float:
    """Return a bound of the distance of the floats to the enclosed coefficients."""
    r, total = require_flint().arb(reach), [formal.mu * 0] * len(floats[0])
    for m, (K, row) in enumerate(zip(formal.series, floats, strict=True)):
        total = [g + r**m * abs(x - c) for g, x, c in zip(total, K, row, strict=True)]
    return max(map(_upper, total))


def _norm(x: Any) -> Any:
    return x.norm if isinstance(x, Majorant) else abs(require_flint().arb(x))


def _upper(x: Any) -> float:
    top = float(x.upper())
    return float("inf") if np.isnan(top) else top
