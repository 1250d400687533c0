"""Searches over a tree of steps; each is a coroutine for one question.

- nodes of larger value are better; sorting is stable, so equal values keep the order of sampling
- widths and counts are at least 1
- to bfs, dfs and best_first, which choose among actions, children with equal tokens are one; where
  a child holds a slot (beam, dvts, rebase), each copy holds its own
"""

import heapq
import math
from collections.abc import Sequence
from itertools import count

import numpy as np
from jaxtyping import Float, Int

from meristem_testtime._nodes import Node
from meristem_testtime._siblings import merged
from meristem_testtime._task import Algorithm, Task


def best_of_n(n: int) -> Algorithm:
    """Return n independent whole samples; choose among them by a vote or `best`."""
    _check(n=n)

    async def algorithm(task: Task) -> None:
        for node in (await task.expand([task.root], n, whole=True))[0]:
            task.finish(node)

    return algorithm


def beam(n: int, width: int = 4) -> Algorithm:
    """Return beam search with n beams: the best n / width are kept, each with `width` children.

    Finished beams leave the pool and close their slot.

    References
    ----------
    arXiv 2408.03314; width from huggingface/search-and-learn.
    """
    _check(n=n, width=width)
    if n % width:
        raise ValueError(f"n ({n}) must be a multiple of width ({width})")

    async def algorithm(task: Task) -> None:
        pool = (await task.expand([task.root], n))[0]
        slots = n
        while pool:
            for node in pool:
                if node.finished:
                    task.finish(node)
                    slots -= 1
            kept = _best([node for node in pool if not node.finished], math.ceil(slots / width))
            share = [slots // len(kept) + (i < slots % len(kept)) for i in range(len(kept))]
            pool = _flat(await task.expand(kept, share))

    return algorithm


def dvts(n: int, width: int = 4) -> Algorithm:
    """Return diverse verifier tree search: n / width subtrees, each greedy among `width` children.

    A subtree ends when its best child is finished; all children of that last expansion that are
    finished are solutions.

    References
    ----------
    Beeching et al. 2024, "Scaling test-time compute with open models".
    """
    _check(n=n, width=width)
    if n % width:
        raise ValueError(f"n ({n}) must be a multiple of width ({width})")

    async def algorithm(task: Task) -> None:
        first = (await task.expand([task.root], n))[0]
        groups = [first[i : i + width] for i in range(0, n, width)]
        while groups:
            going: list[Node] = []
            for group in groups:
                (best,) = _best(group, 1)
                if best.finished:
                    for node in group:
                        if node.finished:
                            task.finish(node)
                else:
                    going.append(best)
            groups = await task.expand(going, width)

    return algorithm


def rebase(n: int, temperature: float = 0.2) -> Algorithm:
    """Return reward-balanced search: open slots are shared among nodes by softmax of their value.

    References
    ----------
    arXiv 2408.00724; defaults from its code.
    """
    _check(n=n)
    if not temperature > 0:
        raise ValueError(f"temperature ({temperature}) must be above 0")

    async def algorithm(task: Task) -> None:
        level = (await task.expand([task.root], n))[0]
        left = n
        while level:
            for node in level:
                if node.finished:
                    task.finish(node)
                    left -= 1
            going = _best([node for node in level if not node.finished], n)
            values = np.array([node.value for node in going], np.float64)
            widths = rebase_widths(values, left, temperature)
            level = _flat(await task.expand(going, widths.tolist()))

    return algorithm


def rebase_widths(
    values: Float[np.ndarray, " m"], total: int, temperature: float
) -> Int[np.ndarray, " m"]:
    """Return how many of `total` children each node gets, values sorted from large to small.

    Notes
    -----
    In order, node i gets ceil(R exp(v_i / T) / sum over j >= i of exp(v_j / T)), R what is left.

    Examples
    --------
    >>> rebase_widths(np.array([1.0, 1.0, 1.0]), 7, 0.2)
    array([3, 2, 2])
    """
    widths = np.zeros(values.size, np.int64)
    if not values.size:
        return widths
    weight = np.exp((values - values.max()) / temperature)
    rest = np.cumsum(weight[::-1])[::-1]
    left = total
    for i in range(values.size):
        if left == 0 or rest[i] == 0:
            break
        widths[i] = min(left, math.ceil(left * weight[i] / rest[i] - 1e-12))
        left -= int(widths[i])
    return widths


def bfs(width: int = 5, branch: int = 5) -> Algorithm:
    """Return breadth-first search of Tree of Thoughts: keep the best `width` of each level.

    Finished nodes compete for a place; those that hold one are solutions.

    References
    ----------
    arXiv 2305.10601, algorithm 1.
    """
    _check(width=width, branch=branch)

    async def algorithm(task: Task) -> None:
        level = [task.root]
        while level:
            groups = await task.expand(level, branch)
            kept = _best(_flat([list(merged(group)) for group in groups]), width)
            for node in kept:
                if node.finished:
                    task.finish(node)
            level = [node for node in kept if not node.finished]

    return algorithm


def dfs(branch: int = 5, threshold: float = -math.inf, solutions: int | None = None) -> Algorithm:
    """Return depth-first search: best child first, subtrees valued below `threshold` are cut.

    Parameters
    ----------
    solutions
        Stop after so many; None visits everything, so set a budget.

    References
    ----------
    arXiv 2305.10601, algorithm 2.
    """
    _check(branch=branch, solutions=1 if solutions is None else solutions)

    async def algorithm(task: Task) -> None:
        stack, found = [task.root], 0
        while stack and found != solutions:
            node = stack.pop()
            if node.finished:
                task.finish(node)
                found += 1
                continue
            children = merged((await task.expand([node], branch))[0])
            stack += reversed(_best([c for c in children if c.value >= threshold], branch))

    return algorithm


def best_first(branch: int = 5, solutions: int = 1) -> Algorithm:
    """Return best-first search: always the open node of largest value, until `solutions` are found.

    With a guide that subtracts the cost of the path it is A*.
    """
    _check(branch=branch, solutions=solutions)

    async def algorithm(task: Task) -> None:
        order = count()
        queue: list[tuple[float, int, Node]] = [(0.0, next(order), task.root)]
        found = 0
        while queue and found < solutions:
            node = heapq.heappop(queue)[2]
            if node.finished:
                task.finish(node)
                found += 1
                continue
            for child in merged((await task.expand([node], branch))[0]):
                heapq.heappush(queue, (-child.value, next(order), child))

    return algorithm


def best(nodes: Sequence[Node]) -> Node:
    """Return the node of largest value, the first of several.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not nodes:
        raise ValueError("there is no node to choose from; raise the budget or max_steps")
    return max(nodes, key=lambda node: node.value)


def _best(nodes: Sequence[Node], n: int) -> list[Node]:
    return sorted(nodes, key=lambda node: -node.value)[:n]


def _flat(groups: Sequence[Sequence[Node]]) -> list[Node]:
    return [node for group in groups for node in group]


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} ({value}) must be at least 1")
