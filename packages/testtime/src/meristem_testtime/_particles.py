"""Sequential Monte Carlo over steps: particles are solutions, weights come from the guide.

- target "potential": the law p(x) g(r(x)) of whole solutions; a step weighs g(r) / g(previous r)
- target "emission": the law p(x) times the product of g over all steps; a step weighs g(r)
- g(r) = r / (1 - r), r in [0, 1] clipped by 1e-7 on both sides
- a finished particle is weighed no more
- early resampling may be tempered: a row is drawn by w^(1 / heat) and keeps w^(1 - 1 / heat), so
  estimates stay unbiased
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from meristem_testtime._batching import BudgetExhausted
from meristem_testtime._nodes import Node
from meristem_testtime._task import Algorithm, Task

EDGE = 1e-7  # rewards of exactly 0 or 1 have no odds
Method = Literal["systematic", "stratified", "multinomial", "residual"]


def resample(
    log_weights: Float[np.ndarray, " m"],
    n: int,
    *,
    method: Method = "systematic",
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:
    """Return n rows drawn so that row i occurs n w_i times in expectation, in increasing order.

    Parameters
    ----------
    log_weights
        Natural logarithms, up to a constant; -inf is never drawn.
    method
        "systematic" stays within 1 of n w_i, "residual" at or above its whole part.

    Raises
    ------
    ValueError
        If all weights are 0, one is nan or infinite, n is below 1, or the method is unknown.

    References
    ----------
    Douc and Cappe 2005, "Comparison of resampling schemes for particle filtering".

    Examples
    --------
    >>> resample(np.log([0.5, 0.25, 0.25]), 4, rng=np.random.default_rng(0)).tolist()
    [0, 0, 1, 2]
    """
    top = log_weights.max() if log_weights.size else -np.inf
    if not np.isfinite(top) or np.isnan(log_weights).any():
        raise ValueError(f"the largest log-weight is {top}; one must be finite, and none nan")
    if n < 1:
        raise ValueError(f"n ({n}) must be at least 1")
    weights = np.exp(log_weights - top)
    weights /= weights.sum()
    if method == "residual":
        sure = np.floor(n * weights + 1e-12).astype(np.int64)
        left = n - int(sure.sum())
        fixed: np.ndarray = np.repeat(np.arange(int(weights.size)), sure)
        if left == 0:
            return fixed
        rest = np.maximum(n * weights - sure, 0.0)
        return np.sort(np.concatenate([fixed, _invert(rest / rest.sum(), rng.random(left))]))
    if method == "systematic":
        points = (np.arange(n) + rng.random()) / n
    elif method == "stratified":
        points = (np.arange(n) + rng.random(n)) / n
    elif method == "multinomial":
        points = np.sort(rng.random(n))
    else:
        raise ValueError(
            f"method is {method!r}; choose systematic, stratified, multinomial or residual"
        )
    return _invert(weights, points)


def particles(
    n: int,
    *,
    target: Literal["potential", "emission"] = "potential",
    method: Method = "systematic",
    threshold: float = 0.5,
    anneal: float = 0.0,
) -> Algorithm:
    """Return a particle filter with n particles; its solutions carry their final weights.

    Parameters
    ----------
    target
        See the top of the module. The guide must give values in [0, 1].
    method
        Of resampling, when the effective sample size falls below `threshold` times n.
    anneal
        Share of the steps, in [0, 1], in which resampling is tempered by max(1, (n / effective
        sample size) (1 - t / max_steps)) at step t, so that an early guide does not leave copies of
        one particle only; the source has 0.5, 0 is off.

    Notes
    -----
    `SearchResult.log_normaliser` estimates the logarithm of the expectation of the target's weight
    under the model; its exponential is unbiased.

    References
    ----------
    arXiv 2502.01618 (emission); Del Moral 2004 (potential). The temperature is that of
    Red-Hat-AI-Innovation-Team/its_hub, which resets the weights and so changes the target; the
    weights that are kept here do not.
    """
    if n < 1 or not 0 <= threshold <= 1:
        raise ValueError(f"n ({n}) must be at least 1 and threshold ({threshold}) in [0, 1]")
    if not 0 <= anneal <= 1:
        raise ValueError(f"anneal ({anneal}) must lie in [0, 1]; it is a share of the steps")
    if target not in ("potential", "emission"):
        raise ValueError(f"target is {target!r}; choose 'potential' or 'emission'")

    async def algorithm(task: Task) -> None:
        cloud: list[Node] = [task.root] * n
        log_weights, log_z, t = np.zeros(n), 0.0, 0
        while not all(node.finished for node in cloud):
            try:
                moved = await _moved(task, cloud)
            except BudgetExhausted:
                _give(task, cloud, log_weights)
                raise
            gain = [_gain(new, old, target) for new, old in zip(moved, cloud, strict=True)]
            cloud, log_weights, t = moved, log_weights + np.array(gain), t + 1
            weights = np.exp(log_weights - log_weights.max())
            share, progress = weights.sum() ** 2 / (weights**2).sum() / n, t / task.step.max_steps
            if share < threshold:
                heat = max(1.0, (1 - progress) / share) if progress < anneal else 1.0
                drawn = log_weights / heat
                rows: list[int] = resample(drawn, n, method=method, rng=task.rng).tolist()
                log_z += _log_mean(drawn)
                cloud, log_weights = [cloud[i] for i in rows], (log_weights - drawn)[rows]
        task.log_normaliser = log_z + _log_mean(log_weights)
        _give(task, cloud, log_weights)

    return algorithm


def _log_mean(log_weights: np.ndarray) -> float:
    top = log_weights.max()
    return float(top + np.log(np.exp(log_weights - top).mean()))


def _give(task: Task, cloud: list[Node], log_weights: np.ndarray) -> None:
    weights = np.exp(log_weights - log_weights.max()).tolist()
    for node, weight in zip(cloud, weights, strict=True):
        if node.finished:
            task.finish(node, weight)


async def _moved(task: Task, cloud: list[Node]) -> list[Node]:
    """Return one child for each open particle; copies of one node are sampled in one request."""
    copies: dict[Node, int] = {}
    for node in cloud:
        if not node.finished:
            copies[node] = copies.get(node, 0) + 1
    children = await task.expand(list(copies), list(copies.values()))
    supply = {node: iter(group) for node, group in zip(copies, children, strict=True)}
    return [node if node.finished else next(supply[node]) for node in cloud]


def _gain(new: Node, old: Node, target: str) -> float:
    if new is old:
        return 0.0
    before = 0.0 if target == "emission" or old.parent is None else log_odds(old.value)
    return log_odds(new.value) - before


def log_odds(value: float) -> float:
    """Return ln(value / (1 - value)), `value` kept within 1e-7 of 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"the guide gave {value}; its log-odds need a value in [0, 1]")
    inner = min(max(value, EDGE), 1 - EDGE)
    return float(np.log(inner) - np.log1p(-inner))


def _invert(weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    cumulative = np.cumsum(weights)
    found = np.searchsorted(cumulative / cumulative[-1], points, side="right")
    return np.minimum(found, np.flatnonzero(weights)[-1])
