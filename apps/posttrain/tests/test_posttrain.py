"""The command on a real model, every loss by name, resume, and the report."""

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import AutoModelForCausalLM

import meristem_losses
from meristem_core.command import UsageError
from meristem_posttrain import find_objective, objective_names
from meristem_posttrain.__main__ import main


def words(stage, model_dir, data, out, *more):
    return [
        stage, "--model", str(model_dir), "--data", str(data / f"{stage}.jsonl"), "--out", str(out),
        "--batch", "8", "--micro-batch", "4", "--learning-rate", "0.03", "--sample-prompts", "2",
        "--sample-tokens", "6", *more,
    ]  # fmt: skip


def result(out):
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def tuned(model_dir, data, tmp_path_factory):
    """A fine-tuned run and a preference run on top of its model."""
    folder = tmp_path_factory.mktemp("runs")
    sft = words("sft", model_dir, data, folder / "sft", "--steps", "24", "--evaluations", "4")
    assert main(sft) == 0
    dpo = words("dpo", folder / "sft" / "model", data, folder / "dpo", "--steps", "12")
    assert main(dpo) == 0
    return folder


def test_demonstrations_are_learned(tuned):
    found = result(tuned / "sft")
    first, last = found["evaluations"][0], found["evaluations"][-1]
    assert [e["step"] for e in found["evaluations"]] == [0, 6, 12, 18, 24]
    assert last["nll"] < 0.7 * first["nll"]
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert last["kl"] > 0.01
    assert first["reward"] == pytest.approx(0, abs=1e-5)
    assert last["reward"] > 0
    assert (found["examples"], found["held_out"], found["left_out"]) == (36, 4, 0)


