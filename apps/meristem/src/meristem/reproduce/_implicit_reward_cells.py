"""The trained part of paper 2507.00018: fine-tuning at several rates and divergences, then DPO.

A small transformer is pre-trained on running sums by a noisy writer, fine-tuned on few right
answers, and preference-tuned on right against wrong ones, or both at once by a weighted sum of the
two losses. A cell is one such run; finished cells stand in a journal and are not repeated.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from meristem._running_sums import (
    Alphabet,
    demonstrations,
    draw_problems,
    preferences,
    write_answers,
)
from meristem._tuning import BLOCK, drift, solved, tuned
from meristem_core import Journal, derive_seed, shuffled_indices, stream
from meristem_core.command import Progress
from meristem_losses import (
    TokenStats,
    dpo_loss,
    mean_over_tokens,
    nll_loss,
    potential,
    preference_pairs,
    token_logprobs,
)
from meristem_losses.hf import head_options, hidden_states, score
from meristem_posttrain import Encoded, Schedule, evaluate, find_objective, pad

ALPHABET = Alphabet(digits=tuple(range(10)), equals=(10,), end=11)
TERMS, NOISE = 3, 0.3
PRETRAIN_STEPS, PRETRAIN_BATCH, PRETRAIN_RATE = 500, 64, 3e-3
RATES = (4e-3, 2e-3, 1e-3, 5e-4)
WATCHED_RATE = 2e-3  # of the curves of KL against likelihood
SFT_STEPS, DPO_STEPS, BATCH, DPO_RATE = 24, 24, 16, 5e-4
DEMONSTRATIONS, HELD_OUT = 96, 256
LOSSES: dict[str, tuple[str, dict[str, str]]] = {
    "total variation": ("nll", {}),
    "chi-squared": ("f_sft", {"divergence": "pearson_chi2"}),
    "reverse KL": ("f_sft", {"divergence": "reverse_kl"}),
    "Hellinger": ("f_sft", {"divergence": "squared_hellinger"}),
    "Jensen-Shannon": ("f_sft", {"divergence": "jensen_shannon"}),
    "forward KL": ("f_sft", {"divergence": "forward_kl"}),
    "alpha 0.5": ("f_sft", {"divergence": "alpha:0.5"}),
}
DRAWN = {  # trained on several answers a problem, of a writer who slips half as often as the base
    f"{loss}, {n} drawn": (loss, n)
    for n in (8, 1)
    for loss in ("total variation", "chi-squared", "reverse KL")
}
WRITER_NOISE = NOISE / 2
JOINT = {"joint, weight 0.1": 0.1, "joint, weight 1": 1.0, "joint, weight 10": 10.0}  # of DPO


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A pre-trained model and the data of one seed."""

    base: Any
    train: list[Encoded]
    pairs: list[Encoded]
    test: list[Encoded]
    drawn: dict[int, list[Encoded]]  # by answers a problem, problems those of `train`


def make_world(seed: int, base_seed: int) -> World:
    """Return the model of `base_seed` with the data of `seed`."""
    rng = stream(seed, "data")
    few = draw_problems(rng, DEMONSTRATIONS, TERMS)
    compared = draw_problems(rng, DEMONSTRATIONS, TERMS)
    new = draw_problems(rng, HELD_OUT, TERMS)
    writer = stream(seed, "drawn")
    drawn = {}
    for n in (1, 8):
        problems = few.repeat(n, axis=0)
        answers = write_answers(writer, problems, noise=WRITER_NOISE)
        drawn[n] = demonstrations(ALPHABET, problems, answers)
    return World(
        base=pretrained(base_seed),
        train=demonstrations(ALPHABET, few, write_answers(rng, few)),
        pairs=preferences(ALPHABET, rng, compared, noise=NOISE),
        test=demonstrations(ALPHABET, new, write_answers(rng, new)),
        drawn=drawn,
    )


