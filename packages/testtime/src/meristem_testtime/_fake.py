"""An engine whose next-token probabilities are a Python function: exact, seeded, dependency-free.

- all samples of a call grow in step, so a stop rule aborts what an endless batch would
- everything a search does can be checked against exact sums over `outcomes`
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from meristem_testtime._engine import UNWATCHED, Capability, Completion, Pair, Request, Watch
from meristem_testtime._growing import planted, settle

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
    capabilities: frozenset[Capability] = frozenset(
        {"continue", "scores", "abort", "top_k", "confidence"}
    )
    max_batch: int | None = None
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

    async def generate(
        self, requests: Sequence[Request], watches: Mapping[int, Watch] = UNWATCHED
    ) -> list[list[Completion]]:
        """Return the samples of each request."""
        self.calls += 1
        groups = planted(requests)
        living = [sample for group in groups for sample in group]
        while living:
            for sample in living:
                ids = (*sample.request.prompt, *sample.ids)
                with np.errstate(divide="ignore"):
                    logprobs = np.log(self._probabilities(ids))
                sample.extend(logprobs, self.end, self.decode)
            settle(living, groups, watches)
            living = [sample for sample in living if sample.finish is None]
        return [[sample.completion() for sample in group] for group in groups]

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
