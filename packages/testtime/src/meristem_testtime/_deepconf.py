"""Samples that end as soon as the model is unsure, weighed by how sure it was (DeepConf)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from meristem_testtime._confidence import (
    ROUNDING,
    TOP,
    WIDTH,
    early_stop_threshold,
    window_confidence,
)
from meristem_testtime._engine import Confidence
from meristem_testtime._nodes import Node
from meristem_testtime._task import Algorithm, Task


def deepconf(
    n: int,
    *,
    warmup: int = 16,
    keep: float = 0.9,
    width: int = WIDTH,
    top: int = TOP,
    answer: Callable[[str], str | None] | None = None,
    consensus: float = 0.95,
    batch: int = 1,
) -> Algorithm:
    """Return n whole samples, those after the warm-up ended where the model is unsure.

    The least window confidence of each of the first `warmup` samples is measured; the share `keep`
    of these lies above the threshold. A later sample ends with the first full window below. Ended
    samples, and samples of the warm-up below the threshold, are no solutions; the weight of the
    others is their least window confidence, so `weighted("weight")` is the source's vote.

    Parameters
    ----------
    n, warmup
        Samples at most and of the warm-up, at least 1 and at most n.
    keep
        Share of the warm-up that would not have been ended, in (0, 1): the source's 0.1 ends many
        ("low"), 0.9 few ("high").
    width, top
        Tokens in a window, and likeliest tokens, as for `window_means` and `token_confidence`.
    answer
        Takes a solution's text and returns its answer's key, or None without an answer; no further
        sample is drawn once the answers agree. By default all n are drawn, at once.
    consensus
        Share, in (0, 1], of the weight of all answers that one must have for that.
    batch
        Samples after the warm-up that run together, between two looks at the answers.

    Raises
    ------
    UnsupportedError
        If the engine does not return confidence.

    References
    ----------
    arXiv 2508.15260, section 3.3.
    """
    if not 1 <= warmup <= n:
        raise ValueError(f"warmup ({warmup}) must lie in [1, n], n is {n}")
    if not 0 < keep < 1:
        raise ValueError(f"keep ({keep}) must lie in (0, 1)")
    if not 0 < consensus <= 1 or batch < 1:
        raise ValueError(f"consensus ({consensus}) must lie in (0, 1], batch ({batch}) be positive")
    asked = Confidence(top=top, width=width)

    async def algorithm(task: Task) -> None:
        votes: dict[str | None, float] = {}

        def give(nodes: Sequence[Node]) -> None:
            for node in nodes:
                weight = _least(node, width)
                if node.finished and weight >= least - ROUNDING:
                    task.finish(node, weight)
                    key = None if answer is None else answer(node.text)
                    votes[key] = votes.get(key, 0.0) + weight

        (first,) = await task.expand([task.root], warmup, whole=True, confidence=asked)
        least = early_stop_threshold(np.array([_least(node, width) for node in first]), keep)
        give(first)
        falling, left = replace(asked, least=least), n - warmup
        while left and not _agree(votes, consensus):
            size = left if answer is None else min(batch, left)
            (rest,) = await task.expand([task.root], size, whole=True, confidence=falling)
            give(rest)
            left -= size

    return algorithm


def _agree(votes: Mapping[str | None, float], consensus: float) -> bool:
    stated = [weight for key, weight in votes.items() if key is not None]
    return bool(stated) and max(stated) >= consensus * sum(stated)


def _least(node: Node, width: int) -> float:
    return window_confidence(np.array(node.confidence), width).lowest
