"""Elementary functions that work in every arithmetic: floats, arrays, balls, Arb, series, torch."""

import math
from typing import Any

import numpy as np

__all__ = ["cos", "exp", "log", "sin", "sqrt"]


def sin(x: Any) -> Any:
    """Return the sine of `x` (radians) in the arithmetic of `x`."""
    return _apply("sin", x)


def cos(x: Any) -> Any:
    """Return the cosine of `x` (radians) in the arithmetic of `x`."""
    return _apply("cos", x)


def exp(x: Any) -> Any:
    """Return the exponential of `x` in the arithmetic of `x`."""
    return _apply("exp", x)


def log(x: Any) -> Any:
    """Return the natural logarithm of `x` in the arithmetic of `x`."""
    return _apply("log", x)


def sqrt(x: Any) -> Any:
    """Return the square root of `x` in the arithmetic of `x`."""
    return _apply("sqrt", x)


def _apply(name: str, x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return getattr(np, name)(x)
    if isinstance(x, int | float):
        return getattr(math, name)(x)
    return getattr(x, name)()
