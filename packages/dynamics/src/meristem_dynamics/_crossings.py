"""The verifier's Poincaré maps, in Arb; made for `verifier` alone, sharing nothing with `certify`.

The Taylor series come from Picard's iteration on Arb's own power series, z <- z0 + integral of
f(z), each round of which makes one more coefficient final. With the coefficients of a box W that
holds all solutions, found by the same iteration on intervals, the last one bounds the remainder.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flint

arb: Any = flint.arb
arb_mat: Any = flint.arb_mat
arb_series: Any = flint.arb_series

ORDER = 20  # of points, and of tangents; above the maker's, so that less is lost here
TANGENT_ORDER = 14
ROUNDS = 40

Field = Callable[[Sequence[Any]], Sequence[Any]]


def poincare(
    f: Field, tangent: type[Any], h: Any, here: Any, after: Any
) -> tuple[list[list[Any]], list[Any], Any] | None:
    """Return D P over the box of a point, P(0) and a bound of |t|; None if nothing is proved.

    Parameters
    ----------
    f
        The flow at its parameters.
    tangent
        Makes a number with derivatives from a value and its slopes.
    h
        Time between the sections, a float.
    here, after
        Point, frame with d - 1 columns and widths, at both ends.
    """
    (point, F, w), (target, F_next, _) = here, after
    d = len(point)
    m = d - 1

    def field(z: Sequence[Any]) -> list[Any]:
        image = f([tangent(z[i], z[d + i * m : d + i * m + m]) for i in range(d)])
        zero = [arb(0)] * m
        values = [y.value if isinstance(y, tangent) else y for y in image]
        slopes = [a for y in image for a in (y.slopes if isinstance(y, tangent) else zero)]
        return [*values, *slopes]

    centre = [arb(x) for x in point]
    spread = [sum((arb(abs(q)) * x for q, x in zip(row, w, strict=True)), arb(0)) for row in F]
    box = [c + arb(0, 1) * s for c, s in zip(centre, spread, strict=True)]
    start = [*box, *(arb(q) for row in F for q in row)]
    around = _tube(field, start, h)
    if around is None:
        return None
    end = _step(f, centre, around[:d], h, ORDER)
    moved = _step(field, start, around, h, TANGENT_ORDER)[d:]
    pushed = [moved[i * m : i * m + m] for i in range(d)]
    gap = [x - y for x, y in zip(end, target, strict=True)]
    flow_there = [arb(_constant(y).mid()) for y in f([arb(x) for x in target])]
    basis = arb_mat([[*(arb(q) for q in F_next[i]), flow_there[i]] for i in range(d)])
    try:
        A = basis.inv()
    except ZeroDivisionError:
        return None
    Z = (A * arb_mat(pushed)).tolist()
    e = [row[0] for row in (A * arb_mat([[g] for g in gap])).tolist()]
    late = sum((abs(z) * x for z, x in zip(Z[m], w, strict=True)), abs(e[m]))
    reach = [
        sum((abs(t) * x for t, x in zip(row, w, strict=True)), abs(g))
        for row, g in zip(pushed, gap, strict=True)
    ]
    return _crossing(f, tangent, [target, A, Z, pushed, e, late, reach], h)


def _crossing(f: Field, tangent: type[Any], parts: list[Any], h: Any) -> Any:
    """Return what `poincare` does, from the image of the box under the flow for the time h."""
    target, A, Z, pushed, e, late, reach = parts
    d = len(target)
    m = d - 1
    # 2 |t| is room enough: along f(target) the slope of b is 1 at the target
    theta = 2 * arb(late.upper())
    speed = [abs(_constant(y)) for y in f([arb(x) for x in target])]
    rho = [arb((2 * (x + theta * v)).upper()) for x, v in zip(reach, speed, strict=True)]
    unit = [[arb(int(i == j)) for j in range(d)] for i in range(d)]
    W = [tangent(arb(x) + arb(0, 1) * r, row) for x, r, row in zip(target, rho, unit, strict=True)]
    image = f(W)
    v = [y.value if isinstance(y, tangent) else arb(y) for y in image]
    rows = [y.slopes if isinstance(y, tangent) else [arb(0)] * d for y in image]
    stays = all(x + theta * abs(y) <= r for x, y, r in zip(reach, v, rho, strict=True))
    V = [row[0] for row in (A * arb_mat([[y] for y in v])).tolist()]
    growth = theta * max((sum((abs(a) for a in row), arb(0)) for row in rows), key=_upper)
    if not (stays and V[m] > 0 and late <= theta * arb(V[m].lower()) and growth <= 1):
        return None
    if not 2 * theta <= h:
        return None
    tops = [max((abs(row[j]) for row in pushed), key=_upper) for j in range(m)]
    extra = growth.exp() - 1
    bulge = [[arb(0, 1) * (extra * tops[j]) for j in range(m)] for _ in range(d)]
    moved = (A * arb_mat(bulge)).tolist()
    late_Z = [[z + x for z, x in zip(a, b, strict=True)] for a, b in zip(Z, moved, strict=True)]
    over = [V[i] / V[m] for i in range(m)]
    C = [[late_Z[i][j] - over[i] * late_Z[m][j] for j in range(m)] for i in range(m)]
    return C, [e[i] - over[i] * e[m] for i in range(m)], late / arb(V[m].lower())


def _upper(x: Any) -> float:
    return float(x.upper())


def _constant(y: Any) -> Any:
    return y if isinstance(y, arb) else arb(y)


def _tube(field: Field, start: list[Any], h: Any) -> list[Any] | None:
    """Return a box that holds every solution from `start` during [0, h], or None."""
    wide, zero = start, arb(0)
    for _ in range(ROUNDS):
        found = [x + zero.union(y * h) for x, y in zip(start, field(wide), strict=True)]
        if not all(x.is_finite() for x in found):
            return None
        if all(x.contains(y) for x, y in zip(wide, found, strict=True)):
            return found
        wide = [arb(x.mid(), float(x.rad()) * 1.125) for x in found]
    return None


def _step(field: Field, start: list[Any], around: list[Any], h: Any, order: int) -> list[Any]:
    """Return balls around the flow of `start` after the time h."""
    before = flint.ctx.cap
    try:
        low, rest = _series(field, start, order - 1), _series(field, around, order)
    finally:
        flint.ctx.cap = before
    total = [row[order] for row in rest]
    for k in reversed(range(order)):
        total = [row[k] + t * h for row, t in zip(low, total, strict=True)]
    return total


def _series(field: Field, start: list[Any], order: int) -> list[list[Any]]:
    z = [arb_series([x]) for x in start]
    for k in range(1, order + 1):
        flint.ctx.cap = k + 1
        image = [y if isinstance(y, arb_series) else arb_series([y]) for y in field(z)]
        z = [arb_series([x]) + y.integral() for x, y in zip(start, image, strict=True)]
    zero = [arb(0)] * (order + 1)
    return [[*x.coeffs(), *zero][: order + 1] for x in z]
