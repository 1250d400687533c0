"""The conditional kernel: distribution of responses given the raw score.

- gamma_r = coefficient of z^r in prod_i sum_h exp(-beta_ih) z^h; never formed
- tilt: w_ih = P(x_i = h | theta = t), f = distribution of the raw score under w, so that
  log gamma_r = log f(r) - r t + sum_i log sum_h exp(h t - beta_ih); all terms lie in [0, 1]
- one tilt covers the scores where f >= 1e-250; otherwise the scores are split in two blocks
- forward pass F_j (first j items), backward pass A_j (the rest, holding n_r / f(r)): expected
  counts E_jh = w_jh sum_s F_{j-1}[s] A_j[s + h] in O(R^2)
- leave-one-out distributions by divide and conquer, never by the unstable difference recursion
  gamma^(-i)_r = gamma_r - eps_i gamma^(-i)_{r-1}

Legend: I items, K = 1 + largest max_score (padded), R = sum of max_score, H = thresholds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import logsumexp

from meristem_rasch._products import leave_one_out

SMALLEST = 1e-250  # f below this is too near the subnormal range for n_r / f(r)

Weights = Float[np.ndarray, "I K"]


def padded(
    thresholds: Float[np.ndarray, " H"], max_score: Int[np.ndarray, " I"]
) -> Float[np.ndarray, "I K"]:
    """Return -beta_ih, cumulative sums of minus the thresholds; -inf beyond an item's last."""
    width = int(max_score.max())
    inside = np.arange(width) < max_score[:, None]
    steps = np.zeros((len(max_score), width))
    steps[inside] = thresholds
    logw = np.where(inside, -np.cumsum(steps, axis=1), -np.inf)
    return np.column_stack([np.zeros(len(max_score)), logw])


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Raw scores that share a tilt."""

    scores: Int[np.ndarray, " S"]
    tilt: float
    log_total: float  # sum_i log sum_h exp(h t - beta_ih)
    w: Weights
    forward: list[Float[np.ndarray, "..."]]  # distributions of the first 0, 1, ..., I items

    @property
    def pmf(self) -> Float[np.ndarray, " S"]:
        """Probability of each of the block's scores under the tilt."""
        return self.forward[-1][self.scores]


