"""Runs with --lora: what is trained, what is saved, and the reference that is no second copy."""

import json
import sys

import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

from meristem_core import latest_checkpoint
from meristem_core.command import UsageError
from meristem_core.torch import load_state
from meristem_losses.hf import score
from meristem_posttrain.__main__ import main
from meristem_posttrain._adapter import WithoutAdapter, add_adapter

LAYERS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
RANK = 4


def words(stage, model, data, out, *more):
    return [
        stage, "--model", str(model), "--data", str(data / f"{stage}.jsonl"), "--out", str(out),
        "--batch", "8", "--sample-prompts", "1", "--sample-tokens", "3", "--evaluations", "1",
        *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def base_dir(model_dir, tmp_path_factory):
    """The same model with a head that can tell letters apart, as no adapter changes it."""
    folder = tmp_path_factory.mktemp("base")
    model = load(model_dir)
    with torch.no_grad():
        model.lm_head.weight *= 20
    model.save_pretrained(folder)
    for name in TOKENIZER:
        (folder / name).write_bytes((model_dir / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def tuned(base_dir, data, tmp_path_factory):
    """A fine-tuned run and a preference run on top of its merged model, both by adapters."""
    folder = tmp_path_factory.mktemp("lora")
    shape = ("--lora", "--lora-rank", str(RANK), "--lora-alpha", "8", "--steps", "16")
    rate = ("--learning-rate", "0.03")
    assert main(words("sft", base_dir, data, folder / "sft", *shape, *rate)) == 0
    assert main(words("dpo", folder / "sft" / "model", data, folder / "dpo", *shape, *rate)) == 0
    return folder


def result(out):
    return json.loads((out / "result.json").read_text())


def logits(model):
    row = torch.arange(2, 12)[None]
    with torch.no_grad():
        return model.eval()(row).logits


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def test_adapters_learn_demonstrations_and_pairs(tuned):
    first, last = result(tuned / "sft")["evaluations"]
    assert last["nll"] < 0.8 * first["nll"]
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert last["kl"] > 0.01
    first, last = result(tuned / "dpo")["evaluations"]
    assert first["accuracy"] == 0.5  # with factors of 0 the policy is the reference: ties
    assert last["accuracy"] > 0.5
    assert last["margin"] > 0.1


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_result_and_report_say_what_was_trained(stage, tuned, base_dir):
    found = result(tuned / stage)
    base = load(base_dir)
    layers = [m for m in base.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    assert found["parameters"] == sum(p.numel() for p in base.parameters())
    assert found["trained_parameters"] == sum(RANK * sum(m.weight.shape) for m in layers)
    assert found["adapter"] == {"rank": RANK, "alpha": 8, "layers": dict.fromkeys(LAYERS, 2)}
    report = (tuned / stage / "report.html").read_text()
    assert f"{found['trained_parameters']:,} of {found['parameters']:,} parameters" in report
    assert "14 linear layers" in report
    assert "lora_rank" in report


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft 0.21 reads it
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_merged_model_is_the_model_with_its_adapter(stage, tuned, base_dir):
    folder = {"sft": base_dir, "dpo": tuned / "sft" / "model"}[stage]
    base = logits(load(folder))
    adapted = PeftModel.from_pretrained(load(folder), tuned / stage / "adapter")
    merged = logits(load(tuned / stage / "model"))
    torch.testing.assert_close(merged, logits(adapted), rtol=1e-4, atol=1e-5)
    assert float((merged - base).abs().max()) > 0.1


def test_checkpoints_hold_the_adapter_alone(tuned):
    checkpoint = latest_checkpoint(tuned / "sft" / "checkpoints")
    saved = load_state(checkpoint.path / "training.safetensors")
    assert len(saved["model"]) == 2 * 2 * len(LAYERS)
    assert all("lora_" in name for name in saved["model"])
    held = sum(t.numel() for t in saved["model"].values())
    assert held == result(tuned / "sft")["trained_parameters"]
    assert len(saved["optimizer"]["state"]) == len(saved["model"])


@pytest.fixture
def adapted(base_dir):
    """A model with an adapter that changes it, in training."""
    model = add_adapter(load(base_dir), rank=RANK, alpha=8, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.train()


def test_the_reference_is_the_model_itself_without_its_adapter(adapted, base_dir):
    reference = WithoutAdapter(adapted)
    assert set(reference.parameters()) == set(adapted.parameters())  # no second copy
    row = torch.arange(2, 12)[None]
    with torch.no_grad():
        found = reference(input_ids=row).logits
    assert torch.equal(found, logits(load(base_dir)))  # no dropout either
    assert adapted.training
    assert not torch.equal(found, logits(adapted))


def test_the_reference_between_a_pass_and_its_gradients_changes_neither(adapted):
    row = torch.arange(2, 12)[None]
    trained = [p for p in adapted.parameters() if p.requires_grad]
    adapted.eval()

    def gradients(between):
        stats, _ = score(adapted, row, torch.ones_like(row, dtype=torch.bool), input_ids=row)
        between()
        return torch.autograd.grad(stats.logprobs.sum(), trained)

    @torch.no_grad()
    def refer():
        WithoutAdapter(adapted)(input_ids=row)

    for wanted, found in zip(gradients(lambda: None), gradients(refer), strict=True):
        assert torch.equal(wanted, found)
        assert bool(found.any())
    assert [p for p in adapted.parameters() if p.requires_grad] == trained


def test_a_seed_decides_the_adapter_and_no_global_generator_moves(model_dir):
    before = torch.get_rng_state()
    first, same, other = (
        add_adapter(load(model_dir), rank=2, alpha=2, seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    drawn = [name for name in first if "lora_A" in name]
    assert all(torch.equal(first[name], same[name]) for name in drawn)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--lora", "--lora-rank", "0"), r"--lora-rank \(0\) must be at least 1"),
        (("--lora", "--lora-alpha", "-1"), r"--lora-alpha \(-1\) must be at least 1"),
        (("--lora-rank", "8"), r"--lora-rank \(8\) shapes an adapter; add --lora"),
    ],
)
def test_shapes_that_make_no_adapter_are_refused(more, message, model_dir, data, tmp_path):
    with pytest.raises(UsageError, match=message):
        main(words("sft", model_dir, data, tmp_path, *more))


def test_without_peft_the_mend_is_named(model_dir, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed
    with pytest.raises(UsageError, match=r"pip install \"meristem-posttrain\[lora\]\""):
        main(words("sft", model_dir, data, tmp_path / "out", "--lora"))
    assert not (tmp_path / "out").exists()


def test_a_model_without_linear_layers_is_refused(model_dir, data, tmp_path):
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=28, hidden_size=16, num_attention_heads=2, num_hidden_layers=0
        )
    )
    model.save_pretrained(tmp_path / "model")
    for name in TOKENIZER:
        (tmp_path / "model" / name).write_bytes((model_dir / name).read_bytes())
    with pytest.raises(UsageError, match="no linear layer in LlamaForCausalLM beside its head"):
        main(words("sft", tmp_path / "model", data, tmp_path / "out", "--lora"))
    assert not (tmp_path / "out").exists()
