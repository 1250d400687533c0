"""The conditions on a degenerate saddle: six binary forms that must be positive definite.

F = (x - P + X, y + Q + Y), P and Q homogeneous of odd degrees 2k + 1, 2k' + 1, X and Y of higher
order. The forms P_x, Q_y, P_x +- P_y, Q_y +- Q_x are positive definite iff |P_y| < P_x and
|Q_x| < Q_y off 0 (the first two follow from the others). A form q of even degree is positive
definite iff q(0, 1) > 0 and q(1, t) has no real root: decided exactly by Sturm chains.

A form of degree n is the list of the coefficients of x^n, x^(n-1) y, ..., y^n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from meristem_dynamics._exact import Exact
from meristem_dynamics._sturm import positive_on, real_roots
from meristem_dynamics._systems import Flow, Map, System
from meristem_dynamics._tape import Tape, taylor_polynomials

Form = list[Any]
NAMES = ("P_x", "Q_y", "P_x + P_y", "P_x - P_y", "Q_y + Q_x", "Q_y - Q_x")
BISECTIONS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class FormReport:
    """Whether a form is positive definite, and how clearly."""

    definite: bool
    margin: float  # lower bound of the minimum over max(|x|, |y|) = 1; exact sign if definite
    witness: tuple[float, float]  # where the minimum is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SaddleReport:
    """What the six conditions say about a degenerate saddle at the origin.

    With `swapped` x expands and y contracts; forms, slopes and margins are then those of the map
    with its axes exchanged.
    """

    ok: bool
    forms: dict[str, FormReport]
    k: int  # degree of P is 2k + 1
    k2: int  # degree of Q is 2k' + 1
    margin_p: float  # P_x - |P_y| >= margin_p max(|x|, |y|)^(2k)
    margin_q: float
    radius: float  # on max(|x|, |y|) <= radius the cone conditions hold with half the margins
    slope_stable: float  # of y = phi(x) at 0
    slope_unstable: float  # of x = psi(y) at 0
    swapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """A saddle's Taylor polynomials by degree, axes exchanged if x expands."""

    p: Form
    q: Form
    rest_x: dict[int, Form]
    rest_y: dict[int, Form]
    swapped: bool


def is_positive_definite(form: Sequence[Any]) -> FormReport:
    """Return whether a binary form is positive definite, exactly.

    Parameters
    ----------
    form
        Coefficients of x^n, x^(n-1) y, ..., y^n, n even: int, Fraction, str, or float (its exact
        binary64 value).

    Raises
    ------
    ValueError
        If n is odd: an odd form changes sign.

    Examples
    --------
    >>> is_positive_definite([1, -1, 1]).definite, is_positive_definite([1, -2, 1]).definite
    (True, False)
    """
    q = [Fraction(c) for c in form]
    if len(q) % 2 == 0:
        raise ValueError(f"the form has odd degree {len(q) - 1}; only even degrees have a sign")
    definite = q[-1] > 0 and q[0] > 0 and real_roots(q) == 0
    low, witness = _least(q)
    if not definite:
        return FormReport(definite=False, margin=min(low, 0.0), witness=witness)
    margin = _confirmed(q, low)
    return FormReport(definite=True, margin=margin, witness=witness)


def check_degenerate_saddle(system: System) -> SaddleReport:
    """Return whether the origin is a degenerate saddle of the class, and its constants.

    Parameters
    ----------
    system
        A planar polynomial map with DF(0) = 1, or flow with Df(0) = 0; its parameters are exact.

    Raises
    ------
    ValueError
        If the origin is no fixed point, its linear part is another one, or f is no polynomial.

    Notes
    -----
    The conditions are those reported for arXiv 2502.17151. The radius r satisfies
    sum |a_ij| (i + j) r^(i + j - 1 - 2k) <= margin / 2 for the higher terms of each component, and
    |DF - 1| <= 1/2, so that P_x <= 1 there.
    """
    normal = normal_form(system)
    px, py = derivatives(normal.p)
    qx, qy = derivatives(normal.q)
    six = (px, qy, _plus(px, py), _minus(px, py), _plus(qy, qx), _minus(qy, qx))
    forms = dict(zip(NAMES, six, strict=True))
    reports = {name: is_positive_definite(form) for name, form in forms.items()}
    ok = all(report.definite for report in reports.values())
    margin_p = min(reports["P_x + P_y"].margin, reports["P_x - P_y"].margin)
    margin_q = min(reports["Q_y + Q_x"].margin, reports["Q_y - Q_x"].margin)
    stable, unstable = _slopes(normal) if ok else (float("nan"), float("nan"))
    return SaddleReport(
        ok=ok,
        forms=reports,
        k=(len(normal.p) - 2) // 2,
        k2=(len(normal.q) - 2) // 2,
        margin_p=margin_p,
        margin_q=margin_q,
        radius=_radius(normal, margin_p, margin_q) if ok else 0.0,
        slope_stable=stable,
        slope_unstable=unstable,
        swapped=normal.swapped,
    )


