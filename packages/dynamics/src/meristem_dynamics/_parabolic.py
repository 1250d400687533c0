"""Stable and unstable manifolds of degenerate saddles: graphs y = phi(x) as power series.

- maps: phi(F_x(t, phi)) = F_y(t, phi); flows: phi' f_x = f_y. With kappa = min(k, k') the equation
  at order m + 2 kappa determines phi_m with the divisor
  d_m = [k <= k'] m P(1, c) + [k = k'] c P_y(1, c) + [k' <= k] Q_y(1, c),
  which has one sign under the six conditions: no resonance (Baldoma, Fontich and Martin treat the
  one-dimensional parabolic case by parameterization)
- the series is Gevrey and diverges: at each t it is cut after its smallest term
- wedge: with u = phi_M +- A t^s, s = M + 1, if F maps graph(u+) above and graph(u-) below itself
  on (0, r], then |phi - phi_M| <= A t^s there: a point of the true manifold above u+ and the point
  of graph(u+) below it differ by a vector of the unstable cone, so their distance does not
  shrink, yet both orbits stay between u+ and phi, where |y| <= x and x decreases to 0
- for the unstable manifold the axes are exchanged and the signs reversed (F^-1 in place of F)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from meristem_dynamics._forms import (
    Normal,
    at_slope,
    check_degenerate_saddle,
    derivatives,
    normal_form,
    root_of,
    slope_polynomial,
)
from meristem_dynamics._systems import Flow, Map, System, arb_parameters, require_flint
from meristem_dynamics._tape import Expansion, Tape

BITS = 106
LARGEST_A = 2.0**200
WINDOW = 6  # the smallest term is sought by this many at once, since single ones may vanish


@dataclass(frozen=True, slots=True, kw_only=True)
class DegenerateGraph:
    """The invariant graph of a degenerate saddle at the origin.

    The graph is y = phi(x), or x = phi(y) if `transposed`; t is the free coordinate.
    """

    system: System
    kind: Literal["stable", "unstable"]
    transposed: bool
    coefficients: Float[np.ndarray, " m"]  # phi_0 = 0, phi_1 = slope, phi_2, ...

    def height(self, t: Any) -> Any:
        """Return phi(t), cut after the smallest term of the series at each t."""
        t = np.asarray(t, dtype=float)
        powers = np.abs(t)[..., None] ** np.arange(len(self.coefficients))
        terms = self.coefficients * powers
        width = min(WINDOW, len(self.coefficients) - 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.abs(terms[..., 2:]), width, axis=-1)
        last = 1 + width + np.argmin(windows.max(axis=-1), axis=-1)
        kept = np.arange(len(self.coefficients)) <= last[..., None]
        signs = np.where(t[..., None] < 0, (-1.0) ** np.arange(len(self.coefficients)), 1.0)
        return (np.where(kept, terms * signs, 0.0)).sum(axis=-1)

    def __call__(self, t: Any) -> Float[np.ndarray, "*n 2"]:
        """Return the points over t."""
        t = np.asarray(t, dtype=float)
        pair = [t, self.height(t)]
        return np.stack(pair[::-1] if self.transposed else pair, axis=-1)

    def residual_at(self, t: Any) -> Any:
        """Return |phi(F_x) - F_y| on the graph of a map at t."""
        if isinstance(self.system, Flow):
            raise ValueError("residual_at is for maps; a flow's graph is checked by its series")
        image = np.asarray(self.system(self(t)))
        t_image, height = image[..., int(self.transposed)], image[..., 1 - int(self.transposed)]
        return np.abs(self.height(t_image) - height)

    def inner(self, t: Any) -> Any:
        """Return R(t), the free coordinate of the image of the point over t."""
        return np.asarray(self.system(self(t)))[..., int(self.transposed)]  # type: ignore[operator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wedge:
    """|phi(t) - sum_(m <= order) phi_m t^m| <= factor t^(order + 1) for 0 < t <= reach, proved.

    The sum is over the exact coefficients; `centre` holds floats and `spread` their distance.
    """

    ok: bool
    order: int
    factor: float
    reach: float
    centre: Float[np.ndarray, " m"]
    spread: float  # bound of the floats' error in the sum on (0, reach]
    reason: str

    def width(self, t: float) -> float:
        """Return the bound of |phi(t) - centre(t)| in exact arithmetic, rounded up."""
        if not 0 < t <= self.reach:
            raise ValueError(f"t is {t}; the wedge is proved on (0, {self.reach}]")
        return (self.factor * t ** (self.order + 1) + self.spread) * (1 + 1e-13)


def degenerate_graph(
    system: System, kind: Literal["stable", "unstable"] = "stable", *, order: int = 40
) -> DegenerateGraph:
    """Return the stable or unstable manifold of the degenerate saddle at the origin.

    Parameters
    ----------
    system
        A planar polynomial map with DF(0) = 1, or flow with Df(0) = 0.
    kind
        Which manifold.
    order
        Highest degree; terms beyond the optimal truncation are computed but not used.

    Raises
    ------
    ValueError
        If the origin is no degenerate fixed point, or a divisor vanishes.

    Examples
    --------
    >>> from meristem_dynamics import zoo
    >>> graph = degenerate_graph(zoo.demo_saddle())
    >>> graph.coefficients[1:4].round(8).tolist()
    [0.10435962, 0.00875202, -0.09991129]
    """
    normal = normal_form(system)
    p, q, transposed = _roles(normal, kind)
    tape = Tape(_oriented(system, transposed), 2, system.parameters())
    c = root_of(slope_polynomial(p, q))
    series = _series(tape, isinstance(system, Flow), p, q, c, order)
    return DegenerateGraph(
        system=system, kind=kind, transposed=transposed, coefficients=np.array(series)
    )


def _roles(normal: Normal, kind: str) -> tuple[Any, Any, bool]:
    """Return the forms P, Q as seen from the graph's free coordinate, and whether that is y."""
    unstable = kind == "unstable"
    p, q = normal.p, normal.q
    if unstable:
        p, q = [-c for c in q[::-1]], [-c for c in p[::-1]]
    return p, q, unstable != normal.swapped


