"""Samples from servers that speak the OpenAI protocol; needs the extra `http`.

- `OpenAIEngine` sends and receives token ids, as vLLM does: it can continue, hence search
- `ChatEngine` needs nothing but chat completions: whole solutions of any server
- a request of n samples is one HTTP request; a cancelled one is aborted by closing its connection
- samples that a watch may abort are streamed, one HTTP request each: what arrived is what they have
"""

import asyncio
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from heapq import nlargest
from statistics import fmean
from typing import Any

from meristem_testtime._batching import together
from meristem_testtime._chat import ChatEngine
from meristem_testtime._engine import (
    UNWATCHED,
    Capability,
    Completion,
    EngineError,
    Finish,
    Pair,
    Request,
    UnsupportedError,
    Watch,
    window_of,
)
from meristem_testtime._remote import RefusedError, Take
from meristem_testtime._server import SEEDS, Server, choices_in, choices_of, part
from meristem_testtime._watching import likeliest_of, sampled, unless, whole

__all__ = ["ChatEngine", "OpenAIEngine"]

TOKENS = "serve the model with vLLM 0.10.2 or newer, or use http.ChatEngine"
SCORES = "serve the model with vLLM"
UNKNOWN = 422  # of HTTP: the server knows no such field, or not this form of it


class OpenAIEngine(Server):
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

    capabilities: frozenset[Capability] = frozenset(
        {"continue", "scores", "abort", "top_k", "confidence"}
    )

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

    async def generate(
        self, requests: Sequence[Request], watches: Mapping[int, Watch] = UNWATCHED
    ) -> list[list[Completion]]:
        """Return the samples of each request."""
        return await sampled(requests, watches, self._sampled, self._until)

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Return the log-probability of each token of each continuation."""
        return await together(self._scored(*pair) for pair in pairs)

    async def _sampled(self, request: Request) -> list[Completion]:
        n = request.n if request.temperature > 0 else 1  # vLLM refuses several greedy samples
        with self._named("token_ids", TOKENS):
            answer = await self._transport.post("/completions", self._body(replace(request, n=n)))
        choices = choices_of(answer, n, self.identity)
        known = part(part(answer, "usage"), "prompt_tokens_details").get("cached_tokens")
        found = [replace(self._completion(each, request), cached=known) for each in choices]
        return found * (request.n // n)

    async def _until(self, request: Request, halt: asyncio.Event) -> Completion:
        """Return the one sample of `request`, or what arrived when `halt` is set or it falls."""
        events, fell = list[dict[str, Any]](), False

        def begin() -> Take:
            events.clear()
            window = window_of(request)

            def take(event: dict[str, Any]) -> bool:
                nonlocal fell
                events.append(event)
                values = self._confidence(_joined([event]), request)
                fell = any(window.falls(value) for value in values)
                return fell

            return take

        with self._named("token_ids", TOKENS):
            await unless(halt, self._transport.stream("/completions", self._body(request), begin))
        choice, cut = _joined(list(events)), fell or halt.is_set()
        if choice["finish_reason"] is None and not cut:
            raise EngineError(f"engine {self.identity} ended a stream without a finish_reason")
        return self._completion(choice, request, halted=cut)

    @contextmanager
    def _named(self, capability: str, mend: str) -> Generator[None, None, None]:
        """Name the capability that a server lacks which does not know what it was asked."""
        try:
            yield
        except RefusedError as error:
            if error.status != UNKNOWN:
                raise
            raise UnsupportedError(self.identity, capability, f"{mend} ({error})") from error

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": list(request.prompt),
            "n": request.n,
            "seed": request.seed % SEEDS,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k or 0,  # 0: all, whatever the model's own defaults say
            "stop": list(request.stop) or None,
            "include_stop_str_in_output": True,
            "logprobs": likeliest_of(request),
            "return_tokens_as_token_ids": True,  # tokens of equal text are told apart
            "return_token_ids": True,
        }

    def _completion(
        self, choice: dict[str, Any], request: Request, *, halted: bool = False
    ) -> Completion:
        ids = choice.get("token_ids")
        if ids is None:
            raise UnsupportedError(self.identity, "token_ids", TOKENS)
        finish: Finish = "length"
        if halted and choice.get("finish_reason") is None:
            finish = "abort"
        elif choice.get("finish_reason") == "stop":
            text = self.decode(ids)
            finish = "stop" if any(stop in text for stop in request.stop) else "end"
        if finish == "length" and len(ids) < request.max_tokens:
            raise EngineError(
                f"engine {self.identity}: a prompt of {len(request.prompt)} tokens and max_tokens "
                f"{request.max_tokens} exceed the context, it ended after {len(ids)}; shorten one"
            )
        return whole(
            Completion(
                ids=tuple(ids),
                logprobs=self._logprobs(choice, request),
                finish=finish,
                confidence=self._confidence(choice, request),
            ),
            request,
        )

    def _logprobs(self, choice: dict[str, Any], request: Request) -> tuple[float, ...]:
        if not request.logprobs:
            return ()
        ids, found = choice["token_ids"], part(choice, "logprobs").get("token_logprobs")
        if found is None or len(found) != len(ids) or not all(map(_is_number, found)):
            raise UnsupportedError(
                self.identity, "logprobs",
                f"its {len(ids)} tokens came with the log-probabilities {found}; use "
                "http.ChatEngine, or search with logprobs=False",
            )  # fmt: skip
        return tuple(map(float, found))

    def _confidence(self, choice: dict[str, Any], request: Request) -> tuple[float, ...]:
        asked, ids = request.confidence, choice.get("token_ids")
        if asked is None or not ids:
            return ()
        places = part(choice, "logprobs").get("top_logprobs") or []
        if len(places) != len(ids) or any(len(place or ()) < asked.top for place in places):
            raise UnsupportedError(
                self.identity, "confidence",
                f"its {len(ids)} tokens came with the likeliest of {len(places)}, fewer than "
                f"{asked.top} each; ask for fewer, or {SCORES}",
            )  # fmt: skip
        return tuple(-fmean(nlargest(asked.top, place.values())) for place in places)

    async def _scored(
        self, prompt: tuple[int, ...], continuation: tuple[int, ...]
    ) -> tuple[float, ...]:
        body = {
            "model": self.model,
            "prompt": [*prompt, *continuation],
            "max_tokens": 1,
            "prompt_logprobs": 0,
        }
        with self._named("scores", SCORES):
            answer = await self._transport.post("/completions", body)
        (choice,) = choices_of(answer, 1, self.identity)
        found = choice.get("prompt_logprobs")
        if found is None:
            raise UnsupportedError(self.identity, "scores", SCORES)
        places = found[len(prompt) : len(prompt) + len(continuation)]
        return tuple(
            float(place[str(token)]["logprob"])
            for place, token in zip(places, continuation, strict=True)
        )


def _joined(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the choice that the events of one streamed completion make."""
    choices = choices_in(events)
    ids = [each["token_ids"] for each in choices if each.get("token_ids") is not None]
    scores = [part(each, "logprobs").get("token_logprobs") for each in choices]
    chosen = [each for each in scores if each is not None]
    reasons = [each["finish_reason"] for each in choices if each.get("finish_reason")]
    return {
        "token_ids": [i for each in ids for i in each] if ids or not choices else None,
        "logprobs": {
            "token_logprobs": [x for each in chosen for x in each]
            if chosen or not choices
            else None,
            "top_logprobs": [
                x for each in choices for x in part(each, "logprobs").get("top_logprobs") or []
            ],
        },
        "finish_reason": reasons[-1] if reasons else None,
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
