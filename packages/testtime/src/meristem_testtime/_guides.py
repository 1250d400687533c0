"""Guides: what values a node, from outside (a reward) or inside (the model's own confidence)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from meristem_testtime._batching import Guide
from meristem_testtime._confidence import WIDTH, window_confidence
from meristem_testtime._engine import Engine, need
from meristem_testtime._nodes import Node
from meristem_testtime._particles import log_odds

Window = Literal["mean", "lowest", "bottom", "tail"]
Aggregate = Callable[[Sequence[float]], float]


def reward_guide(reward: Callable[[str, str], float], aggregate: Aggregate | None = None) -> Guide:
    """Return a guide that calls a reward.

    Parameters
    ----------
    reward
        Takes the question's name and the text of a path.
    aggregate
        How the rewards of the path's steps become one value, such as `min`, `math.prod` or
        `sum_log_odds`; by default the last one counts. `min` and products favour short paths.
    """

    async def guide(nodes: Sequence[Node]) -> Sequence[float]:
        if aggregate is None:
            return [reward(node.question, node.text) for node in nodes]
        return [
            aggregate([reward(each.question, each.text) for each in node.path()]) for node in nodes
        ]

    return guide


def sum_log_odds(rewards: Sequence[float]) -> float:
    """Return the sum of ln(r / (1 - r)) over the rewards of steps, each in [0, 1].

    Rewards within 1e-7 of 0 or 1 count as that far from it, as in `particles`, whose "emission"
    target weighs a path by the exponential of this sum.

    Raises
    ------
    ValueError
        If a reward lies outside [0, 1].

    Examples
    --------
    >>> round(sum_log_odds([0.9, 0.75]), 4)
    3.2958
    """
    return sum(log_odds(reward) for reward in rewards)


def confidence_guide(kind: Window = "mean", width: int = WIDTH) -> Guide:
    """Return a guide that reads the log-probabilities of the path's sampled tokens, in nats.

    Parameters
    ----------
    kind
        Their mean, or what `window_confidence` makes of them: the "lowest" window, the mean of the
        "bottom" tenth of the windows, or the "tail".
    width
        Tokens in a window; a shorter path is one window.

    Raises
    ------
    ValueError
        If kind is unknown or width below 1; while it guides, if the engine gives no
        log-probabilities.

    References
    ----------
    DeepConf, arXiv 2508.15260, there for the likeliest tokens in place of the sampled.
    """
    if kind not in get_args(Window) or width < 1:
        raise ValueError(
            f"kind is {kind!r}, width {width}; choose one of {', '.join(get_args(Window))}, and a "
            "width of at least 1"
        )

    async def guide(nodes: Sequence[Node]) -> Sequence[float]:
        values: list[float] = []
        for node in nodes:
            logprobs = [value for each in node.path() for value in each.logprobs]
            if not logprobs and node.ids:
                raise ValueError(
                    f"{node.text[-80:]!r} has no log-probabilities; use an engine that gives them "
                    "and search with logprobs=True, or use a reward_guide"
                )
            found = window_confidence(np.array(logprobs), width) if logprobs else None
            values.append(0.0 if found is None else getattr(found, kind))
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
