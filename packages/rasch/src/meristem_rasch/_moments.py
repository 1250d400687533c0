"""Second moments of the category indicators given the raw score, by matrix products.

- prefixes G_ih, the distribution of the first items' score with x_i = h fixed, are carried through
  the items in runs of about `RUN` steps, so that the work is (7/3) R^3 multiplications in BLAS
- for an item j of the run, M_(ih),(jl) = sum_s G_ih[s] B_jl[s], B_jl the backward pass through the
  run with x_j = l fixed; pairs within a run are counted item by item
- all terms are positive: nothing cancels

Legend: H thresholds in order of items; L scores reachable before the run.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from meristem_rasch._kernel import Block
from meristem_rasch._products import Row, band, leave_one_out, product

RUN = 32  # steps carried by one matrix product
WIDTH = 96  # columns moved by one matrix product


def second_moments(block: Block, rest: Sequence[Row]) -> Float[np.ndarray, "H H"]:
    """Return sum_r n_r P(x_i = h, x_j = l | r) over categories h, l >= 1, items in order."""
    tops = np.diff([len(before) for before in block.forward])
    start = np.concatenate([[0], np.cumsum(tops)])
    size, pad = int(start[-1]), int(max(RUN, tops.max()))
    moments = np.zeros((size, size))
    fixed = np.zeros((size, pad + size + 1 + WIDTH))  # `pad` zeros stand for scores below 0
    for first, last in _runs(tops):
        rows = [block.w[j, : tops[j] + 1] for j in range(first, last)]
        a, b = int(start[first]), int(start[last])
        if a:
            later = _backward(rows, rest[last], a + 1)
            moments[:a, a:b] = fixed[:a, pad : pad + a + 1] @ later.T
            moments[a:b, :a] = moments[:a, a:b].T
            _move(fixed[:a], pad, a + 1, product(rows))
        inner, carried = _within(rows, block.forward[first], rest[first + 1 : last + 1])
        moments[a:b, a:b] = inner
        fixed[a:b, pad : pad + b + 1] = carried
    return moments


def _runs(tops: Int[np.ndarray, " I"]) -> Iterator[tuple[int, int]]:
    first = 0
    while first < len(tops):
        last, steps = first + 1, int(tops[first])
        while last < len(tops) and steps + tops[last] <= RUN:
            steps += int(tops[last])
            last += 1
        yield first, last
        first = last


def _backward(rows: list[Row], after: Row, length: int) -> Float[np.ndarray, "h L"]:
    """Return B_jl[s], the weight of the rest of the test given s before the run and x_j = l."""
    out: dict[int, list[Row]] = {}
    for j, others in leave_one_out(rows):
        reach = length + len(others) - 1
        out[j] = [
            rows[j][h] * np.correlate(after[h : h + reach], others, "valid")
            for h in range(1, len(rows[j]))
        ]
    return np.array([line for j in range(len(rows)) for line in out[j]])


def _move(fixed: Float[np.ndarray, "n C"], pad: int, length: int, row: Row) -> None:
    """Convolve every row of `fixed` with `row` in place, from the last columns to the first."""
    matrix, degree = band(row, WIDTH), len(row) - 1
    for t in range((length + degree - 1) // WIDTH * WIDTH, -1, -WIDTH):
        at = pad + t
        fixed[:, at : at + WIDTH] = fixed[:, at - degree : at + WIDTH] @ matrix


def _within(
    rows: list[Row], before: Row, rest: Sequence[Row]
) -> tuple[Float[np.ndarray, "h h"], Float[np.ndarray, "h S"]]:
    """Return the moments within a run and its prefixes carried to the end of the run."""
    size, length = sum(len(row) - 1 for row in rows), len(before)
    moments, fixed, n = np.zeros((size, size)), np.zeros((size, length + size)), 0
    for row, after in zip(rows, rest, strict=True):
        carried = fixed[:n, :length]
        for h in range(1, len(row)):
            column = row[h] * (carried @ after[h : h + length])
            moments[:n, n + h - 1] = moments[n + h - 1, :n] = column
            moments[n + h - 1, n + h - 1] = row[h] * float(before @ after[h : h + length])
            fixed[n + h - 1, h : h + length] = row[h] * before
        moved = np.zeros((n, length + len(row) - 1))
        for h, w in enumerate(row):
            moved[:, h : h + length] += w * carried
        length += len(row) - 1
        fixed[:n, :length] = moved
        before, n = np.convolve(before, row), n + len(row) - 1
    return moments, fixed
