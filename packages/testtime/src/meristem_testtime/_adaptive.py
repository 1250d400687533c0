"""When to stop sampling: rules on the counts of answers, judged in launch order.

- judging in order of arrival would favour short answers; samples are counted as launched
- repeated looks inflate the error: compare with the vote over all samples
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from meristem_testtime._task import Algorithm, Task

NODES = 200  # Gauss-Legendre nodes of the Dirichlet rule
Stop = Callable[[Sequence[int], int], bool]


def certain(counts: Sequence[int], remaining: int) -> bool:
    """Return whether the leader cannot be caught: stopping loses nothing.

    Examples
    --------
    >>> certain([3, 1], 1), certain([3, 1], 2)
    (True, False)
    """
    first, second = _top(counts)
    return first - second > remaining


def beta(t: float = 0.95) -> Stop:
    """Return the rule that stops once the leader is ahead of the second with probability t.

    References
    ----------
    arXiv 2305.11860 (Adaptive-Consistency).
    """
    _check(t)
    return lambda counts, remaining: leader_beta(counts) >= t


def dirichlet(t: float = 0.95) -> Stop:
    """Return the rule that stops once the leader has the largest share with probability t."""
    _check(t)
    return lambda counts, remaining: leader_dirichlet(counts) >= t


def supermajority(share: float = 0.75) -> Stop:
    """Return the rule that stops at 2, 4, 8... answers if the leader has at least this share."""
    _check(share)

    def rule(counts: Sequence[int], remaining: int) -> bool:
        total = sum(counts)
        return total >= 2 and total & (total - 1) == 0 and max(counts) >= share * total

    return rule


def leader_beta(counts: Sequence[int]) -> float:
    """Return the posterior chance that the first answer is likelier than the second.

    Notes
    -----
    1 - I_1/2(a + 1, b + 1) = 1 - 2**-(a + b + 1) sum over i <= b of C(a + b + 1, i)

    Examples
    --------
    >>> leader_beta([1]), leader_beta([2, 2])
    (0.75, 0.5)
    """
    a, b = _top(counts)
    n = a + b + 1
    return 1 - sum(math.comb(n, i) for i in range(b + 1)) / 2**n


def leader_dirichlet(counts: Sequence[int]) -> float:
    """Return the posterior chance that the most frequent answer has the largest share.

    Shares have a flat prior over the answers seen, at least two.

    Notes
    -----
    With independent gamma variables of shapes c_i + 1, P = integral of the leader's density times
    the distribution functions of the others; shapes are whole, so those are finite sums.
    """
    ranked = sorted((c for c in counts if c > 0), reverse=True)
    ranked += [0] * (2 - len(ranked))
    leader = ranked[0]
    high = leader + 1 + 14 * math.sqrt(leader + 1) + 40
    node, weight = np.polynomial.legendre.leggauss(NODES)
    x = (node + 1) * high / 2
    log_x = np.log(x)
    log_density = leader * log_x - x - math.lgamma(leader + 1)
    log_others = np.zeros(NODES)
    for c in ranked[1:]:
        log_others += np.log(np.maximum(_gamma_cdf(x, log_x, c), 1e-300))
    return float(np.clip((weight * np.exp(log_density + log_others)).sum() * high / 2, 0.0, 1.0))


def adaptive(
    stop: Stop, n: int, answer: Callable[[str], str | None], *, batch: int = 1
) -> Algorithm:
    """Return whole samples, `batch` at a time, until `stop` says enough or there are n.

    Parameters
    ----------
    stop
        Such as `beta(0.95)`; asked after each sample in launch order.
    answer
        Takes a solution's text and returns its answer's key, or None without an answer.
    batch
        Samples asked for together; those after the stop are kept in the tree but not as solutions.
    """
    if n < 1 or batch < 1:
        raise ValueError(f"n ({n}) and batch ({batch}) must be at least 1")

    async def algorithm(task: Task) -> None:
        counts: dict[str, int] = {}
        judged = 0
        while judged < n:
            group = (await task.expand([task.root], min(batch, n - judged), whole=True))[0]
            for node in group:
                task.finish(node)
                judged += 1
                key = answer(node.text)
                if key is not None:
                    counts[key] = counts.get(key, 0) + 1
                if counts and stop(list(counts.values()), n - judged):
                    return

    return algorithm


def _gamma_cdf(x: np.ndarray, log_x: np.ndarray, c: int) -> np.ndarray:
    """Return the distribution function of a gamma variable of shape c + 1."""
    terms = np.arange(c + 1)[:, None] * log_x - x
    terms -= np.array([math.lgamma(i + 1) for i in range(c + 1)])[:, None]
    return np.maximum(1 - np.exp(terms).sum(0), 0.0)


def _top(counts: Sequence[int]) -> tuple[int, int]:
    ranked = [*sorted(counts, reverse=True), 0, 0]
    return ranked[0], ranked[1]


def _check(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"the threshold ({share}) must lie in (0, 1]")
