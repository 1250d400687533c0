"""Many tests at once."""

import numpy as np
from jaxtyping import Float


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return Holm's (1979) adjusted p-values; NaN is no test and stays NaN."""
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return out


def benjamini_hochberg(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return p-values adjusted to the false discovery rate (Benjamini & Hochberg 1995).

    NaN is no test and stays NaN.
    """
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(-p[known], kind="stable")]
    steps = p[order] * len(order) / np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.minimum.accumulate(steps), 1.0) if len(order) else steps
    return out
