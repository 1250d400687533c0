"""Comparisons whose tolerance follows from dtype, size and scale."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

SAFETY = 8.0  # a handful of roundings per element


def assert_close(actual: Any, expected: Any, *, scale: float = 1.0, context: str = "") -> None:
    """Fail unless two arrays have one shape and differ by rounding only.

    Parameters
    ----------
    actual, expected
        Numbers or arrays of NumPy, torch or array-api-strict. Whole numbers and booleans must be
        equal; NaN equals NaN and an infinity itself.
    scale
        Size of the numbers that were combined, times the condition of the problem; 0 for an error
        relative to `expected` alone.
    context
        What was compared; begins the message.

    Raises
    ------
    AssertionError
        With the worst place, both values there and the tolerance.
    ValueError
        If `scale` is negative or not finite.

    Notes
    -----
    ``|actual - expected| <= 8 eps sqrt(n) max(scale, max |expected|)`` with the larger epsilon of
    the two dtypes and n elements: independent roundings of n terms add up like a random walk.

    Examples
    --------
    >>> assert_close(np.float32(0.1) + np.float32(0.2), 0.3)
    >>> assert_close(np.array([1.0, 2.0]), np.array([1.0, 2.1]), context="means")
    Traceback (most recent call last):
    AssertionError: means: [1] is 2.0, expected 2.1; off by 0.1, tolerance 5.3e-15
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f"scale ({scale}) must be finite and at least 0; it is a size")
    (left, left_eps), (right, right_eps) = _array_and_eps(actual), _array_and_eps(expected)
    prefix = f"{context}: " if context else ""
    if left.shape != right.shape:
        raise AssertionError(f"{prefix}shape is {left.shape}, expected {right.shape}")
    eps = max(left_eps, right_eps)
    sizes = np.abs(right[np.isfinite(right)])
    tolerance = SAFETY * eps * math.sqrt(max(right.size, 1)) * max(scale, sizes.max(initial=0.0))
    with np.errstate(invalid="ignore"):
        distance = np.abs(left - right) if eps else (left != right).astype(float)
    same = (left == right) | (np.isnan(left) & np.isnan(right)) if eps else left == right
    error = np.where(same, 0.0, np.where(np.isnan(distance), math.inf, distance))
    if error.size == 0 or error.max() <= tolerance:
        return
    worst = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    place = f"[{', '.join(map(str, worst))}]" if worst else "value"
    raise AssertionError(
        f"{prefix}{place} is {left[worst]}, expected {right[worst]}; "
        f"off by {error[worst]:.2g}, tolerance {tolerance:.2g}"
    )


def assert_commutes(
    function: Callable[[Any], Any],
    before: Callable[[Any], Any],
    after: Callable[[Any], Any],
    x: Any,
) -> None:
    """Fail unless ``function(before(x))`` is close to ``after(function(x))``.

    Parameters
    ----------
    function
        From an array to an array.
    before, after
        What is done to the input, and the same to the output; the identity for an invariance.
    x
        The input.

    Raises
    ------
    AssertionError
        As `assert_close`.

    Examples
    --------
    >>> assert_commutes(np.cumsum, lambda x: 2 * x, lambda y: 2 * y, np.arange(3.0))
    """
    assert_close(function(before(x)), after(function(x)), context="f(before(x)) and after(f(x))")


def _array_and_eps(value: Any) -> tuple[np.ndarray, float]:
    """Return the values as NumPy array and the dtype's epsilon, 0 for whole numbers."""
    if is_torch_array(value):
        from meristem_core.testing import _torch  # noqa: PLC0415 imports torch

        return _torch.array_of(value)
    array = np.asarray(value)
    return array, float(np.finfo(array.dtype).eps) if array.dtype.kind in "fc" else 0.0
