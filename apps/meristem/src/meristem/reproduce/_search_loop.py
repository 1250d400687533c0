"""The roadmap's loop on a transformer trained here: search makes data, learning absorbs it.

- the task and the model before the loop are those of `_line_sums`
- a round: a beam search on new questions, whose guide checks the lines; then fine-tuning on the
  right solutions (expert iteration) or, in a second loop, DPO on the pairs of steps
- best-of-n draws as many lines as the beam, and learning takes as many steps from its solutions
- accuracy: one sample at temperature 1, mean of SAMPLES, on questions used for nothing else
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel

import meristem_testtime as tt
from meristem._rows import Row
from meristem._tuning import tuned
from meristem.reproduce._data import sign_row
from meristem.reproduce._line_sums import STEP, World, holds, solution
from meristem_posttrain import Encoded, Schedule, find_objective
from meristem_testtime.hf import HFEngine

WIDTH, SAMPLES = 4, 8
IMITATION = Schedule(steps=60, batch=32, micro_batch=32, learning_rate=1e-3)
PREFERENCE = Schedule(steps=60, batch=32, micro_batch=32, learning_rate=5e-5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A model, its share of right samples of each held-out question, and what made it."""

    model: PreTrainedModel
    right: Float[np.ndarray, " q"]
    tokens: int  # new tokens of the search that it learned from
    examples: int


Learn = Callable[[World, PreTrainedModel, Sequence[tt.SearchResult]], tuple[PreTrainedModel, int]]


def loop_rows(worlds: Sequence[World], seed: int) -> list[Row]:
    """Return the verdicts on two rounds of the loop and on the data of two searches."""
    start = time.perf_counter()
    found = [run_loop(world) for world in worlds]
    claims = (
        ("round 1 of expert iteration raises held-out accuracy", "imitated 1", "before"),
        ("round 2 of expert iteration raises it again", "imitated 2", "imitated 1"),
        ("DPO on step pairs raises held-out accuracy", "preferred 1", "before"),
        ("round 2 of DPO on step pairs raises it again", "preferred 2", "preferred 1"),
        ("tree search teaches more than best-of-n at equal tokens", "imitated 1", "sampled 1"),
    )
    return [_row(*claim, found, seed, time.perf_counter() - start) for claim in claims]


def run_loop(world: World) -> dict[str, Stage]:
    """Return the stages of both loops, and one that learned from best-of-n."""
    beam = tt.beam(WIDTH, WIDTH)
    first, second = world.rounds
    tree = _searched(world, world.base, first, beam)
    found = {
        "before": Stage(model=world.base, right=_right(world, world.base), tokens=0, examples=0),
        "sampled 1": _learned(
            imitate, world, world.base, _searched(world, world.base, first, tt.best_of_n(WIDTH))
        ),
    }
    kinds: dict[str, Learn] = {"imitated": imitate, "preferred": prefer}
    for kind, learn in kinds.items():
        one = _learned(learn, world, world.base, tree)
        found[f"{kind} 1"] = one
        again = _searched(world, one.model, second, beam)
        found[f"{kind} 2"] = _learned(learn, world, one.model, again)
    return found


def imitate(
    world: World, model: PreTrainedModel, results: Sequence[tt.SearchResult]
) -> tuple[PreTrainedModel, int]:
    """Return the model fine-tuned on the right solutions of a search, and how many they are."""
    records = tt.expert_iteration_records(results, _is_right)
    examples = [
        Encoded(prompt=world.tokenizer.encode(r.question), responses=([*r.completion_ids],))
        for r in records
    ]
    objective = find_objective("sft", "nll", {})
    return tuned(model, examples, objective, IMITATION, seed=world.seed), len(examples)


def prefer(
    world: World, model: PreTrainedModel, results: Sequence[tt.SearchResult]
) -> tuple[PreTrainedModel, int]:
    """Return the model after DPO on the pairs of steps of a search, and how many they are."""
    examples = [
        Encoded(
            prompt=[*world.tokenizer.encode(pair.question), *pair.prefix_ids],
            responses=([*pair.chosen_ids], [*pair.rejected_ids]),
        )
        for pair in tt.step_pairs(results, margin=0.5)
    ]
    objective = find_objective("dpo", "dpo", {})
    return tuned(model, examples, objective, PREFERENCE, seed=world.seed), len(examples)


def _is_right(question: str, text: str) -> bool:
    return text == solution(question)


def _searched(
    world: World, model: PreTrainedModel, questions: Sequence[str], algorithm: tt.Algorithm
) -> list[tt.SearchResult]:
    engine = HFEngine(model, world.tokenizer, name="sums", max_batch=512)
    return tt.search_sync(
        engine, {q: q for q in questions}, algorithm, guide=tt.reward_guide(holds), step=STEP,
        temperature=1.0, seed=world.seed,
    )  # fmt: skip


def _right(world: World, model: PreTrainedModel) -> Float[np.ndarray, " q"]:
    results = _searched(world, model, world.held_out, tt.best_of_n(SAMPLES))
    return np.array([np.mean([node.value for node in each.solutions]) for each in results])


def _learned(
    learn: Learn, world: World, model: PreTrainedModel, results: Sequence[tt.SearchResult]
) -> Stage:
    better, examples = learn(world, model, results)
    tokens = sum(result.cost.tokens for result in results)
    return Stage(model=better, right=_right(world, better), tokens=tokens, examples=examples)


def _row(
    claim: str,
    after: str,
    before: str,
    found: Sequence[dict[str, Stage]],
    seed: int,
    seconds: float,
) -> Row:
    right, base = (np.concatenate([each[k].right for each in found]) for k in (after, before))
    gain = tt.interval(right, minus=base, seed=seed)
    single = ", ".join(f"{(e[after].right - e[before].right).mean():+.3f}" for e in found)
    spent = "; ".join(
        f"{name}: {sum(each[name].examples for each in found):,} examples of "
        f"{sum(each[name].tokens for each in found):,} searched tokens"
        for name in (before, after)
    )
    return sign_row(
        claim, "section on search and learning", gain, 1, seconds=seconds, seed=seed,
        note=f"{base.mean():.1%} to {right.mean():.1%}, paired by question; by model {single}; "
        f"{spent}",
    )  # fmt: skip
