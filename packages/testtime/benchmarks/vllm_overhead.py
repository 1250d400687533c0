"""What VLLMEngine adds to a hand-written loop over vLLM's AsyncLLM, same ids, seeds, parameters.

.ci/vllm_check builds the environment; then
.venv-vllm/bin/python packages/testtime/benchmarks/vllm_overhead.py

A Llama of 8 layers and width 512 with random weights; prompts of 32 tokens, 64 new ones. Rounds
interleave; one thread a process, since the engine and its front end share two cores.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

import meristem_testtime as tt

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("OMP_NUM_THREADS", "1")
VOCABULARY, PROMPT, NEW = 4096, 32, 64


def save_model(folder: Path) -> None:
    """Save a small Llama whose end token is never likely, and a tokenizer of as many words."""
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0")
    raw = tokenizers.Tokenizer(words)
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw).save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1536, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=256,
        eos_token_id=0, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[0] = 0.0
    model.save_pretrained(folder)


def main() -> None:
    """Print the two times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=24)
    words = parser.parse_args()

    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind

    from meristem_testtime.vllm import VLLMEngine

    rng = np.random.default_rng(0)
    prompts = [tuple(row) for row in rng.integers(1, VOCABULARY, (words.prompts, PROMPT)).tolist()]
    requests = [
        tt.Request(prompt=prompt, seed=i, max_tokens=NEW) for i, prompt in enumerate(prompts)
    ]
    count = iter(range(10**9))

    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name))
        options = {"dtype": "float32", "enforce_eager": True, "max_model_len": 256,
                   "enable_prefix_caching": False}  # fmt: skip
        with VLLMEngine(name, options=options) as engine:

            async def bare_one(request: tt.Request) -> int:
                parameters = SamplingParams(
                    seed=request.seed, max_tokens=NEW, temperature=1.0, logprobs=0,
                    flat_logprobs=True, detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )  # fmt: skip
                prompt = TokensPrompt(prompt_token_ids=list(request.prompt))
                async for each in engine._llm.generate(prompt, parameters, f"bare-{next(count)}"):
                    output = each
                return len(output.outputs[0].token_ids)

            async def bare() -> int:
                return sum(await asyncio.gather(*(bare_one(each) for each in requests)))

            def timed_bare() -> tuple[float, int]:
                start = time.perf_counter()
                tokens = engine._loop.wait(bare())
                return time.perf_counter() - start, tokens

            def timed_ours() -> tuple[float, int]:
                start = time.perf_counter()
                found = asyncio.run(engine.generate(requests))
                seconds = time.perf_counter() - start
                return seconds, sum(len(each.ids) for samples in found for each in samples)

            timed_bare(), timed_ours()
            pairs = []
            for round_ in range(words.rounds):  # in turn, the first of a round changing
                one, other = (timed_bare, timed_ours) if round_ % 2 else (timed_ours, timed_bare)
                first, second = one(), other()
                pairs.append((first, second) if round_ % 2 else (second, first))
    bare_s, ours_s = (statistics.median(each[k][0] for each in pairs) for k in (0, 1))
    low, middle, high = statistics.quantiles([100 * (b[0] / a[0] - 1) for a, b in pairs], n=4)
    print(f"{datetime.now(UTC):%Y-%m-%d}, vllm-cpu {version('vllm-cpu')}, {words.prompts} prompts")
    print(f"bare AsyncLLM {bare_s:.3f} s ({pairs[0][0][1] / bare_s:.0f} tokens/s), VLLMEngine "
          f"{ours_s:.3f} s: median of {words.rounds} rounds {middle:+.1f} % "
          f"(quartiles {low:+.1f} to {high:+.1f})")  # fmt: skip


if __name__ == "__main__":
    main()
