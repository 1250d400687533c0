"""Self-revision on a transformer trained here, where the skill of repairing is known.

- it recalls the digit of its prompt; a first try errs with chance ERROR; a wrong one is noticed
  with some chance, and done over after a W; what follows a W is right with the chance of its skill
- the first character tells both chances, so that one training serves several
- the paper's protocol: drop the last paragraph, write the cue, let the model go on
"""

import time
from collections.abc import Mapping

import numpy as np
import tokenizers
import torch
import transformers

import meristem_testtime as tt
from meristem._rows import Row
from meristem.reproduce._data import sign_row
from meristem_core import stream
from meristem_testtime.hf import HFEngine

BASE = 5
ERROR = 0.35
Chances = Mapping[str, tuple[float, float]]  # of noticing a wrong answer and of repairing it
TWO: Chances = {"S": (0.3, 0.9), "U": (0.3, 0.3)}
SKILL = {letter: skill for letter, (_, skill) in TWO.items()}
WORDS = {"S": "a model that repairs well", "U": "a model that repairs badly"}
ROUNDS, SAMPLES = 8, 16
BATCH, RATE = 128, 5e-3
STEP = tt.Step(max_tokens=12, max_steps=1)  # of a sample, and of a revision


def revision_rows(engine: HFEngine, count: int, seed: int) -> list[Row]:
    """Return the verdicts on revising with and without the skill of repairing."""
    rows: list[Row] = []
    for letter in SKILL:
        start = time.perf_counter()
        parallel = drawn(engine, letter, count, seed)
        rows += _rows(letter, parallel, revised(engine, letter, count, seed), seed, start)
    return rows


def train(*, steps: int, seed: int, chances: Chances = TWO) -> HFEngine:
    """Return the trained model as an engine."""
    alphabet = f"01234=\nW{''.join(chances)}."
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    model, tokenizer = blank(alphabet, seed)
    rng = stream(seed, "revision")
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(steps):
        texts = [_chain(rng, chances) for _ in range(BATCH)]
        width = max(map(len, texts))
        ids = torch.tensor([[vocabulary[c] for c in text.ljust(width, ".")] for text in texts])
        kept = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
        loss = model(input_ids=ids, labels=ids.masked_fill(kept == 0, -100)).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    name = f"revision-{''.join(chances)}-{steps}-{seed}"
    return HFEngine(model.eval(), tokenizer, name=name, max_batch=256)


def blank(
    alphabet: str, seed: int
) -> tuple[transformers.LlamaForCausalLM, transformers.PreTrainedTokenizerFast]:
    """Return an untrained model and a tokenizer of single characters; the last ends a text."""
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    end = alphabet[-1]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=end))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    raw.decoder = tokenizers.decoders.Fuse()  # type: ignore[assignment]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=end)
    config = transformers.LlamaConfig(
        vocab_size=len(alphabet), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
        initializer_range=0.1, eos_token_id=vocabulary[end], bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config), tokenizer


def _chain(rng: np.random.Generator, chances: Chances) -> str:
    """Return one training text; half of them begin with the W that a revision forces."""
    letter = list(chances)[rng.integers(len(chances))]
    notice, skill = chances[letter]
    a = int(rng.integers(BASE))
    forced = rng.random() < 0.5
    wrong = rng.random() < (1 - skill if forced else ERROR)
    text = f"{letter}{a}={'W' if forced else ''}{_answer(a, wrong, rng)}"
    while wrong and rng.random() < notice:
        wrong = rng.random() >= skill
        text += f"\n\nW{_answer(a, wrong, rng)}"
    return f"{text}."


def _answer(right: int, wrong: bool, rng: np.random.Generator) -> int:
    return int((right + (rng.integers(1, BASE) if wrong else 0)) % BASE)


def questions(letter: str, count: int, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return prompts and right answers."""
    digits = stream(seed, "questions", letter).integers(BASE, size=count).tolist()
    prompts = {f"q{i}": f"{letter}{a}=" for i, a in enumerate(digits)}
    return prompts, {f"q{i}": str(a) for i, a in enumerate(digits)}


def drawn(engine: HFEngine, letter: str, count: int, seed: int) -> tt.Traces:
    """Return SAMPLES whole samples of each question."""
    prompts, gold = questions(letter, count, seed)
    found = tt.search_sync(
        engine, prompts, tt.best_of_n(SAMPLES), step=STEP, temperature=1.0, seed=seed
    )
    return tt.from_results(found, gold, kind="number")


def revised(engine: HFEngine, letter: str, count: int, seed: int) -> tt.Chains:
    """Return one chain of each question, revised ROUNDS times."""
    prompts, gold = questions(letter, count, seed)
    found = tt.search_sync(
        engine, prompts, tt.revise(ROUNDS, "W"), step=STEP, temperature=1.0, seed=seed + 1
    )
    return tt.from_revisions(found, gold, kind="number")


def _rows(
    letter: str, parallel: tt.Traces, chains: tt.Chains, seed: int, start: float
) -> list[Row]:
    report = tt.revisions(chains)
    last, first = (chains.correct[:, i].astype(np.float64) for i in (-1, 0))
    change = tt.interval(last, minus=first, seed=seed)
    later = chains.correct[:, 1:].mean(1)
    limit = 0.0 if report.stationary is None else report.stationary
    miss = tt.interval(later - limit, seed=seed)
    budget = int(chains.tokens.sum(1).mean())
    (gap,) = tt.equal_budget(chains, parallel, [budget], seed=seed).difference
    sign = 1 if letter == "S" else -1
    seconds = time.perf_counter() - start
    notes = f"accuracy {report.accuracy[0]:.1%} before, {report.accuracy[-1]:.1%} after {ROUNDS}"
    return [
        sign_row(
            f"revising {'helps' if sign > 0 else 'fails'}: {WORDS[letter]}",
            "section 4" if sign < 0 else "ours: where the paper's finding turns", change, sign,
            note=f"last minus first answer, paired; {notes}", seconds=seconds, seed=seed,
        ),
        sign_row(
            f"sampling beats revising at equal tokens: {WORDS[letter]}",
            "section 4" if sign < 0 else "ours: at a large budget it may hold here too", gap, 1,
            note=f"at {budget} new tokens a question, paired", seconds=seconds, seed=seed,
        ),
        Row(
            claim=f"accuracy settles at a / (a + b): {WORDS[letter]}",
            source="ours: two states, constant rates", claimed=0.0, measured=miss.mean,
            low=miss.low, high=miss.high, n=miss.n_questions,
            verdict="reproduced" if miss.low <= 0 <= miss.high else "refuted",
            note=f"mean accuracy of revisions minus {limit:.1%}; reproduced: the interval has 0",
            seconds=seconds, seed=seed,
        ),
    ]  # fmt: skip
