"""Stage 6: the grown model learns a task from demonstrations, then from pairs.

The task is generated (running sums modulo 10, checked exactly), so that nothing is downloaded.
Every divergence at every rate is fine-tuned, then preference-tuned by one DPO; the comparison shows
what the rate and the divergence of fine-tuning do to the model before and after DPO (2507.00018).
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from meristem._running_sums import (
    Alphabet,
    demonstrations,
    draw_problems,
    preferences,
    write_answers,
)
from meristem._tuning import drift, solved, tuned
from meristem.grow._lineage import Lineage
from meristem_core import Journal, stream
from meristem_core.command import Progress, UsageError
from meristem_posttrain import Schedule, find_objective

LOSSES = {  # divergence: loss and its settings
    "total variation": ("nll", {}),
    "chi-squared": ("f_sft", {"divergence": "pearson_chi2"}),
    "reverse KL": ("f_sft", {"divergence": "reverse_kl"}),
}
TERMS, NOISE = 2, 0.5
HELD_OUT = 200
DPO_RATE = 0.1  # of the highest rate of fine-tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One way of fine-tuning; scores are probabilities of a right answer to a new problem."""

    divergence: str
    rate: float
    after_sft: float
    after_dpo: float
    kl: float  # KL(fine-tuned || grown), nats a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The comparison, and the score of the grown model before it."""

    before: float
    cells: list[Cell]


def tune_model(folder: Path, *, lineage: Lineage, seed: int, progress: Progress) -> Tuned:
    """Tune the grown model in every way; finished ways in `folder` are not repeated.

    Raises
    ------
    UsageError
        If the tokenizer has no token of its own for a digit.
    """
    plan = lineage.scale.tuning
    model = lineage.grown()
    alphabet = digits_of(lineage.tokenizer())
    rng = stream(seed, "tuning")
    train, compared, new = (
        draw_problems(rng, n, TERMS) for n in (plan.demonstrations, plan.demonstrations, HELD_OUT)
    )
    shown = demonstrations(alphabet, train, write_answers(rng, train))
    pairs = preferences(alphabet, rng, compared, noise=NOISE)
    test = demonstrations(alphabet, new, write_answers(rng, new))
    ways = [(name, rate) for name in list(LOSSES)[: plan.divergences] for rate in plan.rates]
    with Journal(folder / "cells.jsonl") as journal:
        known = {(cell["divergence"], cell["rate"]): cell for cell in journal}
        for done, (name, rate) in enumerate(ways, start=1):
            if (name, rate) not in known:
                loss, settings = LOSSES[name]
                objective = find_objective("sft", loss, settings)
                sizes = {"batch": plan.batch, "micro_batch": plan.batch}
                fine = tuned(
                    model, shown, objective,
                    Schedule(steps=plan.sft_steps, learning_rate=rate, **sizes), seed=seed,
                )  # fmt: skip
                aligned = tuned(
                    fine, pairs, find_objective("dpo", "dpo", {}),
                    Schedule(
                        steps=plan.dpo_steps, learning_rate=DPO_RATE * max(plan.rates), **sizes
                    ),
                    seed=seed,
                )  # fmt: skip
                known[name, rate] = {
                    "divergence": name,
                    "rate": rate,
                    "after_sft": float(solved(fine, test).mean()),
                    "after_dpo": float(solved(aligned, test).mean()),
                    "kl": drift(fine, model, test, objective),
                }
                journal.append(known[name, rate])
            progress(done, len(ways), {})
    cells = [Cell(**known[way]) for way in ways]
    return Tuned(before=float(solved(model, test).mean()), cells=cells)


def digits_of(tokenizer: PreTrainedTokenizerFast) -> Alphabet:
    """Return the tokens of digits and of the equals sign."""
    found = {sign: tokenizer.encode(sign, add_special_tokens=False) for sign in "0123456789="}
    for sign, tokens in found.items():
        if len(tokens) != 1:
            raise UsageError(f"the tokenizer writes {sign} as {len(tokens)} tokens, not one")
    return Alphabet(
        digits=tuple(found[str(d)][0] for d in range(10)),
        equals=(found["="][0],),
        end=int(str(tokenizer.eos_token_id)),
    )
