"""lz*: how unlikely a person's answers are, corrected for the estimated ability (Snijders 2001).

- l = sum log P(x_i), centred and standardised at the estimate; with s_i = d log P / d theta and
  c = sum Cov(log P_i, s_i) / sum Var s_i, the numerator is sum (log P_i - E log P_i) - c s_i and
  its variance sum Var(log P_i - c s_i). Since sum s_i + r_0 = 0 at the estimate (r_0 = 0 for
  maximum likelihood, J / 2I for Warm's), this is Snijders's correction for every estimator of
  that kind; polytomous items after Sinharay (2016)
- asymptotically standard normal; large negative values are aberrant
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._persons import score_persons
from meristem_rasch._responses import Responses

CELLS = 4_000_000  # of a probability array held at once


def lz_star(
    cal: Calibration, data: Responses, *, method: Literal["wle", "mle", "map"] = "wle"
) -> Float[np.ndarray, " N"]:
    """Return lz* of every person; NaN where the estimate is infinite or no item was answered.

    Parameters
    ----------
    method
        Estimator of the abilities.
    """
    theta = score_persons(cal, data, method=method).theta
    out = np.full(len(theta), np.nan)
    rows = np.flatnonzero(np.isfinite(theta))
    size = max(1, CELLS // (len(data.items) * int(cal.max_score.max() + 1)))
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        out[part] = _statistic(cal, data.scores[part], theta[part])
    return out


def _statistic(
    cal: Calibration, scores: np.ndarray, theta: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    p, first, _ = curves(cal, theta)
    seen = (scores >= 0)[:, :, None]
    safe = np.where(p > 0, p, 1.0)
    log_p, slope = np.log(safe), first / safe
    log_p = log_p - (p * log_p).sum(axis=2, keepdims=True)  # centred; E s = 0 already
    weight = p * seen
    cross = (weight * log_p * slope).sum(axis=(1, 2))
    information = (weight * slope**2).sum(axis=(1, 2))
    c = cross / information
    corrected = log_p - c[:, None, None] * slope
    variance = (weight * corrected**2).sum(axis=(1, 2))
    at = np.where(seen[:, :, 0], scores, 0)[:, :, None].astype(np.int64)
    observed = np.take_along_axis(corrected, at, axis=2)[:, :, 0] * seen[:, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 1e-12, observed.sum(axis=1) / np.sqrt(variance), np.nan)