def blocks(logw: Float[np.ndarray, "I K"], scores: Int[np.ndarray, " S"]) -> Iterator[Block]:
    """Yield blocks that cover the sorted, distinct `scores`."""
    todo = [scores]
    while todo:
        part = todo.pop()
        block = _tilted(logw, part)
        if len(part) > 1 and block.pmf.min() < SMALLEST:
            todo += [part[len(part) // 2 :], part[: len(part) // 2]]
        else:
            yield block


def _tilted(logw: Float[np.ndarray, "I K"], scores: Int[np.ndarray, " S"]) -> Block:
    h: Float[np.ndarray, " K"] = np.arange(logw.shape[1], dtype=float)
    m = np.isfinite(logw).sum(axis=1) - 1
    total = int(m.sum())
    target = float(np.clip((scores[0] + scores[-1]) / 2, 0.5, total - 0.5))

    def excess(t: float) -> float:
        z = logw + h * t
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        return float(((p @ h) / p.sum(axis=1)).sum()) - target

    bound = 50.0 + float(np.abs(np.where(np.isfinite(logw), logw, 0)).max())
    tilt = float(brentq(excess, -bound, bound, xtol=1e-3))
    z = logw + h * tilt
    log_sum = logsumexp(z, axis=1)
    w = np.exp(z - log_sum[:, None])
    forward: list[np.ndarray] = [np.ones(1)]
    for weights, top in zip(w, m, strict=True):
        forward.append(np.convolve(forward[-1], weights[: top + 1]))
    return Block(scores=scores, tilt=tilt, log_total=float(log_sum.sum()), w=w, forward=forward)


def log_gamma(block: Block) -> Float[np.ndarray, " S"]:
    """Return log gamma_r of the block's scores."""
    return np.log(block.pmf) - block.scores * block.tilt + block.log_total


def backward(block: Block, counts: Float[np.ndarray, " S"]) -> list[Float[np.ndarray, "..."]]:
    """Return A_0, ..., A_I with A_I[r] = n_r / f(r) at the block's scores."""
    last = np.zeros(len(block.forward[-1]))
    last[block.scores] = counts / block.pmf
    out = [last]
    for j in range(len(block.w) - 1, -1, -1):
        top = len(block.forward[j + 1]) - len(block.forward[j])
        out.append(np.correlate(out[-1], block.w[j, : top + 1], "valid"))
    return out[::-1]


def expected_counts(
    block: Block, rest: Sequence[Float[np.ndarray, "..."]]
) -> Float[np.ndarray, "I K"]:
    """Return sum_r n_r P(x_j = h | r) of every item and category."""
    out = np.zeros_like(block.w)
    for j, before in enumerate(block.forward[:-1]):
        tops = len(rest[j + 1]) - len(before) + 1
        out[j, :tops] = block.w[j, :tops] * np.correlate(rest[j + 1], before, "valid")
    return out


def conditional(block: Block) -> Float[np.ndarray, "S I K"]:
    """Return P(x_i = h | r) of the block's scores."""
    tops = [len(b) - len(a) for a, b in zip(block.forward, block.forward[1:], strict=False)]
    rows = [block.w[i, : top + 1] for i, top in enumerate(tops)]
    out = np.zeros((len(block.scores), *block.w.shape))
    for i, others in leave_one_out(rows):
        for h in range(tops[i] + 1):
            at = block.scores - h
            inside = (at >= 0) & (at < len(others))
            out[inside, i, h] = rows[i][h] * others[at[inside]]
    return out / block.pmf[:, None, None]


def log_esf(
    thresholds: Sequence[ArrayLike],
) -> Float[np.ndarray, " R"]:
    """Return log gamma_r, r = 0...R, the log elementary symmetric functions of the items.

    Parameters
    ----------
    thresholds
        For each item its thresholds in logits (one for a dichotomous item).

    Examples
    --------
    >>> np.exp(log_esf([[0.0], [0.0], [0.0]])).round(6)
    array([1., 3., 3., 1.])
    """
    flat, m = _flat(thresholds)
    out = np.zeros(int(m.sum()) + 1)
    for block in blocks(padded(flat, m), np.arange(len(out))):
        out[block.scores] = log_gamma(block)
    return out


def conditional_probabilities(
    thresholds: Sequence[ArrayLike], scores: Int[np.ndarray, " S"]
) -> Float[np.ndarray, "S I K"]:
    """Return P(x_i = h | raw score) for each of `scores`; zero beyond an item's last category.

    Raises
    ------
    ValueError
        If a score lies outside 0...R.

    Examples
    --------
    >>> conditional_probabilities([[0.0], [0.0]], np.array([1])).round(6)
    array([[[0.5, 0.5],
            [0.5, 0.5]]])
    """
    flat, m = _flat(thresholds)
    wanted, where = np.unique(scores, return_inverse=True)
    if wanted[0] < 0 or wanted[-1] > m.sum():
        raise ValueError(f"raw scores run from 0 to {m.sum()}, not {wanted[0]} to {wanted[-1]}")
    logw = padded(flat, m)
    return np.concatenate([conditional(block) for block in blocks(logw, wanted)])[where]


def _flat(
    thresholds: Sequence[ArrayLike],
) -> tuple[Float[np.ndarray, " H"], Int[np.ndarray, " I"]]:
    rows = [np.atleast_1d(np.asarray(row, dtype=float)) for row in thresholds]
    flat = np.concatenate(rows)
    if not np.isfinite(flat).all():
        raise ValueError(f"threshold {flat[~np.isfinite(flat)][0]}; thresholds must be finite")
    return flat, np.array([len(row) for row in rows])
