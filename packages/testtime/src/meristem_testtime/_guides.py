"""Guides: what values a node, from outside (a reward) or inside (the model's own confidence)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from meristem_testtime._batching import Guide
from meristem_testtime._engine import Engine, need
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
    """Return a guide that gives the mean log-probability of the path's sampled tokens, in nats.

    Raises
    ------
    ValueError
        While it guides, if the engine gives no log-probabilities.
    """

    async def guide(nodes: Sequence[Node]) -> Sequence[float]:
        values: list[float] = []
        for node in nodes:
            logprobs = [value for each in node.path() for value in each.logprobs]
            if not logprobs and node.ids:
                raise ValueError(
                    f"{node.text[-80:]!r} has no log-probabilities; use an engine that gives them, "
                    "or a reward_guide"
                )
            values.append(float(np.mean(logprobs)) if logprobs else 0.0)
        return values

    return guide


def self_evaluation_guide(
    engine: Engine, prompt: Callable[[str, str], str], yes: str = "yes", no: str = "no"
) -> Guide:
    """Return a guide that asks the model itself: p(yes) / (p(yes) + p(no)) after a prompt.

    Parameters
    ----------
    engine
        With the capability "scores"; give the `ReplayEngine` of the search to record its answers.
    prompt
        Takes the question's name and the text of a path; returns what is put before yes and no.
    yes, no
        Different texts; several tokens count with the product of their probabilities.

    References
    ----------
    arXiv 2207.05221, P(True).
    """
    need(engine, "scores")
    words = [engine.encode(yes), engine.encode(no)]
    if words[0] == words[1]:
        raise ValueError(f"yes ({yes!r}) and no ({no!r}) have the same tokens; take others")

    async def guide(nodes: Sequence[Node]) -> Sequence[float]:
        asked = [engine.encode(prompt(node.question, node.text)) for node in nodes]
        found = await engine.logprobs([(each, word) for each in asked for word in words])
        sums = np.array([sum(scores) for scores in found]).reshape(-1, 2)
        gap = np.clip(sums[:, 1] - sums[:, 0], -700, 700)
        return (1 / (1 + np.exp(gap))).tolist()

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
