"""Whole solutions from any server with `/chat/completions`.

- an id is a piece of text, as such a server shows no tokens
- samples that a watch may abort are streamed: an aborted one counts the pieces that arrived
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from meristem_testtime._batching import together
from meristem_testtime._engine import (
    MENDS,
    UNWATCHED,
    Capability,
    Completion,
    EngineError,
    Finish,
    Pair,
    Request,
    UnsupportedError,
    Watch,
)
from meristem_testtime._remote import Take
from meristem_testtime._server import SEEDS, Server, choices_in, choices_of, part
from meristem_testtime._watching import sampled, unless

TEXT_PIECE = 8  # bytes of a prompt's pieces
LONGEST_PIECE = 1000  # bytes; a piece is a number of fewer than 4300 digits, as JSON readers allow


class ChatEngine(Server):
    """An engine over `/chat/completions`: whole solutions from any server, and nothing else.

    Such a server shows no token ids. An id is a piece of text, written as a number: a sample has
    as many ids as the server counted tokens, so lengths are its own; where one token ends and the
    next begins is not known. There are no log-probabilities, and a prompt cannot end in the middle
    of an answer. Each sample is a request of its own, as not every server takes n.

    Parameters
    ----------
    base_url, model, api_key, timeout, retries, concurrency
        As for `OpenAIEngine`.

    Raises
    ------
    EngineError
        As for `OpenAIEngine`, or if the server does not count tokens.
    """

    capabilities: frozenset[Capability] = frozenset({"abort"})
    context: int | None = None

    def __enter__(self) -> "ChatEngine":
        return self

    @property
    def identity(self) -> str:
        """Return the model's name."""
        return f"chat:{self.model}"

    def encode(self, text: str) -> tuple[int, ...]:
        """Return `text` in pieces."""
        data = text.encode()
        return _pieces(data, math.ceil(len(data) / TEXT_PIECE))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of pieces."""
        data = b"".join(i.to_bytes((i.bit_length() + 7) // 8, "big")[1:] for i in ids)
        return data.decode(errors="replace")

    async def generate(
        self, requests: Sequence[Request], watches: Mapping[int, Watch] = UNWATCHED
    ) -> list[list[Completion]]:
        """Return the samples of each request; stop strings, `top_k`, confidence are refused."""
        if any(request.stop for request in requests):
            raise UnsupportedError(self.identity, "stop", MENDS["continue"])
        if any(request.top_k is not None for request in requests):
            raise UnsupportedError(self.identity, "top_k", MENDS["top_k"])
        if any(request.confidence is not None for request in requests):
            raise UnsupportedError(self.identity, "confidence", MENDS["confidence"])
        return await sampled(requests, watches, self._sampled, self._until)

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Raise an error: a chat cannot score a given text."""
        raise UnsupportedError(self.identity, "scores", "use http.OpenAIEngine with vLLM behind it")

    async def _sampled(self, request: Request) -> list[Completion]:
        return await together(
            self._sample(replace(request, n=1, seed=request.seed + i)) for i in range(request.n)
        )

    async def _sample(self, request: Request) -> Completion:
        return self._completion(
            await self._transport.post("/chat/completions", self._body(request))
        )

    async def _until(self, request: Request, halt: asyncio.Event) -> Completion:
        """Return the one sample of `request`, or what arrived of it when `halt` is set."""
        body = self._body(request) | {"stream_options": {"include_usage": True}}
        events: list[dict[str, Any]] = []

        def begin() -> Take:
            events.clear()
            return lambda event: events.append(event) is not None

        await unless(halt, self._transport.stream("/chat/completions", body, begin))
        answer = _spoken(list(events), halted=halt.is_set())
        if answer["choices"][0]["finish_reason"] is None and not halt.is_set():
            raise EngineError(f"engine {self.identity} ended a stream without a finish_reason")
        return self._completion(answer, halted=halt.is_set())

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": self.decode(request.prompt)}],
            "seed": request.seed % SEEDS,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            **({"top_p": request.top_p} if request.top_p < 1 else {}),
        }

    def _completion(self, answer: dict[str, Any], *, halted: bool = False) -> Completion:
        (choice,) = choices_of(answer, 1, self.identity)
        count = part(answer, "usage").get("completion_tokens")
        if not isinstance(count, int) or count < 0:
            raise EngineError(f"engine {self.identity} counts no tokens: usage is {count!r}")
        message = part(choice, "message")
        thought = message.get("reasoning") or message.get("reasoning_content") or ""
        data = f"{thought}{message.get('content') or ''}".encode()
        if len(data) > LONGEST_PIECE * count:
            raise EngineError(
                f"engine {self.identity} counts {count} tokens for {len(data)} bytes; its usage "
                "cannot be right"
            )
        finish: Finish = "length" if choice.get("finish_reason") == "length" else "end"
        if halted and choice.get("finish_reason") is None:
            finish = "abort"
        return Completion(ids=_pieces(data, count), logprobs=(), finish=finish)


def _spoken(events: Sequence[dict[str, Any]], *, halted: bool) -> dict[str, Any]:
    """Return the answer that the events of one streamed chat make.

    A server counts tokens in its last event; where that is missing, the pieces of an aborted sample
    are counted.
    """
    choices = choices_in(events)
    deltas = [part(choice, "delta") for choice in choices]
    thoughts = [each.get("reasoning") or each.get("reasoning_content") or "" for each in deltas]
    words = [each.get("content") or "" for each in deltas]
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    usages = [event["usage"] for event in events if event.get("usage")]
    if halted and not usages:
        reasons = []
        usages = [
            {"completion_tokens": sum(1 for pair in zip(thoughts, words, strict=True) if any(pair))}
        ]
    return {
        "choices": [
            {
                "message": {"content": "".join(words), "reasoning": "".join(thoughts)},
                "finish_reason": reasons[-1] if reasons else None,
            }
        ],
        "usage": usages[-1] if usages else {},
    }


def _pieces(data: bytes, count: int) -> tuple[int, ...]:
    """Return `data` in `count` pieces of nearly equal length, each after a byte of 1."""
    cuts = [len(data) * i // count for i in range(count + 1)] if count else [0]
    return tuple(int.from_bytes(b"\1" + data[start:end], "big") for start, end in pairwise(cuts))
