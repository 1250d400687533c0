"""Sequential Monte Carlo over steps: particles are solutions, weights come from the guide.

- target "potential": the law p(x) g(r(x)) of whole solutions; a step weighs g(r) / g(previous r)
- target "emission": the law p(x) times the product of g over all steps; a step weighs g(r)
- g(r) = r / (1 - r), r in [0, 1] clipped by 1e-7 on both sides
- a finished particle is weighed no more
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from meristem_testtime._nodes import Node
from meristem_testtime._task import Algorithm, BudgetExhausted, Task

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
) -> Algorithm:
    """Return a particle filter with n particles; its solutions carry their final weights.

    Parameters
    ----------
    target
        See the top of the module. The guide must give values in [0, 1].
    method
        Of resampling, when the effective sample size falls below `threshold` times n.

    Notes
    -----
    `SearchResult.log_normaliser` estimates the logarithm of the expectation of the target's weight
    under the model; its exponential is unbiased.

    References
    ----------
    arXiv 2502.01618 (emission); Del Moral 2004 (potential).
    """
    if n < 1 or not 0 <= threshold <= 1:
        raise ValueError(f"n ({n}) must be at least 1 and threshold ({threshold}) in [0, 1]")
    if target not in ("potential", "emission"):
        raise ValueError(f"target is {target!r}; choose 'potential' or 'emission'")

    async def algorithm(task: Task) -> None:
        cloud: list[Node] = [task.root] * n
        log_weights, log_z = np.zeros(n), 0.0
        while not all(node.finished for node in cloud):
            try:
                moved = await _moved(task, cloud)
            except BudgetExhausted:
                _give(task, cloud, log_weights)
                raise
            gain = [_gain(new, old, target) for new, old in zip(moved, cloud, strict=True)]
            cloud, log_weights = moved, log_weights + np.array(gain)
            weights = np.exp(log_weights - log_weights.max())
            if weights.sum() ** 2 / (weights**2).sum() < threshold * n:
                log_z += float(log_weights.max() + np.log(weights.mean()))
                rows: list[int] = resample(log_weights, n, method=method, rng=task.rng).tolist()
                cloud, log_weights = [cloud[i] for i in rows], np.zeros(n)
        task.log_normaliser = float(
            log_z + log_weights.max() + np.log(np.exp(log_weights - log_weights.max()).mean())
        )
        _give(task, cloud, log_weights)

    return algorithm


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
    before = 0.0 if target == "emission" or old.parent is None else _log_odds(old)
    return _log_odds(new) - before


def _log_odds(node: Node) -> float:
    if not 0 <= node.value <= 1:
        raise ValueError(f"the guide gave {node.value}; particles need values in [0, 1]")
    value = min(max(node.value, EDGE), 1 - EDGE)
    return float(np.log(value) - np.log1p(-value))


def _invert(weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    cumulative = np.cumsum(weights)
    found = np.searchsorted(cumulative / cumulative[-1], points, side="right")
    return np.minimum(found, np.flatnonzero(weights)[-1])
