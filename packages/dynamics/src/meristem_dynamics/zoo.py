"""Systems with facts known in closed form; each has them in `exact`.

Parameters are exact: `henon(a="1.4")` is a = 14/10, `henon(a=1.4)` the binary64 number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from operator import mul
from typing import Any

import numpy as np

from meristem_dynamics import ops
from meristem_dynamics._slowdown import slowdown_cat
from meristem_dynamics._systems import Flow, Map, Number

__all__ = [
    "MAPS_AND_FLOWS",
    "almost_anosov",
    "cat",
    "degenerate_saddle",
    "demo_saddle",
    "henon",
    "logistic",
    "lorenz",
    "sheared_saddle",
    "skew_variable_dimension",
    "slowdown_cat",
    "standard",
    "tent",
]

Polynomial = Mapping[tuple[int, int], Number]


def henon(a: Number = "1.4", b: Number = "0.3") -> Map:
    """Return the Hénon map (1 - a x^2 + y, b x), with its fixed point and exponent sum.

    Examples
    --------
    >>> [round(x, 6) for x in henon().exact["fixed_point"]]
    [0.631354, 0.189406]
    """
    x, y = float(a), float(b)
    fixed = (y - 1 + math.sqrt((1 - y) ** 2 + 4 * x)) / (2 * x)
    return Map(
        f=lambda z, p: (1 - p.a * z[0] * z[0] + z[1], p.b * z[0]),
        inverse=lambda z, p: (z[1] / p.b, z[0] - 1 + p.a * (z[1] / p.b) * (z[1] / p.b)),
        dim=2,
        params={"a": a, "b": b},
        name="henon",
        exact={"fixed_point": (fixed, y * fixed), "exponent_sum": math.log(abs(y))},
    )


def logistic(a: Number = 4) -> Map:
    """Return the logistic map a x (1 - x); at a = 4 conjugate to the tent map by arcsin^2 sqrt."""
    exact: dict[str, Any] = {"fixed_point": (0.0,), "multiplier": float(a)}
    if float(a) == 4.0:
        exact["exponents"] = (math.log(2),)
    return Map(
        f=lambda z, p: (p.a * z[0] * (1 - z[0]),),
        dim=1,
        params={"a": a},
        name="logistic",
        exact=exact,
    )


def tent(slope: Number = 2) -> Map:
    """Return the tent map slope min(x, 1 - x); floats only (it has a corner)."""
    return Map(
        f=lambda z, p: (p.slope * np.minimum(z[0], 1 - z[0]),),
        jacobian=lambda z, p: ((p.slope * np.where(np.asarray(z[0]) < 0.5, 1.0, -1.0),),),
        dim=1,
        params={"slope": slope},
        name="tent",
        exact={"exponents": (math.log(abs(float(slope))),)},
    )


def standard(k: Number = "0.97") -> Map:
    """Return the standard map (x + y + k sin x, y + k sin x) on the plane; det Df = 1."""

    def f(z: Any, p: Any) -> tuple[Any, Any]:
        y = z[1] + p.k * ops.sin(z[0])
        return z[0] + y, y

    def inverse(z: Any, p: Any) -> tuple[Any, Any]:
        x = z[0] - z[1]
        return x, z[1] - p.k * ops.sin(x)

    return Map(
        f=f,
        inverse=inverse,
        dim=2,
        params={"k": k},
        name="standard",
        exact={"fixed_point": (0.0, 0.0), "exponent_sum": 0.0},
    )


def cat() -> Map:
    """Return Arnold's cat map (2x + y, x + y) mod 1: uniformly hyperbolic, det 1.

    Examples
    --------
    >>> round(cat().exact["exponents"][0], 7)
    0.9624237
    """
    growth = math.log((3 + math.sqrt(5)) / 2)
    return Map(
        f=lambda z, p: (2 * z[0] + z[1], z[0] + z[1]),
        inverse=lambda z, p: (z[0] - z[1], 2 * z[1] - z[0]),
        dim=2,
        torus=True,
        name="cat",
        exact={"fixed_point": (0.0, 0.0), "exponents": (growth, -growth)},
    )


def lorenz(sigma: Number = 10, rho: Number = 28, beta: Number = "8/3") -> Flow:
    """Return the Lorenz flow; its exponents sum to -(sigma + 1 + beta) and one of them is 0."""
    s, b = Fraction(sigma), Fraction(beta)
    return Flow(
        f=lambda z, p: (
            p.sigma * (z[1] - z[0]),
            z[0] * (p.rho - z[2]) - z[1],
            z[0] * z[1] - p.beta * z[2],
        ),
        dim=3,
        params={"sigma": sigma, "rho": rho, "beta": beta},
        name="lorenz",
        exact={"exponent_sum": -float(s + 1 + b), "fixed_point": (0.0, 0.0, 0.0)},
    )


def degenerate_saddle(
    P: Polynomial,
    Q: Polynomial,
    X: Polynomial | None = None,
    Y: Polynomial | None = None,
    *,
    name: str = "degenerate saddle",
) -> Map:
    """Return F = (x - P + X, y + Q + Y) with fixed point 0 and DF(0) = 1.

    Parameters
    ----------
    P, Q, X, Y
        Polynomials as {(i, j): coefficient of x^i y^j}; exact numbers.

    References
    ----------
    The class of arXiv 2502.17151; `check_degenerate_saddle` decides its conditions.
    """
    terms: list[dict[tuple[int, int], tuple[str, int]]] = [{}, {}]
    params: dict[str, Number] = {}
    for row, sign, label, polynomial in (
        (0, -1, "P", P), (0, 1, "X", X or {}), (1, 1, "Q", Q), (1, 1, "Y", Y or {})
    ):  # fmt: skip
        for (i, j), coefficient in polynomial.items():
            if min(i, j) < 0 or i + j < 2:
                raise ValueError(f"{label} has the term x^{i} y^{j}; its degree must be at least 2")
            key = f"{label}_{i}_{j}"
            params[key] = coefficient
            terms[row][(i, j)] = (key, sign) if (i, j) not in terms[row] else _clash(label, i, j)

    def f(z: Any, p: Any) -> tuple[Any, Any]:
        rows = list(z)
        for row in (0, 1):
            for (i, j), (key, sign) in terms[row].items():
                monomial = reduce(mul, [z[0]] * i + [z[1]] * j)  # NumPy's ** is slower
                rows[row] = rows[row] + monomial * (sign * getattr(p, key))
        return rows[0], rows[1]

    return Map(
        f=f, dim=2, params=params, name=name, boundary_distance=_norm,
        exact={"fixed_point": (0.0, 0.0)},
    )  # fmt: skip


def demo_saddle() -> Map:
    """Return the worked example: P = x^3 + x y^2/2 + y^3/10, Q = y^3 + 9 x^2 y/10 - x^3/5, ..."""
    return degenerate_saddle(
        P={(3, 0): 1, (1, 2): "0.5", (0, 3): "0.1"},
        Q={(0, 3): 1, (2, 1): "0.9", (3, 0): "-0.2"},
        X={(4, 0): "0.3"},
        Y={(2, 2): "0.5", (5, 0): "0.4"},
        name="demo saddle",
    )


def almost_anosov(a: Sequence[Number] = (1, 0, 1), b: Sequence[Number] = (1, 0, 1)) -> Map:
    """Return (x (1 + a0 x^2 + a1 x y + a2 y^2), y (1 - b0 x^2 - b1 x y - b2 y^2)).

    The local form of an almost Anosov diffeomorphism at its indifferent point (Hu): x expands.
    """
    params: dict[str, Number] = {f"a{i}": value for i, value in enumerate(a)}
    params |= {f"b{i}": value for i, value in enumerate(b)}

    def f(z: Any, p: Any) -> tuple[Any, Any]:
        x, y = z
        grow = p.a0 * x * x + p.a1 * x * y + p.a2 * y * y
        shrink = p.b0 * x * x + p.b1 * x * y + p.b2 * y * y
        return x + x * grow, y - y * shrink

    return Map(
        f=f, dim=2, params=params, name="almost anosov", boundary_distance=_norm,
        exact={"fixed_point": (0.0, 0.0)},
    )  # fmt: skip


def sheared_saddle(c: Number = "0.5", e: Number = "0.2") -> Map:
    """Return S o G o S^-1, G = (x - x^3, y + y^3), S = (x + e (y + c x^2)^2, y + c x^2).

    Its stable manifold is the curve t -> S(t, 0), given as `exact["stable"]`.
    """

    def f(z: Any, p: Any) -> tuple[Any, Any]:
        x = z[0] - p.e * z[1] * z[1]
        y = z[1] - p.c * x * x
        x, y = x - x * x * x, y + y * y * y
        y = y + p.c * x * x
        return x + p.e * y * y, y

    def stable(t: Any) -> tuple[Any, Any]:
        y = float(c) * t * t
        return t + float(e) * y * y, y

    return Map(
        f=f, dim=2, params={"c": c, "e": e}, name="sheared saddle", boundary_distance=_norm,
        exact={"fixed_point": (0.0, 0.0), "stable": stable},
    )  # fmt: skip


def skew_variable_dimension(mean: Number = 0, size: Number = "0.5") -> Map:
    """Return (4x (1 - x), (1 + mean + size (x - 1/2)) w - w^3).

    The exponent of the fibre w = 0 changes its sign along orbits, so long orbits are not
    shadowable (unstable dimension variability).
    """

    def f(z: Any, p: Any) -> tuple[Any, Any]:
        x, w = z
        rate = 1 + p.mean + p.size * (x - 0.5)
        return 4 * x * (1 - x), rate * w - w * w * w

    return Map(f=f, dim=2, params={"mean": mean, "size": size}, name="skew")


def _norm(z: Any) -> Any:
    return np.sqrt(np.sum(np.square(np.asarray(z, dtype=float)), axis=-1))


def _clash(label: str, i: int, j: int) -> tuple[str, int]:
    raise ValueError(f"{label} repeats the term x^{i} y^{j}; P and X, Q and Y share no monomial")


MAPS_AND_FLOWS: Mapping[str, Callable[..., Map | Flow]] = {
    "almost-anosov": almost_anosov,
    "cat": cat,
    "demo-saddle": demo_saddle,
    "henon": henon,
    "logistic": logistic,
    "lorenz": lorenz,
    "sheared-saddle": sheared_saddle,
    "slowdown-cat": slowdown_cat,
    "standard": standard,
    "tent": tent,
}