def _oriented(system: System, transposed: bool) -> Any:
    def f(z: Sequence[Any], p: Any) -> Sequence[Any]:
        return system.f(z[::-1], p)[::-1]

    return f if transposed else system.f


def divisor(p: Any, q: Any, c: Any, m: int) -> Any:
    """Return d_m at the slope c; forms in any arithmetic."""
    k, k2 = len(p), len(q)
    total = c * 0
    if k <= k2:
        total = total + at_slope(p, c) * m
    if k == k2:
        total = total + c * at_slope(derivatives(p)[1], c)
    if k2 <= k:
        total = total + at_slope(derivatives(q)[1], c)
    return total


def _series(tape: Tape, flow: bool, p: Any, q: Any, c: float, order: int) -> list[float]:
    kappa2 = min(len(p), len(q)) - 2
    p, q = [float(x) for x in p], [float(x) for x in q]
    expansion = Expansion(tape)
    phi = np.zeros(order + 1)
    phi[1] = c
    images: list[list[float]] = []

    def push(start: int, stop: int) -> None:
        del images[start:]
        for j in range(start, stop + 1):
            given = [float(j == 1), float(phi[j]) if j <= order else 0.0]
            images.append(list(expansion.push(j, given)))

    push(0, kappa2 + 1)
    for m in range(2, order + 1):
        n = m + kappa2
        push(m, n)  # phi_m is still 0
        x, y = np.array(images).T
        d = divisor(p, q, c, m)
        if abs(d) < 1e-12:
            raise ValueError(
                f"the divisor at order {m} is {d:.3g}; the six conditions exclude that, so see "
                "check_degenerate_saddle"
            )
        phi[m] = (_composed(phi, x, n, flow) - y[n]) / d
        push(m, n)
    return [float(x) for x in phi]


def _composed(phi: Any, x: Any, n: int, flow: bool) -> float:
    """Return coefficient n of phi(x(t)) for maps, of phi'(t) x(t) for flows."""
    top = min(n, len(phi) - 1)
    if flow:
        return float(sum(j * phi[j] * x[n - j + 1] for j in range(1, top + 1)))
    total = np.zeros(n + 1)
    while top and phi[top] == 0:
        top -= 1
    for j in range(top, -1, -1):
        total = np.convolve(total, x)[: n + 1]
        total[0] += phi[j]
    return float(total[n])


def certify_graph(
    graph: DegenerateGraph, *, order: int = 15, reach: float | None = None, side: int = 1
) -> Wedge:
    """Return a proved wedge around a graph of a degenerate saddle of a map, in Arb arithmetic.

    Parameters
    ----------
    graph
        Of a polynomial map that fulfils the six conditions.
    order
        Degree M of the polynomial in the middle.
    reach
        The wedge is sought on 0 < t <= reach; at most, and by default, the radius of the six
        conditions.
    side
        1 for t > 0, -1 for t < 0 (t stands for |t| then).

    Returns
    -------
    Wedge
        Not ok, with the reason, if the inequalities fail on the interval.

    Raises
    ------
    ValueError
        If the conditions fail or `reach` exceeds their radius.
    """
    system = graph.system
    if not isinstance(system, Map):
        raise ValueError("wedges are proved for maps; take the time-1 map's Taylor polynomial")
    report = check_degenerate_saddle(system)
    if not report.ok:
        failing = [name for name, form in report.forms.items() if not form.definite]
        raise ValueError(f"the conditions on {', '.join(failing)} fail; the wedge needs all six")
    reach = report.radius if reach is None else reach
    if not 0 < reach <= report.radius:
        raise ValueError(f"reach is {reach}; the cone conditions are proved up to {report.radius}")
    flint = require_flint()
    before, flint.ctx.prec = flint.ctx.prec, BITS
    try:
        return _wedge(graph, system, order, reach, side)
    finally:
        flint.ctx.prec = before


