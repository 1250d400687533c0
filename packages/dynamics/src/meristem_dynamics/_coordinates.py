"""Coordinates on the line in which a map near a fixed point is a shift or a multiplication.

- Fatou, f = x - a x^N + ...: alpha(f(x)) = alpha(x) + 1, alpha = sum of c_j x^j, j from -(N - 1)
  without 0, plus rho log |x|. With f = x u, u^j - 1 and log u begin at x^(N-1), so order by order
  c_j and rho follow from lower ones; the series is asymptotic
- Koenigs, f = lambda x + ..., |lambda| not 0 or 1: phi(f(x)) = lambda phi(x), phi'(0) = 1, with
  c_m (lambda - lambda^m) = sum_{j < m} c_j [f^j]_m; the series converges
- both are summed where their last terms are at rounding, and reach further by iterates of f, or of
  its inverse where f leads away from the fixed point
- two maps are conjugate by alpha_g^-1 alpha_f; the fixed point is 0
"""

# NumPy types polynomials in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._steps import backward, forward
from meristem_dynamics._systems import Map
from meristem_dynamics._tape import Expansion, Tape

SMALLEST = 1e-12  # coefficients of f below this are taken as 0
ROUNDING = 1e-16
LAST = 4  # terms that show where a series ends
MOST_STEPS = 1_000_000
NEWTON_STEPS = 60

Line = Float[np.ndarray, " n"]
Series = Float[np.ndarray, " m"]


@dataclass(frozen=True, slots=True)
class _Inward:
    """Steps towards the fixed point, and whether those are steps of f."""

    system: Map
    attracting: bool

    def step(self, x: Line, *, outward: bool = False) -> Line:
        make = forward if self.attracting != outward else backward
        return make(self.system)(x[None])[0]

    def near(self, x: Line, reach: float) -> tuple[Line, Line]:
        """Return points within `reach`, and how many steps lead there."""
        x, n = np.array(x), np.zeros(len(x))
        for _ in range(MOST_STEPS):
            far = np.flatnonzero(np.abs(x) > reach)
            if not far.size:
                return x, n
            moved = self.step(x[far])
            if not (np.abs(moved) < np.abs(x[far])).all():
                worst = x[far][np.argmax(~(np.abs(moved) < np.abs(x[far])))]
                raise ValueError(
                    f"{self.system.name} does not lead from {worst:.6g} to its fixed point 0; "
                    "give points nearer to it, on the side of the coordinate"
                )
            x[far], n[far] = moved, n[far] + 1
        raise ValueError(f"0 is not reached in {MOST_STEPS} steps; give points further from it")

    def away(self, x: Line, n: Line) -> Line:
        """Return the points n steps further out."""
        x = np.array(x)
        for done in range(int(n.max(initial=0))):
            x[n > done] = self.step(x[n > done], outward=True)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class FatouCoordinate:
    """alpha with alpha(f(x)) = alpha(x) + 1 on one side of a neutral fixed point at 0."""

    system: Map
    side: int
    degree: int  # N
    log: float  # rho
    coefficients: Line  # of x^-(N-1), ..., x^order; that of x^0 is 0
    reach: float  # |x| up to which the series is summed
    _inward: _Inward

    def __call__(self, x: Any) -> Line:
        """Return alpha at points of the side, shape (n,)."""
        near, n = self._inward.near(_on_side(x, self.side), self.reach)
        return self._series(near)[0] - n * (1 if self._inward.attracting else -1)

    def inverse(self, alpha: Any) -> Line:
        """Return the points of given alpha."""
        alpha = np.atleast_1d(np.asarray(alpha, dtype=float))
        sign = 1 if self._inward.attracting else -1
        edge = float(self._series(np.array([self.side * self.reach]))[0][0])
        n = np.maximum(np.ceil(sign * (edge - alpha)), 0.0)
        wanted, power = alpha + sign * n, self.degree - 1
        x = self.side * np.abs(self.coefficients[0] / wanted) ** (1 / power)
        for _ in range(NEWTON_STEPS):
            value, slope = self._series(x)
            x = x - np.clip((value - wanted) / slope, -0.5 * np.abs(x), 0.5 * np.abs(x))
        return self._inward.away(x, n)

    def residual(self, x: Any) -> float:
        """Return the largest |alpha(f(y)) - alpha(y) - 1| where the series is summed for points."""
        near, _ = self._inward.near(_on_side(x, self.side), self.reach)
        moved = self._series(self._inward.step(near))[0] - self._series(near)[0]
        return float(np.abs(np.abs(moved) - 1).max(initial=0.0))

    def _series(self, x: Line) -> tuple[Line, Line]:
        powers = np.arange(len(self.coefficients)) - (self.degree - 1)
        value = (self.coefficients * x[:, None] ** powers).sum(axis=1) + self.log * np.log(abs(x))
        slope = (powers * self.coefficients * x[:, None] ** (powers - 1.0)).sum(axis=1)
        return value, slope + self.log / x


