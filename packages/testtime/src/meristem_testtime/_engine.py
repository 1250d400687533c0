"""What a search asks of an engine: token ids in, seeded samples with log-probabilities out.

- prompts are token ids, so a continuation never re-tokenises a seam
- sample i of a request has the seed `seed + i`: one request of n equals n requests of one
- a watch is told of each sample as it ends, and may have those that still run aborted
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

from meristem_testtime._confidence import TOP, WIDTH, Window

Finish = Literal["end", "stop", "length", "abort", "unsure"]
Capability = Literal["continue", "scores", "abort", "top_k", "confidence"]


MENDS: dict[Capability, str] = {
    "continue": "sample whole solutions (best_of_n, adaptive), or use an engine that takes token "
    "ids: hf.HFEngine, vllm.VLLMEngine, http.OpenAIEngine",
    "scores": "use hf.HFEngine, vllm.VLLMEngine or http.OpenAIEngine with vLLM behind it",
    "abort": "ask for one sample at a time: adaptive with batch=1",
    "top_k": "use top_p, or an engine that takes token ids: hf.HFEngine, vllm.VLLMEngine, "
    "http.OpenAIEngine",
    "confidence": "use hf.HFEngine, vllm.VLLMEngine or http.OpenAIEngine with vLLM behind it",
}


class EngineError(RuntimeError):
    """An engine could not answer; the message names it, the cause and the mend."""


class ContextFullError(ValueError):
    """A prompt and the tokens asked for exceed the context; the message names both lengths.

    Parameters
    ----------
    prompt, max_tokens
        Their lengths.
    context
        That of the model.
    """

    def __init__(self, prompt: int, max_tokens: int, context: int) -> None:
        super().__init__(
            f"a prompt of {prompt} tokens and max_tokens {max_tokens} exceed the context of "
            f"{context}; shorten one"
        )


class UnsupportedError(EngineError):
    """An engine lacks a capability that was asked for.

    Parameters
    ----------
    engine
        Its identity.
    capability
        What it lacks.
    mend
        What to do instead.
    """

    def __init__(self, engine: str, capability: str, mend: str) -> None:
        super().__init__(f"engine {engine} lacks the capability {capability!r}; {mend}")
        self.engine, self.capability, self.mend = engine, capability, mend


Pair = tuple[tuple[int, ...], tuple[int, ...]]  # token ids: a prompt, and what continues it


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What a request wants of confidence, as `token_confidence` and `window_means` define it.

    Attributes
    ----------
    top
        Number of likeliest tokens, at least 1, at most the vocabulary's.
    width
        Tokens in a window, at least 1.
    least
        A sample ends with the first full window whose mean confidence, in nats, is below; None
        lets it run.
    """

    top: int = TOP
    width: int = WIDTH
    least: float | None = None

    def __post_init__(self) -> None:
        if self.top < 1 or self.width < 1:
            raise ValueError(f"top ({self.top}) and width ({self.width}) must be at least 1")
        if self.least is not None and not math.isfinite(self.least):
            raise ValueError(f"least ({self.least}) must be finite, or None to let samples run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A demand for n continuations of a prompt.

    Attributes
    ----------
    prompt
        Token ids.
    seed
        Of the first sample; sample i uses seed + i.
    n
        Number of samples, at least 1.
    max_tokens
        Most new tokens of a sample, at least 1.
    temperature
        0 is greedy.
    stop
        Strings that end a sample; the one met is kept in its text and ids.
    top_p
        In (0, 1]: draw among the fewest likeliest tokens, after temperature, of this mass.
    top_k
        At least 1: draw among the k likeliest, ties with the last included, and of these by
        `top_p`; None for all.
    confidence
        Whether the confidence of each token is returned, and may end a sample.
    logprobs
        Whether the log-probability of each token is returned, if the engine has it; servers
        answer faster without.
    """

    prompt: tuple[int, ...]
    seed: int
    n: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    top_k: int | None = None
    confidence: Confidence | None = None
    logprobs: bool = True

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_tokens < 1:
            raise ValueError(f"n ({self.n}) and max_tokens ({self.max_tokens}) must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature ({self.temperature}) must be finite and at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p ({self.top_p}) must lie in (0, 1]; 1 draws among all tokens")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k ({self.top_k}) must be at least 1, or None for all tokens")
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every sample; drop it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sample.

    Attributes
    ----------
    ids
        New tokens, the end token included if it was drawn.
    logprobs
        Of each new token in nats, under the model at temperature 1; empty if the engine has none,
        or they were not asked for.
    finish
        "end": the model ended; "stop": a stop string was met; "unsure": a window's confidence was
        too low; "length": max_tokens were drawn; "abort": a watch wanted no more, ids are the
        tokens drawn until then.
    confidence
        Of each new token, in nats; empty if it was not asked for.
    cached
        Tokens of the request's prompt that the engine had computed before, None if it does not say.
        They depend on what ran earlier, so samples that differ in them only are equal.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    confidence: tuple[float, ...] = ()
    cached: int | None = field(default=None, compare=False)


def window_of(request: Request) -> Window:
    """Return a window that falls where `request` wants its samples to end."""
    asked = request.confidence
    return Window(WIDTH, None) if asked is None else Window(asked.width, asked.least)


Watch = Callable[[int, Completion], bool]
"""Told the place of a sample of a request and the sample, when it ends; returns whether those that
still run are to be aborted. It may be told of a sample again."""
UNWATCHED: Mapping[int, Watch] = MappingProxyType({})


@runtime_checkable
class Engine(Protocol):
    """What samples continuations.

    Attributes
    ----------
    identity
        Text that changes whenever the same request could give other samples.
    concurrent
        Whether `generate` may be called while another call runs; if not, a search gathers the
        requests of all questions into one call.
    capabilities
        "continue": a prompt may end in the middle of an answer, which every search over steps
        needs; "scores": `logprobs` answers; "abort": `generate` obeys watches; "top_k":
        requests may have it; "confidence": likewise.
    max_batch
        Most samples that run together, None for no limit; a search asks an engine that is not
        concurrent in such pieces, so that what is answered can be recorded.
    context
        Most tokens of a prompt and its continuation together, None if that is not known.
    """

    @property
    def identity(self) -> str: ...

    @property
    def concurrent(self) -> bool: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def max_batch(self) -> int | None: ...

    @property
    def context(self) -> int | None: ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        ...

    async def generate(
        self, requests: Sequence[Request], watches: Mapping[int, Watch] = UNWATCHED
    ) -> list[list[Completion]]:
        """Return the samples of each request, in order; `watches` by the place of a request."""
        ...

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Return, for each (prompt, continuation), the log-probability of each of its tokens."""
        ...


def need(engine: Engine, capability: Capability) -> None:
    """Raise an error if `engine` lacks `capability`."""
    if capability not in engine.capabilities:
        raise UnsupportedError(engine.identity, capability, MENDS[capability])
