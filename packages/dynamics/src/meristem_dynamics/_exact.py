"""Fractions that take a float for the number that it is; Fraction(1, 3) * 0.1 is rounded."""

from fractions import Fraction
from typing import Any


def _lifted(name: str) -> Any:
    operation = getattr(Fraction, name)

    def method(self: Any, other: Any) -> Any:
        result = operation(self, Fraction(other) if isinstance(other, float) else other)
        return Exact(result) if isinstance(result, Fraction) else result

    return method


class Exact(Fraction):
    """A rational number whose sums, products and quotients with floats are exact as well.

    Examples
    --------
    >>> Exact(1) * 0.1 * 0.3 == Fraction(0.1) * Fraction(0.3)
    True
    """

    __slots__ = ()
    __add__ = _lifted("__add__")
    __radd__ = _lifted("__radd__")
    __sub__ = _lifted("__sub__")
    __rsub__ = _lifted("__rsub__")
    __mul__ = _lifted("__mul__")
    __rmul__ = _lifted("__rmul__")
    __truediv__ = _lifted("__truediv__")
    __rtruediv__ = _lifted("__rtruediv__")

    def __neg__(self) -> "Exact":
        return Exact(super().__neg__())

    def __pow__(self, power: Any) -> Any:
        return Exact(super().__pow__(power))
