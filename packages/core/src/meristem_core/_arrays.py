"""Reductions that NumPy, torch and every other array-API library share.

- the caller's dtype and device are kept; inputs are never written to
- natural logarithms: entropies are in nats
- a mask is True where a value counts; what stands under False never matters, not even NaN
"""

from typing import Any

from array_api_compat import array_namespace

Array = Any  # of any array-API library: NumPy, torch, JAX, array-api-strict


def logsumexp(x: Array, *, axis: int = -1) -> Array:
    """Return log(sum(exp(x))) along an axis, without overflow.

    Parameters
    ----------
    x
        Floating-point values; -inf counts as probability zero.

    Raises
    ------
    TypeError
        If the values are not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> float(logsumexp(np.array([1000.0, 1000.0])))
    1000.6931471805599
    >>> float(logsumexp(np.array([-np.inf, -np.inf])))
    -inf
    """
    xp = _floating(x, "x")
    top = xp.max(x, axis=axis, keepdims=True)
    shift = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    total = xp.sum(xp.exp(x - shift), axis=axis)
    some = total > 0  # log 0 is reached by design where everything is -inf, and would warn
    logs = xp.log(xp.where(some, total, xp.ones_like(total)))
    return xp.where(some, logs + xp.squeeze(shift, axis=axis), -xp.ones_like(logs) * float("inf"))


def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Return x - logsumexp(x): log-probabilities along an axis.

    Raises
    ------
    TypeError
        If the values are not floating-point.
    ValueError
        If everything along the axis is -inf: there is nothing to normalise.
    """
    xp = _floating(x, "x")
    total = xp.expand_dims(logsumexp(x, axis=axis), axis=axis)
    if bool(xp.any(total == -float("inf"))):
        raise ValueError("all values along the axis are -inf; keep at least one finite score")
    return x - total


def softmax_entropy(logits: Array, *, axis: int = -1) -> Array:
    """Return the entropy of softmax(logits) along an axis, in nats, within [0, log n].

    Raises
    ------
    TypeError
        If the logits are not floating-point.
    ValueError
        If everything along the axis is -inf.

    Notes
    -----
    H = logsumexp(z) - sum_i p_i z_i, with 0 * -inf = 0.

    Examples
    --------
    >>> import numpy as np
    >>> float(softmax_entropy(np.array([0.0, 0.0, -np.inf])))
    0.6931471805599453
    """
    xp = _floating(logits, "logits")
    logprobs = log_softmax(logits, axis=axis)
    probs = xp.exp(logprobs)
    terms = probs * xp.where(probs > 0, logprobs, xp.zeros_like(logprobs))
    entropy = -xp.sum(terms, axis=axis)
    return xp.where(entropy > 0, entropy, xp.zeros_like(entropy))  # rounding below zero


def masked_sum(x: Array, mask: Array, *, axis: int | None = None) -> Array:
    """Return the sum of the values whose mask is True; an empty sum is 0.

    Parameters
    ----------
    x
        Floating-point values.
    mask
        Booleans that broadcast to the shape of `x`.

    Raises
    ------
    TypeError
        If the values are not floating-point or the mask not boolean.
    """
    xp = _floating(x, "x")
    _boolean(xp, mask)
    return xp.sum(xp.where(mask, x, xp.zeros_like(x)), axis=axis)


def masked_mean(
    x: Array, mask: Array, *, axis: int | None = None, empty: float | None = None
) -> Array:
    """Return the mean of the values whose mask is True.

    Parameters
    ----------
    x
        Floating-point values.
    mask
        Booleans that broadcast to the shape of `x`.
    empty
        The mean of no values; without it an all-False slice is an error.

    Raises
    ------
    TypeError
        If the values are not floating-point or the mask not boolean.
    ValueError
        If a slice has no True and `empty` is not given.

    Examples
    --------
    >>> import numpy as np
    >>> float(masked_mean(np.array([1.0, np.nan, 3.0]), np.array([True, False, True])))
    2.0
    """
    xp = _floating(x, "x")
    _boolean(xp, mask)
    kept = xp.where(mask, xp.ones_like(x), xp.zeros_like(x))
    count = xp.sum(kept, axis=axis)
    none = count == 0
    if empty is None and bool(xp.any(none)):
        raise ValueError("a slice has no True in its mask; give empty= or drop the slice")
    mean = masked_sum(x, mask, axis=axis) / xp.where(none, xp.ones_like(count), count)
    return mean if empty is None else xp.where(none, xp.ones_like(mean) * empty, mean)


def _floating(x: Array, name: str) -> Any:
    xp = array_namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        raise TypeError(f"{name} has dtype {x.dtype}; it must be floating-point, so convert it")
    return xp


def _boolean(xp: Any, mask: Array) -> None:
    if not xp.isdtype(mask.dtype, "bool"):
        raise TypeError(f"mask has dtype {mask.dtype}; it must be boolean, such as x != pad")
