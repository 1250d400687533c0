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
        Samples that run together; those that still run at the stop are aborted. Samples after the
        stop are kept in the tree, and their tokens counted, but are no solutions.
    """
    _at_least_one(n=n, batch=batch)

    async def algorithm(task: Task) -> None:
        judge = _Judge(stop, n, answer)
        while judge.judged < n and not judge.decided:
            first = judge.judged

            def watch(place: int, text: str, first: int = first) -> bool:
                return judge.hear(first + place, text)

            size = min(batch, n - first)
            (group,) = await task.expand(
                [task.root], size, whole=True, watch=watch if size > 1 else None
            )
            for place, node in enumerate(group):
                if node.finished:
                    judge.hear(first + place, node.text)
            for node in group[: judge.judged - first]:
                task.finish(node)

    return algorithm


def first_finished(n: int, m: int = 3) -> Algorithm:
    """Return the m of n whole samples that finish first; the others are aborted (short-m@n).

    Those of several that end with the same number of tokens are taken in launch order. Where
    samples run in step (`FakeEngine`, `HFEngine` with n within its `max_batch`) these are the m
    shortest; a server may finish a longer one first. Vote over them with `majority`.

    References
    ----------
    arXiv 2505.17813.
    """
    _at_least_one(n=n, m=m)
    if m > n:
        raise ValueError(f"m ({m}) must be at most n ({n})")

    async def algorithm(task: Task) -> None:
        ended: set[int] = set()

        def watch(place: int, text: str) -> bool:
            ended.add(place)
            return len(ended) >= m

        (group,) = await task.expand([task.root], n, whole=True, watch=watch)
        finished = [node for node in group if node.finished]
        for node in sorted(finished, key=lambda node: len(node.ids))[:m]:
            task.finish(node)

    return algorithm


class _Judge:
    """Counts answers in launch order, whatever the order in which it hears of them."""

    def __init__(self, stop: Stop, n: int, answer: Callable[[str], str | None]) -> None:
        self._stop, self._n, self._answer = stop, n, answer
        self._early: dict[int, str] = {}
        self._counts: dict[str, int] = {}
        self.judged = 0
        self.decided = False

    def hear(self, place: int, text: str) -> bool:
        """Take the text of sample `place`; return whether the rule says enough."""
        self._early[place] = text
        while not self.decided and self.judged in self._early:
            key = self._answer(self._early.pop(self.judged))
            self.judged += 1
            if key is not None:
                self._counts[key] = self._counts.get(key, 0) + 1
            if self._counts:
                self.decided = self._stop(list(self._counts.values()), self._n - self.judged)
        return self.decided


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


def _at_least_one(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} ({value}) must be at least 1")
