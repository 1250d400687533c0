"""Exact expectations over the k-subsets of a question's samples that depend on counts or ranks.

- with w(b) = C(n - b, k) / C(n, k), the chance that k of n samples miss b given ones:
  pass@k = 1 - w(correct), pass^k = w(wrong), and best-of-n telescopes over groups of equal score
- G-Pass@k is a tail of the hypergeometric law
- no Monte-Carlo noise: what remains is which questions and which n samples were drawn
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from meristem_testtime._traces import Traces, blocks


def pass_at_k(traces: Traces, ks: Sequence[int]) -> Float[np.ndarray, "q k"]:
    """Return the chance that at least one of k samples is correct: 1 - C(n - c, k) / C(n, k).

    Parameters
    ----------
    ks
        Numbers of samples, 1 <= k <= n for every question.

    Raises
    ------
    ValueError
        If a k is out of range; names the question.

    References
    ----------
    arXiv 2107.03374.

    Examples
    --------
    >>> import numpy as np
    >>> from meristem_testtime import Traces
    >>> traces = Traces(
    ...     question=np.zeros(4, int), answer=np.array([0, 1, 1, 1]), tokens=np.ones(4, int),
    ...     correct=np.array([True, False, False, False]), questions=("q",),
    ... )
    >>> pass_at_k(traces, [1, 2, 4])
    array([[0.25, 0.5 , 1.  ]])
    """
    result = _empty(traces, ks)
    for block in blocks(traces):
        n = block.rows.shape[1]
        right = traces.correct[block.rows].sum(1)
        result[block.index] = 1 - misses(n, ks)[right]
    return result


def pass_hat_k(traces: Traces, ks: Sequence[int]) -> Float[np.ndarray, "q k"]:
    """Return the chance that all of k samples are correct (pass^k): C(c, k) / C(n, k).

    Parameters and errors as for `pass_at_k`.

    References
    ----------
    arXiv 2406.12045 (tau-bench).
    """
    result = _empty(traces, ks)
    for block in blocks(traces):
        n = block.rows.shape[1]
        result[block.index] = misses(n, ks)[n - traces.correct[block.rows].sum(1)]
    return result


def g_pass_at_k(traces: Traces, ks: Sequence[int], tau: float) -> Float[np.ndarray, "q k"]:
    """Return the chance that at least ceil(tau k) of k samples are correct.

    Parameters
    ----------
    tau
        Share in (0, 1]; 1 gives pass^k.

    References
    ----------
    arXiv 2412.13147 (GPassK).
    """
    if not 0 < tau <= 1:
        raise ValueError(f"tau ({tau}) must lie in (0, 1]")
    result = _empty(traces, ks)
    sizes = traces.sizes()
    right = np.bincount(traces.question, weights=traces.correct, minlength=sizes.size).astype(int)
    for column, k in enumerate(ks):
        least = max(math.ceil(tau * k - 1e-9), 1)
        result[:, column] = [
            _tail(int(n), int(c), k, least) for n, c in zip(sizes, right, strict=True)
        ]
    return result


def mg_pass_at_k(traces: Traces, ks: Sequence[int]) -> Float[np.ndarray, "q k"]:
    """Return the mean of G-Pass@k over tau in (1/2, 1]: (2 / k) sum over i > ceil(k / 2).

    References
    ----------
    arXiv 2412.13147 (GPassK).
    """
    result = _empty(traces, ks)
    for column, k in enumerate(ks):
        for i in range(math.ceil(k / 2) + 1, k + 1):
            result[:, column] += 2 / k * g_pass_at_k(traces, [k], i / k)[:, 0]
    return result


def bon_at_k(
    traces: Traces, ks: Sequence[int], score: str, *, largest: bool = True
) -> Float[np.ndarray, "q k"]:
    """Return the chance that the sample with the largest score among k is correct.

    Equal scores are chosen among evenly.

    Parameters
    ----------
    score
        Name of a score, or "tokens" for the shortest (largest=False) or longest sample.

    Raises
    ------
    ValueError
        If there is no such score or a k is out of range.
    """
    result = _empty(traces, ks)
    if score != "tokens" and score not in traces.scores:
        raise ValueError(f"there is no score {score!r}; the traces have {sorted(traces.scores)}")
    for block in blocks(traces):
        values = block.tokens if score == "tokens" else block.scores[score]
        result[block.index] = ranked_at_k(
            -values if largest else values, traces.correct[block.rows], ks
        )
    return result


def ranked_at_k(
    values: Float[np.ndarray, "q n"], correct: np.ndarray, ks: Sequence[int]
) -> Float[np.ndarray, "q k"]:
    """Return the chance that the sample with the least value among k is correct."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, 1)
    right = np.take_along_axis(correct, order, 1).astype(np.float64)
    count, n = ranked.shape
    starts = np.concatenate([np.ones((count, 1), bool), ranked[:, 1:] != ranked[:, :-1]], 1)
    group = np.cumsum(starts.ravel()) - 1
    size = np.bincount(group)
    mean = np.bincount(group, weights=right.ravel()) / size
    better = np.flatnonzero(starts.ravel()) % n
    table = misses(n, ks)
    share = (table[better] - table[better + size]) * mean[:, None]
    result = np.zeros((count, len(ks)))
    np.add.at(result, np.flatnonzero(starts.ravel()) // n, share)
    return result


def misses(n: int, ks: Sequence[int]) -> Float[np.ndarray, "m k"]:
    """Return C(n - b, k) / C(n, k) for b = 0..n: the chance that k of n miss b given samples."""
    k = np.asarray(ks, np.float64)
    table = np.ones((n + 1, k.size))
    for b in range(n):
        table[b + 1] = table[b] * np.maximum(n - b - k, 0) / (n - b)
    return table


def check_ks(traces: Traces, ks: Sequence[int]) -> None:
    """Refuse a k below 1 or above the number of samples of a question."""
    sizes = traces.sizes()
    least = int(np.argmin(sizes))
    for k in ks:
        if not 1 <= k <= sizes[least]:
            raise ValueError(
                f"k ({k}) must lie in [1, {sizes[least]}]: question "
                f"{traces.questions[least]!r} has {sizes[least]} samples"
            )


def _empty(traces: Traces, ks: Sequence[int]) -> np.ndarray:
    check_ks(traces, ks)
    return np.zeros((len(traces.questions), len(ks)))


@lru_cache(maxsize=65536)
def _tail(n: int, c: int, k: int, least: int) -> float:
    ways = sum(math.comb(c, j) * math.comb(n - c, k - j) for j in range(least, min(c, k) + 1))
    return ways / math.comb(n, k)
