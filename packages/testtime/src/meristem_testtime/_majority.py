"""Exact majority@k, with ties, for every k at once.

- class j wins a k-subset with m votes if every other class has fewer, or as many and the tie falls
  to j; sharing a tie evenly is an integral over y of y**(number of tied classes)
- the chosen votes of the other classes multiply as polynomials in x, whose coefficient k - m counts
  subsets; Gauss-Legendre nodes make the integral exact, because the integrand is a polynomial in y
- all terms are positive: nothing cancels, and the error stays near the rounding of one product
- above MAX_PLAIN samples binomials overflow: weights C(c, s) p**s (1 - p)**(c - s) replace them
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_testtime._counting import check_ks
from meristem_testtime._traces import Traces, blocks

MAX_PLAIN = 512  # C(1024, 512) is near the largest float64; halve it for products
CELLS = 4_000_000  # of one coefficient array

Credit = Literal["uniform", "loss", "win"]


def maj_at_k(
    traces: Traces, ks: Sequence[int], *, ties: Credit = "uniform"
) -> Float[np.ndarray, "q k"]:
    """Return the chance that the majority of k samples is correct, exactly.

    Parameters
    ----------
    ks
        Numbers of samples, 1 <= k <= n for every question; all k cost little more than one.
    ties
        "uniform": a tie is broken evenly; "loss" and "win": a tie between right and wrong classes
        counts 0 or 1, which bounds every other rule. A subset without any answer is wrong.

    Raises
    ------
    ValueError
        If a k is out of range or the tie rule is unknown.

    Notes
    -----
    W_j(k) C(n, k) = sum_m C(c_j, m) [x**(k - m)] (1 + x)**n_0
    integral_0^1 prod_{i != j} (sum_{s < m} C(c_i, s) x**s + y C(c_i, m) x**m) dy

    Examples
    --------
    >>> import numpy as np
    >>> from meristem_testtime import Traces
    >>> traces = Traces(
    ...     question=np.zeros(5, int), answer=np.array([0, 0, 0, 1, 1]), tokens=np.ones(5, int),
    ...     correct=np.array([True, True, True, False, False]), questions=("q",),
    ... )
    >>> maj_at_k(traces, [1, 3, 5]).round(3), maj_at_k(traces, [2], ties="loss").round(3)
    (array([[0.6, 0.7, 1. ]]), array([[0.3]]))
    """
    check_ks(traces, ks)
    if ties not in ("uniform", "loss", "win"):
        raise ValueError(f"ties is {ties!r}; choose 'uniform', 'loss' or 'win'")
    result = np.zeros((len(traces.questions), len(ks)))
    wanted = np.asarray(ks, np.int64)
    known: dict[tuple[int, tuple[int, ...], tuple[int, ...]], np.ndarray] = {}
    for block in blocks(traces):
        n, classes = block.rows.shape[1], block.right.shape[1]
        for row, index in enumerate(block.index):
            answer = block.answer[row]
            counts = np.bincount(answer[answer >= 0], minlength=classes)
            right, wrong = counts[block.right[row]], counts[~block.right[row]]
            key = (n, tuple(np.sort(right[right > 0])), tuple(np.sort(wrong[wrong > 0])))
            if key not in known:
                ballot = (np.array(key[1], np.int64), np.array(key[2], np.int64))
                known[key] = _accuracy(*ballot, n, wanted, ties)
            result[index] = known[key]
    return result


def _accuracy(
    right: Int[np.ndarray, " a"],
    wrong: Int[np.ndarray, " b"],
    n: int,
    ks: Int[np.ndarray, " k"],
    ties: Credit,
) -> Float[np.ndarray, " k"]:
    """Sum over right classes; of several tied right ones, "loss" and "win" count the first."""
    total = np.zeros(ks.size)
    for j, count in enumerate(right):
        others = np.concatenate([np.delete(right, j), wrong])
        if ties == "uniform":
            strict = np.zeros(0, bool)
        else:
            after = np.arange(others.size) >= j
            strict = np.where(np.arange(others.size) < right.size - 1, ~after, ties == "loss")
        total += _wins(int(count), others, strict, n, ks)
    return np.minimum(total, 1.0)


def _wins(
    count: int,
    others: Int[np.ndarray, " c"],
    strict: Bool[np.ndarray, " d"],
    n: int,
    ks: Int[np.ndarray, " k"],
) -> Float[np.ndarray, " k"]:
    """Return P(a class of `count` samples wins); `strict`: which classes it must beat outright.

    An empty `strict` shares ties evenly.
    """
    if n <= MAX_PLAIN:
        return _coefficients(count, others, strict, n, ks, None)
    parts = [_coefficients(count, others, strict, n, ks[i : i + 1], float(k) / (n + 1))
             for i, k in enumerate(ks)]  # fmt: skip
    return np.concatenate(parts)


def _coefficients(
    count: int,
    others: np.ndarray,
    strict: np.ndarray,
    n: int,
    ks: np.ndarray,
    tilt: float | None,
) -> Float[np.ndarray, " k"]:
    total = np.zeros(ks.size)
    top = int(ks.max())
    denominator = _pmf(n, tilt)[ks]
    own = _pmf(count, tilt)
    unanswered = _pmf(n - count - int(others.sum()), tilt)
    nodes = 1 if strict.size else others.size // 2 + 1
    step = max(CELLS // (nodes * (top + 1)), 1)
    last = min(count, top)
    for low in range(1, last + 1, step):
        m = np.arange(low, min(low + step, last + 1))
        product = _product(m, others, strict, unanswered, top, tilt)
        place = ks[None, :] - m[:, None]
        found = np.take_along_axis(product, np.maximum(place, 0), 1)
        total += (own[m][:, None] * np.where(place >= 0, found, 0.0)).sum(0)
    return total / denominator


def _product(
    m: Int[np.ndarray, " m"],
    others: np.ndarray,
    strict: np.ndarray,
    unanswered: np.ndarray,
    top: int,
    tilt: float | None,
) -> Float[np.ndarray, "m t"]:
    """Return, for each m, the coefficients of the other classes' votes, ties integrated out."""
    y, weight = _nodes(int((others >= m[0]).sum()), even=not strict.size)
    value = np.zeros((m.size, y.size, top + 1))
    degree = min(unanswered.size - 1, top)
    value[:, :, : degree + 1] = unanswered[: degree + 1]
    for i, c in enumerate(others):
        share = y if not strict.size else np.full(1, 0.0 if strict[i] else 1.0)
        terms = _pmf(int(c), tilt)
        s = np.arange(min(int(c), top, int(m[-1])) + 1)
        below = (s[None, :] < m[:, None])[:, None, :]
        equal = (s[None, :] == m[:, None])[:, None, :]
        factor = terms[s] * (below + equal * share[None, :, None])
        grown = np.zeros_like(value)
        for each in s:
            end = min(degree, top - each)
            grown[:, :, each : each + end + 1] += factor[:, :, each, None] * value[:, :, : end + 1]
        value, degree = grown, min(degree + s.size - 1, top)
    return np.einsum("mgt,g->mt", value, weight)


def _nodes(degree: int, *, even: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss-Legendre nodes and weights on [0, 1], exact up to `degree`."""
    if not even:
        return np.zeros(1), np.ones(1)
    node, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (node + 1) / 2, weight / 2


def _pmf(n: int, tilt: float | None) -> Float[np.ndarray, " m"]:
    """Return C(n, s), s = 0..n, or the binomial probabilities with success chance `tilt`."""
    s = np.arange(n + 1)
    if tilt is None:
        return np.cumprod(np.concatenate([[1.0], (n - s[:-1]) / (s[:-1] + 1)]))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_ways = log_factorial[n] - log_factorial[s] - log_factorial[n - s]
    return np.exp(log_ways + s * np.log(tilt) + (n - s) * np.log1p(-tilt))
