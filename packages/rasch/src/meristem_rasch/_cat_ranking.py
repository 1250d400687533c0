"""Which item an adaptive test gives next.

- most Fisher information at the current estimate ("information"), difficulty closest to it
  ("closest"), most Kullback-Leibler information within 3 / sqrt(k) of it at the k-th place ("kl",
  Chang & Ying 1996: good while the estimate is still far off), or any ("random")
- items are ranked once on a grid of abilities, so that a step looks up a row

Legend: n examinees, m of them at work, I items, g abilities of the grid.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves, information

Rule = Literal["information", "closest", "kl", "random"]
REACH = 6.0  # logits beyond the outermost threshold
GRID = 801  # abilities at which items are ranked


def ranking_of(
    bank: Calibration, rule: Rule
) -> tuple[Callable[[int], Int[np.ndarray, "g I"]], Callable[[np.ndarray], Int[np.ndarray, " m"]]]:
    """Return the items from best to worst along a grid, by place, and an estimate's grid point."""
    if rule == "random":
        anyhow = np.arange(len(bank.items), dtype=np.int32)[None, :]
        return lambda place: anyhow, lambda theta: np.zeros(len(theta), dtype=np.int64)
    middle = float(bank.threshold.mean())
    reach = REACH + float(np.abs(bank.threshold - middle).max())
    grid = np.linspace(middle - reach, middle + reach, GRID)
    step = float(grid[1] - grid[0])

    def place_of(theta: np.ndarray) -> Int[np.ndarray, " m"]:
        return np.rint((theta - grid[0]) / step).astype(np.int64).clip(0, GRID - 1)

    if rule == "kl":
        return lambda place: _best_first(kullback_leibler(bank, grid, place + 1)), place_of
    closest = rule == "closest"
    worth = -np.abs(grid[:, None] - bank.difficulty) if closest else information(bank, grid)
    order = _best_first(worth)
    return lambda place: order, place_of


def _best_first(worth: Float[np.ndarray, "g I"]) -> Int[np.ndarray, "g I"]:
    return np.argsort(-worth, axis=1, kind="stable").astype(np.int32)


def kullback_leibler(
    bank: Calibration, grid: Float[np.ndarray, " g"], k: int
) -> Float[np.ndarray, "g I"]:
    """Return the integral of KL(theta0 || theta) over |theta - theta0| < 3 / sqrt(k), on a grid.

    The grid is equally spaced; where the interval leaves it, its part inside counts.
    """
    p = curves(bank, grid)[0]
    log_p = np.log(np.where(p > 0, p, 1.0))
    step = float(grid[1] - grid[0])
    reach = max(1, round(3 / np.sqrt(k) / step))
    low = np.maximum(np.arange(len(grid)) - reach, 0)
    high = np.minimum(np.arange(len(grid)) + reach, len(grid) - 1)
    # trapezoid rule from the first node
    sums = np.cumsum((log_p[1:] + log_p[:-1]) / 2 * step, axis=0)
    sums = np.concatenate([np.zeros((1, *p.shape[1:])), sums])
    width = ((high - low) * step)[:, None]
    return width * (p * log_p).sum(axis=2) - (p * (sums[high] - sums[low])).sum(axis=2)


def nth_free(
    order: Int[np.ndarray, "g I"],
    at: Int[np.ndarray, " m"],
    free: Bool[np.ndarray, "n I"],
    rows: Int[np.ndarray, " m"],
    rank: Int[np.ndarray, " m"],
    depth: int,
) -> Int[np.ndarray, " m"]:
    """Return the free item of this rank (0 = best); looks `depth` deep, deeper where it must."""
    candidates = order[:, :depth][at]
    count = free[rows[:, None], candidates].cumsum(axis=1)
    out = candidates[np.arange(len(rows)), (count > rank[:, None]).argmax(axis=1)].astype(np.int64)
    short = np.flatnonzero(count[:, -1] <= rank)
    if len(short):
        full = order.shape[1]
        out[short] = nth_free(order, at[short], free, rows[short], rank[short], full)
    return out
