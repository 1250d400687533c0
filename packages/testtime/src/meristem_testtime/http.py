"""Samples from servers that speak the OpenAI protocol; needs the extra `http`.

- `OpenAIEngine` sends and receives token ids, as vLLM does: it can continue, hence search
- `ChatEngine` needs nothing but chat completions: whole solutions of any server
- a request of n samples is one HTTP request; a cancelled one is aborted by closing its connection
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any

from meristem_testtime._batching import together
from meristem_testtime._engine import (
    MENDS,
    Capability,
    Completion,
    EngineError,
    Finish,
    Pair,
    Request,
    UnsupportedError,
)
from meristem_testtime._remote import Transport

TEXT_PIECE = 8  # bytes of a prompt's pieces
LONGEST_PIECE = 1000  # bytes; a piece is a number of fewer than 4300 digits, as JSON readers allow
SEEDS = 2**63  # servers read a seed as a signed 64-bit number


class _Server:
    """What both engines share: a transport, and that they are to be closed."""

    concurrent = True

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float | int = 600,
        retries: int = 6,
        concurrency: int = 64,
    ) -> None:
        self.model = model
        self._transport = Transport(
            base_url, key=api_key, timeout=timeout, retries=retries, concurrency=concurrency
        )

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class OpenAIEngine(_Server):
    """An engine over `/completions` of a server that takes and returns token ids.

    vLLM does since 0.10.2; others are for `ChatEngine`.

    Parameters
    ----------
    base_url
        Such as http://localhost:8000/v1.
    model
        Its name on the server; the journal knows it by this name.
    tokenizer
        The model's tokenizer, with `encode` and `decode` as in transformers.
    api_key
        Sent as a bearer token.
    timeout
        Seconds to wait for the answer to one request, all of its samples together.
    retries
        Tries after the first, on refused connections, timeouts, 429 and 5xx; other errors end at
        once. `Retry-After` is obeyed up to a minute.
    concurrency
        Most requests in flight.
    context
        Most tokens of a prompt and its continuation, if known: a search then sees a full context
        before the server does.

    Raises
    ------
    EngineError
        If the server refuses a request, or no try is left.
    UnsupportedError
        If it returns no token ids or log-probabilities.
    """

    capabilities: frozenset[Capability] = frozenset({"continue", "scores"})

    def __init__(
        self,
        base_url: str,
        model: str,
        tokenizer: Any,
        *,
        api_key: str | None = None,
        timeout: float | int = 600,
        retries: int = 6,
        concurrency: int = 64,
        context: int | None = None,
    ) -> None:
        super().__init__(
            base_url, model, api_key=api_key, timeout=timeout, retries=retries,
            concurrency=concurrency,
        )  # fmt: skip
        self.tokenizer = tokenizer
        self.context = context

    def __enter__(self) -> "OpenAIEngine":
        return self

    @property
    def identity(self) -> str:
        """Return the model's name."""
        return f"openai:{self.model}"

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    async def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return the samples of each request."""
        return await together(self._sampled(request) for request in requests)

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Return the log-probability of each token of each continuation."""
        return await together(self._scored(*pair) for pair in pairs)

    async def _sampled(self, request: Request) -> list[Completion]:
        n = request.n if request.temperature > 0 else 1  # vLLM refuses several greedy samples
        body = {
            "model": self.model,
            "prompt": list(request.prompt),
            "n": n,
            "seed": request.seed % SEEDS,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": 1.0,
            "stop": list(request.stop) or None,
            "include_stop_str_in_output": True,
            "logprobs": 0,
            "return_token_ids": True,
        }
        answer = await self._transport.post("/completions", body)
        choices = _choices(answer, n, self.identity)
        return [self._completion(each, request) for each in choices] * (request.n // n)

    def _completion(self, choice: dict[str, Any], request: Request) -> Completion:
        ids, chosen = choice.get("token_ids"), _part(choice, "logprobs").get("token_logprobs")
        if ids is None:
            raise UnsupportedError(
                self.identity, "token_ids",
                "serve the model with vLLM 0.10.2 or newer, or use http.ChatEngine",
            )  # fmt: skip
        if chosen is None or len(chosen) != len(ids) or not all(map(_is_number, chosen)):
            raise UnsupportedError(
                self.identity, "logprobs",
                f"its {len(ids)} tokens came with the log-probabilities {chosen}; use "
                "http.ChatEngine",
            )  # fmt: skip
        finish: Finish = "length"
        if choice.get("finish_reason") == "stop":
            text = self.decode(ids)
            finish = "stop" if any(stop in text for stop in request.stop) else "end"
        if finish == "length" and len(ids) < request.max_tokens:
            raise EngineError(
                f"engine {self.identity}: a prompt of {len(request.prompt)} tokens and max_tokens "
                f"{request.max_tokens} exceed the context, it ended after {len(ids)}; shorten one"
            )
        return Completion(ids=tuple(ids), logprobs=tuple(map(float, chosen)), finish=finish)

    async def _scored(
        self, prompt: tuple[int, ...], continuation: tuple[int, ...]
    ) -> tuple[float, ...]:
        body = {
            "model": self.model,
            "prompt": [*prompt, *continuation],
            "max_tokens": 1,
            "prompt_logprobs": 0,
        }
        (choice,) = _choices(await self._transport.post("/completions", body), 1, self.identity)
        found = choice.get("prompt_logprobs")
        if found is None:
            raise UnsupportedError(self.identity, "scores", "serve the model with vLLM")
        places = found[len(prompt) : len(prompt) + len(continuation)]
        return tuple(
            float(place[str(token)]["logprob"])
            for place, token in zip(places, continuation, strict=True)
        )


class ChatEngine(_Server):
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

    capabilities: frozenset[Capability] = frozenset()
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

    async def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return the samples of each request; stop strings are refused."""
        if any(request.stop for request in requests):
            raise UnsupportedError(self.identity, "stop", MENDS["continue"])
        return await together(
            together(self._sample(request, i) for i in range(request.n)) for request in requests
        )

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Raise an error: a chat cannot score a given text."""
        raise UnsupportedError(self.identity, "scores", "use http.OpenAIEngine with vLLM behind it")

    async def _sample(self, request: Request, place: int) -> Completion:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.decode(request.prompt)}],
            "seed": (request.seed + place) % SEEDS,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        answer = await self._transport.post("/chat/completions", body)
        (choice,) = _choices(answer, 1, self.identity)
        count = _part(answer, "usage").get("completion_tokens")
        if not isinstance(count, int) or count < 0:
            raise EngineError(f"engine {self.identity} counts no tokens: usage is {count!r}")
        message = _part(choice, "message")
        thought = message.get("reasoning") or message.get("reasoning_content") or ""
        data = f"{thought}{message.get('content') or ''}".encode()
        if len(data) > LONGEST_PIECE * count:
            raise EngineError(
                f"engine {self.identity} counts {count} tokens for {len(data)} bytes; its usage "
                "cannot be right"
            )
        finish: Finish = "length" if choice.get("finish_reason") == "length" else "end"
        return Completion(ids=_pieces(data, count), logprobs=(), finish=finish)


def _pieces(data: bytes, count: int) -> tuple[int, ...]:
    """Return `data` in `count` pieces of nearly equal length, each after a byte of 1."""
    cuts = [len(data) * i // count for i in range(count + 1)] if count else [0]
    return tuple(int.from_bytes(b"\1" + data[start:end], "big") for start, end in pairwise(cuts))


def _choices(answer: dict[str, Any], n: int, identity: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] | None = answer.get("choices")
    if not found or len(found) != n:
        got = len(found) if found else "no"
        raise EngineError(
            f"engine {identity} gave {got} samples for n = {n}; use a server that takes n"
        )
    return sorted(found, key=lambda choice: choice.get("index", 0))


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside of a JSON object, an empty one if it is absent or null."""
    return record.get(name) or {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