def _wedge(graph: DegenerateGraph, system: Map, order: int, reach: float, side: int) -> Wedge:
    flint = require_flint()
    arb, poly = flint.arb, flint.arb_poly
    forms = _roles(normal_form(system), graph.kind)[:2]
    p, q = [[arb(flint.fmpq(c.numerator, c.denominator)) for c in form] for form in forms]
    if side < 0:  # t -> -t: x = -t, so P(x, y) -> -P(-x, y), Q(x, y) -> Q(-x, y)
        p = [-c if (len(p) - 1 - j) % 2 == 0 else c for j, c in enumerate(p)]
        q = [-c if (len(q) - 1 - j) % 2 else c for j, c in enumerate(q)]
    kappa2 = min(len(p), len(q)) - 2
    tape = Tape(_oriented(system, graph.transposed), 2, arb_parameters(system))

    def image(u: list[Any], top: int) -> tuple[Any, Any]:
        """Return the series of the image of (t, u(t)) up to degree `top`."""
        expansion, rows = Expansion(tape), list[Any]()
        for j in range(top + 1):
            given = [arb(side if j == 1 else 0), u[j] if j < len(u) else arb(0)]
            rows.append(expansion.push(j, given))
        return poly([row[0] * side for row in rows]), poly([row[1] for row in rows])

    start = float(graph.coefficients[1]) * side
    phi = [arb(0), _enclosed_slope(p, q, start)]
    for m in range(2, order + 1):
        x, y = image(phi, m + kappa2)
        gap = _at(_compose(poly(phi), x, m + kappa2), m + kappa2) - _at(y, m + kappa2)
        phi.append(gap / divisor(p, q, phi[1], m))
    s = order + 1
    d, sign = divisor(p, q, phi[1], s), 1 if graph.kind == "stable" else -1
    x, y = image(phi, s + kappa2)
    rest = _at(y, s + kappa2) - _at(_compose(poly(phi), x, s + kappa2), s + kappa2)
    factor = 2 * max(float((abs(rest) / abs(d)).upper()), 2.0**-200)
    while factor < LARGEST_A:
        bad = [
            _fails(phi, factor * e, image, tape.degree(), reach, s + kappa2, sign * e)
            for e in (1, -1)
        ]
        if not any(bad):
            break
        factor *= 2
    ok = factor < LARGEST_A
    signs = [float(side) ** j for j in range(order + 1)]
    centre = np.array([float(c.mid()) * e for c, e in zip(phi, signs, strict=True)])
    spread: Any = sum(
        (abs(c - float(c.mid())) * arb(reach) ** j for j, c in enumerate(phi)), arb(0)
    )
    return Wedge(
        ok=ok,
        order=order,
        factor=factor if ok else float("inf"),
        reach=reach,
        centre=centre,
        spread=float(spread.upper()) * (1 + 1e-15),
        reason="the wedge is proved"
        if ok
        else "no factor makes the wedge invariant on the interval; shrink reach or change order",
    )


def _enclosed_slope(p: Any, q: Any, c: float) -> Any:
    """Return a ball that contains the root of the slope equation near c, by interval Newton."""
    arb = require_flint().arb
    if len(p) == len(q):
        g = [a + b for a, b in zip([*q, arb(0)], [arb(0), *p], strict=True)]
    elif len(p) > len(q):
        g = q
    else:
        return arb(0)
    slope = [j * a for j, a in enumerate(g)][1:]
    ball = arb(c, 1e-10)
    proved = False
    for _ in range(6):
        middle = arb(ball.mid())
        new = middle - at_slope(g, middle) / at_slope(slope, ball)
        if not ball.contains(new):
            break  # at the precision, if one step has been proved
        ball, proved = new, True
    if not proved:
        raise ValueError(f"the slope {c} cannot be enclosed; its root is not simple")
    return ball


def _fails(
    phi: Any, a: float, image: Any, degree: int, reach: float, first: int, sign: int
) -> bool:
    """Return whether sign * (F_y - u(F_x)) > 0 on (0, reach], or |u'| <= 1, is not certain."""
    flint = require_flint()
    arb, u = flint.arb, flint.arb_poly([*phi, flint.arb(a)])
    r = arb(reach)
    slope = sum((abs(c) * j * r ** (j - 1) for j, c in enumerate(u.coeffs()) if j), arb(0))
    if not slope <= 1:
        return True
    x, y = image(u.coeffs(), degree * u.degree())
    w = (y - u(x)) * sign
    rest = sum(
        (abs(c) * r ** (j - first) for j, c in enumerate(w.coeffs()) if j > first), arb(0)
    )  # lower orders vanish for the exact coefficients
    return not _at(w, first) > rest


def _compose(u: Any, x: Any, n: int) -> Any:
    """Return u(x) with the coefficients above n dropped."""
    poly = require_flint().arb_poly
    total = poly([0])
    for c in reversed(u.coeffs()):
        total = poly((total * x + c).coeffs()[: n + 1])
    return total


def _at(u: Any, n: int) -> Any:
    coefficients = u.coeffs()
    return coefficients[n] if n < len(coefficients) else require_flint().arb(0)
