"""One question as an algorithm sees it.

- the seed of a sample is a hash of (seed, question, node), so batching never changes a result
- budgets are checked before a request is sent: they are exceeded by at most one expansion
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np

from meristem_core import derive_seed, stream
from meristem_testtime._batching import BudgetExhausted, Run
from meristem_testtime._engine import (
    UNWATCHED,
    Completion,
    Confidence,
    ContextFullError,
    Request,
    Watch,
    need,
)
from meristem_testtime._nodes import Cost, Node, SearchResult, Step

Algorithm = Callable[["Task"], Awaitable[None]]


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

    def __init__(self, name: str, prompt: tuple[int, ...], run: Run) -> None:
        self.step = run.step
        self.rng: np.random.Generator = stream(run.seed, "search", name)
        self.cost = Cost()
        self._begin, self._cached = time.monotonic(), 0
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
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        whole: bool = False,
        step: Step | None = None,
        watch: Callable[[int, str], bool] | None = None,
        confidence: Confidence | None = None,
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
        step
            How far, if not as far as the search's own step.
        watch
            Of the children of one node: told the place among them and the text of each one that
            ends; returns whether those that still run are to be aborted. They are children too,
            with what was drawn until then, but not finished.
        confidence
            What is wanted of confidence. Children that end for it are not finished.

        Raises
        ------
        BudgetExhausted
            If the question, or the run, may spend no more; nothing was sent.
        ContextFullError
            If a path leaves no room for the tokens of an expansion; nothing was sent.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else list(n)
        asked = [(node, c) for node, c in zip(nodes, counts, strict=True) if c > 0]
        closed = [node for node, _ in asked if node.finished]
        if closed:
            raise ValueError(f"node {closed[0].address()} is finished; expand open nodes only")
        if not asked:
            return [[] for _ in nodes]
        if not whole or any(node is not self.root for node, _ in asked):
            need(self._run.engine, "continue")
        if confidence is not None:
            need(self._run.engine, "confidence")
        if watch is not None:
            need(self._run.engine, "abort")
            if len(asked) != 1:
                raise ValueError(f"watch is for the children of one node, not of {len(asked)}")
        self._check_budget()
        firsts = [self._children.get(node, 0) for node, _ in asked]
        extent = self.step if step is None else step
        requests = [self._request(node, c, extent, whole, confidence) for node, c in asked]
        watches = UNWATCHED if watch is None else {0: self._told(asked[0][0], watch)}
        found = await self._run.generate(requests, watches)
        made = {
            node: [
                self._child(node, first + i, each, extent, whole) for i, each in enumerate(samples)
            ]
            for (node, _), first, samples in zip(asked, firsts, found, strict=True)
        }
        fresh = [child for children in made.values() for child in children]
        self._book(requests, found)
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

    def fits(self, node: Node) -> bool:
        """Return whether a whole solution after `node` has room in the context."""
        context, left = self._run.engine.context, max(self.step.max_steps - node.depth, 1)
        length = len(self._prompt) + len(node.path_ids()) + self.step.max_tokens * left
        return context is None or length <= context

    def prefix(self, node: Node, length: int) -> Node:
        """Return an open sibling of `node` that holds its first `length` tokens.

        Raises
        ------
        ValueError
            If that is none or all of them.
        """
        parent = node.parent
        if parent is None or not 0 < length < len(node.ids):
            raise ValueError(f"length ({length}) must lie in (0, {len(node.ids)}), else use a node")
        place = self._children.get(parent, 0)
        self._children[parent] = place + 1
        ids = node.ids[:length]
        child = Node(
            question=node.question, parent=parent, place=place, ids=ids,
            logprobs=node.logprobs[:length], depth=parent.depth,
            text=self._run.engine.decode(parent.path_ids() + ids), finished=False,
            truncated=False, value=parent.value,
        )  # fmt: skip
        self._nodes.append(child)
        return child

    def before(self, node: Node, mark: str) -> tuple[Node, bool]:
        """Return an open node with what `node` holds before `mark` or its end, and if it has one.

        Without either, that is `node` itself; with nothing before, its parent.
        """
        parent = node.parent
        if parent is None:
            return node, False
        text, has_mark, _ = node.text[len(parent.text) :].partition(mark)
        has_end = node.finished and not node.truncated
        if not has_mark:
            length = len(node.ids) - has_end
        else:
            length, path = len(node.ids), parent.path_ids()
            longest = len(parent.text) + len(text)
            while length and len(self._run.engine.decode(path + node.ids[:length])) > longest:
                length -= 1
        if length == len(node.ids):
            return node, False
        return self.prefix(node, length) if length else parent, True

    async def logprobs(self, node: Node, texts: Sequence[str]) -> list[float]:
        """Return the log-probability of each text as the continuation of `node`, in nats.

        Raises
        ------
        UnsupportedError
            If the engine cannot score.
        """
        engine = self._run.engine
        need(engine, "scores")
        prompt = self._prompt + node.path_ids()
        pairs = [(prompt, engine.encode(text)) for text in texts]
        scores = await engine.logprobs(pairs)
        read = sum(len(before) + len(after) for before, after in pairs)
        self.cost = replace(
            self.cost,
            prompt_tokens=self.cost.prompt_tokens + read,
            requests=self.cost.requests + len(pairs),
        )
        return [sum(each) for each in scores]

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
            cached_tokens=self._cached,
            seconds=time.monotonic() - self._begin,
        )

    def _check_budget(self) -> None:
        budget = self._run.budget
        over_tokens = budget.tokens is not None and self.cost.tokens >= budget.tokens
        if over_tokens or (
            budget.expansions is not None and self.cost.samples >= budget.expansions
        ):
            raise BudgetExhausted

    def _request(
        self, node: Node, n: int, step: Step, whole: bool, confidence: Confidence | None
    ) -> Request:
        first = self._children.get(node, 0)
        self._children[node] = first + n
        left = step.max_steps - node.depth if whole else 1
        seed = derive_seed(self._run.seed, node.question, *node.address())
        prompt = self._prompt + node.path_ids()
        most, context = step.max_tokens * max(left, 1), self._run.engine.context
        if context is not None and len(prompt) + most > context:
            raise ContextFullError(len(prompt), most, context)
        return Request(
            prompt=prompt,
            seed=seed + first,
            n=n,
            max_tokens=most,
            temperature=self._run.temperature,
            top_p=self._run.top_p,
            top_k=self._run.top_k,
            stop=() if whole else step.stop,
            confidence=confidence,
            logprobs=self._run.logprobs,
        )

    def _told(self, node: Node, watch: Callable[[int, str], bool]) -> Watch:
        before, decode = node.path_ids(), self._run.engine.decode
        return lambda place, sample: watch(place, decode(before + sample.ids))

    def _child(self, node: Node, place: int, sample: Completion, step: Step, whole: bool) -> Node:
        depth = node.depth + 1
        ended = sample.finish == "end"
        aborted = sample.finish in ("abort", "unsure")
        cut = not ended and not aborted and (whole or depth >= step.max_steps)
        return Node(
            question=node.question, parent=node, place=place, ids=sample.ids,
            logprobs=sample.logprobs, depth=depth,
            text=self._run.engine.decode(node.path_ids() + sample.ids),
            finished=ended or cut, truncated=cut or aborted, confidence=sample.confidence,
        )  # fmt: skip

    def _book(self, requests: Sequence[Request], found: Sequence[Sequence[Completion]]) -> None:
        samples = [sample for group in found for sample in group]
        self.cost = Cost(
            prompt_tokens=self.cost.prompt_tokens + sum(len(each.prompt) for each in requests),
            tokens=self.cost.tokens + sum(len(sample.ids) for sample in samples),
            samples=self.cost.samples + len(samples),
            requests=self.cost.requests + len(requests),
        )
        self._cached += sum(group[0].cached or 0 for group in found)

    async def _valued(self, fresh: Sequence[Node]) -> list[Node]:
        if self._run.guide is None:
            return list(fresh)
        whole = [node for node in fresh if node.finished or not node.truncated]  # not aborted
        values = [float(value) for value in await self._run.guide(whole)]
        if len(values) != len(whole):
            raise ValueError(f"the guide gave {len(values)} values for {len(whole)} nodes")
        for node, value in zip(whole, values, strict=True):
            if math.isnan(value):
                raise ValueError(f"the guide gave nan for {node.text[-80:]!r}; give a number")
        valued = dict(zip(whole, values, strict=True))
        return [replace(node, value=valued.get(node, 0.0)) for node in fresh]
