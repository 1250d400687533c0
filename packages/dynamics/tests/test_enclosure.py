"""Proofs of local curves beyond polynomials of the plane, against curves in closed form."""

from dataclasses import replace

import flint
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_dynamics import (
    Flow,
    Map,
    certify_manifold,
    fixed_point,
    invariant_manifold,
    ops,
    zoo,
)
from meristem_dynamics._majorant import Majorant
from meristem_dynamics._tape import Expansion, Tape

PENDULUM = Flow(f=lambda z, p: (z[1], ops.sin(z[0])), dim=2, name="pendulum")
GRAPHS = {
    "sin": lambda x, m: m.sin(x),
    "cos": lambda x, m: x * m.cos(x),
    "exp": lambda x, m: m.exp(x) - 1,
    "log": lambda x, m: m.log(1 + x / 4),
    "sqrt": lambda x, m: m.sqrt(1 + x / 3) - 1,
    "quotient": lambda x, m: x / (1 + x * x / 5) ** 2,
}


def sheared(g, rate):
    """Return (rate x, y / 3 or 3 y) after the shear (x, y + g(x)): y = g(x) is invariant."""
    across = 1 / 3 if rate > 1 else 3.0

    def f(z, p):
        return rate * z[0], (z[1] - g(z[0], ops)) * across + g(rate * z[0], ops)

    def inverse(z, p):
        return z[0] / rate, (z[1] - g(z[0], ops)) / across + g(z[0] / rate, ops)

    return Map(f=f, inverse=inverse, dim=2)


def series_at(manifold, t):
    """Return the float coefficients' polynomial at t, without rounding."""
    powers = [mpmath.mpf(t) ** m for m in range(len(manifold.coefficients))]
    rows = np.array(manifold.coefficients).T
    return [sum(mpmath.mpf(float(c)) * x for c, x in zip(row, powers, strict=True)) for row in rows]


