"""Item models at given abilities, with derivatives in their parameters and in theta.

- divide by total: log P_k = a k theta + c_k - log sum (Rasch, PCM, RSM with a = 1; 2PL, GPCM)
- 3PL: P_1 = g + (1 - g) sigma(a theta + c), g = sigma of the last parameter
- graded: P(x >= h) = sigma(a theta + c_h), c_1 > c_2 > ...: parameters c_1 and log(c_h - c_{h+1})

A row of `raw` holds an item's category parameters (padded), its slope and, for 3PL, logit g.

Legend: I items, Q nodes, K categories, p parameters an item.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, log_expit

Raw = Float[np.ndarray, "I p"]
Theta = Float[np.ndarray, " Q"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nodes:
    """log P and its derivatives; 0 beyond an item's last category."""

    log_p: Float[np.ndarray, "I Q K"]
    p: Float[np.ndarray, "I Q K"]
    d_raw: Float[np.ndarray, "I Q K p"]
    d_theta: Float[np.ndarray, "I Q K"]


def at_nodes(model: str, raw: Raw, theta: Theta, max_score: Int[np.ndarray, " I"]) -> Nodes:
    """Return the curves of every item at every ability."""
    if model == "3pl":
        return _three_parameter(raw, theta)
    return (_graded if model == "grm" else _divide)(raw, theta, max_score)


def _divide(raw: Raw, theta: Theta, max_score: Int[np.ndarray, " I"]) -> Nodes:
    width = raw.shape[1] - 1
    k: Float[np.ndarray, " K"] = np.arange(width + 1.0)
    a = raw[:, -1][:, None, None]
    c = np.column_stack([np.zeros(len(raw)), raw[:, :-1]])
    outside = (k > max_score[:, None])[:, None, :]
    exponent = np.where(outside, -np.inf, a * theta[:, None] * k + c[:, None, :])
    exponent -= exponent.max(axis=2, keepdims=True)
    log_p = exponent - np.log(np.exp(exponent).sum(axis=2, keepdims=True))
    p = np.exp(log_p)
    away = k - (p @ k)[:, :, None]
    d_raw = np.empty((*p.shape, width + 1))
    d_raw[..., :-1] = np.eye(width + 1)[:, 1:] - p[:, :, None, 1:]
    d_raw[..., -1] = theta[:, None] * away
    inside = ~outside
    return Nodes(
        log_p=np.where(inside, log_p, 0.0),
        p=p,
        d_raw=d_raw * inside[..., None],
        d_theta=a * away * inside,
    )


def _three_parameter(raw: Raw, theta: Theta) -> Nodes:
    c, a, logit = (raw[:, j][:, None] for j in range(3))
    eta, g = a * theta + c, expit(logit)
    s = expit(eta)
    log_p = np.stack(
        [
            log_expit(-logit) + log_expit(-eta),
            np.logaddexp(log_expit(logit), log_expit(-logit) + log_expit(eta)),
        ],
        axis=2,
    )
    p = np.exp(log_p)
    slope = np.stack([-s, (1 - g) * s * (1 - s) / p[:, :, 1]], axis=2)
    guess = np.stack([np.broadcast_to(-g, s.shape), g * (1 - g) * (1 - s) / p[:, :, 1]], axis=2)
    d_raw = np.stack([slope, theta[:, None] * slope, guess], axis=3)
    return Nodes(log_p=log_p, p=p, d_raw=d_raw, d_theta=a[:, :, None] * slope)


def _graded(raw: Raw, theta: Theta, max_score: Int[np.ndarray, " I"]) -> Nodes:
    width = raw.shape[1] - 1
    a = raw[:, -1][:, None, None]
    steps = np.arange(1, width) < max_score[:, None]  # a gap follows category k = 1, 2, ...
    gap = np.column_stack(
        [np.where(steps, np.exp(raw[:, 1:-1]), np.inf), np.full(len(raw), np.inf)]
    )
    c = intercepts(raw, max_score)
    x = np.where(
        np.isfinite(c)[:, None, :], a * theta[:, None] + np.nan_to_num(c)[:, None, :], -np.inf
    )
    upper = np.concatenate([np.zeros((*x.shape[:2], 1)), log_expit(x)], axis=2)  # log P(x >= k)
    lower = np.concatenate([log_expit(-x), np.zeros((*x.shape[:2], 1))], axis=2)
    between = np.column_stack([np.zeros(len(raw)), np.log(-np.expm1(-gap))])[:, None, :]
    log_p = upper + lower + between
    inside = (np.arange(width + 1) <= max_score[:, None])[:, None, :]
    p = np.where(inside, np.exp(log_p), 0.0)
    both = -np.expm1(upper) - np.exp(_next(upper))  # d log P_k / d c_1 = (1 - S_k) - S_{k+1}
    pull = np.column_stack([np.zeros(len(raw)), 1 / np.expm1(gap)])[:, None, :]
    below = -np.exp(_next(upper)) - pull  # derivative in c_{k+1} alone
    d_raw = np.zeros((*p.shape, width + 1))
    d_raw[..., 0], d_raw[..., -1] = both, theta[:, None] * both
    for j in range(1, width):
        change = np.zeros_like(p)
        change[:, :, j] = below[:, :, j]
        change[:, :, j + 1 :] = both[:, :, j + 1 :]
        d_raw[..., j] = (
            -np.where(np.isfinite(gap[:, j - 1]), gap[:, j - 1], 0)[:, None, None] * change
        )
    return Nodes(
        log_p=np.where(inside, log_p, 0.0),
        p=p,
        d_raw=np.where(inside[..., None], d_raw, 0.0),
        d_theta=np.where(inside, a * both, 0.0),
    )


def _next(upper: Float[np.ndarray, "I Q K"]) -> Float[np.ndarray, "I Q K"]:
    return np.concatenate([upper[:, :, 1:], np.full((*upper.shape[:2], 1), -np.inf)], axis=2)


def intercepts(raw: Raw, max_score: Int[np.ndarray, " I"]) -> Float[np.ndarray, "I m"]:
    """Return the graded model's c_h; -inf beyond an item's last category."""
    width = raw.shape[1] - 1
    steps = np.arange(1, width) < max_score[:, None]
    fall = np.cumsum(np.where(steps, np.exp(raw[:, 1:-1]), 0.0), axis=1)
    c = raw[:, :1] - np.column_stack([np.zeros(len(raw)), fall])
    return np.where(np.arange(width) < max_score[:, None], c, -np.inf)
