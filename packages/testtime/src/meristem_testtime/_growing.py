"""Samples that grow token by token in step, for engines that compute in this process.

- one uniform number for each (seed, position), inverted through the cumulative probabilities: a
  sample depends on its seed and prompt alone, never on its neighbours
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from meristem_core import stream
from meristem_testtime._confidence import confidence_of
from meristem_testtime._engine import Completion, Finish, Request, Watch, window_of


class Sample:
    """Sample `place` of request number `group`, while it grows."""

    __slots__ = (
        "_window", "confidence", "finish", "group", "ids", "logprobs", "place", "request",
    )  # fmt: skip

    def __init__(self, request: Request, group: int, place: int) -> None:
        self.request, self.group, self.place = request, group, place
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.confidence: list[float] = []
        self.finish: Finish | None = None
        self._window = window_of(request)

    def extend(
        self,
        logprobs: Float[np.ndarray, " v"],
        end: int,
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        """Draw the next token from its log-probabilities; `end` is the token that ends a text."""
        position = len(self.request.prompt) + len(self.ids)
        seed = self.request.seed + self.place
        token = _draw(logprobs, self.request, seed, position)
        self.ids.append(token)
        self.logprobs.append(float(logprobs[token]))
        falls = self._judged(logprobs)
        if token == end:
            self.finish = "end"
        elif self.request.stop and any(stop in decode(self.ids) for stop in self.request.stop):
            self.finish = "stop"
        elif falls:
            self.finish = "unsure"
        elif len(self.ids) == self.request.max_tokens:
            self.finish = "length"

    def _judged(self, logprobs: Float[np.ndarray, " v"]) -> bool:
        """Note the confidence of the token, if asked for; return whether it ends the sample."""
        asked = self.request.confidence
        if asked is None:
            return False
        self.confidence.append(confidence_of(logprobs, asked.top))
        return self._window.falls(self.confidence[-1])

    def completion(self) -> Completion:
        """Return the finished sample."""
        if self.finish is None:
            raise RuntimeError("the sample is still growing")
        return Completion(
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs) if self.request.logprobs else (),
            finish=self.finish,
            confidence=tuple(self.confidence),
        )


def planted(requests: Sequence[Request]) -> list[list[Sample]]:
    """Return the samples of each request before their first token."""
    return [
        [Sample(request, group, place) for place in range(request.n)]
        for group, request in enumerate(requests)
    ]


def settle(
    grown: Iterable[Sample], groups: Sequence[Sequence[Sample]], watches: Mapping[int, Watch]
) -> None:
    """Tell the watches which of the samples that just `grown` ended; abort what they say."""
    for each in grown:
        watch = watches.get(each.group)
        if watch is None or each.finish is None or each.finish == "abort":
            continue
        if watch(each.place, each.completion()):
            for other in groups[each.group]:
                other.finish = other.finish or "abort"


def _draw(logprobs: Float[np.ndarray, " v"], request: Request, seed: int, position: int) -> int:
    if request.temperature == 0:
        return int(logprobs.argmax())
    scaled = likeliest(logprobs / request.temperature, request.top_p, request.top_k)
    cumulative: Float[np.ndarray, " v"] = np.cumsum(np.exp(scaled - scaled.max()))
    u = stream(seed, "token", position).random() * float(cumulative[-1])
    return min(int((cumulative <= u).sum()), logprobs.size - 1)


def likeliest(
    logits: Float[np.ndarray, " v"], top_p: float, top_k: int | None
) -> Float[np.ndarray, " v"]:
    """Return `logits` with -inf for tokens that `top_k`, and then `top_p`, leave out."""
    if top_k is not None and top_k < logits.size:
        least = np.partition(logits, -top_k)[-top_k]
        logits = np.where(logits >= least, logits, -np.inf)
    if top_p < 1:
        order = np.argsort(-logits, kind="stable")
        mass: Float[np.ndarray, " v"] = np.exp(logits[order] - logits.max())
        before = np.cumsum(mass) - mass
        kept = np.zeros(logits.size, bool)
        kept[order[before < top_p * mass.sum()]] = True
        logits = np.where(kept, logits, -np.inf)
    return logits
