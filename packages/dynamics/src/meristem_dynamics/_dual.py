"""Forward derivatives in any arithmetic: a value and its partial derivatives.

- the components may be floats, arrays, balls, Arb balls, or duals again (second derivatives)
- exact to the rounding of the arithmetic below; never finite differences
- derivatives begin as numbers of that arithmetic, so that even 1 / 3 is enclosed where z is
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from meristem_dynamics import ops
from meristem_dynamics._ball import Ball


class Dual:
    """A number `value` + sum_j `parts[j]` eps_j with eps_i eps_j = 0."""

    __slots__ = ("parts", "value")
    __array_ufunc__ = None

    def __init__(self, value: Any, parts: Sequence[Any]) -> None:
        self.value = value
        self.parts = parts

    def __neg__(self) -> "Dual":
        return Dual(-self.value, [-a for a in self.parts])

    def __pos__(self) -> "Dual":
        return self

    def __add__(self, other: Any) -> "Dual":
        if isinstance(other, Dual):
            pairs = zip(self.parts, other.parts, strict=True)
            return Dual(self.value + other.value, [a + b for a, b in pairs])
        return Dual(self.value + other, self.parts)

    def __sub__(self, other: Any) -> "Dual":
        if isinstance(other, Dual):
            pairs = zip(self.parts, other.parts, strict=True)
            return Dual(self.value - other.value, [a - b for a, b in pairs])
        return Dual(self.value - other, self.parts)

    def __rsub__(self, other: Any) -> "Dual":
        return Dual(other - self.value, [-a for a in self.parts])

    def __mul__(self, other: Any) -> "Dual":
        if isinstance(other, Dual):
            x, y = self.value, other.value
            pairs = zip(self.parts, other.parts, strict=True)
            return Dual(x * y, [a * y + x * b for a, b in pairs])
        return Dual(self.value * other, [a * other for a in self.parts])

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Dual":
        if isinstance(other, Dual):
            quotient = self.value / other.value
            pairs = zip(self.parts, other.parts, strict=True)
            return Dual(quotient, [(a - quotient * b) / other.value for a, b in pairs])
        return Dual(self.value / other, [a / other for a in self.parts])

    def __rtruediv__(self, other: Any) -> "Dual":
        quotient = other / self.value
        return Dual(quotient, [-(quotient * a) / self.value for a in self.parts])

    def __pow__(self, power: int) -> "Dual":
        if power == 0:
            return Dual(self.value**0, [a * 0 for a in self.parts])
        if power < 0:
            return 1 / self ** (-power)
        below: Any = 1
        for _ in range(power - 1):  # NumPy's ** is slower than the products
            below = below * self.value
        slope = below * power
        return Dual(below * self.value, [slope * a for a in self.parts])

    def _chain(self, value: Any, slope: Any) -> "Dual":
        return Dual(value, [slope * a for a in self.parts])

    def sin(self) -> "Dual":
        """Return the sine."""
        return self._chain(ops.sin(self.value), ops.cos(self.value))

    def cos(self) -> "Dual":
        """Return the cosine."""
        return self._chain(ops.cos(self.value), -ops.sin(self.value))

    def exp(self) -> "Dual":
        """Return the exponential."""
        value = ops.exp(self.value)
        return self._chain(value, value)

    def log(self) -> "Dual":
        """Return the natural logarithm."""
        return self._chain(ops.log(self.value), 1 / self.value)

    def sqrt(self) -> "Dual":
        """Return the square root."""
        value = ops.sqrt(self.value)
        return self._chain(value, 0.5 / value)


def value_and_jacobian(
    f: Callable[[Sequence[Any], Any], Sequence[Any]], z: Sequence[Any], p: Any
) -> tuple[list[Any], list[list[Any]]]:
    """Return f(z) and the rows of Df(z), in the arithmetic of `z`."""
    one, nought = _seeds(z[0])
    units = [[one if i == j else nought for j in range(len(z))] for i in range(len(z))]
    image = f([Dual(x, unit) for x, unit in zip(z, units, strict=True)], p)
    values = [y.value if isinstance(y, Dual) else y for y in image]
    zero = [0.0] * len(z)
    return values, [list(y.parts) if isinstance(y, Dual) else zero for y in image]


def _seeds(x: Any) -> tuple[Any, Any]:
    """Return 1 and 0 in the arithmetic of `x`, exactly."""
    while isinstance(x, Dual):
        x = x.value
    if isinstance(x, int | float | np.ndarray | np.generic):
        return 1.0, 0.0
    if isinstance(x, Ball):
        return Ball(1.0), Ball(0.0)
    return x**0, x * 0


def hessian(
    f: Callable[[Sequence[Any], Any], Sequence[Any]], z: Sequence[Any], p: Any
) -> list[list[list[Any]]]:
    """Return the second derivatives H[i][j][k] of component i, in the arithmetic of `z`."""

    def rows(x: Sequence[Any], q: Any) -> list[Any]:
        return [entry for row in value_and_jacobian(f, x, q)[1] for entry in row]

    flat, d = value_and_jacobian(rows, z, p)[1], len(z)
    return [flat[i * d : (i + 1) * d] for i in range(len(flat) // d)]
