"""The tree search of ReST-MCTS*: a value model, mixed with what a short greedy rollout reaches.

- a simulation descends by V + c sqrt(2 ln N / n), expands the leaf, and rolls out from its best
  child: V of that child becomes (1 - alpha) V + alpha times the largest value on the way
- V of an expanded node is the mean of its children's, weighted by their visits
- the search ends at a finished leaf that is good enough
"""

import math
from dataclasses import dataclass, field

from meristem_testtime._nodes import Node
from meristem_testtime._siblings import merged
from meristem_testtime._task import Algorithm, Task

UNVISITED = 1.0  # added to V of a child without visits; the authors' `inf`, the range of V


@dataclass(slots=True, kw_only=True, eq=False)
class Place:
    """A node with its V and its visits."""

    node: Node
    value: float
    visits: int = 0
    children: list["Place"] = field(default_factory=list["Place"])


def rest_mcts(
    simulations: int,
    branch: int = 3,
    *,
    c: float = 0.7,
    alpha: float = 0.5,
    forward: int = 3,
    enough: float = 0.9,
) -> Algorithm:
    """Return the tree search of ReST-MCTS*; solutions are weighted by their visits.

    Parameters
    ----------
    simulations
        Most descents from the root.
    branch
        Children that an expansion samples; those with equal tokens are one.
    c
        Of exploration; suits values in [0, 1].
    alpha
        Share of the rollout in the value of the best new child, in [0, 1].
    forward
        Most steps of a rollout, one sample each. They are no part of the tree.
    enough
        The search ends when it arrives at a finished leaf of this value.

    Notes
    -----
    The authors' code also ends at an unfinished leaf of that value, and draws among equal children;
    here the leaf is expanded, and the first child is taken.

    References
    ----------
    arXiv 2406.03816, section 3.3; defaults from THUDM/ReST-MCTS.
    """
    if simulations < 1 or branch < 1 or forward < 1:
        raise ValueError(
            f"simulations ({simulations}), branch ({branch}) and forward ({forward}) must be at "
            "least 1"
        )
    if not 0 <= alpha <= 1 or not c >= 0 or math.isnan(enough):
        raise ValueError(
            f"alpha ({alpha}) must lie in [0, 1], c ({c}) be at least 0, enough ({enough}) a number"
        )

    async def algorithm(task: Task) -> None:
        root = Place(node=task.root, value=0.0)
        try:
            for _ in range(simulations):
                path = _descend(root, c)
                leaf = path[-1]
                if leaf.node.finished and leaf.value >= enough:
                    return
                if not leaf.node.finished:
                    (nodes,) = await task.expand([leaf.node], branch)
                    leaf.children = [Place(node=node, value=node.value) for node in merged(nodes)]
                    best = max(leaf.children, key=lambda child: child.value)
                    ahead = await _ahead(task, best.node, forward)
                    best.value = (1 - alpha) * best.value + alpha * ahead
                    best.visits += 1
                _back(path)
        finally:
            _give(task, root)

    return algorithm


def _descend(root: Place, c: float) -> list[Place]:
    path = [root]
    while path[-1].children:
        log_visits = math.log(path[-1].visits)
        path.append(max(path[-1].children, key=lambda child: _bound(child, log_visits, c)))
    return path


def _bound(child: Place, log_visits: float, c: float) -> float:
    if not child.visits:
        return child.value + UNVISITED
    return child.value + c * math.sqrt(2 * log_visits / child.visits)


async def _ahead(task: Task, node: Node, forward: int) -> float:
    """Return the largest value within `forward` further steps; a finished node gives its own."""
    if node.finished:
        return node.value
    values: list[float] = []
    while not node.finished and len(values) < forward:
        ((node,),) = await task.expand([node])
        values.append(node.value)
    return max(values)


def _back(path: list[Place]) -> None:
    for place in reversed(path):
        place.visits += 1
        visits = sum(child.visits for child in place.children)
        if visits:
            place.value = sum(child.value * child.visits for child in place.children) / visits


def _give(task: Task, root: Place) -> None:
    stack = [root]
    while stack:
        place = stack.pop()
        if place.node.finished and place.visits:
            task.finish(place.node, float(place.visits))
        stack += reversed(place.children)
