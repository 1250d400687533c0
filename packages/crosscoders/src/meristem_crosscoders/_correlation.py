"""Rank correlation of two measurements of the same features, with its interval."""

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import rankdata
from torch import Tensor

from meristem_core import Interval, bootstrap_interval


def rank_correlation(
    a_F: Shaped[Tensor, " F"],
    b_F: Shaped[Tensor, " F"],
    *,
    rng: np.random.Generator,
    n_resamples: int = 500,
) -> Interval:
    """Return Spearman's rank correlation over features with its bootstrap interval.

    Parameters
    ----------
    a_F, b_F
        Two measurements; ties get their mean rank.
    rng
        Draws the features of each resample.

    Returns
    -------
    In [-1, 1]; 0 where one of the two is the same for all features.

    Raises
    ------
    ValueError
        If there are fewer than 3 features or a value is not finite.

    Examples
    --------
    >>> import torch
    >>> a = torch.arange(20.0)
    >>> rank_correlation(a, a**3, rng=np.random.default_rng(0)).estimate
    1.0
    """
    a, b = (x.detach().cpu().double().numpy() for x in (a_F, b_F))
    if a.shape != b.shape or a.size < 3:
        raise ValueError(f"there are {a.size} and {b.size} features; give the same 3 or more")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("a value is NaN or infinite; leave such features out")
    return bootstrap_interval(
        lambda rows: _spearman(a[rows], b[rows]), a.size, rng=rng, n_resamples=n_resamples
    )


def _spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    x, y = (rankdata(values) - (values.size + 1) / 2 for values in (a, b))
    size = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / size, -1, 1)) if size > 0 else 0.0
