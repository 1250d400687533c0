"""What test-time compute buys the grown model: votes over samples, and asking again.

- a task is a place in held-out text before a word; the answer is that word, case ignored
- parallel: SAMPLES continuations, and every vote over them
- sequential: a chain answers, reads its answer and the same place again, and answers anew
"""

import re
from dataclasses import dataclass

import numpy as np

import meristem_testtime as tt
from meristem.grow._corpus import read_split
from meristem.grow._lineage import Lineage
from meristem_core import stream
from meristem_testtime.hf import HFEngine

TASKS, SAMPLES, ROUNDS = 48, 8, 3
BEFORE = 60  # characters that a task shows
NEW = 6  # tokens of an answer
TEMPERATURE = 0.7
RULES: dict[str, tt.Rule] = {
    "majority": tt.majority,
    "shortest majority": tt.shortest_majority,
    "longest majority": tt.longest_majority,
    "short-3": tt.short_m(3),
    "best of 8 by likelihood": tt.best_of("likelihood"),
    "Borda by likelihood": tt.borda("likelihood"),
}
WORD = re.compile(r"\s*([A-Za-z]{2,})(?![A-Za-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliberation:
    """Accuracies on the tasks, each with the bounds of its 95 % interval over tasks.

    With fewer than two tasks (the text has no lower-case Latin words) the lists are empty.
    """

    tasks: int
    samples: int
    unanswered: float  # share of the samples
    one: list[float]  # accuracy of one sample: mean, low, high
    coverage: list[float]  # any of the samples
    votes: dict[str, list[float]]  # rule -> accuracy of all samples
    minus_majority: dict[str, list[float]]  # rule -> paired difference
    rounds: list[float]  # accuracy after each round of asking again
    budget: int  # new tokens a task at which the two are compared
    parallel_minus_sequential: list[float]


def deliberate(*, lineage: Lineage, seed: int) -> Deliberation:
    """Sample the grown model on tasks from the first domain's held-out text, and judge."""
    name = str(lineage.path(lineage.steps[-1]))
    engine = HFEngine(lineage.grown(), lineage.tokenizer(), name=name)
    tasks = _tasks(lineage, engine, seed)
    if len(tasks) < 2:
        return Deliberation(
            tasks=len(tasks), samples=0, unanswered=0.0, one=[], coverage=[], votes={},
            minus_majority={}, rounds=[], budget=0, parallel_minus_sequential=[],
        )  # fmt: skip
    prompts = {name: before for name, (before, _) in tasks.items()}
    step = tt.Step(max_tokens=NEW, max_steps=1)
    drawn = tt.search_sync(
        engine, prompts, tt.best_of_n(SAMPLES), step=step, temperature=TEMPERATURE, seed=seed,
        guide=tt.confidence_guide(),
    )  # fmt: skip
    asked = tt.search_sync(
        engine, prompts, _again(prompts), step=step, temperature=TEMPERATURE, seed=seed + 1
    )
    traces, chains = _traces(drawn, tasks), _chains(asked, tasks)
    found = tt.curve(traces, RULES, [SAMPLES], seed=seed)
    coverage = tt.pass_at_k(traces, [1, SAMPLES])
    budget = int(chains.tokens.sum(1).mean())
    (gap,) = tt.equal_budget(chains, traces, [budget], seed=seed).difference
    return Deliberation(
        tasks=len(tasks),
        samples=SAMPLES,
        unanswered=float((traces.answer < 0).mean()),
        one=_plain(tt.interval(coverage[:, 0], seed=seed)),
        coverage=_plain(tt.interval(coverage[:, 1], seed=seed)),
        votes={name: _plain(each[0]) for name, each in found.accuracy.items()},
        minus_majority={name: _plain(each[0]) for name, each in found.difference.items()},
        rounds=tt.revisions(chains).accuracy.tolist(),
        budget=budget,
        parallel_minus_sequential=_plain(gap),
    )


def _tasks(lineage: Lineage, engine: HFEngine, seed: int) -> dict[str, tuple[str, str]]:
    """Return for each task the text before the place, and the word that follows."""
    documents = read_split(lineage.texts, lineage.corpus.domains[0].name, "validation")
    text = "\n".join(document.text for document in documents)
    places = [found.start() for found in re.finditer(r"(?<=[a-z,]) [a-z]{2,}(?=[ ,.])", text)]
    places = [place for place in places if place >= BEFORE]
    most = (
        lineage.scale.context // (ROUNDS + 1) - NEW - 2
    )  # two more: a line end, and another way to cut tokens
    tasks: dict[str, tuple[str, str]] = {}
    for place in stream(seed, "tasks").permutation(np.array(places, np.int64)).tolist():
        before = engine.decode(engine.encode(text[place - BEFORE : place])[-most:])
        word = WORD.match(text, place)
        if word is not None and before.strip():
            tasks[f"{place}"] = (before, word[1])
        if len(tasks) == TASKS:
            break
    return tasks


def _again(prompts: dict[str, str]) -> tt.Algorithm:
    """Return chains that see their answer, then the same place again."""

    async def algorithm(task: tt.Task) -> None:
        node = task.root
        for round_ in range(ROUNDS + 1):
            if round_:
                node = await task.append(node, f"\n{prompts[task.root.question]}")
            try:
                ((node,),) = await task.expand([node], whole=True)
            except tt.ContextFullError:
                return
            task.finish(node)

    return algorithm


def _word(engine_text: str) -> str | None:
    found = WORD.match(engine_text)
    return None if found is None else found[1]


def _boxed(word: str | None) -> str:
    return "" if word is None else rf"\boxed{{{word}}}"


def _traces(drawn: list[tt.SearchResult], tasks: dict[str, tuple[str, str]]) -> tt.Traces:
    plain = tt.from_samples(
        {
            result.question: [
                (_boxed(_word(node.text)), len(node.ids)) for node in result.solutions
            ]
            for result in drawn
        },
        {name: word for name, (_, word) in tasks.items()},
    )
    likelihood = [node.value for result in drawn for node in result.solutions]
    return tt.Traces(
        question=plain.question, answer=plain.answer, tokens=plain.tokens, correct=plain.correct,
        questions=plain.questions, scores={"likelihood": np.array(likelihood)},
    )  # fmt: skip


def _chains(asked: list[tt.SearchResult], tasks: dict[str, tuple[str, str]]) -> tt.Chains:
    shape = (len(asked), ROUNDS + 1)
    answer, tokens = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    correct, alive = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, result in enumerate(asked):
        known: dict[str, int] = {}
        for column, node in enumerate(result.solutions):
            before = "" if node.parent is None else node.parent.text
            word = _word(node.text[len(before) :])
            tokens[row, column], alive[row, column] = len(node.ids), True
            if word is not None:
                answer[row, column] = known.setdefault(word.casefold(), len(known))
                correct[row, column] = word.casefold() == tasks[result.question][1].casefold()
    return tt.Chains(
        question=np.arange(len(asked)), answer=answer, correct=correct, tokens=tokens,
        alive=alive,
    )  # fmt: skip


def _plain(found: tt.MeanInterval) -> list[float]:
    return [found.mean, found.low, found.high]
