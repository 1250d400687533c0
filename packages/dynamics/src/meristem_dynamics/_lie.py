"""Long jumps of a map near a degenerate fixed point: F^s for any integer s, as one series in s.

- F = exp(v) for a formal vector field v that starts at degree 2 kappa + 1:
  v = sum_n (-1)^(n+1) / n (F* - 1)^n z, where F* g = g o F
- F^s = sum_n s^n / n! (v . grad)^n z; each term has 2 kappa more degrees than the one before, so
  up to degree M only (M - 1) / (2 kappa) terms are there, for negative s as well
- the terms are like (s |z|^(2 kappa))^n: the series is used while that is small

A polynomial is an array a[i, j] of the coefficients of x^i y^j, i + j <= M.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._systems import Map
from meristem_dynamics._tape import Tape, taylor_polynomials

Poly = Float[np.ndarray, "n n"]


@dataclass(frozen=True, slots=True)
class Jumps:
    """The terms of F^s at the origin."""

    exponents: Any  # (monomials, 2)
    terms: Any  # (monomials, 2 (N + 1)): coefficients of the terms n = 0, ..., N, divided by n!
    kappa2: int  # 2 kappa

    def __call__(self, z: Any, s: Any) -> Any:
        """Return F^s(z) for points z, shape (n, 2), and integers s, shape (n,)."""
        top = int(self.exponents.max())
        powers = np.ones((2, top + 1, len(z)))
        for k in range(1, top + 1):
            powers[:, k] = powers[:, k - 1] * z.T
        monomials = powers[0, self.exponents[:, 0]] * powers[1, self.exponents[:, 1]]
        terms = (self.terms.T @ monomials).reshape(2, -1, len(z))
        total = terms[:, -1]
        for n in range(terms.shape[1] - 2, -1, -1):
            total = total * s + terms[:, n]
        return total.T


def jumps(system: Map, *, degree: int) -> Jumps:
    """Return the jumps of a planar map with F(0) = 0 and DF(0) = 1 up to a degree."""
    rows = taylor_polynomials(Tape(system.f, 2, system.parameters()), [0.0, 0.0], degree)
    F = [_dense(row, degree) for row in rows]
    z = [_unit(degree, 1, 0), _unit(degree, 0, 1)]
    lowest = min(
        k for row in rows for k, form in enumerate(row) if k > 1 and np.abs(form).max() > 0
    )
    count = (degree - 1) // (lowest - 1)
    powers = _powers(F, degree)
    v, term = [np.zeros_like(p) for p in z], z
    for n in range(1, count + 1):
        term = [_composed(g, powers) - g for g in term]
        v = [a + (-1) ** (n + 1) / n * g for a, g in zip(v, term, strict=True)]
    terms, lie = [z], z
    for n in range(1, count + 1):
        lie = [_along(v, g, degree) for g in lie]
        terms.append([g / math.factorial(n) for g in lie])
    exponents = np.array([(i, k - i) for k in range(degree + 1) for i in range(k + 1)])
    columns = [pair[c][exponents[:, 0], exponents[:, 1]] for c in (0, 1) for pair in terms]
    return Jumps(exponents=exponents, terms=np.stack(columns, axis=1), kappa2=lowest - 1)


def _dense(row: list[Any], degree: int) -> Poly:
    out = np.zeros((degree + 1, degree + 1))
    for k, form in enumerate(row):
        for j, c in enumerate(form):
            out[k - j, j] = c
    return out


def _unit(degree: int, i: int, j: int) -> Poly:
    out = np.zeros((degree + 1, degree + 1))
    out[i, j] = 1.0
    return out


def _product(a: Poly, b: Poly) -> Poly:
    """Return a b up to the degree: one convolution of packed rows."""
    n = len(a)
    width = 2 * n - 1
    packed = np.zeros((2, n, width))
    packed[0, :, :n], packed[1, :, :n] = a, b
    flat = np.convolve(packed[0].ravel(), packed[1].ravel())[: n * width]
    out = flat.reshape(n, width)[:, :n].copy()
    i, j = np.indices((n, n))
    out[i + j >= n] = 0.0
    return out


def _powers(F: list[Poly], degree: int) -> list[list[Poly]]:
    """Return the powers 0, ..., degree of both components."""
    out: list[list[Poly]] = []
    for component in F:
        row = [_unit(degree, 0, 0)]
        for _ in range(degree):
            row.append(_product(row[-1], component))
        out.append(row)
    return out


def _composed(g: Poly, powers: list[list[Poly]]) -> Poly:
    """Return g o F, with one product for each power of x."""
    total = np.zeros_like(g)
    for i, row in enumerate(g):
        if np.any(row):
            inner = sum(c * p for c, p in zip(row, powers[1], strict=True) if c != 0)
            total = total + _product(powers[0][i], np.asarray(inner))
    return total


def _along(v: list[Poly], g: Poly, degree: int) -> Poly:
    """Return v . grad g."""
    k = np.arange(1, degree + 1)
    gx, gy = np.zeros_like(g), np.zeros_like(g)
    gx[:-1] = g[1:] * k[:, None]
    gy[:, :-1] = g[:, 1:] * k
    return _product(v[0], gx) + _product(v[1], gy)
