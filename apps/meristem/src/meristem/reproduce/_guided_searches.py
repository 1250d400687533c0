"""Votes and searches at equal tokens, on models whose value functions are known.

- the task and the models are those of `_line_sums`: one text is right, so the value of a right
  prefix, the chance that the model completes it, is that of the missing tokens; any other has 0
- a guide gives the value, or its mean with a number drawn once for each text, as a reward model
  errs again wherever it reads the same
- area: chance that a guide puts a right solution above a wrong one (under the ROC curve)
- equal tokens: a search draws as many as LEAVES whole solutions have; guides cost none
- best-of-n and the votes are expectations over the SAMPLES of a question
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import meristem_testtime as tt
from meristem._rows import Row
from meristem.reproduce._data import sign_row
from meristem.reproduce._line_sums import OPERATIONS, STEP, World, holds, solution
from meristem_core import stream
from meristem_core.command import progress_bar
from meristem_testtime.hf import HFEngine

QUESTIONS = 100  # of each model
SAMPLES, LEAVES, WIDTH, BRANCH = 64, 16, 4, 8
AREAS = (1.0, 0.8, 0.5)
FEW, MANY = 4, SAMPLES  # samples to choose from, for the loss by too many
DRAWS = 512
RESIDUAL = 0.05  # of ln(-ln coverage): the law of repeated sampling holds below
BUDGET = tt.Budget(tokens=LEAVES * 2 * OPERATIONS)  # a line has a digit and an end
SIMULATIONS = 200  # more than the budget pays for
SOURCE = "section on search: guidance, and tree search"
Value = Callable[[str, str], float]
BY_VALUE: Mapping[str, tt.Algorithm] = {  # the guide chooses among the solutions
    "beam search": tt.beam(LEAVES, WIDTH),
    "DVTS": tt.dvts(LEAVES, WIDTH),
    "REBASE": tt.rebase(LEAVES),
    "breadth-first search": tt.bfs(LEAVES // BRANCH, BRANCH),
    "depth-first search": tt.dfs(BRANCH),
    "best-first search": tt.best_first(BRANCH, solutions=LEAVES),
}
BY_WEIGHT: Mapping[str, tt.Algorithm] = {  # the solutions vote, by visits or weights
    "MCTS by UCT": tt.mcts(SIMULATIONS, BRANCH),
    "MCTS by PUCT": tt.mcts(SIMULATIONS, BRANCH, tt.puct()),
    "ReST-MCTS*": tt.rest_mcts(SIMULATIONS, BRANCH),
    "particle filter": tt.particles(LEAVES),
}
SEARCHES = {**BY_VALUE, **BY_WEIGHT}
VOTES: Mapping[str, tt.Rule] = {
    "majority": tt.majority,
    "shortest majority": tt.shortest_majority,
    "Borda count by confidence": tt.borda("confidence"),
    "majority of the surer half": tt.keep_top("confidence", tt.majority, 0.5),
    "vote weighted by probability": tt.weighted("probability"),
    "vote weighted by a guide of area 0.8": tt.weighted("0.8"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A model's questions with their samples; scores are named by the area of the guide."""

    engine: HFEngine
    guides: Mapping[float, Value]
    traces: tt.Traces
    seed: int

    def best_of(self, k: int, area: float) -> np.ndarray:
        """Return the chance that the guide's choice among k samples of a question is right."""
        return tt.bon_at_k(self.traces, [k], str(area))[:, 0]

    def voted(self, rule: tt.Rule, k: int) -> np.ndarray:
        """Return the chance that a vote of k samples of a question is right."""
        found = tt.at_k(self.traces, rule, [k], draws=DRAWS, seed=self.seed)
        return found.values[:, 0]


def search_rows(worlds: Sequence[World], seed: int) -> list[Row]:
    """Return the verdicts on votes, on searches by guides of each area, and on too many samples."""
    models = [sample(world) for world in worlds]
    return [
        *_votes(models, seed),
        _coverage(models, seed),
        *_too_many(models, seed),
        *_searches(models, seed),
    ]


