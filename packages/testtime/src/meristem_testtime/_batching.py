"""Requests of all questions of one search, sent together.

- an engine that is not concurrent gets one call for the requests of every waiting question
- a concurrent one gets them at once and batches by itself
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from meristem_testtime._engine import Completion, Engine, Request
from meristem_testtime._nodes import Budget, Node, Step

T = TypeVar("T")
Guide = Callable[[Sequence[Node]], Awaitable[Sequence[float]]]


@dataclass(slots=True, kw_only=True)
class Run:
    """What the questions of one search share; gathers requests until every question waits."""

    engine: Engine
    step: Step
    budget: Budget
    temperature: float
    seed: int
    guide: Guide | None
    live: int
    waiting: list[tuple[list[Request], "asyncio.Future[list[list[Completion]]]"]] = field(
        default_factory=list[tuple[list[Request], "asyncio.Future[list[list[Completion]]]"]]
    )
    flights: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    async def generate(self, requests: list[Request]) -> list[list[Completion]]:
        if self.engine.concurrent:
            return await self.engine.generate(requests)
        answer: asyncio.Future[list[list[Completion]]] = asyncio.get_running_loop().create_future()
        self.waiting.append((requests, answer))
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

    async def _fly(
        self, batch: list[tuple[list[Request], "asyncio.Future[list[list[Completion]]]"]]
    ) -> None:
        try:
            found = iter(
                await self.engine.generate([each for requests, _ in batch for each in requests])
            )
        except Exception as error:
            for _, answer in batch:
                answer.set_exception(error)
            return
        for requests, answer in batch:
            answer.set_result([next(found) for _ in requests])


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of coroutines that run at once; the first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
