"""Requests of all questions of one search, sent together.

- an engine that is not concurrent gets the requests of every waiting question, in pieces of its
  `max_batch`
- a concurrent one gets them at once and batches by itself
- the budget of the run is checked before each piece, or each expansion
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from meristem_testtime._engine import UNWATCHED, Completion, Engine, Request, Watch
from meristem_testtime._nodes import Budget, Node, Step

T = TypeVar("T")
Guide = Callable[[Sequence[Node]], Awaitable[Sequence[float]]]


class BudgetExhausted(Exception):
    """Raised inside an algorithm when its question, or the run, may spend no more."""


@dataclass(slots=True, kw_only=True)
class Ask:
    """The requests of one expansion, and who waits for their samples."""

    requests: Sequence[Request]
    watches: Mapping[int, Watch]
    answer: "asyncio.Future[list[list[Completion]]]"

    def samples(self) -> int:
        """Return how many samples it asks for."""
        return sum(request.n for request in self.requests)


@dataclass(slots=True, kw_only=True)
class Run:
    """What the questions of one search share; gathers requests until every question waits."""

    engine: Engine
    step: Step
    budget: Budget
    temperature: float
    top_p: float
    top_k: int | None
    logprobs: bool
    seed: int
    guide: Guide | None
    live: int
    free: asyncio.Semaphore
    spent: int = 0
    begin: float = field(default_factory=time.monotonic)
    waiting: list[Ask] = field(default_factory=list[Ask])
    flights: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    async def generate(
        self, requests: Sequence[Request], watches: Mapping[int, Watch] = UNWATCHED
    ) -> list[list[Completion]]:
        """Return the samples of each request.

        Raises
        ------
        BudgetExhausted
            If the run may spend no more; nothing was sent.
        """
        if self.engine.concurrent:
            async with self.free:
                return await self._sent(requests, watches)
        answer: asyncio.Future[list[list[Completion]]] = asyncio.get_running_loop().create_future()
        self.waiting.append(Ask(requests=requests, watches=watches, answer=answer))
        self.dispatch()
        return await answer

    def leave(self) -> None:
        self.live -= 1
        self.dispatch()

    def dispatch(self) -> None:
        if self.waiting and len(self.waiting) == self.live:
            batch, self.waiting = self.waiting, []
            flight = asyncio.get_running_loop().create_task(self._fly(batch))
            self.flights.add(flight)
            flight.add_done_callback(self.flights.discard)

    async def _fly(self, batch: list[Ask]) -> None:
        for piece in pieces(batch, self.engine.max_batch):
            asks = [ask for ask in piece if not ask.answer.done()]
            requests = [request for ask in asks for request in ask.requests]
            watches, first = dict[int, Watch](), 0
            for ask in asks:
                watches |= {first + place: watch for place, watch in ask.watches.items()}
                first += len(ask.requests)
            try:
                found = iter(await self._sent(requests, watches) if asks else [])
            except BudgetExhausted as error:
                fail(asks, error)
            except Exception as error:
                fail(batch, error)
                return
            else:
                for ask in asks:
                    samples = [next(found) for _ in ask.requests]
                    if not ask.answer.done():
                        ask.answer.set_result(samples)
            await asyncio.sleep(0)  # those that were answered go on, and report

    async def _sent(
        self, requests: Sequence[Request], watches: Mapping[int, Watch]
    ) -> list[list[Completion]]:
        most, limit = self.budget.run_tokens, self.budget.run_seconds
        if most is not None and self.spent >= most:
            raise BudgetExhausted
        if limit is not None and time.monotonic() - self.begin >= limit:
            raise BudgetExhausted
        found = await self.engine.generate(requests, watches)
        self.spent += sum(len(sample.ids) for group in found for sample in group)
        return found


def fail(asks: Sequence[Ask], error: Exception) -> None:
    """Give `error` to those that still wait."""
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_exception(error)


def pieces(batch: Sequence[Ask], size: int | None) -> Iterator[list[Ask]]:
    """Yield the asks in order, in pieces of at most `size` samples; a larger one goes alone."""
    piece, samples = list[Ask](), 0
    for ask in batch:
        if piece and size is not None and samples + ask.samples() > size:
            yield piece
            piece, samples = [], 0
        piece.append(ask)
        samples += ask.samples()
    if piece:
        yield piece


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of coroutines that run at once; the first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
