"""Bounds of power series in the l^1 norm of their coefficients, in Arb.

- a `Majorant` stands for all series g = c + r with r(0) = 0 and sum |r_n| <= rest; the norm of a
  product is at most the product of the norms, so arithmetic on (c, rest) is that of a ball
- phi(c + r) = sum phi_n(c) r^n for an elementary phi, hence |phi(c + r) - phi(c)| is at most
  sum_{n >= 1} |phi_n(c)| rest^n, which is in closed form: exp(c) (exp(rest) - 1); sin and cos with
  cosh and sinh; 1/z, log and sqrt with rest / |c| < 1
"""

from typing import Any


class Majorant:
    """A set of power series: constant term `constant`, l^1 norm of the others at most `rest`."""

    __slots__ = ("constant", "rest")
    __array_ufunc__ = None

    def __init__(self, constant: Any, rest: Any) -> None:
        self.constant, self.rest = constant, rest

    @property
    def norm(self) -> Any:
        """An upper bound of the l^1 norm."""
        return abs(self.constant) + self.rest

    def __neg__(self) -> "Majorant":
        return Majorant(-self.constant, self.rest)

    def __pos__(self) -> "Majorant":
        return self

    def __add__(self, other: Any) -> "Majorant":
        if isinstance(other, Majorant):
            return Majorant(self.constant + other.constant, self.rest + other.rest)
        return Majorant(self.constant + other, self.rest)

    def __sub__(self, other: Any) -> "Majorant":
        return self + (-other)

    def __rsub__(self, other: Any) -> "Majorant":
        return (-self) + other

    def __mul__(self, other: Any) -> "Majorant":
        if isinstance(other, Majorant):
            rest = abs(self.constant) * other.rest + self.rest * other.norm
            return Majorant(self.constant * other.constant, rest)
        return Majorant(self.constant * other, self.rest * abs(other))

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Majorant":
        if isinstance(other, Majorant):
            return self * other._inverse()
        return Majorant(self.constant / other, self.rest / abs(other))

    def __rtruediv__(self, other: Any) -> "Majorant":
        return self._inverse() * other

    def __pow__(self, power: int) -> "Majorant":
        if power < 0:
            return self._inverse() ** (-power)
        return self * self ** (power - 1) if power else self * 0 + 1

    def _share(self, *, positive: bool) -> Any:
        """Return rest / |constant|, certainly below 1."""
        share = self.rest / abs(self.constant)
        if not share < 1 or (positive and not self.constant > 0):
            raise ArithmeticError("a quotient, log or sqrt may leave its domain")
        return share

    def _inverse(self) -> "Majorant":
        share = self._share(positive=False)
        return Majorant(1 / self.constant, share / (1 - share) / abs(self.constant))

    def log(self) -> "Majorant":
        """Return the natural logarithm."""
        share = self._share(positive=True)
        return Majorant(self.constant.log(), -(1 - share).log())

    def sqrt(self) -> "Majorant":
        """Return the square root."""
        share, root = self._share(positive=True), self.constant.sqrt()
        return Majorant(root, root * (1 - (1 - share).sqrt()))

    def exp(self) -> "Majorant":
        """Return the exponential."""
        value = self.constant.exp()
        return Majorant(value, value * (self.rest.exp() - 1))

    def sin(self) -> "Majorant":
        """Return the sine."""
        return self._wave(self.constant.sin(), self.constant.cos())

    def cos(self) -> "Majorant":
        """Return the cosine."""
        return self._wave(self.constant.cos(), self.constant.sin())

    def _wave(self, value: Any, slope: Any) -> "Majorant":
        """Return value cos(r) +- slope sin(r)."""
        even, odd = self.rest.cosh() - 1, self.rest.sinh()
        return Majorant(value, abs(value) * even + abs(slope) * odd)