@dataclass(frozen=True, slots=True, kw_only=True)
class KoenigsCoordinate:
    """phi with phi(f(x)) = multiplier phi(x) and phi'(0) = 1 around a fixed point at 0."""

    system: Map
    multiplier: float
    coefficients: Line  # of 1, x, x^2, ...
    reach: float  # |x| up to which the series is summed
    _inward: _Inward

    def __call__(self, x: Any) -> Line:
        """Return phi at points, shape (n,)."""
        near, n = self._inward.near(np.atleast_1d(np.asarray(x, dtype=float)), self.reach)
        return np.polyval(self.coefficients[::-1], near) * self._outward() ** n

    def inverse(self, phi: Any) -> Line:
        """Return the points of given phi."""
        phi, rate = np.atleast_1d(np.asarray(phi, dtype=float)), self._outward()
        room = max(float(np.abs(phi).max(initial=0.0)) / (0.5 * self.reach), 1.0)
        n = np.full(len(phi), np.ceil(np.log(room) / np.log(abs(rate))))
        wanted = phi / rate**n
        falling, x = self.coefficients[::-1], wanted
        for _ in range(NEWTON_STEPS):
            x = x - (np.polyval(falling, x) - wanted) / np.polyval(np.polyder(falling), x)
        return self._inward.away(x, n)

    def residual(self, x: Any) -> float:
        """Return the largest |phi(f(y)) / phi(y) - multiplier| where the series is summed."""
        near, _ = self._inward.near(np.atleast_1d(np.asarray(x, dtype=float)), self.reach)
        inner, outer = self._inward.step(near), near
        if self._inward.attracting:
            inner, outer = near, inner
        ratio = np.polyval(self.coefficients[::-1], outer) / np.polyval(
            self.coefficients[::-1], inner
        )
        return float(np.abs(ratio - self.multiplier).max(initial=0.0))

    def _outward(self) -> float:
        return 1 / self.multiplier if self._inward.attracting else self.multiplier


def fatou_coordinate(system: Map, *, side: int = 1, order: int = 12) -> FatouCoordinate:
    """Return the coordinate in which a map x - a x^N + ... is the shift by 1.

    Parameters
    ----------
    system
        A map of the line with fixed point 0 and multiplier 1; where it leads away from 0 it needs
        `inverse`, or Newton's method finds it.
    side
        1 for x > 0, -1 for x < 0.
    order
        Highest power of the series.

    Raises
    ------
    ValueError
        If 0 is no such fixed point.

    Examples
    --------
    >>> f = Map(f=lambda z, p: (z[0] / (1 + z[0]),), dim=1)  # 1 / x grows by 1
    >>> fatou_coordinate(f)([0.25, 2.0]).round(12).tolist()
    [4.0, 0.5]
    """
    if side not in (1, -1):
        raise ValueError(f"side is {side}; a coordinate has side 1 or -1")
    f = _taylor(system, 3 * order)
    higher = np.flatnonzero(np.abs(f[2:]) > SMALLEST)
    if abs(f[1] - 1) > SMALLEST or not higher.size or higher[0] + 2 > order:
        raise ValueError(
            f"{system.name} has multiplier {f[1]:.6g} at 0 and the terms {f[2:6].tolist()}; a "
            f"Fatou coordinate is for multiplier 1 and a next term up to x^{order}, so see koenigs"
        )
    u = f[1:]
    lowest = int(higher[0]) + 1  # N - 1
    a = -float(u[lowest])
    c, log, total = np.zeros(lowest + order + 1), 0.0, np.zeros(lowest + order + 1)
    total[0] = -1.0  # of alpha(f) - alpha - 1, by powers
    for m in range(lowest + order + 1):
        j = m - lowest
        if j == 0:
            log = total[m] / a
            total += log * _logarithm(u, len(total))
        else:
            c[m] = total[m] / (a * j)
            total[m:] += c[m] * _power(u, j, len(total) - m + lowest)[lowest:]
    attracting = a * side**lowest > 0
    return FatouCoordinate(
        system=system, side=side, degree=lowest + 1, log=log, coefficients=c,
        reach=_reach(c[lowest + 1 :]), _inward=_Inward(system, attracting),
    )  # fmt: skip