def sample(world: World) -> Sampled:
    """Return SAMPLES samples of each of some questions."""
    engine = HFEngine(world.base, world.tokenizer, name="sums", max_batch=512)
    questions = world.held_out[:QUESTIONS]
    exact = exact_value(engine, questions)
    guides = {area: spoilt(exact, area, world.seed) for area in AREAS}
    results = tt.search_sync(
        engine, {q: q for q in questions}, tt.best_of_n(SAMPLES), step=STEP, temperature=1.0,
        seed=world.seed,
    )  # fmt: skip
    return Sampled(engine=engine, guides=guides, traces=_traces(results, guides), seed=world.seed)


def exact_value(engine: tt.Engine, questions: Sequence[str]) -> Value:
    """Return the value function of the engine's model at temperature 1."""
    end = engine.encode(".")
    wholes = [(engine.encode(q), engine.encode(solution(q)) + end) for q in questions]
    scores = asyncio.run(engine.logprobs(wholes))
    chances = {
        question: [math.exp(sum(each[2 * line :])) for line in range(OPERATIONS)]
        for question, each in zip(questions, scores, strict=True)
    }

    def value(question: str, text: str) -> float:
        if not holds(question, text):
            return 0.0
        whole = text == solution(question)
        return 1.0 if whole else chances[question][text.count("\n")]

    return value


def spoilt(value: Value, area: float, seed: int) -> Value:
    """Return a guide of this area: a mean of the value and a number uniform in [0, 1)."""
    weight = 0.0 if area == 1 else noise_weight(area)

    def guide(question: str, text: str) -> float:
        noise = stream(seed, "noise", question, text).random()
        return (1 - weight) * value(question, text) + weight * noise

    return guide


def noise_weight(area: float) -> float:
    """Return the share of noise u with which (1 - share) + share u lies above share u' this often.

    Notes
    -----
    With d = (1 - share) / share <= 1, P(d + u > u') = 1 - (1 - d)^2 / 2 for uniform u, u'.

    Examples
    --------
    >>> noise_weight(0.5), round(noise_weight(0.875), 4)
    (1.0, 0.6667)
    """
    return 1 / (2 - math.sqrt(2 * (1 - area)))


def answer(result: tt.SearchResult, by_weight: bool) -> str:
    """Return the solution of most weight, copies together, or of most value; "" without one."""
    merit: dict[str, float] = {}
    for node, weight in zip(result.solutions, result.weights, strict=True):
        merit[node.text] = merit.get(node.text, 0.0) + weight if by_weight else node.value
    return max(merit, key=lambda text: merit[text], default="")


def _traces(results: Sequence[tt.SearchResult], guides: Mapping[float, Value]) -> tt.Traces:
    """Return the samples; their classes are whole texts."""
    nodes = [node for result in results for node in result.solutions]
    logprob = [sum(node.logprobs) for node in nodes]
    return tt.Traces(
        question=np.repeat(np.arange(len(results)), SAMPLES),
        answer=np.unique([node.text for node in nodes], return_inverse=True)[1],
        tokens=np.array([len(node.ids) for node in nodes]),
        correct=np.array([node.text == solution(node.question) for node in nodes]),
        questions=tuple(result.question for result in results),
        scores={
            "confidence": np.array(logprob) / [len(node.ids) for node in nodes],
            "probability": np.exp(logprob),
            **{
                str(area): np.array([guide(node.question, node.text) for node in nodes])
                for area, guide in guides.items()
            },
        },
    )


def _votes(models: Sequence[Sampled], seed: int) -> list[Row]:
    rows: list[Row] = []
    for name, rule in VOTES.items():
        start = time.perf_counter()
        pairs = [(m.voted(rule, LEAVES), tt.pass_at_k(m.traces, [1])[:, 0]) for m in models]
        rows.append(_row(f"{name} of {LEAVES} beats one sample", pairs, 1, seed, start))
    return rows