def pretrained(seed: int) -> Any:
    """Return a model that writes running sums with the noise of its teacher."""
    config = transformers.LlamaConfig(
        vocab_size=12, hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, pad_token_id=11, bos_token_id=11,
        eos_token_id=11,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights") % 2**63)
        model = transformers.LlamaForCausalLM(config)
    rng = stream(seed, "pretraining")
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAIN_RATE)
    for step in range(PRETRAIN_STEPS):
        digits = draw_problems(rng, PRETRAIN_BATCH, TERMS)
        sums = write_answers(rng, digits, noise=NOISE)
        column = np.ones((PRETRAIN_BATCH, 1), dtype=digits.dtype)
        rows = torch.from_numpy(np.concatenate([digits, 10 * column, sums, 11 * column], 1))
        for group in optimizer.param_groups:
            group["lr"] = PRETRAIN_RATE * min((step + 1) / 50, max(0.1, 1 - step / PRETRAIN_STEPS))
        logits = model(input_ids=rows).logits[:, TERMS:-1]
        cross_entropy(logits.flatten(0, 1), rows[:, TERMS + 1 :].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def run_cells(
    out: Path, names: list[str], seeds: list[int], bases: int, progress: Progress
) -> list[Any]:
    """Return the records of every cell, running those that the journal does not hold."""
    total = len(names) * len(seeds) * len(RATES)
    with Journal(out / "cells.jsonl") as journal:
        known = {(r["seed"], r["loss"], r["rate"]): r for r in journal}
        world: tuple[int, World] | None = None
        for done, (seed, name, rate) in enumerate(
            ((s, n, r) for s in seeds for n in names for r in RATES), start=1
        ):
            if (seed, name, rate) in known:
                continue
            if world is None or world[0] != seed:
                world = seed, make_world(seed, seeds[seeds.index(seed) % bases])
            run = run_joint_cell if name in JOINT else run_cell
            record = {
                "seed": seed, "loss": name, "rate": rate, **run(world[1], name, rate, seed)
            }  # fmt: skip
            journal.append(record)
            known[seed, name, rate] = record
            progress(done, total, {})
    return [known[s, n, r] for s in seeds for n in names for r in RATES]


def run_cell(world: World, name: str, rate: float, seed: int) -> dict[str, Any]:
    """Fine-tune, then prefer; return scores, drift, and what the logits know of the outcome."""
    divergence, answers = DRAWN.get(name, (name, 0))
    examples = world.drawn[answers] if answers else world.train
    loss, settings = LOSSES[divergence]
    objective = find_objective("sft", loss, settings)
    curve: list[list[float]] = []

    def watch(step: int, model: Any) -> None:
        if rate == WATCHED_RATE and step % 4 == 0 and name in LOSSES:
            found = evaluate(model.eval(), world.base, examples, objective, micro_batch=BLOCK)
            curve.append([found["nll"], found["kl"]])

    plan = {"batch": BATCH, "micro_batch": BATCH}
    fine = tuned(
        world.base, examples, objective,
        Schedule(steps=SFT_STEPS, learning_rate=rate, **plan),
        seed=seed, watch=watch,
    )  # fmt: skip
    aligned = tuned(
        fine, world.pairs, find_objective("dpo", "dpo", {}),
        Schedule(steps=DPO_STEPS, learning_rate=DPO_RATE, **plan),
        seed=seed,
    )  # fmt: skip
    record: dict[str, Any] = {
        "before": float(solved(world.base, world.test).mean()),
        "after_sft": float(solved(fine, world.test).mean()),
        "after_dpo": float(solved(aligned, world.test).mean()),
        "kl": drift(fine, world.base, world.test, objective),
        "curve": curve,
    }
    if name == "total variation" and rate == WATCHED_RATE:
        record["readout"] = read_out(fine, world, seed)
    return record


def run_joint_cell(world: World, name: str, rate: float, seed: int) -> dict[str, Any]:
    """Minimise likelihood plus weighted DPO in one stage, on as many tokens as the two stages."""
    model = copy.deepcopy(world.base)
    schedule = Schedule(steps=SFT_STEPS, batch=BATCH, micro_batch=BATCH, learning_rate=rate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(SFT_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        shown, compared = (_batch(examples, step, seed) for examples in (world.train, world.pairs))
        plain = _scored(model, shown)
        with torch.no_grad():
            reference = _scored(world.base, compared)
        pairs = preference_pairs(_scored(model, compared), reference)
        loss = mean_over_tokens(nll_loss(plain), plain.mask)
        (loss + JOINT[name] * dpo_loss(pairs).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "before": float(solved(world.base, world.test).mean()),
        "after_dpo": float(solved(model, world.test).mean()),
        "kl": drift(model, world.base, world.test, find_objective("sft", "nll", {})),
    }


def _batch(examples: list[Encoded], step: int, seed: int) -> list[Encoded]:
    first = step * BATCH
    order = shuffled_indices(len(examples), first, first + BATCH, seed=derive_seed(seed, "order"))
    return [examples[i] for i in order]


def _scored(model: Any, examples: list[Encoded]) -> TokenStats:
    rows = pad(examples, 0)
    return score(model, rows.ids, rows.response, input_ids=rows.ids, attention_mask=rows.attention)[
        0
    ]


@torch.no_grad()
def read_out(model: Any, world: World, seed: int) -> dict[str, float]:
    """Return how well values tell right from wrong sampled answers: areas under the curve.

    Values are read where the answer is complete; `head` is a linear classifier on the hidden state
    there, trained on one half of the answers and tested, like the others, on the other half.
    """
    prompts = torch.tensor([e.prompt for e in world.test] * 2)
    generator = torch.Generator().manual_seed(derive_seed(seed, "answers") % 2**63)
    ids = prompts
    for _ in range(TERMS):
        p = model(input_ids=ids).logits[:, -1, :10].softmax(1)
        ids = torch.cat([ids, torch.multinomial(p, 1, generator=generator)], 1)
    right = torch.tensor([e.responses[0][:-1] for e in world.test] * 2)
    correct = (ids[:, -TERMS:] == right).all(1).numpy()
    ids = torch.cat([ids, torch.full((len(ids), 1), ALPHABET.end)], 1)
    start = prompts.shape[1] - 1
    stats, hidden = [], []
    for each in (model, world.base):
        states, _ = hidden_states(each, input_ids=ids)
        kept = states[:, start:-1]
        hidden.append(kept[:, -1])
        stats.append(token_logprobs(kept, targets=ids[:, start + 1 :], **head_options(each)))
    half = len(world.test)
    test = slice(half // 2, half), slice(half + half // 2, None)  # prompts that the head never saw
    rows = np.r_[test]
    values = {
        "relative": potential(stats[0], stats[1])[:, -1],
        "raw": stats[0].lse[:, -1] - stats[0].lse[:, 0],
        "logprob": stats[0].logprobs[:, :-1].mean(1),
        "head": _linear_head(hidden[0], correct, rows),
    }
    return {
        "accuracy": float(correct.mean()),
        **{k: area(v.double().numpy()[rows], correct[rows]) for k, v in values.items()},
    }


def area(scores: Float[np.ndarray, " n"], positive: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counting half."""
    up, down = scores[positive], scores[~positive]
    if not (len(up) and len(down)):
        return 0.5
    return float((up[:, None] > down).mean() + 0.5 * (up[:, None] == down).mean())


def _linear_head(hidden: Tensor, correct: np.ndarray, test: np.ndarray) -> Tensor:
    """Return scores of a ridge classifier fitted to the other rows."""
    train = np.setdiff1d(np.arange(len(hidden)), test)
    x = torch.cat([hidden, torch.ones(len(hidden), 1)], 1).double()
    y = torch.from_numpy(np.where(correct, 1.0, -1.0))
    gram = x[train].T @ x[train] + torch.eye(x.shape[1], dtype=x.dtype)
    return x @ torch.linalg.solve(gram, x[train].T @ y[train])
