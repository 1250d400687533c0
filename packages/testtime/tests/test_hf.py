"""HFEngine: what it computes, that it decodes as transformers does, that a kill loses nothing."""

import asyncio
import contextlib
import signal
import subprocess
import sys

import numpy as np
import pytest

import meristem_testtime as tt

torch = pytest.importorskip("torch")


@contextlib.contextmanager
def tokens_read(model):
    """Collects the number of token places of each forward pass."""
    found = []

    def hook(module, args, kwargs):
        found.append(kwargs["input_ids"].numel())

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


def ask(engine, *requests, watches=None):
    return asyncio.run(engine.generate(list(requests), watches or {}))


@pytest.mark.parametrize("watches", [{}, {0: lambda place, sample: True}], ids=["whole", "cut"])
def test_a_prompt_is_read_once_and_samples_leave_at_their_end(trained, watches):
    prompt = trained.encode("3+4=")
    request = tt.Request(prompt=prompt, seed=5, n=12, max_tokens=40, temperature=2.0)
    with tokens_read(trained.model) as read:
        (samples,) = ask(trained, request, watches=watches)
    drawn = sum(len(each.ids) for each in samples)
    assert sum(read) == len(prompt) + drawn - len(samples)
    assert any(each.finish == "abort" for each in samples) == bool(watches)


def test_greedy_ids_are_those_of_transformers(trained):
    for text in ("3+4=", "1+1=;", "9+0"):
        prompt = trained.encode(text)
        ids = torch.tensor([prompt])
        with torch.no_grad():
            exact = trained.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12,
                pad_token_id=trained.tokenizer.eos_token_id,
            )[0, len(prompt):]  # fmt: skip
        ((found,),) = ask(
            trained, tt.Request(prompt=prompt, seed=0, max_tokens=12, temperature=0.0)
        )
        assert found.ids == tuple(exact.tolist())


RUN = """
import os, signal, sys
from pathlib import Path
import torch, transformers
import meristem_testtime as tt
from meristem_core import write_json
from meristem_testtime.hf import HFEngine

model_folder, folder, left = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
model = transformers.AutoModelForCausalLM.from_pretrained(model_folder).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)

def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

model.register_forward_pre_hook(count)
questions = {f"q{i}": f"{i}+1=" for i in range(6)}
found = []
with tt.ReplayEngine(folder / "journal.jsonl",
                     HFEngine(model, tokenizer, name="sums", max_batch=8)) as engine:
    for algorithm, step in [
        (tt.adaptive(tt.beta(0.9), 8, lambda text: text[:1], batch=4),
         tt.Step(max_tokens=24, max_steps=1)),
        (tt.beam(4, 2), tt.Step(stop=("=", ";"), max_tokens=6, max_steps=4)),
    ]:
        found += tt.search_sync(engine, questions, algorithm, step=step, temperature=1.5,
                                guide=tt.confidence_guide())
print(-left)
write_json(folder / "result.json", [
    [each.question, each.cost, each.weights, [[n.text, n.ids, n.logprobs] for n in each.nodes]]
    for each in found
])
"""


@pytest.mark.slow
def test_a_search_killed_in_the_middle_resumes_bit_for_bit(trained_folder, tmp_path):
    """SIGKILL in a batch of the first search, then in one of the second."""

    def run(folder, dies_at):
        folder.mkdir(exist_ok=True)
        words = [sys.executable, "-c", RUN, str(trained_folder), str(folder), str(dies_at)]
        return subprocess.run(words, check=False, capture_output=True, text=True)

    def lines(folder):
        return (folder / "journal.jsonl").read_bytes().splitlines()

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    passes = int(run(whole, 0).stdout)
    kept = []
    for dies_at in (passes // 3, passes // 3):
        assert run(killed, dies_at).returncode == -signal.SIGKILL
        kept.append(len(lines(killed)))
    assert 0 < kept[0] < kept[1] < len(lines(whole))
    last = run(killed, 0)
    assert last.returncode == 0, last.stderr
    assert 0 < int(last.stdout) < passes
    for name in ("result.json", "journal.jsonl"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()


@pytest.mark.parametrize(("top_p", "top_k"), [(0.9, None), (0.3, None), (1.0, 5), (0.7, 20)])
def test_top_p_and_top_k_leave_what_transformers_leaves(top_p, top_k):
    """Logits of one decimal, so that ties fall on the border of `top_k`."""
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    from meristem_testtime._growing import likeliest

    for seed in range(40):
        logits = np.random.default_rng(seed).normal(size=50)
        logits = logits.round(1) if top_p == 1 else logits
        exact = torch.tensor(logits)[None]
        if top_k is not None:
            exact = TopKLogitsWarper(top_k)(None, exact)
        if top_p < 1:
            exact = TopPLogitsWarper(top_p)(None, exact)
        found = likeliest(logits, top_p, top_k)
        assert found.tolist() == exact[0].tolist()
        assert 0 < np.isfinite(found).sum() < logits.size