def koenigs(system: Map, *, order: int = 20) -> KoenigsCoordinate:
    """Return the coordinate in which a map lambda x + ... of the line is the multiplication.

    Parameters
    ----------
    system
        A map of the line with fixed point 0 and |lambda| not 0 or 1; where it leads away from 0 it
        needs `inverse`, or Newton's method finds it.
    order
        Highest power of the series.

    Raises
    ------
    ValueError
        If 0 is no such fixed point.

    Examples
    --------
    >>> from meristem_dynamics import zoo
    >>> x = 0.3  # 1 - 2 f = (1 - 2 x)^2
    >>> bool(abs(koenigs(zoo.logistic(2))([x])[0] + np.log(1 - 2 * x) / 2) < 1e-14)
    True
    """
    f = _taylor(system, order)
    rate = float(f[1])
    if not (abs(rate) > SMALLEST and abs(abs(rate) - 1) > SMALLEST):
        raise ValueError(
            f"{system.name} has multiplier {rate:.6g} at 0; a Koenigs coordinate needs one whose "
            "size is not 0 or 1, so see fatou_coordinate"
        )
    c, total, power = np.zeros(order + 1), np.zeros(order + 1), np.array([1.0])
    for m in range(1, order + 1):
        power = np.convolve(power, f)[: order + 1]  # f^m
        c[m] = 1.0 if m == 1 else total[m] / (rate - rate**m)
        total += c[m] * power
    return KoenigsCoordinate(
        system=system, multiplier=rate, coefficients=c, reach=_reach(c[1:]),
        _inward=_Inward(system, abs(rate) < 1),
    )  # fmt: skip


def _taylor(system: Map, order: int) -> Line:
    """Return the Taylor coefficients of f at its fixed point 0."""
    if system.dim != 1:
        raise ValueError(f"{system.name} has {system.dim} variables; these coordinates are for 1")
    expansion = Expansion(Tape(system.f, 1, system.parameters()))
    f = np.array([float(expansion.push(k, [float(k == 1)])[0]) for k in range(order + 1)])
    if not np.isfinite(f).all() or abs(f[0]) > SMALLEST:
        raise ValueError(
            f"{system.name} sends 0 to {f[0]:.6g}; the fixed point must be 0, so shift the variable"
        )
    f[0] = 0.0
    return f


def _power(u: Line, j: int, n: int) -> Series:
    """Return n coefficients of u^j, u_0 = 1, by (u^j)' u = j u' u^j."""
    out = np.zeros(n)
    out[0] = 1.0
    for m in range(1, n):
        k = np.arange(1, m + 1)
        out[m] = ((k * j - (m - k)) * u[1 : m + 1] * out[m - 1 :: -1][:m]).sum() / m
    return out


def _logarithm(u: Line, n: int) -> Series:
    out = np.zeros(n)
    for m in range(1, n):
        k = np.arange(1, m)
        out[m] = u[m] - (k * out[1:m] * u[m - 1 : 0 : -1]).sum() / m
    return out


def _reach(c: Line) -> float:
    """Return |x| up to which the last terms of c_1 x + c_2 x^2 + ... are at rounding."""
    sizes = [
        (ROUNDING / abs(x)) ** (1 / (j + 1)) for j, x in enumerate(c) if j >= len(c) - LAST and x
    ]
    return min([0.25, *sizes])


def _on_side(x: Any, side: int) -> Line:
    x = np.atleast_1d(np.asarray(x, dtype=float))
    if not (side * x > 0).all():
        wrong = x[np.argmax(~(side * x > 0))]
        raise ValueError(f"x is {wrong}; the coordinate is for {'x > 0' if side > 0 else 'x < 0'}")
    return x
