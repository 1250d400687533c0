"""Logistic regression on a system and an item effect, for scores anywhere in [0, 1].

- E y_vi = sigma(theta_v - b_i), quasi-likelihood with weight w_vi (points, samples, graders)
- maximises sum w (y eta - log(1 + e^eta)) - ridge / 2 sum b^2 - 1e-6 / 2 sum theta^2: the tiny
  penalty keeps systems with only zeros or ones finite
- Newton: the larger side has a diagonal Hessian and is eliminated, so that a step costs
  (smaller side)^2 x (larger side)

Legend: V systems, I items; weight 0 = not observed.
"""

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from meristem_rasch._errors import ConvergenceError

FLOOR = 1e-6  # ridge on theta
STEPS = 200

Cells = Float[np.ndarray, "V I"]


def two_way(
    y: Cells, w: Cells, *, ridge: float | int
) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " I"]]:
    """Return system abilities and item difficulties with mean difficulty 0.

    Raises
    ------
    ConvergenceError
        If Newton's method does not end, which means that without a ridge an estimate is infinite.
    """
    if len(y) > y.shape[1]:
        b, theta = _newton(1 - y.T, w.T, ridge, FLOOR)
    else:
        theta, b = _newton(y, w, FLOOR, ridge)
    return theta - b.mean(), b - b.mean()


def _newton(
    y: Cells, w: Cells, small_ridge: float | int, large_ridge: float | int
) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " I"]]:
    s, t = np.zeros(len(y)), np.zeros(len(y.T))
    ridges = np.array([small_ridge, max(large_ridge, 1e-9)])
    value = _value(y, w, s, t, ridges)
    for _ in range(STEPS):
        step_s, step_t = _step(y, w, s, t, ridges)
        size = max(float(np.abs(step_s).max()), float(np.abs(step_t).max()))
        scale = min(1.0, 4.0 / max(size, 1e-300))
        while True:
            s_new, t_new = s + scale * step_s, t + scale * step_t
            new = _value(y, w, s_new, t_new, ridges)
            if new >= value - 1e-12 * abs(value) or scale < 1e-6:
                break
            scale /= 2
        s, t, value = s_new, t_new, new
        if size < 1e-9:
            return s, t
    raise ConvergenceError(
        f"the two-way logistic fit did not end in {STEPS} steps; give a positive ridge"
    )


def _step(
    y: Cells,
    w: Cells,
    s: Float[np.ndarray, " V"],
    t: Float[np.ndarray, " I"],
    ridges: Float[np.ndarray, " r"],
) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " I"]]:
    p = np.asarray(expit(s[:, None] - t), dtype=float)
    residual, info = w * (y - p), w * p * (1 - p)
    g_s = residual.sum(axis=1) - ridges[0] * s
    g_t = -residual.sum(axis=0) - ridges[1] * t
    d_s, d_t = info.sum(axis=1) + ridges[0], info.sum(axis=0) + ridges[1]
    scaled = info / d_t  # the Hessian's off-diagonal block is minus info
    schur = np.diag(d_s) - scaled @ info.T
    # without a ridge a common shift of both sides is free; any value serves
    schur += 1e-12 * float(np.trace(schur)) * np.eye(len(s))
    step_s = np.asarray(cho_solve(cho_factor(schur), g_s + scaled @ g_t), dtype=float)
    return step_s, (g_t + info.T @ step_s) / d_t


def _value(
    y: Cells,
    w: Cells,
    s: Float[np.ndarray, " V"],
    t: Float[np.ndarray, " I"],
    ridges: Float[np.ndarray, " r"],
) -> float:
    eta = s[:, None] - t
    fit = (w * (y * eta - np.logaddexp(0, eta))).sum()
    return float(fit - ridges[0] * (s @ s) / 2 - ridges[1] * (t @ t) / 2)


def ability(
    y: Cells, w: Cells, b: Cells | Float[np.ndarray, " I"], *, floor: float = FLOOR
) -> Float[np.ndarray, " V"]:
    """Return the ability of each system given item difficulties, by its own score equation.

    A system with only zeros or ones stops where the penalty `floor` holds it.
    """
    theta = np.zeros(len(y))
    for _ in range(STEPS):
        p = expit(theta[:, None] - b)
        slope = (w * p * (1 - p)).sum(axis=1) + floor
        step = ((w * (y - p)).sum(axis=1) - floor * theta) / slope
        step = np.clip(step, -1.5, 1.5)
        theta = theta + step
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    return theta


def logistic(
    design: Float[np.ndarray, "n p"], y: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " p"]:
    """Return the coefficients of a weighted logistic regression of fractions y.

    Raises
    ------
    ConvergenceError
        If the estimates are infinite (the columns separate the answers).
    """
    beta = np.zeros(design.shape[1])
    value = -np.inf
    for _ in range(STEPS):
        eta = design @ beta
        p = expit(eta)
        info = (design.T * (w * p * (1 - p))) @ design
        gradient = design.T @ (w * (y - p))
        step = np.linalg.lstsq(info, gradient, rcond=1e-12)[0]
        scale = 1.0
        while True:
            eta = design @ (beta + scale * step)
            new = float((w * (y * eta - np.logaddexp(0, eta))).sum())
            if new >= value - 1e-12 * abs(value) or scale < 1e-8:
                break
            scale /= 2
        beta, gain, value = beta + scale * step, new - value, new
        if gain < 1e-11 * (1 + abs(value)):
            return beta
    raise ConvergenceError(
        f"the logistic regression did not end in {STEPS} steps: the columns separate the answers"
    )
