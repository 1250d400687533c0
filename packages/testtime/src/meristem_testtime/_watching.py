"""Samples that may end early, for engines that hear of tokens while a server draws them.

- what a watch may abort, or what ends as its confidence falls, is asked for sample by sample
- tokens that arrive after the one at which a sample ends are dropped
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from meristem_testtime._batching import together
from meristem_testtime._engine import Completion, Request, Watch, window_of

Plain = Callable[[Request], Coroutine[Any, Any, list[Completion]]]
"""Takes a request, returns its samples."""
Until = Callable[[Request, asyncio.Event], Awaitable[Completion]]
"""Takes a request of one sample, and an event at which it returns what was drawn."""


async def sampled(
    requests: Sequence[Request], watches: Mapping[int, Watch], plain: Plain, until: Until
) -> list[list[Completion]]:
    """Return the samples of each request; those that may end early are drawn one by one."""
    return await together(
        _one_by_one(request, watches.get(place), until)
        if place in watches or may_end_early(request)
        else plain(request)
        for place, request in enumerate(requests)
    )


def may_end_early(request: Request) -> bool:
    """Return whether the confidence of its samples has to be followed while they are drawn."""
    return request.confidence is not None and request.confidence.least is not None


async def unless(halt: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Let `work` run to its end, or cancel it when `halt` is set."""
    running, halted = asyncio.ensure_future(work), asyncio.ensure_future(halt.wait())
    try:
        await asyncio.wait({running, halted}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
    finally:
        running.cancel()
        halted.cancel()


def likeliest_of(request: Request) -> int | None:
    """Return how many of the likeliest tokens vLLM is to name beside the drawn one, None if it."""
    if request.confidence is not None:
        return request.confidence.top
    return 0 if request.logprobs else None


def whole(sample: Completion, request: Request) -> Completion:
    """Return `sample`, cut after the token at which its confidence falls below what is asked for.

    For engines that hear of tokens later than they are drawn.
    """
    window = window_of(request)
    fall = next((i for i, value in enumerate(sample.confidence) if window.falls(value)), None)
    last = len(sample.ids) - 1
    if fall is None or (fall == last and sample.finish in ("end", "stop")):
        return sample
    cut = slice(fall + 1)
    return replace(sample, ids=sample.ids[cut], logprobs=sample.logprobs[cut], finish="unsure",
                   confidence=sample.confidence[cut])  # fmt: skip


async def _one_by_one(request: Request, watch: Watch | None, until: Until) -> list[Completion]:
    """Return the samples of `request`, each until it ends or `watch` halts all."""
    halt = asyncio.Event()

    async def one(place: int) -> Completion:
        single = replace(request, n=1, seed=request.seed + place)
        found = await until(single, halt)
        if watch is not None and found.finish != "abort" and watch(place, found):
            halt.set()
        return found

    return await together(one(place) for place in range(request.n))
