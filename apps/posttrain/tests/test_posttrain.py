"""The command on a real model, every loss by name, resume, and the report."""

import copy
import hashlib
import inspect
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import meristem_losses
from meristem_core.command import UsageError
from meristem_posttrain import (
    Encoded,
    Form,
    Given,
    Schedule,
    SingleProcess,
    find_objective,
    fit,
    objective_names,
    read_records,
)
from meristem_posttrain.__main__ import main


def words(stage, model_dir, data, out, *more):
    own = [w for w in more if w in ("tpo", "tpo_l", "soft_dpo")]  # losses with fields of their own
    file = data / f"{(own or [stage])[0]}.jsonl"
    return [
        stage, "--model", str(model_dir), "--data", str(file), "--out", str(out),
        "--batch", "8", "--micro-batch", "4", "--learning-rate", "0.03", "--sample-prompts", "2",
        "--sample-tokens", "6", *more,
    ]  # fmt: skip


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]


def result(out):
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def tuned(model_dir, data, tmp_path_factory):
    """A fine-tuned run and a preference run on top of its model."""
    folder = tmp_path_factory.mktemp("runs")
    sft = words("sft", model_dir, data, folder / "sft", "--steps", "24", "--evaluations", "4")
    assert main(sft) == 0
    more = ("--steps", "12", "--evaluations", "3")
    dpo = words("dpo", folder / "sft" / "model", data, folder / "dpo", *more)
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


NO_REFERENCE = {
    "nll", "z", "dft", "eaft", "cpo", "simpo", "alphapo", "orpo", "tpo", "tpo_l",
}  # fmt: skip
SOME = {
    "sft": {"nll", "z", "dft", "eaft", "asft", "psft", "f_sft"},
    "dpo": {"dpo", "ipo", "simpo", "aot", "tpo", "tpo_l", "soft_dpo", "apo_zero_unpaired"},
    "kto": {"kto", "apo_zero_unpaired", "bco_unpaired"},
    "rank": {"plackett_luce"},
}


def test_every_loss_of_single_or_several_responses_has_a_stage():
    given = {"stats", "pairs", "log_ratios", "scores"}
    policies = {"advantages", "ref_logprobs", "generator", "coefficient"}
    every = set().union(*map(objective_names, SOME))
    for name in meristem_losses.__all__:
        if not name.endswith("_loss") or name == "fused_loss":
            continue
        needed = [
            key for key, p in inspect.signature(getattr(meristem_losses, name)).parameters.items()
            if p.default is p.empty and p.kind is not p.KEYWORD_ONLY
        ]  # fmt: skip
        if needed[0] in given and not ("advantages" in needed and policies & set(needed)):
            assert name.removesuffix("_loss") in every, f"{name} has no stage"


@pytest.mark.parametrize("stage", list(SOME))
def test_every_loss_takes_a_step(stage, model_dir, data, tmp_path):
    names = objective_names(stage)
    assert SOME[stage] <= set(names)
    for name in names:
        assert find_objective(stage, name, {}).reference == (name not in NO_REFERENCE)
    for name in names[:: 1 if os.environ.get("MERISTEM_CI") else 4]:
        out = tmp_path / name
        more = ("--loss", name, "--steps", "1", "--evaluations", "1", "--sample-prompts", "0")
        assert main(words(stage, model_dir, data, out, *more)) == 0
        assert math.isfinite(result(out)["evaluations"][-1]["nll"])


@pytest.mark.parametrize(
    ("stage", "loss", "better"),
    [
        ("sft", "asft", lambda e: -e["nll"]),
        ("dpo", "tpo", lambda e: e["margin"] / 0.01),
        ("dpo", "soft_dpo", lambda e: e["margin"]),
        ("kto", "kto", lambda e: e["reward_desirable"] - e["reward_undesirable"]),
        ("rank", "plackett_luce", lambda e: e["accuracy"]),
    ],
)
def test_other_forms_of_data_are_learned(stage, loss, better, model_dir, data, tmp_path):
    out = tmp_path / loss
    more = ("--loss", loss, "--steps", "16", "--evaluations", "1", "--sample-prompts", "0")
    assert main(words(stage, model_dir, data, out, *more, "--held-out", "0.2")) == 0
    first, last = result(out)["evaluations"]
    assert better(last) > better(first) + 0.1, (first, last)


@pytest.fixture(scope="module")
def still(model_dir, tmp_path_factory):
    """The same model without dropout."""
    folder = tmp_path_factory.mktemp("still")
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    model.config.attention_dropout = 0.0
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((model_dir / name).read_bytes())
    return folder


def training_losses(out):
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def example(prompt, *responses, value=None):
    return Encoded(prompt=prompt, responses=responses, value=value)


