"""The kernel: one coroutine for each question, all of their requests in shared batches.

- an algorithm is `async def algorithm(task)` for one question; it expands nodes and finishes them
- engines that take one call at a time get the requests of all waiting questions in one call
- the seed of a sample is a hash of (seed, question, node), so batching never changes a result
- budgets are checked before a request is sent: they are exceeded by at most one expansion
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from meristem_core import derive_seed, stream
from meristem_testtime._engine import Completion, Engine, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far one expansion goes: to a stop string or `max_tokens`; at most `max_steps` deep."""

    stop: tuple[str, ...] = ("\n\n",)
    max_tokens: int = 256
    max_steps: int = 40

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.max_steps < 1:
            raise ValueError(
                f"max_tokens ({self.max_tokens}) and max_steps ({self.max_steps}) are at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most new tokens and expansions (samples drawn) of one question; None is no limit."""

    tokens: int | None = None
    expansions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a question cost: prompt tokens sent, new tokens, samples, and expansions asked for."""

    prompt_tokens: int = 0
    tokens: int = 0
    samples: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """A partial solution.

    Attributes
    ----------
    question
        Its question.
    parent
        The node it continues; None for the root.
    place
        Which child of its parent it is; -1 for the root.
    ids, logprobs
        Its own tokens and their log-probabilities.
    depth
        Number of steps, 0 for the root.
    text
        The text of the whole path, the prompt left out.
    finished
        Whether the model ended the solution or it was cut.
    truncated
        Whether it was cut by the limit of steps or tokens.
    value
        What the guide says; 0 without a guide.
    """

    question: str
    parent: "Node | None"
    place: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    depth: int
    text: str
    finished: bool
    truncated: bool
    value: float = 0.0

    def path(self) -> list["Node"]:
        """Return the nodes from the first step to this one, the root left out."""
        found: list[Node] = []
        node = self
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def path_ids(self) -> tuple[int, ...]:
        """Return the tokens from the root to this node, the prompt left out."""
        return tuple(i for node in self.path() for i in node.ids)

    def address(self) -> tuple[int, ...]:
        """Return the places that lead from the root to this node."""
        return tuple(node.place for node in self.path())


Guide = Callable[[Sequence[Node]], Awaitable[Sequence[float]]]
Algorithm = Callable[["Task"], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found for one question.

    Attributes
    ----------
    question
        Its name.
    solutions
        Finished nodes in the order in which the algorithm gave them.
    weights
        Their weights in a vote, at least 0.
    nodes
        Every node that was made, parents first.
    cost
        What it took.
    exhausted
        Whether the budget ended the search.
    log_normaliser
        Of particles: the logarithm of the estimated normalising constant; else None.
    """

    question: str
    solutions: tuple[Node, ...]
    weights: tuple[float, ...]
    nodes: tuple[Node, ...]
    cost: Cost
    exhausted: bool
    log_normaliser: float | None


class BudgetExhausted(Exception):
    """Raised inside an algorithm when its question may spend no more."""


class Task:
    """One question as an algorithm sees it.

    Attributes
    ----------
    root
        The node before the first step.
    step
        How far an expansion goes.
    rng
        Random numbers of this question.
    cost
        What was spent so far.
    log_normaliser
        For algorithms that estimate it.
    """

    def __init__(self, name: str, prompt: tuple[int, ...], run: "_Run") -> None:
        self.step = run.step
        self.rng: np.random.Generator = stream(run.seed, "search", name)
        self.cost = Cost()
        self.log_normaliser: float | None = None
        self.root = Node(
            question=name, parent=None, place=-1, ids=(), logprobs=(), depth=0, text="",
            finished=False, truncated=False,
        )  # fmt: skip
        self._prompt, self._run = prompt, run
        self._solutions: dict[Node, float] = {}
        self._nodes: list[Node] = []
        self._children: dict[Node, int] = {}

    async def expand(
        self, nodes: Sequence[Node], n: int | Sequence[int] = 1, *, whole: bool = False
    ) -> list[list[Node]]:
        """Return n new children of each node, valued by the guide.

        Parameters
        ----------
        nodes
            Different nodes that are not finished.
        n
            How many children, for all nodes or for each; 0 gives an empty list.
        whole
            Whether to run to the end of the solution instead of one step.

        Raises
        ------
        BudgetExhausted
            If the question may spend no more; nothing was sent.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else list(n)
        asked = [(node, c) for node, c in zip(nodes, counts, strict=True) if c > 0]
        closed = [node for node, _ in asked if node.finished]
        if closed:
            raise ValueError(f"node {closed[0].address()} is finished; expand open nodes only")
        if not asked:
            return [[] for _ in nodes]
        self._check_budget()
        firsts = [self._children.get(node, 0) for node, _ in asked]
        requests = [self._request(node, c, whole) for node, c in asked]
        found = await self._run.generate(requests)
        made = {
            node: [self._child(node, first + i, each, whole) for i, each in enumerate(samples)]
            for (node, _), first, samples in zip(asked, firsts, found, strict=True)
        }
        fresh = [child for children in made.values() for child in children]
        self._book(requests, fresh)
        valued = dict(zip(fresh, await self._valued(fresh), strict=True))
        self._nodes += valued.values()
        return [[valued[child] for child in made.get(node, [])] for node in nodes]

    def finish(self, node: Node, weight: float = 1.0) -> None:
        """Give a finished node as a solution; giving it again adds to its weight."""
        self._solutions[node] = self._solutions.get(node, 0.0) + weight

    async def append(self, node: Node, text: str) -> Node:
        """Return a child of `node` that holds `text` instead of a sample; it is not finished."""
        ids = self._run.engine.encode(text)
        place = self._children.get(node, 0)
        self._children[node] = place + 1
        child = Node(
            question=node.question, parent=node, place=place, ids=ids, logprobs=(),
            depth=node.depth, text=node.text + text, finished=False, truncated=False,
            value=node.value,
        )  # fmt: skip
        self._nodes.append(child)
        return child

    def result(self, *, exhausted: bool) -> SearchResult:
        """Return what was found so far."""
        return SearchResult(
            question=self.root.question,
            solutions=tuple(self._solutions),
            weights=tuple(self._solutions.values()),
            nodes=tuple(self._nodes),
            cost=self.cost,
            exhausted=exhausted,
            log_normaliser=self.log_normaliser,
        )

    def _check_budget(self) -> None:
        budget = self._run.budget
        over_tokens = budget.tokens is not None and self.cost.tokens >= budget.tokens
        if over_tokens or (
            budget.expansions is not None and self.cost.samples >= budget.expansions
        ):
            raise BudgetExhausted

    def _request(self, node: Node, n: int, whole: bool) -> Request:
        first = self._children.get(node, 0)
        self._children[node] = first + n
        left = self.step.max_steps - node.depth if whole else 1
        seed = derive_seed(self._run.seed, node.question, *node.address())
        return Request(
            prompt=self._prompt + node.path_ids(),
            seed=seed + first,
            n=n,
            max_tokens=self.step.max_tokens * max(left, 1),
            temperature=self._run.temperature,
            stop=() if whole else self.step.stop,
        )

    def _child(self, node: Node, place: int, sample: Completion, whole: bool) -> Node:
        depth = node.depth + 1
        ended = sample.finish == "end"
        cut = not ended and (whole or depth >= self.step.max_steps)
        return Node(
            question=node.question, parent=node, place=place, ids=sample.ids,
            logprobs=sample.logprobs, depth=depth,
            text=self._run.engine.decode(node.path_ids() + sample.ids),
            finished=ended or cut, truncated=cut,
        )  # fmt: skip

    def _book(self, requests: Sequence[Request], fresh: Sequence[Node]) -> None:
        self.cost = Cost(
            prompt_tokens=self.cost.prompt_tokens + sum(len(each.prompt) for each in requests),
            tokens=self.cost.tokens + sum(len(node.ids) for node in fresh),
            samples=self.cost.samples + len(fresh),
            requests=self.cost.requests + len(requests),
        )

    async def _valued(self, fresh: Sequence[Node]) -> list[Node]:
        values = [0.0] * len(fresh)
        if self._run.guide is not None:
            values = [float(value) for value in await self._run.guide(fresh)]
        if len(values) != len(fresh):
            raise ValueError(f"the guide gave {len(values)} values for {len(fresh)} nodes")
        for node, value in zip(fresh, values, strict=True):
            if math.isnan(value):
                raise ValueError(f"the guide gave nan for {node.text[-80:]!r}; give a number")
        return [replace(node, value=value) for node, value in zip(fresh, values, strict=True)]


@dataclass(slots=True, kw_only=True)
class _Run:
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


async def search(
    engine: Engine,
    questions: Mapping[str, str],
    algorithm: Algorithm,
    *,
    guide: Guide | None = None,
    step: Step = Step(),
    budget: Budget = Budget(),
    temperature: float = 0.7,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
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
        Extent of an expansion, and limits of each question.
    temperature
        Of every sample.
    seed
        Same seed, engine and questions: same results, whatever runs beside.
    progress
        Called with the numbers of finished and of all questions.

    Raises
    ------
    ValueError
        If there is no question, or an algorithm or guide breaks its rules.
    """
    if not questions:
        raise ValueError("there is no question; give at least one")
    run = _Run(
        engine=engine, step=step, budget=budget, temperature=temperature, seed=seed, guide=guide,
        live=len(questions),
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
        if progress is not None:
            progress(done, len(questions))
        return task.result(exhausted=exhausted)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(solve(*item)) for item in questions.items()]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def search_sync(
    engine: Engine,
    questions: Mapping[str, str],
    algorithm: Algorithm,
    *,
    guide: Guide | None = None,
    step: Step = Step(),
    budget: Budget = Budget(),
    temperature: float = 0.7,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[SearchResult]:
    """Return what `search` returns, from code without an event loop."""
    return asyncio.run(
        search(
            engine, questions, algorithm, guide=guide, step=step, budget=budget,
            temperature=temperature, seed=seed, progress=progress,
        )
    )  # fmt: skip
