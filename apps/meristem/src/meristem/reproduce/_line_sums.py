"""A task whose every line can be checked, and a small model that half masters it.

- sums modulo 11 from left to right, a line for each operation: to 3+9-4= belong the lines 1 and 8
- a solution is right if every line is; so one text is right
- the model is trained until it samples a share ENOUGH of right solutions, and no further
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import meristem_testtime as tt
from meristem._tuning import solved
from meristem.reproduce._revision import blank
from meristem_core import shuffled_indices, stream
from meristem_posttrain import Encoded, pad

DIGITS = "0123456789A"
ALPHABET = f"{DIGITS}+-=\n."
OPERATIONS = 5
STEP = tt.Step(stop=("\n",), max_tokens=3, max_steps=OPERATIONS)
POOL, PROBE = 20_000, 256  # questions of the training, and those that tell when to stop
ENOUGH, CHECK, MOST_STEPS, BATCH, RATE = 0.35, 20, 3000, 128, 5e-3


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


def half_trained(seed: int, n: int) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[str]]:
    """Return a model, its tokenizer, and n questions that it was not trained on."""
    drawn = draw_questions(stream(seed, "questions"), POOL + PROBE + n)
    model, tokenizer = trained(drawn[:POOL], drawn[POOL : POOL + PROBE], seed)
    return model, tokenizer, drawn[POOL + PROBE :]


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