def logits(model, example, response):
    """Return the logits that predict a response by the model's own head."""
    row = torch.tensor([[*example.prompt, *response]])
    return model(row).logits[0, len(example.prompt) - 1 : -1].log_softmax(1)


def log_ratio(models, example, response):
    new, old = (
        logits(m, example, response).gather(1, torch.tensor(response)[:, None]).sum()
        for m in models
    )
    return float(new - old)


def first_loss(models, examples, objective):
    model = copy.deepcopy(models[0])
    found = []
    fit(
        model, models[1], torch.optim.SGD(model.parameters(), lr=0.1), examples, objective,
        Schedule(steps=1, batch=len(examples), micro_batch=1, learning_rate=0.1),
        seed=0, accelerator=SingleProcess(torch.device("cpu")),
        after=lambda step, metrics: found.append(metrics["loss"]),
    )  # fmt: skip
    return found[0]


@pytest.fixture(scope="module")
def two_models(still):
    """A policy and a reference that differ."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(still).eval() for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return policy, reference


def test_the_reference_point_of_kto_is_that_of_other_prompts(two_models):
    models = two_models[::-1]  # the order in which the mean log-ratio is above 0
    data = [example([3, 4], [5, 6, 1], value=1.0), example([7, 8], [9, 10, 1], value=0.0)]
    with torch.no_grad():
        mixed = [log_ratio(models, data[i], data[1 - i].responses[0]) for i in range(2)]
        own = [log_ratio(models, e, e.responses[0]) for e in data]
    assert sum(mixed) > 0
    expected = meristem_losses.kto_loss(
        torch.tensor(own), torch.tensor([True, False]), torch.tensor(sum(mixed) / 2), beta=1.0
    ).mean()
    found = first_loss(models, data, find_objective("kto", "kto", {"beta": "1.0"}))
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_asft_is_dft_and_the_divergence_from_the_reference(two_models):
    data = [example([3, 4], [5, 6, 1]), example([7], [9, 1])]
    total = 0.0
    with torch.no_grad():
        for e in data:
            target = torch.tensor(e.responses[0])
            new, old = (logits(m, e, e.responses[0]) for m in two_models)
            chosen = new.gather(1, target[:, None])
            total += float(-(chosen.exp() * chosen).sum() + 0.3 * (old.exp() * (old - new)).sum())
    found = first_loss(two_models, data, find_objective("sft", "asft", {"weight": "0.3"}))
    assert found == pytest.approx(total / 5, rel=1e-4)


@torch.no_grad()
def test_gold_answers_probabilities_and_rankings_reach_their_losses(two_models):
    e = example([3, 4], [5, 6, 1], [7, 1], [8, 9, 1], value=0.7)
    best, second, third = (log_ratio(two_models, e, r) for r in e.responses)
    pair = replace(e, responses=e.responses[:2])
    sums = [
        float(logits(two_models[0], e, r).gather(1, torch.tensor(r)[:, None]).sum())
        for r in e.responses
    ]
    sigmoid = torch.sigmoid
    x = torch.tensor(0.1 * (best - second), dtype=torch.float64)
    scores = 0.1 * torch.tensor([best, second, third], dtype=torch.float64)
    wanted = {
        "soft_dpo": -0.7 * sigmoid(x).log() - 0.3 * sigmoid(-x).log(),
        "tpo": -sigmoid(torch.tensor(0.01 * (sums[0] - sums[1]))).log() - sums[2] / 3,
        "plackett_luce": -(scores[0] - scores.logsumexp(0)) - (scores[1] - scores[1:].logsumexp(0)),
    }
    for name, expected in wanted.items():
        stage = "rank" if name == "plackett_luce" else "dpo"
        with torch.enable_grad():
            found = first_loss(
                two_models, [pair if name == "soft_dpo" else e], find_objective(stage, name, {})
            )
        assert found == pytest.approx(float(expected), rel=1e-4), name


CHI2 = ("--loss", "f_sft", "--set", "divergence=pearson_chi2")


@pytest.mark.parametrize(
    ("stage", "loss"), [("sft", CHI2), ("kto", ()), ("dpo", ("--loss", "tpo")), ("rank", ())]
)
def test_the_loss_does_not_depend_on_micro_batches(stage, loss, still, data, tmp_path):
    losses = []
    for size in ("1", "8"):
        out = tmp_path / size
        more = ("--steps", "3", "--evaluations", "1", "--sample-prompts", "0")
        command = words(stage, still, data, out, *loss, *more)
        command[command.index("--micro-batch") + 1] = size
        assert main(command) == 0
        losses.append(training_losses(out))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "more"), [("sft", ()), ("kto", ()), ("kto", ("--lora",))], ids=str
)
def test_two_processes_train_as_one(stage, more, still, data, tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    assert main(words(stage, still, data, one, "--steps", "4", *more)) == 0
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = str(Path(__file__).with_name("two_processes.py"))
    run([*start, script, *words(stage, still, data, two, "--steps", "4", *more)])
    assert training_losses(one) == pytest.approx(training_losses(two), rel=1e-4)
    first, second = (
        AutoModelForCausalLM.from_pretrained(out / "model").state_dict() for out in (one, two)
    )
    for name, value in first.items():
        # Adam makes whole steps, 0.03, of gradients near 0, where the order of sums decides
        torch.testing.assert_close(second[name], value, rtol=0, atol=0.002)


def test_settings_reach_the_loss():
    stats = meristem_losses.TokenStats(
        logprobs=torch.tensor([[-1.0], [-2.0]]), lse=torch.zeros(2, 1),
        mask=torch.ones(2, 1, dtype=torch.bool),
    )  # fmt: skip
    found = find_objective("dpo", "ipo", {"tau": "0.5", "average": "false"})
    pairs = meristem_losses.preference_pairs(stats, stats)
    expected = meristem_losses.ipo_loss(pairs, tau=0.5, average=False)
    given = Given(examples=1)
    torch.testing.assert_close(found.values(stats, stats, given), expected)
    assert find_objective("dpo", "dpo", {"beta": "0.3"}).beta == 0.3
    assert find_objective("sft", "nll", {"smoothing": "0.1"}).statistics.mean_logit


@pytest.mark.parametrize(
    ("stage", "name", "settings", "message"),
    [
        ("dpo", "nll", {}, "does not fit dpo"),
        ("sft", "nonsense", {}, "there are asft"),
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


@pytest.mark.parametrize(
    ("form", "record", "message"),
    [
        (Form(responses=("chosen", "rejected")), {"chosen": "a"}, ":1: no rejected"),
        (Form(responses=("completion",), value="label"), {"completion": "a", "label": 2}, "true"),
        (
            Form(responses=("chosen",), value="probability"),
            {"chosen": "a", "probability": 1.5},
            "from 0 to 1",
        ),
        (Form(responses=("ranked",)), {"ranked": ["a"]}, "at least 2, best first"),
    ],
)
def test_lines_that_do_not_fit_their_loss_are_named(form, record, message, tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"prompt": "a", **record}))
    with pytest.raises(UsageError, match=message):
        read_records(file, form)


def test_rankings_of_one_file_have_one_length(tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [{"prompt": "a", "ranked": list("abc")}, {"prompt": "b", "ranked": list("ab")}]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match=":2: ranked has 2 responses; all lists have the 3"):
        read_records(file, Form(responses=("ranked",)))


def test_a_batch_of_one_has_no_other_prompt(model_dir, data, tmp_path):
    command = words("kto", model_dir, data, tmp_path / "out", "--steps", "1")
    command[command.index("--batch") + 1] = "1"
    with pytest.raises(UsageError, match="at least 2"):
        main(command)


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
        text = page.content()
        assert ("Held-out chosen responses" in text) == (stage == "dpo")
        assert ("Soft value of prompts" in text) == (stage == "sft")
        assert "tokens, cut at 6" in text
        assert "lora_rank" not in text  # no adapter, no shape of one


def model_hash(out):
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [(), ("--lora",)], ids=["whole", "lora"])
def test_a_killed_run_ends_with_the_same_bits(adapter, model_dir, data, tmp_path):
    def command(out):
        more = ("--steps", "150", "--evaluations", "5", "--checkpoint-every", "20", *adapter)
        return words("dpo", model_dir, data, out, *more)

    assert main(command(tmp_path / "whole")) == 0
    start = [sys.executable, "-m", "meristem_posttrain"]
    out, drawn = tmp_path / "killed", random.Random(0)
    journal = out / "metrics.jsonl"
    for low, high in ((25, 60), (70, 120)):
        quiet, wanted = subprocess.DEVNULL, drawn.randint(low, high)
        with subprocess.Popen([*start, *command(out)], stdout=quiet, stderr=quiet) as process:
            while not journal.exists() or journal.read_bytes().count(b"\n") < wanted:
                time.sleep(0.005)
                assert process.poll() is None, "the run ended before it was killed"
            process.send_signal(signal.SIGKILL)
    assert main(command(out)) == 0
    assert (out / "result.json").read_bytes() == (tmp_path / "whole" / "result.json").read_bytes()
    assert model_hash(out) == model_hash(tmp_path / "whole")
    saved = [p / "adapter" / "adapter_model.safetensors" for p in (out, tmp_path / "whole")]
    assert [p.exists() for p in saved] == 2 * [bool(adapter)]
    assert not adapter or saved[0].read_bytes() == saved[1].read_bytes()
