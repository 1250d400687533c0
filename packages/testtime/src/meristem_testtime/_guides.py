"""Guides: what values a node, from outside (a reward) or inside (the model's own confidence)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from meristem_testtime._batching import Guide
from meristem_testtime._nodes import Node

Aggregate = Callable[[Sequence[float]], float]


def reward_guide(reward: Callable[[str, str], float], aggregate: Aggregate | None = None) -> Guide:
    """Return a guide that calls a reward.

    Parameters
    ----------
    reward
        Takes the question's name and the text of a path.
    aggregate
        How the rewards of the path's steps become one value, such as `min` or `math.prod`; by
        default the last one counts. `min` and products favour short paths.
    """

    async def guide(nodes: Sequence[Node]) -> Sequence[float]:
        if aggregate is None:
            return [reward(node.question, node.text) for node in nodes]
        return [
            aggregate([reward(each.question, each.text) for each in node.path()]) for node in nodes
        ]

    return guide


def confidence_guide() -> Guide:
    """Return a guide that gives the mean log-probability of the path's sampled tokens, in nats."""

    async def guide(nodes: Sequence[Node]) -> Sequence[float]:
        values: list[float] = []
        for node in nodes:
            logprobs = [value for each in node.path() for value in each.logprobs]
            values.append(float(np.mean(logprobs)) if logprobs else 0.0)
        return values

    return guide


def blend(parts: Mapping[Guide, float]) -> Guide:
    """Return the weighted sum of guides."""
    if not parts:
        raise ValueError("there is no guide to blend; give at least one")

    async def guide(nodes: Sequence[Node]) -> Sequence[float]:
        total = np.zeros(len(nodes))
        for part, weight in parts.items():
            total += weight * np.asarray(await part(nodes), np.float64)
        return total.tolist()

    return guide
