"""Validated arithmetic on arrays: a ball is a midpoint and a radius, both float64 arrays.

- with u = 2^-53 and round-to-nearest, |fl(x) - x| <= u |fl(x)| + 2^-1075 (gradual underflow)
- every radius is computed in floats, raised by 2^-1070 and multiplied by 1 + 2^-49 = 1 + 16 u;
  at most eight roundings enter it, and (1 + u)^8 < (1 + 16 u)(1 - u), so it is an upper bound
- no rounding mode is touched; an overflow is an error, never an infinite ball
- sin, cos, exp and log go through Arb element by element, since libm guarantees nothing
"""

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

U = 2.0**-53
ETA = 2.0**-1070
INFLATE = 1.0 + 2.0**-49
EXACT_INTEGER = 2**53


class Ball:
    """An array of closed intervals [mid - rad, mid + rad].

    Parameters
    ----------
    mid
        Midpoints, finite float64, any shape.
    rad
        Radii >= 0, finite, of a shape that broadcasts with `mid`.

    Raises
    ------
    ValueError
        If a number is not finite or a radius negative.

    Notes
    -----
    The result of ``+ - * / **`` and of `sqrt` contains the exact result for all points of the
    operands. A float stands for itself: ``Ball(0.1)`` is the binary64 number, `Ball.of` takes
    exact fractions.

    Examples
    --------
    >>> third = Ball(1.0) / 3
    >>> bool(third.rad > 0), third.contains(Fraction(1, 3))
    (True, True)
    """

    __slots__ = ("mid", "rad")
    __array_ufunc__ = None  # ndarray + Ball comes to Ball.__radd__

    def __init__(self, mid: Any, rad: Any = 0.0) -> None:
        self.mid: Any = np.asarray(mid, dtype=np.float64)
        self.rad: Any = np.asarray(rad, dtype=np.float64)
        if not (np.isfinite(self.mid).all() and np.isfinite(self.rad).all()):
            raise ValueError("a ball has a midpoint or radius that is not finite; mend the input")
        if (self.rad < 0).any():
            raise ValueError(f"a ball has radius {self.rad.min()}; radii are >= 0")

    @staticmethod
    def of(value: "Fraction | int | float") -> "Ball":
        """Return a ball around an exact number; radius 0 if a float64 holds it."""
        mid = float(value)
        exact = Fraction(value) == Fraction(mid)
        return Ball(mid, 0.0 if exact else (abs(mid) * U + ETA) * INFLATE)

    def __neg__(self) -> "Ball":
        return _ball(-self.mid, self.rad)

    def __pos__(self) -> "Ball":
        return self

    def __add__(self, other: Any) -> "Ball":
        b = _coerced(other)
        return NotImplemented if b is None else _sum(self, b, operator.add)

    def __sub__(self, other: Any) -> "Ball":
        b = _coerced(other)
        return NotImplemented if b is None else _sum(self, b, operator.sub)

    def __rsub__(self, other: Any) -> "Ball":
        b = _coerced(other)
        return NotImplemented if b is None else _sum(b, self, operator.sub)

    def __mul__(self, other: Any) -> "Ball":
        b = _coerced(other)
        if b is None:
            return NotImplemented
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            mid = self.mid * b.mid
            rad = np.abs(b.mid) + b.rad
            rad = rad * self.rad
            rad += np.abs(self.mid) * b.rad
            rad += np.abs(mid) * U
            rad += ETA
            rad *= INFLATE
        return _checked(mid, rad)

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Ball":
        b = _coerced(other)
        return NotImplemented if b is None else self * b.inverse()

    def __rtruediv__(self, other: Any) -> "Ball":
        b = _coerced(other)
        return NotImplemented if b is None else b * self.inverse()

    def __pow__(self, power: int) -> "Ball":
        if power < 0:
            return (self ** (-power)).inverse()
        result, square = Ball(np.ones_like(self.mid)), self
        while power:
            if power & 1:
                result = result * square
            power >>= 1
            if power:
                square = square * square
        return result

    def inverse(self) -> "Ball":
        """Return 1 / self.

        Raises
        ------
        ZeroDivisionError
            If a ball contains 0.
        """
        low = self.mig()
        if not (low > 0).all():
            raise ZeroDivisionError("a divisor's ball contains 0; shrink the ball or the step")
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            mid = 1.0 / self.mid
            # |1/x - 1/m| <= r / (|m| (|m| - r)); `low` is below |m| - r
            rad = (self.rad / low / np.abs(self.mid) + np.abs(mid) * U + ETA) * INFLATE
        return _checked(mid, rad)

    def sqrt(self) -> "Ball":
        """Return the square root.

        Raises
        ------
        ValueError
            If a ball contains a number <= 0.
        """
        if not ((self.mid > 0) & (self.mig() > 0)).all():
            raise ValueError("sqrt of a ball that reaches 0 or below; shrink the ball")
        mid = np.sqrt(self.mid)
        with np.errstate(under="ignore"):
            # |sqrt x - sqrt m| = |x - m| / (sqrt x + sqrt m) <= r / sqrt m
            rad = (self.rad / mid + mid * U * 2 + ETA) * INFLATE
        return _checked(mid, rad)

    def sin(self) -> "Ball":
        """Return the sine, by Arb."""
        return _by_arb(self, "sin")

    def cos(self) -> "Ball":
        """Return the cosine, by Arb."""
        return _by_arb(self, "cos")

    def exp(self) -> "Ball":
        """Return the exponential, by Arb."""
        return _by_arb(self, "exp")

    def log(self) -> "Ball":
        """Return the natural logarithm, by Arb; a ball that reaches 0 is an error."""
        return _by_arb(self, "log")

    def mag(self) -> Float[np.ndarray, "..."]:
        """Return upper bounds of |x| over each ball."""
        return np.asarray((np.abs(self.mid) + self.rad) * INFLATE)

    def mig(self) -> Float[np.ndarray, "..."]:
        """Return lower bounds of |x| over each ball; 0 where the ball contains 0."""
        top = np.abs(self.mid)
        return np.asarray(np.maximum(top - self.rad - 4 * U * top, 0.0))

    def contains(self, value: "Fraction | int | float") -> bool:
        """Return whether every ball of the array contains the exact number `value`."""
        exact = Fraction(value)
        return all(
            abs(exact - Fraction(float(m))) <= Fraction(float(r))
            for m, r in np.broadcast(self.mid, self.rad)
        )

    def __repr__(self) -> str:
        return f"Ball({self.mid!r}, {self.rad!r})"