def test_pairs_are_learned_from_the_fine_tuned_model(tuned):
    found = result(tuned / "dpo")
    first, last = found["evaluations"][0], found["evaluations"][-1]
    assert first["accuracy"] == 0.5  # policy and reference are one: every pair is a tie
    assert last["accuracy"] > 0.5
    assert last["margin"] > 0.1
    assert found["config"]["loss"] == "dpo"
    log = [json.loads(line) for line in (tuned / "dpo" / "metrics.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=0.1)  # but for the policy's dropout


def test_the_saved_model_is_the_evaluated_one(tuned, model_dir):
    model = AutoModelForCausalLM.from_pretrained(tuned / "sft" / "model")
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    assert any(
        not torch.equal(x, y) for x, y in zip(model.parameters(), base.parameters(), strict=True)
    )
    again = result(tuned / "dpo")["evaluations"][0]
    assert math.isfinite(again["nll"])


def test_a_finished_run_is_not_repeated(tuned, model_dir, data):
    before = (tuned / "sft" / "result.json").read_bytes()
    start = time.perf_counter()
    assert main(words("sft", model_dir, data, tuned / "sft", "--steps", "24",
                      "--evaluations", "4")) == 0  # fmt: skip
    assert time.perf_counter() - start < 60
    assert (tuned / "sft" / "result.json").read_bytes() == before
    with pytest.raises(UsageError, match="steps"):
        main(words("sft", model_dir, data, tuned / "sft", "--steps", "25", "--evaluations", "4"))


SFT = {"f_sft", "f_sft_sequence", "f_sft_zero_value", "iw_sft", "iw_sft_token", "psft"}


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_every_loss_takes_a_step(stage, model_dir, data, tmp_path):
    names = objective_names(stage)
    plain = {"nll", "z", "dft", "eaft"} if stage == "sft" else {"dpo", "ipo", "simpo", "aot"}
    assert plain <= set(names)
    for name in names:
        objective = find_objective(stage, name, {})
        assert objective.reference == (
            name in SFT if stage == "sft" else name not in ("cpo", "simpo", "alphapo", "orpo")
        )
    for name in names[:: 1 if os.environ.get("MERISTEM_CI") else 4]:
        out = tmp_path / name
        more = ("--loss", name, "--steps", "1", "--evaluations", "1", "--sample-prompts", "0")
        assert main(words(stage, model_dir, data, out, *more)) == 0
        assert math.isfinite(result(out)["evaluations"][-1]["nll"])


def test_the_loss_does_not_depend_on_micro_batches(model_dir, data, tmp_path):
    losses = []
    for size in ("1", "8"):
        out = tmp_path / size
        more = ("--loss", "f_sft", "--set", "divergence=pearson_chi2", "--steps", "3",
                "--evaluations", "1", "--micro-batch", size)  # fmt: skip
        command = [w for w in words("sft", model_dir, data, out) if w != "4"]
        command.remove("--micro-batch")
        no_dropout = tmp_path / "still"
        if not no_dropout.exists():
            model = AutoModelForCausalLM.from_pretrained(model_dir)
            model.config.attention_dropout = 0.0
            model.save_pretrained(no_dropout)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                (no_dropout / name).write_bytes((model_dir / name).read_bytes())
        command[command.index("--model") + 1] = str(no_dropout)
        assert main([*command, *more]) == 0
        lines = (out / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_settings_reach_the_loss():
    stats = meristem_losses.TokenStats(
        logprobs=torch.tensor([[-1.0], [-2.0]]), lse=torch.zeros(2, 1),
        mask=torch.ones(2, 1, dtype=torch.bool),
    )  # fmt: skip
    found = find_objective("dpo", "ipo", {"tau": "0.5", "average": "false"})
    pairs = meristem_losses.preference_pairs(stats, stats)
    expected = meristem_losses.ipo_loss(pairs, tau=0.5, average=False)
    torch.testing.assert_close(found.values(stats, stats), expected)
    assert find_objective("dpo", "dpo", {"beta": "0.3"}).beta == 0.3
    assert find_objective("sft", "nll", {"smoothing": "0.1"}).statistics.mean_logit


@pytest.mark.parametrize(
    ("stage", "name", "settings", "message"),
    [
        ("dpo", "nll", {}, "does not fit dpo"),
        ("sft", "nonsense", {}, "there are dft"),
        ("dpo", "dpo", {"gamma": "1"}, "no such parameter"),
        ("dpo", "dpo", {"beta": "much"}, "takes a float"),
        ("dpo", "dpo", {"divergence": "pearson_chi2"}, "does not fit"),
        ("sft", "f_sft", {"divergence": "chi2_kl"}, "does not fit"),
        ("sft", "f_sft", {"divergence": "alpha:x"}, "alpha:x"),
        ("sft", "f_sft", {"divergence": "what"}, "alpha:NUMBER"),
    ],
)
def test_unknown_names_are_refused(stage, name, settings, message):
    with pytest.raises(UsageError, match=message):
        find_objective(stage, name, settings)


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ('{"prompt": "a"}', (), "no completion"),
        ("nonsense", (), ":1: not JSON"),
        ("[1]", (), "no prompt"),
        ('{"prompt": "", "completion": "a"}', (), "has no tokens"),
        ('{"prompt": "a", "completion": 3}', (), "a response is 3"),
        ('{"prompt": "a", "completion": "b"}', (), "at least 2 are needed"),
        ("", (), "0 examples"),
        ("", ("--batch", "0"), r"--batch \(0\)"),
        ("", ("--held-out", "1.5"), "--held-out"),
        ("", ("--learning-rate", "nan"), "--learning-rate"),
        ("", ("--model", "/nowhere"), "--model /nowhere"),
    ],
)
def test_bad_input_is_one_line(text, more, message, model_dir, tmp_path):
    (tmp_path / "sft.jsonl").write_text(text)
    with pytest.raises(UsageError, match=message):
        main(words("sft", model_dir, tmp_path, tmp_path / "out", *more))


def test_messages_go_through_the_chat_template(model_dir, tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": c}],
         "completion": [{"role": "assistant", "content": f"{c} z"}]}
        for c in "abcdef"
    ]  # fmt: skip
    rows.append({"prompt": "a " * 40, "completion": "b"})
    (tmp_path / "sft.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    assert main(words("sft", model_dir, tmp_path, out, "--steps", "1", "--max-length", "20")) == 0
    assert result(out)["left_out"] == 1


@pytest.mark.browser
@pytest.mark.parametrize(("stage", "width"), [("sft", 390), ("dpo", 1280)])
def test_the_report_opens(stage, width, tuned, open_page):
    with open_page(tuned / stage / "report.html", width=width, dark=stage == "dpo") as page:
        titles = page.locator("h2").all_text_contents()
        assert titles[:4] == ["In short", "Loss", "Implicit rewards", "Drift"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        assert page.locator("svg").count() >= 5


def model_hash(out):
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(model_dir, data, tmp_path):
    def command(out):
        more = ("--steps", "150", "--evaluations", "5", "--checkpoint-every", "20")
        start = [sys.executable, "-m", "meristem_posttrain"]
        return [*start, *words("dpo", model_dir, data, out, *more)]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    out, drawn = tmp_path / "killed", random.Random(0)
    journal = out / "metrics.jsonl"
    for low, high in ((25, 60), (70, 120)):
        quiet, wanted = subprocess.DEVNULL, drawn.randint(low, high)
        with subprocess.Popen(command(out), stdout=quiet, stderr=quiet) as process:
            while not journal.exists() or journal.read_bytes().count(b"\n") < wanted:
                time.sleep(0.005)
                assert process.poll() is None, "the run ended before it was killed"
            process.send_signal(signal.SIGKILL)
    subprocess.run(command(out), check=True, capture_output=True)
    assert (out / "result.json").read_bytes() == (tmp_path / "whole" / "result.json").read_bytes()
    assert model_hash(out) == model_hash(tmp_path / "whole")
