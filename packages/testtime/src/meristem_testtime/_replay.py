"""A journal in front of an engine: replaying it is resumption, and is a deterministic engine.

- a search is a function of its completions, so nothing else has to be saved
- each answered request is one line, written before the search sees it
- a torn last line is cut away and its request asked again
- a concurrent engine is asked request by request, so what one answers is kept if another fails
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from meristem_core import Journal, digest
from meristem_testtime._batching import together
from meristem_testtime._engine import Capability, Completion, Engine, Pair, Request


class ReplayEngine:
    """An engine that answers from its journal what was asked before, and records the rest.

    Parameters
    ----------
    path
        The journal, made if missing. Its completions are held in memory.
    engine
        Asked for what the journal lacks.

    Raises
    ------
    ValueError
        If the journal is damaged other than in its last line.
    """

    def __init__(self, path: Path | str, engine: Engine) -> None:
        self.engine = engine
        self._journal = Journal(path)
        self._known: dict[str, list[Completion]] = {}
        self._scores: dict[str, tuple[float, ...]] = {}
        for record in self._journal:
            if "scores" in record:
                self._scores[record["key"]] = tuple(record["scores"])
            else:
                self._known[record["key"]] = [_completion(each) for each in record["samples"]]

    def __enter__(self) -> "ReplayEngine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def identity(self) -> str:
        """Return the identity of the engine behind."""
        return self.engine.identity

    @property
    def concurrent(self) -> bool:
        """Return whether the engine behind is concurrent."""
        return self.engine.concurrent

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Return the capabilities of the engine behind."""
        return self.engine.capabilities

    @property
    def context(self) -> int | None:
        """Return the context of the engine behind."""
        return self.engine.context

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`."""
        return self.engine.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self.engine.decode(ids)

    async def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return recorded samples where there are, and record those that had to be asked for."""
        keys = [digest({"engine": self.identity, "request": request}) for request in requests]
        missing = {key: each for key, each in zip(keys, requests, strict=True)
                   if key not in self._known}  # fmt: skip
        if self.concurrent and len(missing) > 1:
            await together(self._ask({key: each}) for key, each in missing.items())
        elif missing:
            await self._ask(missing)
        return [self._known[key] for key in keys]

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Return recorded scores where there are, and record those that had to be asked for."""
        keys = [digest({"engine": self.identity, "pair": pair}) for pair in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True)
                   if key not in self._scores}  # fmt: skip
        if missing:
            found = await self.engine.logprobs(list(missing.values()))
            for key, scores in zip(missing, found, strict=True):
                self._journal.append({"key": key, "scores": scores})
                self._scores[key] = scores
        return [self._scores[key] for key in keys]

    async def _ask(self, missing: Mapping[str, Request]) -> None:
        found = await self.engine.generate(list(missing.values()))
        for key, samples in zip(missing, found, strict=True):
            self._journal.append({"key": key, "samples": samples})
            self._known[key] = samples

    def close(self) -> None:
        """Close the journal; the engine stays open."""
        self._journal.close()


def _completion(record: dict[str, Any]) -> Completion:
    return Completion(
        ids=tuple(record["ids"]), logprobs=tuple(record["logprobs"]), finish=record["finish"]
    )