def finite_shadowing_bound(report: SaddleReport, d: float) -> float:
    """Return eps such that every d-pseudo-orbit near the saddle is eps-shadowed.

    Parameters
    ----------
    report
        Of a saddle that fulfils the six conditions.
    d
        Largest error of a step, sup norm, >= 0.

    Returns
    -------
    float
        Valid while the eps-neighbourhood of the pseudo-orbit stays within `report.radius`.

    Raises
    ------
    ValueError
        If the conditions fail.

    Notes
    -----
    On the boxes p_n + [-eps, eps]^2 the upper edge rises by the integral of the vertical derivative
    over the segment, at least (m_Q / 2) eps^(2k'+1) / ((2k'+1) 4^k') in sup norm, since the mean of
    |p + t z|^(2k') over t in [0, 1] is at least |z|^(2k') / ((2k'+1) 4^k'); widths shrink likewise.
    The boxes then cover one another, and an orbit stays inside.
    """
    if not report.ok:
        raise ValueError("the six conditions fail; finite_shadowing_bound needs them")
    sizes = ((report.k, report.margin_p), (report.k2, report.margin_q))
    return max((2 * (2 * k + 1) * 4**k * d / margin) ** (1 / (2 * k + 1)) for k, margin in sizes)


def normal_form(system: System) -> Normal:
    """Return the homogeneous parts of a degenerate saddle at the origin."""
    if system.dim != 2:
        raise ValueError(f"{system.name} has dimension {system.dim}; the conditions are planar")
    rows = _taylor(system, Fraction)
    if any(isinstance(c, float) for row in rows for form in row for c in form):
        rows = _taylor(system, Exact)  # the slower fractions, where f holds floats
    parts = [[[Fraction(c) for c in form] for form in row] for row in rows]
    identity = [Fraction(int(isinstance(system, Map))), Fraction(0)]
    for i, row in enumerate(parts):
        if row[0] != [0]:
            raise ValueError(f"0 is no fixed point of {system.name}: it moves by {row[0][0]}")
        if row[1] != identity[:: 1 - 2 * i]:
            raise ValueError(
                f"row {i} of the linear part is {[str(c) for c in row[1]]}; a degenerate "
                f"saddle has {'1' if isinstance(system, Map) else '0'} there, so use "
                "invariant_manifold"
            )
    return _split(system, parts)


def _taylor(system: System, number: type[Fraction]) -> list[list[Any]]:
    tape = Tape(system.f, 2, system.parameters(number))
    if not tape.polynomial:
        raise ValueError(
            f"{system.name} is no polynomial; give its Taylor polynomial with degenerate_saddle"
        )
    return taylor_polynomials(tape, [number(0), number(0)], tape.degree())


def _split(system: System, parts: list[list[Form]]) -> Normal:
    lowest: list[int] = []
    for i, row in enumerate(parts):
        degrees = [n for n in range(2, len(row)) if any(row[n])]
        if not degrees or degrees[0] % 2 == 0:
            raise ValueError(
                f"component {i} of {system.name} starts with degree {degrees[:1]}; "
                "P and Q have odd degrees 3, 5, ..."
            )
        lowest.append(degrees[0])
    swapped = parts[0][lowest[0]][0] > 0
    if swapped:
        parts = [[form[::-1] for form in row] for row in reversed(parts)]
        lowest.reverse()
    rest = [{n: row[n] for n in range(low + 1, len(row)) if any(row[n])} for row, low in
            zip(parts, lowest, strict=True)]  # fmt: skip
    return Normal(
        p=[-c for c in parts[0][lowest[0]]],
        q=parts[1][lowest[1]],
        rest_x=rest[0],
        rest_y=rest[1],
        swapped=swapped,
    )