def _coverage(models: Sequence[Sampled], seed: int) -> Row:
    start, ks = time.perf_counter(), np.arange(1, SAMPLES + 1)
    by_model = np.array([tt.pass_at_k(each.traces, ks.tolist()).mean(0) for each in models])
    coverage = by_model.mean(0)
    short = coverage < 1  # the law is of what is missing
    law = tt.fit_coverage(ks[short].tolist(), coverage[short].tolist())
    return Row(
        claim=f"small models: ln(-ln coverage) is linear in ln k, k = 1 to {SAMPLES}",
        source="section on repeated sampling; arXiv 2407.21787", claimed=RESIDUAL,
        measured=law.max_residual, low=None, high=None, n=QUESTIONS * len(models),
        verdict="reproduced" if law.max_residual < RESIDUAL else "refuted",
        note=f"largest residual up to k = {ks[short][-1]}; coverage {coverage[0]:.1%} to "
        f"{coverage[-1]:.1%}, {QUESTIONS} questions a model",
        seconds=time.perf_counter() - start, seed=seed,
    )  # fmt: skip


def _too_many(models: Sequence[Sampled], seed: int) -> list[Row]:
    """Return whether choosing among more samples is better, by a guide alone and by a vote."""
    rows: list[Row] = []
    for area in AREAS:
        start, rule = time.perf_counter(), tt.weighted(str(area))
        does, sign = ("helps", 1) if area == 1 else ("hurts: over-optimisation", -1)
        claim = f"choosing among {MANY} instead of {FEW} {does}, guide of area {area}"
        pairs = [(each.best_of(MANY, area), each.best_of(FEW, area)) for each in models]
        rows.append(_row(claim, pairs, sign, seed, start))
        start = time.perf_counter()
        claim = f"voting by its values among {MANY} instead of {FEW} helps, guide of area {area}"
        pairs = [(each.voted(rule, MANY), each.voted(rule, FEW)) for each in models]
        rows.append(_row(claim, pairs, 1, seed, start))
    return rows


def _searches(models: Sequence[Sampled], seed: int) -> list[Row]:
    rows: list[Row] = []
    cells = [(area, name) for area in AREAS for name in SEARCHES]
    with progress_bar("searches") as show:
        for area, name in cells:
            start = time.perf_counter()
            found = [_searched(each, name, area) for each in models]
            pairs = [
                (right, each.best_of(LEAVES, area))
                for (right, _), each in zip(found, models, strict=True)
            ]
            claim = f"{name} beats best-of-{LEAVES} at equal tokens, guide of area {area}"
            row = _row(claim, pairs, 1, seed, start)
            spent = np.mean([tokens for _, tokens in found])
            note = f"{row.note}; {spent:.0f} of {BUDGET.tokens} tokens a question"
            rows.append(replace(row, note=note))
            show(len(rows), len(cells), {})
    return rows


def _searched(sampled: Sampled, name: str, area: float) -> tuple[np.ndarray, float]:
    """Return which answers of a search are right, and its tokens a question."""
    results = tt.search_sync(
        sampled.engine, {q: q for q in sampled.traces.questions}, SEARCHES[name],
        guide=tt.reward_guide(sampled.guides[area]), step=STEP, budget=BUDGET, temperature=1.0,
        seed=sampled.seed,
    )  # fmt: skip
    right = [answer(each, name in BY_WEIGHT) == solution(each.question) for each in results]
    return np.array(right, np.float64), float(np.mean([each.cost.tokens for each in results]))


def _row(
    claim: str,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    sign: int,
    seed: int,
    start: float,
) -> Row:
    """Return the verdict on the first of each model's pair minus the second."""
    after, before = (np.concatenate(part) for part in zip(*pairs, strict=True))
    gain = tt.interval(after, minus=before, seed=seed)
    single = ", ".join(f"{(a - b).mean():+.3f}" for a, b in pairs)
    return sign_row(
        claim, SOURCE, gain, sign, seconds=time.perf_counter() - start, seed=seed,
        note=f"{before.mean():.1%} to {after.mean():.1%}, paired by question; by model {single}",
    )  # fmt: skip
