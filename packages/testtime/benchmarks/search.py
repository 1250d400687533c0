"""Beam search over many questions against its_hub, on one `vllm serve` of one small model.

.ci/vllm_check builds the environment; then

    uv pip install --python .venv-vllm/bin/python its-hub==1.2.0 backoff
    .venv-vllm/bin/python packages/testtime/benchmarks/search.py

Two beams are kept, `budget` samples a level, 6 levels of 16 tokens, the same arithmetic scorer and
temperature, no end token, no log-probabilities. The server caches prompts in blocks of 32 tokens
(by default 128 on a CPU, longer than most prompts here) and runs up to 512 samples at once. its_hub
takes one question after another (its interface), or all under `asyncio.gather`. Every run has
prompts of its own, so that no cache carries over. The counts of new tokens differ a little:
its_hub's first level has budget / 2 samples.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
import zlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from its_hub import OpenAICompatibleLanguageModel, StepGeneration
from its_hub.api import AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch

import meristem_testtime as tt
from meristem_testtime.http import OpenAIEngine
from meristem_testtime.vllm import VLLMEngine

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz+-*/=() "
KEPT, LEVELS, NEW, CONTEXT, START = 2, 6, 16, 256, 300
BLOCK, TOGETHER = 32, 512
TEMPERATURE = 0.8


def save_model(folder: Path) -> None:
    """Save a small Llama that never ends, and a tokenizer of single letters."""
    words = tokenizers.models.WordLevel({c: i for i, c in enumerate(LETTERS)}, unk_token=" ")
    raw = tokenizers.Tokenizer(words)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(LETTERS), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=CONTEXT,
        eos_token_id=None, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


@contextlib.contextmanager
def serving(folder: Path):
    """Start `vllm serve` on a free port and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).with_name("vllm"), "serve", folder, "--served-model-name", "small",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--max-model-len", str(CONTEXT), "--no-enable-chunked-prefill",
        "--block-size", str(BLOCK), "--max-num-seqs", str(TOGETHER),
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + START
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > limit:
                raise SystemExit("vllm serve did not start")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def worth(text: str) -> float:
    """Return a number in (0, 1) that follows from the text."""
    return (zlib.crc32(text.encode()) % 10_000 + 0.5) / 10_000


class Scorer(AbstractProcessRewardModel):
    """The scorer as its_hub asks for it."""

    def score(self, prompt_or_messages, steps):
        """Return the worth of each text."""
        return [worth(step) for step in steps]

    async def ascore(self, prompt_or_messages, steps):
        """Return the worth of each text."""
        return self.score(prompt_or_messages, steps)


async def guide(nodes):
    """Return the worth of each node's text."""
    return [worth(node.text) for node in nodes]


def prompts_of(run: int, count: int) -> dict[str, str]:
    """Return prompts that no other run has."""
    rng = np.random.default_rng(run)
    letters = np.array(list(LETTERS[:-1]))
    return {f"q{i}": "".join(rng.choice(letters, 32)) for i in range(count)}


def theirs(url: str, budget: int, *, together: bool):
    """Return a search by its_hub that takes prompts."""
    lm = OpenAICompatibleLanguageModel(url, "none", "small")
    steps = StepGeneration(max_steps=LEVELS - 1, tokens_per_step=NEW, temperature=TEMPERATURE)
    beam = BeamSearch(steps, Scorer(), KEPT)  # its step of number max_steps + 1 is the last

    async def at_once(prompts):
        return await asyncio.gather(*(beam.ainfer(lm, each, budget) for each in prompts.values()))

    def solve(prompts):
        if together:
            return asyncio.run(at_once(prompts))
        return [beam.infer(lm, each, budget) for each in prompts.values()]

    return solve


def ours(engine, budget: int):
    """Return our search that takes prompts."""

    def solve(prompts):
        found = tt.search_sync(
            engine, prompts, tt.beam(budget, budget // KEPT), guide=guide, seed=1,
            step=tt.Step(stop=(), max_tokens=NEW, max_steps=LEVELS), temperature=TEMPERATURE,
            logprobs=False,
        )  # fmt: skip
        assert all(len(each.solutions) == budget for each in found)
        return found

    return solve


def rates(arms, rounds: int, runs) -> dict[str, list[float]]:
    """Return questions a second of every arm in every round."""
    found = {name: [] for name in arms}
    for _ in range(rounds):
        for name, (solve, count) in arms.items():
            prompts = prompts_of(next(runs), count)
            start = time.perf_counter()
            solve(prompts)
            found[name].append(count / (time.perf_counter() - start))
    return found


def main() -> None:
    """Print questions a second, and ratios to its_hub's own interface."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--alone", type=int, default=8, help="questions one after another")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="+", default=[4, 8, 16])
    words = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    os.environ.update(ENVIRONMENT)
    runs, many = iter(range(10**6)), words.questions
    table = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder)
        with serving(folder) as url:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            with OpenAIEngine(url, "small", tokenizer, concurrency=256) as engine:
                for budget in words.budgets:
                    arms = {
                        "its_hub, one after another": (
                            theirs(url, budget, together=False), words.alone),
                        "its_hub, asyncio.gather": (theirs(url, budget, together=True), many),
                        "ours over HTTP": (ours(engine, budget), many),
                    }  # fmt: skip
                    rates({name: (solve, 2) for name, (solve, _) in arms.items()}, 1, runs)
                    table[budget] = rates(arms, words.rounds, runs)
        options = {"dtype": "float32", "enforce_eager": True, "max_model_len": CONTEXT,
                   "block_size": BLOCK, "max_num_seqs": TOGETHER}  # fmt: skip
        with VLLMEngine(str(folder), options=options) as engine:
            for budget in words.budgets:
                arm = {"ours in process": (ours(engine, budget), many)}
                rates(arm, 1, runs)
                table[budget] |= rates(arm, words.rounds, runs)
    print(f"{datetime.now(UTC):%Y-%m-%d}, vllm-cpu {version('vllm-cpu')}, its_hub "
          f"{version('its-hub')}, {many} questions ({words.alone} one after another), median of "
          f"{words.rounds} rounds\n")  # fmt: skip
    print("| budget | way | questions / s | ratio |\n|---|---|---|---|")
    for budget, found in table.items():
        first = statistics.median(found["its_hub, one after another"])
        for name, each in found.items():
            rate = statistics.median(each)
            print(f"| {budget} | {name} | {rate:.2f} | {rate / first:.1f} |")


if __name__ == "__main__":
    main()
