"""What a search asks of an engine: token ids in, seeded samples with log-probabilities out.

- prompts are token ids, so a continuation never re-tokenises a seam
- sample i of a request has the seed `seed + i`: one request of n equals n requests of one
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Finish = Literal["end", "stop", "length"]


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
    """

    prompt: tuple[int, ...]
    seed: int
    n: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_tokens < 1:
            raise ValueError(f"n ({self.n}) and max_tokens ({self.max_tokens}) must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature ({self.temperature}) must be finite and at least 0")
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
        Of each new token in nats, under the model at temperature 1.
    finish
        "end": the model ended; "stop": a stop string was met; "length": max_tokens were drawn.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish


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
    """

    @property
    def identity(self) -> str: ...

    @property
    def concurrent(self) -> bool: ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        ...

    async def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return the samples of each request, in order."""
        ...
