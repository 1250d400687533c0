"""An engine whose next-token probabilities are a Python function: exact, seeded, dependency-free.

- one uniform number for each (seed, position), inverted through the cumulative probabilities:
  a sample depends on its seed and prompt alone, never on its neighbours
- everything a search does can be checked against exact sums over `outcomes`
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from meristem_core import stream
from meristem_testtime._engine import Capability, Completion, Finish, Pair, Request

Process = Callable[[tuple[int, ...]], Float[np.ndarray, " v"]]

MASS = 1e-9  # error of a probability vector's sum that is refused


class FakeEngine:
    """An engine over single characters with exact probabilities.

    Parameters
    ----------
    process
        Takes the ids so far, prompt included, and returns the probabilities of the next token.
    alphabet
        One character for each token; the last token ends a sample.

    Examples
    --------
    >>> import asyncio
    >>> engine = FakeEngine(lambda ids: np.array([0.0, 1.0, 0.0]), "ab.")
    >>> (sample,), = asyncio.run(engine.generate([Request(prompt=(0,), seed=1, max_tokens=2)]))
    >>> engine.decode(sample.ids), sample.finish
    ('bb', 'length')
    """

    concurrent = False
    capabilities: frozenset[Capability] = frozenset({"continue", "scores"})
    context: int | None = None

    def __init__(self, process: Process, alphabet: str) -> None:
        if len(set(alphabet)) != len(alphabet) or len(alphabet) < 2:
            raise ValueError(f"alphabet is {alphabet!r}; give two or more different characters")
        self.process = process
        self.alphabet = alphabet
        self.end = len(alphabet) - 1
        self.calls = 0

    @property
    def identity(self) -> str:
        """Return what the samples depend on besides the process."""
        return f"fake:{self.alphabet}"

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the place of each character in the alphabet."""
        unknown = [character for character in text if character not in self.alphabet]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not in the alphabet {self.alphabet!r}")
        return tuple(self.alphabet.index(character) for character in text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters of `ids`."""
        return "".join(self.alphabet[i] for i in ids)

    async def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return the samples of each request."""
        self.calls += 1
        return [
            [self._sample(request, request.seed + i) for i in range(request.n)]
            for request in requests
        ]

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Return the exact log-probability of each token of each continuation; -inf at chance 0."""
        with np.errstate(divide="ignore"):
            return [
                tuple(
                    float(np.log(self._probabilities(prompt + continuation[:i])[token]))
                    for i, token in enumerate(continuation)
                )
                for prompt, continuation in pairs
            ]

    def outcomes(
        self, prompt: tuple[int, ...], max_tokens: int
    ) -> Iterator[tuple[tuple[int, ...], float]]:
        """Yield every continuation of positive probability, and that probability."""
        stack: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
        while stack:
            ids, chance = stack.pop()
            if len(ids) == max_tokens or (ids and ids[-1] == self.end):
                yield ids, chance
                continue
            following = self._probabilities(prompt + ids)
            for i, share in enumerate(following.tolist()):
                if share > 0:
                    stack.append(((*ids, i), chance * share))

    def _sample(self, request: Request, seed: int) -> Completion:
        ids, logprobs = request.prompt, list[float]()
        start = len(ids)
        finish: Finish = "length"
        while len(ids) - start < request.max_tokens:
            plain = self._probabilities(ids)
            token = _draw(plain, request.temperature, seed, len(ids))
            ids = (*ids, token)
            logprobs.append(float(np.log(plain[token])))
            if token == self.end:
                finish = "end"
                break
            text = self.decode(ids[start:])
            if any(text.endswith(stop) for stop in request.stop):
                finish = "stop"
                break
        return Completion(ids=ids[start:], logprobs=tuple(logprobs), finish=finish)

    def _probabilities(self, ids: tuple[int, ...]) -> np.ndarray:
        found: np.ndarray = np.asarray(self.process(ids), np.float64)
        if found.shape != (len(self.alphabet),) or not (found >= 0).all():
            raise ValueError(
                f"the process gave {found} after {self.decode(ids)!r}; it must give "
                f"{len(self.alphabet)} probabilities"
            )
        if abs(found.sum() - 1) > MASS:
            raise ValueError(
                f"the probabilities after {self.decode(ids)!r} sum to {found.sum()}, not to 1"
            )
        return found


def _draw(probabilities: np.ndarray, temperature: float, seed: int, position: int) -> int:
    if temperature == 0:
        return int(probabilities.argmax())
    with np.errstate(divide="ignore"):
        scaled = np.log(probabilities) / temperature
    cumulative: Float[np.ndarray, " v"] = np.cumsum(np.exp(scaled - scaled.max()))
    u = stream(seed, "token", position).random() * float(cumulative[-1])
    return int((cumulative <= u).sum())