def _ball(mid: Any, rad: Any) -> Ball:
    made = object.__new__(Ball)
    made.mid, made.rad = mid, rad
    return made


def _checked(mid: Any, rad: Any) -> Ball:
    if not np.isfinite(rad).all():  # an infinite midpoint makes the radius infinite
        raise OverflowError("ball arithmetic overflows float64; shrink the numbers or the radii")
    return _ball(mid, rad)


def _coerced(value: Any) -> Ball | None:
    if isinstance(value, Ball):
        return value
    if isinstance(value, float | np.ndarray | np.floating):
        return Ball(value)
    if isinstance(value, int) and abs(value) <= EXACT_INTEGER:
        return _ball(np.float64(value), np.float64(0.0))
    if isinstance(value, int | Fraction):
        return Ball.of(value)
    return None


def _sum(a: Ball, b: Ball, op: Callable[[Any, Any], Any]) -> Ball:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        mid = op(a.mid, b.mid)
        rad = np.abs(mid) * U
        rad += a.rad + b.rad
        rad += ETA
        rad *= INFLATE
    return _checked(mid, rad)


def _by_arb(x: Ball, name: str) -> Ball:
    import flint  # noqa: PLC0415 an extra

    mid, rad = np.broadcast_arrays(x.mid, x.rad)
    out = np.empty((2, mid.size))
    for i, (m, r) in enumerate(zip(mid.ravel().tolist(), rad.ravel().tolist(), strict=True)):
        y = getattr(flint.arb(m, r), name)()
        out[0, i] = float(y.mid())
        if not np.isfinite(out[0, i]):
            raise ValueError(f"{name} of the ball {m} +- {r} is not finite; shrink the ball")
        out[1, i] = float((y - out[0, i]).abs_upper())
    return _checked(out[0].reshape(mid.shape), ((out[1] + ETA) * INFLATE).reshape(mid.shape))
