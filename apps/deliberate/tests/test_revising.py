"""Revising with a real model: one chain or several of a question, budgets."""

import asyncio
import json
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import pytest

import meristem_testtime as tt
from meristem_core.command import run_command
from meristem_deliberate import _pipeline
from meristem_deliberate.__main__ import main


def run(capsys, *words):
    code = run_command(main, [str(word) for word in words], name="meristem deliberate")
    said = capsys.readouterr()
    return code, said.out, said.err


def digits(tmp_path, count):
    path = tmp_path / "digits.jsonl"
    lines = [{"id": i, "question": f"{i}+{i}", "answer": str(i % 10)} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def revising(saved_model, out, *more):
    return (
        "--engine", f"hf:{saved_model}", "--out", out, "--n", 4, "--max-tokens", 8, "--kind",
        "number", "--prompt", "{question}", "--temperature", 1.5, "--cue", "1", "W", *more,
    )  # fmt: skip


def by_hand(saved_model, journal, count, algorithm):
    """Ask the engine as the command does, without it; returns what the chains are."""
    transformers = pytest.importorskip("transformers")
    from meristem_testtime.hf import HFEngine

    model = transformers.AutoModelForCausalLM.from_pretrained(saved_model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved_model)
    prompts = {str(i): f"{i}+{i}" for i in range(count)}
    options = {"step": tt.Step(max_tokens=8, max_steps=1), "temperature": 1.5}
    with tt.ReplayEngine(journal, HFEngine(model, tokenizer, name=str(saved_model))) as engine:
        tt.search_sync(engine, prompts, tt.best_of_n(4), seed=0, **options)
        revised = tt.search_sync(engine, prompts, algorithm, seed=1, **options)
    gold = {name: str(int(name) % 10) for name in prompts}
    return tt.from_revisions(revised, gold, kind="number")


def test_a_real_model_samples_and_revises(capsys, saved_model, tmp_path, open_page):
    out = tmp_path / "run"
    code, said, _ = run(
        capsys, digits(tmp_path, 6), *revising(saved_model, out, "--revise", 2, "--json")
    )
    assert code == 0
    found = json.loads(said)["strata"][""]
    assert '"scores"' in (out / "samples.jsonl").read_text()  # of the two cues
    assert len(found["revision"]["accuracy"]) == 3
    assert len(found["budget"]["budgets"]) == len(found["budget"]["parallel"]) > 1
    with open_page(out / "report.html", width=390, dark=True) as page:
        titles = page.locator("h2").all_text_contents()
        assert titles == ["Contents", "votes", "length", "revision", "How this was made"]
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_several_chains_of_a_question_vote(capsys, saved_model, tmp_path):
    path, out = digits(tmp_path, 6), tmp_path / "run"
    words = (path, *revising(saved_model, out, "--revise", 1, "--chains", 3, "--json"))
    code, said, _ = run(capsys, *words)
    assert code == 0
    result = json.loads(said)
    found = result["strata"][""]
    chains = by_hand(saved_model, tmp_path / "by_hand.jsonl", 6, tt.grid(3, 1, ("1", "W")))
    assert result["config"]["chains"] == 3
    assert result["config"]["cost"]["samples"] == 6 * 4 + chains.alive.sum()
    assert found["revision"]["alive"] == chains.alive.sum(0).tolist() == [18, 18]
    assert found["revision"]["accuracy"] == chains.correct.mean(0).tolist()
    assert {(each["chains"], each["rounds"]) for each in found["shapes"]} == {
        (m, r) for m in (1, 2, 3) for r in (0, 1)
    }
    report = (out / "report.html").read_text()
    assert "18 chains of 6 questions, 3 of each, revised 1 time or until" in report
    assert "Chains times rounds" in report
    before = (out / "samples.jsonl").read_bytes(), (out / "result.json").read_bytes()
    assert run(capsys, *words)[0] == 0
    assert ((out / "samples.jsonl").read_bytes(), (out / "result.json").read_bytes()) == before
    code, _, error = run(capsys, path, *revising(saved_model, out, "--revise", 1))
    assert code == 2
    assert "chains" in error


def test_one_chain_asks_what_revise_asks(capsys, saved_model, tmp_path):
    out = tmp_path / "run"
    assert run(capsys, digits(tmp_path, 6), *revising(saved_model, out, "--revise", 2))[0] == 0
    by_hand(saved_model, tmp_path / "by_hand.jsonl", 6, tt.revise(2, ("1", "W")))
    assert (out / "samples.jsonl").read_bytes() == (tmp_path / "by_hand.jsonl").read_bytes()
    assert json.loads((out / "config.json").read_text())["config"]["chains"] == 1


def test_a_budget_spent_in_the_last_round_measures_the_chains_that_are_whole(
    capsys, saved_model, tmp_path
):
    """The engine takes 64 samples at once: the chains of 16 questions, 16 and 8."""
    path, out = digits(tmp_path, 40), tmp_path / "part"
    chains = ("--revise", 1, "--chains", 4)
    assert run(capsys, path, *revising(saved_model, tmp_path / "whole", *chains))[0] == 0
    whole = (tmp_path / "whole/result.json").read_bytes()
    last = json.loads((tmp_path / "whole/samples.jsonl").read_text().splitlines()[-1])
    saved = sum(len(sample["ids"]) for group in last["samples"] for sample in group)
    budget = json.loads(whole)["config"]["cost"]["tokens"] - saved
    words = (path, *revising(saved_model, out, *chains))
    code, _, said = run(capsys, *words, "--budget", budget)
    assert code == 3
    assert f"{budget} tokens are spent, --budget is {budget}; 8 questions are not done: 32" in said
    part = json.loads((out / "result.json").read_text())["strata"][""]
    assert part["questions"] == 32
    assert part["revision"]["alive"] == [128, 128]
    assert run(capsys, *words, "--budget", 10**6)[0] == 0
    assert (out / "result.json").read_bytes() == whole


class Busy(tt.FakeEngine):
    """Answers each request by itself, and counts the samples in flight."""

    concurrent = True
    flying = most = 0

    async def generate(self, requests, watches=MappingProxyType({})):
        asked = sum(request.n for request in requests)
        self.flying += asked
        self.most = max(self.most, self.flying)
        for _ in range(5):
            await asyncio.sleep(0)
        self.flying -= asked
        return await super().generate(requests, watches)


def test_under_a_budget_64_samples_are_in_flight(capsys, monkeypatch, tmp_path):
    engine = Busy(lambda ids: np.full(13, 1 / 13), "0123456789+W.")
    monkeypatch.setattr(_pipeline, "open_engine", contextmanager(lambda config: iter([engine])))
    path, words = digits(tmp_path, 20), revising("none", tmp_path / "run", "--budget", 10**6)
    assert run(capsys, path, *words, "--revise", 1, "--chains", 32)[0] == 0
    assert engine.most == 64
