"""Products of the items' distributions, by sums of positive numbers only."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

Row = Float[np.ndarray, "..."]


def leave_one_out(rows: list[Row]) -> Iterator[tuple[int, Row]]:
    """Yield each number i with the convolution of all rows but the i-th.

    Divide and conquer: each half is handed the product of everything outside it, O(R^2 log I).
    """
    levels = [rows]  # products over aligned runs of 1, 2, 4, ... rows
    while len(levels[-1]) > 1:
        low = levels[-1]
        pairs = [np.convolve(a, b) for a, b in zip(low[::2], low[1::2], strict=False)]
        levels.append(pairs + low[len(pairs) * 2 :])
    todo = [(len(levels) - 1, 0, np.ones(1))]
    while todo:
        level, node, outside = todo.pop()
        if level == 0:
            yield node, outside
            continue
        below, left = levels[level - 1], 2 * node
        if left + 1 == len(below):
            todo.append((level - 1, left, outside))
            continue
        todo.append((level - 1, left, np.convolve(outside, below[left + 1])))
        todo.append((level - 1, left + 1, np.convolve(outside, below[left])))


def product(rows: list[Row]) -> Row:
    """Return the convolution of all rows."""
    out = np.ones(1)
    for row in rows:
        out = np.convolve(out, row)
    return out


def band(row: Row, width: int) -> Float[np.ndarray, "a width"]:
    """Return the matrix T with x[t - m : t + width] @ T = convolve(x, row)[t : t + width].

    m is the degree of `row`; T has width + m rows.
    """
    degree = len(row) - 1
    at = np.arange(width) - np.arange(width + degree)[:, None] + degree
    return np.where((at >= 0) & (at <= degree), row[at.clip(0, degree)], 0.0)
