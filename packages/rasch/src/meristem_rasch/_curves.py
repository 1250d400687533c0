"""Category probabilities and their derivatives in theta, for every model.

- partial credit with slope (Rasch, PCM, GPCM): P_h proportional to exp(a (h theta - beta_ih)),
  P' = a P (h - E), P'' = a^2 P ((h - E)^2 - V)
- 3PL: P = c + (1 - c) S, S = sigma(a (theta - b)); S' = a S (1 - S), S'' = a S' (1 - 2 S)
- graded response: P(x >= h) = sigma(a (theta - b_h)); categories are differences

Legend: n abilities, I items, K categories (padded with probability 0).
"""

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

from meristem_rasch._calibration import Calibration
from meristem_rasch._kernel import padded

Curve = Float[np.ndarray, "n I K"]


def curves(cal: Calibration, theta: Float[np.ndarray, " n"]) -> tuple[Curve, Curve, Curve]:
    """Return P, dP/dtheta and d2P/dtheta2 of every item and category at each ability."""
    if cal.model == "grm":
        return _graded(cal, theta)
    h = np.arange(int(cal.max_score.max()) + 1.0)
    a = cal.slope[:, None]
    beta = padded(cal.threshold, cal.max_score)
    exponent = a * (h * theta[:, None, None]) + np.where(np.isfinite(beta), a * beta, -np.inf)
    p = softmax(exponent, axis=2)
    away = h - (p @ h)[:, :, None]
    variance = (p * away**2).sum(axis=2, keepdims=True)
    first, second = a * p * away, a**2 * p * (away**2 - variance)
    if cal.guess.any():
        c = cal.guess[:, None]
        p, first, second = (1 - c) * p + c * (h == 1), (1 - c) * first, (1 - c) * second
    return p, first, second


def _graded(cal: Calibration, theta: Float[np.ndarray, " n"]) -> tuple[Curve, Curve, Curve]:
    width = int(cal.max_score.max())
    inside = np.arange(width) < cal.max_score[:, None]
    b = np.zeros(inside.shape)
    b[inside] = cal.threshold
    a = cal.slope[:, None]
    s = expit(a * (theta[:, None, None] - b)) * inside
    first = a * s * (1 - s)
    second = a * first * (1 - 2 * s)
    shape = (*s.shape[:2], 1)
    return tuple(  # type: ignore[return-value]
        np.concatenate([np.full(shape, top), x], axis=2)
        - np.concatenate([x, np.zeros(shape)], axis=2)
        for top, x in ((1.0, s), (0.0, first), (0.0, second))
    )


def information(cal: Calibration, theta: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n I"]:
    """Return the Fisher information of every item, sum_h P'^2 / P."""
    p, first, _ = curves(cal, theta)
    return (first**2 / np.where(p > 0, p, 1)).sum(axis=2)
