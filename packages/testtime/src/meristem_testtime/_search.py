"""The search kernel: an algorithm is a coroutine for one question, all questions run at once."""

import asyncio
from collections.abc import Callable, Mapping

from meristem_testtime._batching import BudgetExhausted, Guide, Run, together
from meristem_testtime._engine import Engine
from meristem_testtime._nodes import STEP, UNLIMITED, Budget, SearchResult, Step
from meristem_testtime._task import Algorithm, Task


async def search(
    engine: Engine,
    questions: Mapping[str, str],
    algorithm: Algorithm,
    *,
    guide: Guide | None = None,
    step: Step = STEP,
    budget: Budget = UNLIMITED,
    temperature: float = 0.7,
    top_p: float = 1.0,
    top_k: int | None = None,
    logprobs: bool = True,
    seed: int = 0,
    concurrency: int = 256,
    progress: Callable[[int, int, SearchResult], None] | None = None,
) -> list[SearchResult]:
    """Return what `algorithm` finds for every question, all questions at once.

    Parameters
    ----------
    engine
        Such as `FakeEngine`; wrap it in `ReplayEngine` to record and resume.
    questions
        Prompt of each named question.
    algorithm
        Such as `beam(16, 4)`.
    guide
        Values new nodes; larger is better.
    step, budget
        Extent of an expansion, and limits of each question and of the run. A question that a limit
        ended, or never let begin, is marked `exhausted`.
    temperature, top_p, top_k
        Of every sample, as for `Request`.
    logprobs
        Whether nodes carry the log-probabilities of their tokens, which `confidence_guide` and
        `puct` read; servers answer faster without.
    seed
        Same seed, engine and questions: same results, whatever runs beside.
    concurrency
        Most expansions in flight at an engine that is concurrent; what these cost is the most by
        which the budget of the run can be exceeded.
    progress
        Called with the numbers of finished and of all questions, and what was just found.

    Raises
    ------
    ValueError
        If there is no question, or an algorithm or guide breaks its rules.
    """
    if not questions:
        raise ValueError("there is no question; give at least one")
    if concurrency < 1:
        raise ValueError(f"concurrency ({concurrency}) must be at least 1")
    run = Run(
        engine=engine, step=step, budget=budget, temperature=temperature, top_p=top_p, top_k=top_k,
        logprobs=logprobs, seed=seed, guide=guide, live=len(questions),
        free=asyncio.Semaphore(concurrency),
    )  # fmt: skip
    done = 0

    async def solve(name: str, prompt: str) -> SearchResult:
        nonlocal done
        try:
            task = Task(name, engine.encode(prompt), run)
            exhausted = False
            try:
                await algorithm(task)
            except BudgetExhausted:
                exhausted = True
        finally:
            run.leave()
        done += 1
        found = task.result(exhausted=exhausted)
        if progress is not None:
            progress(done, len(questions), found)
        return found

    return await together(solve(*item) for item in questions.items())


def search_sync(
    engine: Engine,
    questions: Mapping[str, str],
    algorithm: Algorithm,
    *,
    guide: Guide | None = None,
    step: Step = STEP,
    budget: Budget = UNLIMITED,
    temperature: float = 0.7,
    top_p: float = 1.0,
    top_k: int | None = None,
    logprobs: bool = True,
    seed: int = 0,
    concurrency: int = 256,
    progress: Callable[[int, int, SearchResult], None] | None = None,
) -> list[SearchResult]:
    """Return what `search` returns, from code without an event loop."""
    return asyncio.run(
        search(
            engine, questions, algorithm, guide=guide, step=step, budget=budget,
            temperature=temperature, top_p=top_p, top_k=top_k, logprobs=logprobs, seed=seed,
            concurrency=concurrency, progress=progress,
        )
    )  # fmt: skip