@pytest.mark.parametrize("kind", ["unstable", "stable"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_sheared_axis_lies_within_the_bound(name, kind):
    g = GRAPHS[name]
    manifold = invariant_manifold(sheared(g, 2.0 if kind == "unstable" else 0.5), [0.0, 0.0], kind)
    proof = certify_manifold(manifold)
    assert proof.ok, proof
    assert proof.radius < 1e-14
    with mpmath.workdps(40):
        for t in (-1, -0.4, 0.3, 1):
            x, y = series_at(manifold, proof.reach * t)
            along = mpmath.mpf(float(manifold.coefficients[1][0])) * proof.reach * t
            gap = max(abs(x - along), abs(y - g(along, mpmath)))
            assert gap <= proof.radius, f"{name} at {t} is off by {float(gap):.3g}"


@pytest.mark.parametrize("kind", ["unstable", "stable"])
def test_the_separatrix_of_the_pendulum_lies_within_the_bound(kind):
    """theta = 4 atan(c exp(+-s)) on the separatrix of theta'' = sin theta."""
    manifold = invariant_manifold(PENDULUM, [0.0, 0.0], kind)
    proof = certify_manifold(manifold)
    assert proof.ok, proof
    assert proof.radius < 1e-15
    sign = 1 if kind == "unstable" else -1
    with mpmath.workdps(40):
        c = mpmath.mpf(float(manifold.coefficients[1][0])) / 4
        for t in (-1, 0.5, 1):
            theta, speed = series_at(manifold, t)
            gap = max(
                abs(theta - 4 * mpmath.atan(c * t)),
                abs(speed - sign * 4 * c * t / (1 + (c * t) ** 2)),
            )
            assert gap <= proof.radius, f"at {t} off by {float(gap):.3g}"


@pytest.mark.parametrize("kind", ["unstable", "stable"])
def test_the_standard_map_lies_within_the_bound(kind):
    """F^n(t v / lambda^n) tends to the curve: an error of t^2 / lambda^n is left."""
    system = zoo.standard("0.97")
    manifold = invariant_manifold(system, [0.0, 0.0], kind)
    proof = certify_manifold(manifold)
    assert proof.ok, proof
    assert proof.radius < 1e-15
    with mpmath.workdps(60):
        k = mpmath.mpf(97) / 100
        rate = 1 + k / 2 + mpmath.sqrt(k + k * k / 4)
        slope = k / (rate - 1) if kind == "unstable" else k / (1 / rate - 1)
        for t in (-1, 0.6, 1):
            x = mpmath.mpf(float(manifold.coefficients[1][0])) * t / rate**60
            y = x * slope
            for _ in range(60):
                if kind == "unstable":
                    y = y + k * mpmath.sin(x)
                    x = x + y
                else:
                    x, y = x - y, y - k * mpmath.sin(x - y)
            gap = max(abs(a - b) for a, b in zip(series_at(manifold, t), (x, y), strict=True))
            assert gap <= proof.radius, f"at {t} off by {float(gap):.3g}"


def test_fixed_points_are_proved():
    found = fixed_point(zoo.lorenz(), [8.0, 8.0, 27.0], certify=True)
    assert 0 < found.radius < 1e-14
    with mpmath.workdps(40):
        for x, true in zip(found.point, (mpmath.sqrt(72), mpmath.sqrt(72), 27), strict=True):
            assert abs(mpmath.mpf(float(x)) - true) <= found.radius
    assert fixed_point(zoo.lorenz(), [8.0, 8.0, 27.0]).radius is None
    with pytest.raises(ValueError, match=r"no fixed point is proved .* unless it is degenerate"):
        fixed_point(zoo.demo_saddle(), [0.0, 0.0], certify=True)
    with pytest.raises(ValueError, match="own jacobian"):
        fixed_point(zoo.tent(), [2 / 3], certify=True)


def test_curves_in_more_variables_and_of_the_torus():
    lorenz = zoo.lorenz()
    for point, kind in (([0.0, 0.0, 0.0], "unstable"), ([8.0, 8.0, 27.0], "stable")):
        proof = certify_manifold(invariant_manifold(lorenz, point, kind))
        assert proof.ok, proof
        assert proof.radius < 1e-14
    turned = Map(f=lambda z, p: (2 * z[0] + z[1] + 1, z[0] + z[1] - 2), dim=2, torus=True)
    straight = invariant_manifold(turned, [0.0, 0.0])
    assert straight.residual < 1e-15
    assert certify_manifold(straight).radius < 1e-14


def test_the_proof_shrinks_until_it_closes():
    """x' = x, y' = -y + c x^2 has y = c x^2 / 3, and Df is too large on the whole of |t| <= 1."""
    flow = Flow(f=lambda z, p: (z[0], p.c * z[0] * z[0] - z[1]), dim=2, params={"c": 50})
    manifold = invariant_manifold(flow, [0.0, 0.0])
    proof = certify_manifold(manifold)
    assert proof.ok
    assert 1 / 16 < proof.reach < 1
    with mpmath.workdps(40):
        x, y = series_at(manifold, proof.reach)
        assert abs(y - 50 * x * x / 3) <= proof.radius


def test_wrong_series_are_refused():
    standard = zoo.standard("0.97")
    curve = invariant_manifold(standard, [0.0, 0.0])
    for k in (2, 9, 40):
        moved = [c + 1e-6 * (m == k) for m, c in enumerate(curve.coefficients)]
        assert certify_manifold(replace(curve, coefficients=moved)).radius >= 1e-6
    low = certify_manifold(invariant_manifold(zoo.lorenz(), [0.0, 0.0, 0.0], order=2))
    assert not low.ok
    assert low.radius == float("inf")
    assert "above 1/2; raise order" in low.reason
    beside, turned = list(curve.coefficients), list(curve.coefficients)
    beside[0] = beside[0] + 1e-3
    turned[1] = turned[1] * [1, 1.01]
    with pytest.raises(ValueError, match="no fixed point is proved near"):
        certify_manifold(replace(curve, coefficients=beside))
    with pytest.raises(ValueError, match="no eigenvalue with its eigenvector is proved"):
        certify_manifold(replace(curve, coefficients=turned))
    with pytest.raises(ValueError, match="not proved to be stable"):
        certify_manifold(replace(invariant_manifold(PENDULUM, [0.0, 0.0]), kind="stable"))
    with pytest.raises(ValueError, match="has no inverse"):
        certify_manifold(invariant_manifold(replace(standard, inverse=None), [0.0, 0.0], "stable"))
    with pytest.raises(ValueError, match="is a surface"):
        certify_manifold(invariant_manifold(zoo.lorenz(), [0.0, 0.0, 0.0], "stable", dim=2))


FUNCTIONS = {
    "exp": lambda g: ops.exp(g),
    "sin": lambda g: ops.sin(g),
    "cos": lambda g: ops.cos(g),
    "log": lambda g: ops.log(2.5 + g),
    "sqrt": lambda g: ops.sqrt(2.5 + g),
    "inverse": lambda g: 1 / (2.5 - g),
    "mixed": lambda g: g**3 - (2 - g) * g / (g - 3) ** 2,
}


@given(coefficients=st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_majorants_are_no_smaller_than_the_norm(name, coefficients):
    expansion = Expansion(Tape(lambda z, p: (FUNCTIONS[name](z[0]),), 1, None))
    zeros = [0.0] * 40
    norm = sum(abs(expansion.push(k, [c])[0]) for k, c in enumerate(coefficients + zeros))
    rest = sum(map(abs, coefficients[1:]))
    found = FUNCTIONS[name](Majorant(flint.arb(coefficients[0]), flint.arb(rest)))
    top = float(found.norm.upper())
    assert norm <= top * (1 + 1e-12), f"{name}: {norm} above {top}"
    if name in {"exp", "inverse"} and min(coefficients) >= 0:
        assert norm == pytest.approx(top, rel=1e-9), "equality where all terms have one sign"


def test_majorants_refuse_to_leave_the_domain():
    near = Majorant(flint.arb(1), flint.arb(1))
    for function in (ops.log, ops.sqrt, lambda g: 1 / g, lambda g: g**-2):
        with pytest.raises(ArithmeticError, match="may leave its domain"):
            function(near)
    with pytest.raises(ArithmeticError, match="may leave its domain"):
        ops.log(Majorant(flint.arb(-2), flint.arb(1)))