def derivatives(form: Form) -> tuple[Form, Form]:
    """Return the x- and y-derivative of a form."""
    n = len(form) - 1
    return [(n - j) * form[j] for j in range(n)], [j * form[j] for j in range(1, n + 1)]


def at_slope(form: Sequence[Any], c: Any) -> Any:
    """Return form(1, c)."""
    total = form[-1] * 1
    for a in reversed(form[:-1]):
        total = total * c + a
    return total


def slope_polynomial(p: Form, q: Form) -> Form:
    """Return g, whose root in [-1, 1] is the slope of the invariant graph over x."""
    if len(p) == len(q):
        shifted = [Fraction(0), *p]
        return [a + b for a, b in zip([*q, Fraction(0)], shifted, strict=True)]
    return q if len(p) > len(q) else [Fraction(0), Fraction(1)]


def _slopes(normal: Normal) -> tuple[float, float]:
    stable = slope_polynomial(normal.p, normal.q)
    unstable = slope_polynomial([-c for c in normal.q[::-1]], [-c for c in normal.p[::-1]])
    return root_of(stable), root_of(unstable)


def root_of(polynomial: Form) -> float:
    """Return the one root in [-1, 1] of a slope polynomial, by bisection and Newton."""
    coefficients = [float(c) for c in polynomial]

    def g(c: float) -> float:
        return float(at_slope(coefficients, c))

    low, high = -1.0, 1.0
    rising = g(1.0) > 0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if (g(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)


def _least(q: Form) -> tuple[float, tuple[float, float]]:
    """Return the minimum over the faces x = 1 and y = 1, in floats, and its place."""
    best, where = float("inf"), (1.0, 0.0)
    for face in (0, 1):
        coefficients = np.array([float(c) for c in (q if face == 0 else q[::-1])])
        poly = np.polynomial.Polynomial(coefficients)
        slope = poly.deriv()
        roots = slope.roots() if any(slope.coef) else np.array([])
        inside = [float(r.real) for r in np.atleast_1d(roots) if abs(r.imag) < 1e-6]
        for t in (-1.0, 1.0, 0.0, *[r for r in inside if abs(r) <= 1]):
            if float(poly(t)) < best:
                best, where = float(poly(t)), (1.0, t) if face == 0 else (t, 1.0)
    return best, where


def _confirmed(q: Form, low: float) -> float:
    """Return a margin just below `low` that Sturm chains confirm on both faces."""
    for cut in (1e-14, 1e-12, 1e-9, 1e-6, 1e-3, 0.5):
        margin = low * (1 - cut)
        level = Fraction(margin)
        faces = ([q[0] - level, *q[1:]], [q[-1] - level, *q[-2::-1]])
        if all(positive_on(face, Fraction(-1), Fraction(1)) for face in faces):
            return margin
    return 0.0


def _radius(normal: Normal, margin_p: float, margin_q: float) -> float:
    def fits(r: Fraction) -> bool:
        rows = ((normal.p, normal.rest_x, margin_p), (normal.q, normal.rest_y, margin_q))
        for form, rest, margin in rows:
            lowest = len(form) - 1
            higher = sum(_weight(f) * r ** (n - lowest) for n, f in rest.items())
            whole = _weight(form) * r ** (lowest - 1) + higher * r ** (lowest - 1)
            if higher > Fraction(margin) / 2 or whole > Fraction(1, 2):
                return False
        return True

    low, high = Fraction(0), Fraction(16)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return float(low) * (1 - 1e-12)


def _weight(form: Form) -> Fraction:
    return (len(form) - 1) * sum((abs(c) for c in form), Fraction(0))


def _plus(a: Form, b: Form) -> Form:
    return [x + y for x, y in zip(a, b, strict=True)]


def _minus(a: Form, b: Form) -> Form:
    return [x - y for x, y in zip(a, b, strict=True)]


def is_flow(system: System) -> bool:
    """Return whether the system is a flow."""
    return isinstance(system, Flow)
