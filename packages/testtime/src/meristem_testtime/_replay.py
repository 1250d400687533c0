"""A journal in front of an engine: replaying it is resumption, and is a deterministic engine.

- a search is a function of its completions, so nothing else has to be saved
- a line holds what was asked together, and is written before the search sees it
- a torn last line is cut away and its requests asked again, together: the same batch, to the bit
- a concurrent engine is asked request by request, so what one answers is kept if another fails
- a request whose samples may be aborted has a key of its own, and is asked again by another rule
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from meristem_core import Journal, digest
from meristem_testtime._batching import together
from meristem_testtime._engine import (
    UNWATCHED,
    Capability,
    Completion,
    Engine,
    Pair,
    Request,
    Watch,
)


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
                scores: list[tuple[float, ...]] = [tuple(each) for each in record["scores"]]
                self._scores |= zip(record["keys"], scores, strict=True)
            else:
                groups = ([_completion(each) for each in group] for group in record["samples"])
                self._known |= zip(record["keys"], groups, strict=True)

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
    def max_batch(self) -> int | None:
        """Return the batch of the engine behind."""
        return self.engine.max_batch

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

    async def generate(
        self, requests: Sequence[Request], watches: Mapping[int, Watch] = UNWATCHED
    ) -> list[list[Completion]]:
        """Return recorded samples where there are, and record those that had to be asked for."""
        keys = [self._key(request, place in watches) for place, request in enumerate(requests)]
        missing = {
            key: (request, watches.get(place))
            for place, (key, request) in enumerate(zip(keys, requests, strict=True))
            if key not in self._known or not _fits(self._known[key], watches.get(place))
        }
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
            self._journal.append({"keys": list(missing), "scores": found})
            self._scores |= zip(missing, found, strict=True)
        return [self._scores[key] for key in keys]

    def _key(self, request: Request, is_watched: bool) -> str:
        mark = {"watched": True} if is_watched else {}
        return digest({"engine": self.identity, "request": request} | mark)

    async def _ask(self, missing: Mapping[str, tuple[Request, Watch | None]]) -> None:
        requests = [request for request, _ in missing.values()]
        watches = {
            place: watch for place, (_, watch) in enumerate(missing.values()) if watch is not None
        }
        found = await self.engine.generate(requests, watches)
        self._journal.append({"keys": list(missing), "samples": found})
        self._known |= zip(missing, found, strict=True)

    def close(self) -> None:
        """Close the journal; the engine stays open."""
        self._journal.close()


def _completion(record: dict[str, Any]) -> Completion:
    return Completion(
        ids=tuple(record["ids"]),
        logprobs=tuple(record["logprobs"]),
        finish=record["finish"],
        confidence=tuple(record["confidence"]),
        cached=record.get("cached"),
    )


def _fits(samples: Sequence[Completion], watch: Watch | None) -> bool:
    """Return whether recorded samples are whole, or were aborted where `watch` would do so."""
    if watch is None:
        return True
    said = [watch(place, each) for place, each in enumerate(samples) if each.finish != "abort"]
    return any(said) or len(said) == len(samples)
