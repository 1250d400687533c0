import operator
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_dynamics import Ball, ops
from meristem_dynamics._dual import hessian, value_and_jacobian
from meristem_dynamics._tape import Expansion, Tape, taylor_polynomials
from meristem_dynamics.verifier import _Tangent

floats = st.floats(-1e60, 1e60, allow_subnormal=True)
radii = st.sampled_from([0.0, 5e-324, 1e-300, 1e-16, 1e-3, 1.0, 1e20])
balls = st.builds(Ball, floats, radii)
OPERATIONS = [operator.add, operator.sub, operator.mul, operator.truediv]


def corners(ball):
    m, r = Fraction(float(ball.mid)), Fraction(float(ball.rad))
    return [m - r, m, m + r]


@given(a=balls, b=balls, op=st.sampled_from(OPERATIONS))
def test_operations_enclose_the_exact_result(a, b, op):
    try:
        result = op(a, b)
    except (ZeroDivisionError, OverflowError):
        assert op is operator.truediv, "only division may refuse these sizes"
        return
    for x in corners(a):
        for y in corners(b):
            assert result.contains(op(x, y)), (a, b, op)


@given(a=st.floats(-9, 9).filter(bool), b=st.integers(3, 99), x=st.floats(-9, 9))
def test_derivatives_of_products_with_constants_are_enclosed(a, b, x):
    """The slope of x * a / b * a is no float: it must be a ball in every rigorous arithmetic."""

    def f(z, p):
        return (z[0] * a / b * a + z[0] / 3,)

    exact = Fraction(a) ** 2 / b + Fraction(1, 3)
    assert value_and_jacobian(f, [Ball(x)], None)[1][0][0].contains(exact)
    tangent = f([_Tangent(flint.arb(x), [flint.arb(1)])], None)[0]
    for y in (value_and_jacobian(f, [flint.arb(x)], None)[1][0][0], tangent.slopes[0]):
        with flint.ctx.workprec(400):  # `contains` rounds the fraction
            inside = y.contains(flint.fmpq(exact.numerator, exact.denominator))
        assert inside, f"{y} does not hold {exact}"


@given(a=balls, power=st.integers(0, 5))
def test_powers_enclose(a, power):
    for x in corners(a):
        assert (a**power).contains(x**power)


@given(m=st.floats(1e-200, 1e200), share=st.floats(0, 0.9))
def test_square_root_encloses(m, share):
    root = Ball(m, m * share).sqrt()
    low, high = Fraction(float(root.mid - root.rad)), Fraction(float(root.mid + root.rad))
    m, r = Fraction(m), Fraction(m * share)
    slack = 1 - Fraction(1, 2**50)  # the ends themselves are rounded here
    assert low <= 0 or (low * slack) ** 2 <= m - r
    assert (high / slack) ** 2 >= m + r


@given(a=balls)
def test_magnitudes_bound(a):
    top = max(abs(x) for x in corners(a))
    low, _, high = corners(a)
    assert Fraction(float(a.mag())) >= top
    assert Fraction(float(a.mig())) <= (0 if low <= 0 <= high else min(abs(low), abs(high)))


@given(value=st.fractions())
def test_exact_fractions_are_enclosed(value):
    if abs(value) < 10**300:
        assert Ball.of(value).contains(value)


@pytest.mark.parametrize("name", ["sin", "cos", "exp", "log"])
@given(m=st.floats(0.1, 20), r=st.floats(0, 0.09))
def test_elementary_functions_enclose(name, m, r):
    flint = pytest.importorskip("flint")
    y = getattr(Ball(m, r), name)()
    with flint.ctx.workprec(200):
        for x in (flint.arb(m), flint.arb(m) + r, flint.arb(m) - r):
            inside = abs(getattr(x, name)() - float(y.mid))
            assert inside <= flint.arb(float(y.rad))


def test_refusals():
    with pytest.raises(ValueError, match="not finite"):
        Ball(np.nan)
    with pytest.raises(ValueError, match="radii are >= 0"):
        Ball(1.0, -1.0)
    with pytest.raises(OverflowError, match="overflows"):
        Ball(1e200) * Ball(1e200)
    with pytest.raises(ZeroDivisionError, match="contains 0"):
        1 / Ball(0.5, 0.5)
    with pytest.raises(ValueError, match="sqrt"):
        Ball(0.5, 0.5).sqrt()
    with pytest.raises(ValueError, match="not finite"):
        np.array([np.inf]) * Ball(1.0)
    with pytest.raises(TypeError, match="unsupported operand"):
        Ball(1.0) + "1"


def f(z, p):
    x, y = z
    top = ops.exp(x * y) + ops.sin(x) / (2 + ops.cos(y))
    return top * 1.5 - 0.25, ops.log(3 + x) ** 2 - 2 / (4 + y) + ops.sqrt(5 - y) * x**3


@given(x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_derivatives_agree_with_differences(x, y):
    h = 1e-5
    rows = value_and_jacobian(f, [x, y], None)[1]
    second = hessian(f, [x, y], None)
    for j, (dx, dy) in enumerate([(h, 0.0), (0.0, h)]):
        up, down = f([x + dx, y + dy], None), f([x - dx, y - dy], None)
        rows_up = value_and_jacobian(f, [x + dx, y + dy], None)[1]
        rows_down = value_and_jacobian(f, [x - dx, y - dy], None)[1]
        for i in range(2):
            assert rows[i][j] == pytest.approx((up[i] - down[i]) / (2 * h), abs=1e-8)
            for k in range(2):
                slope = (rows_up[i][k] - rows_down[i][k]) / (2 * h)
                assert second[i][k][j] == pytest.approx(slope, abs=1e-7)


def test_series_equal_the_function_to_their_order():
    expansion = Expansion(Tape(f, 2, None))
    series_x, series_y = [0.3, 1.0, -0.5, 0.2], [0.1, -0.4, 0.3]
    order = 30
    x, y = (s + [0.0] * (order + 1 - len(s)) for s in (series_x, series_y))
    out = np.array([expansion.push(k, [x[k], y[k]]) for k in range(order + 1)])
    t = 0.05
    at = [sum(c * t**k for k, c in enumerate(s)) for s in (x, y)]
    found = [sum(c * t**k for k, c in enumerate(out[:, i])) for i in range(2)]
    assert found == pytest.approx(f(at, None), abs=1e-14)


@given(x=st.floats(-0.05, 0.05), y=st.floats(-0.05, 0.05))
def test_taylor_polynomials_in_two_variables(x, y):
    parts = taylor_polynomials(Tape(f, 2, None), [0.2, -0.1], 12)
    for i, value in enumerate(f([0.2 + x, -0.1 + y], None)):
        total = sum(
            c * x ** (k - j) * y**j for k, row in enumerate(parts[i]) for j, c in enumerate(row)
        )
        assert total == pytest.approx(value, abs=1e-13)


def test_taylor_polynomials_are_exact_over_fractions():
    rows = taylor_polynomials(
        Tape(lambda z, p: (z[0] * z[1] / 3 + z[0] ** 2,), 2, None), [Fraction(1, 7), Fraction(2)], 2
    )
    assert rows[0][0][0] == Fraction(2, 21) + Fraction(1, 49)
    assert list(rows[0][2]) == [1, Fraction(1, 3), 0]
