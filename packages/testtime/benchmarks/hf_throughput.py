"""Tokens a second of HFEngine beside transformers' own `generate`, with the same prompts and sizes.

uv run --no-sync python packages/testtime/benchmarks/hf_throughput.py

A Llama of 4 layers and width 256 with random weights, float32; 4 prompts of 256 tokens, 16 samples
of each, at most 64 samples together. With 32,000 words nearly all samples run to the limit; with 64
the end comes with a chance of about 1/64 a token. `generate` gets all rows in one batch, as
`num_return_sequences` makes them. Rounds interleave.
"""

import argparse
import asyncio
import os
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version

import torch
import transformers

import meristem_testtime as tt
from meristem_testtime.hf import HFEngine

PROMPTS, LENGTH, SAMPLES = 4, 256, 16


class Words:
    """A tokenizer without texts: ids are all that is measured."""

    eos_token_id = 0

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(map(str, ids))


def engine_of(words: int, context: int) -> HFEngine:
    """Return an engine over random weights."""
    config = transformers.LlamaConfig(
        vocab_size=words, hidden_size=256, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=context,
        eos_token_id=0, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config).eval()
    return HFEngine(model, Words(), name="random", max_batch=PROMPTS * SAMPLES)


def ours(engine: HFEngine, prompts: torch.Tensor, new: int, seed: int) -> int:
    """Sample and return the number of tokens."""
    requests = [
        tt.Request(prompt=tuple(each.tolist()), seed=seed + 100 * i, n=SAMPLES, max_tokens=new)
        for i, each in enumerate(prompts)
    ]
    found = asyncio.run(engine.generate(requests))
    return sum(len(each.ids) for group in found for each in group)


def theirs(engine: HFEngine, prompts: torch.Tensor, new: int, seed: int) -> int:
    """Sample with transformers and return the number of tokens, those after an end left out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = engine.model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0,
            max_new_tokens=new, num_return_sequences=SAMPLES, pad_token_id=0,
        )[:, LENGTH:]  # fmt: skip
    ended = (found == 0).long().cumsum(-1)
    return int(((ended == 0) | ((ended == 1) & (found == 0))).sum())


def rates(words: int, new: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return tokens a second of both, round by round; the first round warms up."""
    engine = engine_of(words, LENGTH + new)
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(1, words, (PROMPTS, LENGTH), generator=generator)
    found: tuple[list[float], list[float]] = ([], [])
    for place in range(rounds + 1):
        for into, way in zip(found, (ours, theirs), strict=True):
            start = time.perf_counter()
            tokens = way(engine, prompts, new, place)
            into.append(tokens / (time.perf_counter() - start))
    return found[0][1:], found[1][1:]


def main() -> None:
    """Print one line for each vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    words = parser.parse_args()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, torch {version('torch')}, transformers "
        f"{version('transformers')}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads\n\n"
        "| vocabulary | new tokens | ours, tokens / s | `generate`, tokens / s | ratio |\n"
        "|---|---|---|---|---|"
    )
    for size, new in ((32_000, 4 if words.quick else 32), (64, 8 if words.quick else 256)):
        mine, peer = rates(size, new, 1 if words.quick else words.rounds)
        ratio = statistics.median(a / b for a, b in zip(mine, peer, strict=True))
        print(
            f"| {size:,} | {new} | {statistics.median(mine):,.0f} | {statistics.median(peer):,.0f} "
            f"| {ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
