"""A task whose every line can be checked, and a small model that half masters it.

- sums modulo 11 from left to right, a line for each operation: to 3+9-4= belong the lines 1 and 8
- a solution is right if every line is; so one text is right
- the model is trained until it samples a share ENOUGH of right solutions, and no further
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import meristem_testtime as tt
from meristem._tuning import solved
from meristem.reproduce._revision import blank
from meristem_core import derive_seed, shuffled_indices, stream
from meristem_posttrain import Encoded, pad

DIGITS = "0123456789A"
ALPHABET = f"{DIGITS}+-=\n."
OPERATIONS = 5
STEP = tt.Step(stop=("\n",), max_tokens=3, max_steps=OPERATIONS)
# model 0 chose the loop's rates of learning
MODELS, SEARCHED, HELD_OUT = {True: 1, False: 3}, {True: 150, False: 400}, {True: 200, False: 300}
POOL, PROBE = 20_000, 256  # questions of the training, and those that tell when to stop
ENOUGH, CHECK, MOST_STEPS, BATCH, RATE = 0.35, 20, 3000, 128, 5e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A model, and questions that are new to it: for two rounds of a loop, and for measuring."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    rounds: tuple[list[str], list[str]]
    held_out: list[str]
    seed: int


def solution(question: str) -> str:
    r"""Return the right lines of a question.

    Examples
    --------
    >>> solution("3+9-4=")
    '1\n8'
    """
    value, lines = DIGITS.index(question[0]), list[str]()
    for sign, digit in zip(question[1:-1:2], question[2::2], strict=True):
        value = (value + (1 if sign == "+" else -1) * DIGITS.index(digit)) % len(DIGITS)
        lines.append(DIGITS[value])
    return "\n".join(lines)


def draw_questions(rng: np.random.Generator, n: int) -> list[str]:
    """Return n questions, no two the same."""
    found: dict[str, None] = {}
    while len(found) < n:
        digits = rng.integers(len(DIGITS), size=OPERATIONS + 1).tolist()
        signs = [*rng.integers(2, size=OPERATIONS).tolist(), 2]
        found["".join(DIGITS[d] + "+-="[s] for d, s in zip(digits, signs, strict=True))] = None
    return list(found)


def holds(question: str, text: str) -> float:
    """Return 1 if every line so far is right and, where the text ends, it is whole; else 0."""
    right = solution(question)
    return float(text == right or (text.endswith("\n") and right.startswith(text)))


def make_worlds(quick: bool, seed: int) -> list[World]:
    """Return the models with their questions."""
    seeds = [derive_seed(seed, "loop", i) % 2**31 for i in range(1, MODELS[quick] + 1)]
    return [make_world(each, SEARCHED[quick], HELD_OUT[quick]) for each in seeds]


def make_world(seed: int, searched: int, held_out: int) -> World:
    """Return a model with its questions for two rounds and for measuring."""
    drawn = draw_questions(stream(seed, "questions"), POOL + PROBE + 2 * searched + held_out)
    pool, probe, rest = drawn[:POOL], drawn[POOL : POOL + PROBE], drawn[POOL + PROBE :]
    base, tokenizer = trained(pool, probe, seed)
    return World(
        base=base, tokenizer=tokenizer, seed=seed, held_out=rest[2 * searched :],
        rounds=(rest[:searched], rest[searched : 2 * searched]),
    )  # fmt: skip


def trained(
    pool: Sequence[str], probe: Sequence[str], seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return a model that gives right solutions to the probe with a probability ENOUGH."""
    model, tokenizer = blank(ALPHABET, seed)
    examples, checked = (
        [
            Encoded(prompt=tokenizer.encode(q), responses=(tokenizer.encode(f"{solution(q)}."),))
            for q in some
        ]
        for some in (pool, probe)
    )
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    for step in range(MOST_STEPS):
        if step % CHECK == 0 and solved(model, checked).mean() >= ENOUGH:
            break
        order = shuffled_indices(len(pool), step * BATCH, (step + 1) * BATCH, seed=seed)
        rows = pad([examples[i] for i in order], 0)
        model(input_ids=rows.ids, labels=rows.ids.masked_fill(~rows.response, -100)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer
