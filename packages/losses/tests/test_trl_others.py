"""Parity with TRL's trainers beside SFT, DPO and GRPO: RLOO, TPO, A*-PO; DPO's likelihood term."""

import pytest
import torch

import meristem_losses as ml

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

PROMPTS = ["a b", "h", "q r s", "t"]
RESPONSES = {
    "chosen": [" c d e", " i", " u v w x y", " z"],
    "rejected": [" f g", " j k l m", " p", " n o"],
    "reference": [" b c", " d e f", " g", " h i j k"],
}
ADV = torch.tensor([1.3, -0.7, 0.4, -1.1])


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def options(tmp_path, **more):
    return {
        "output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False,
        "per_device_train_batch_size": 4, "save_strategy": "no", "disable_tqdm": True, **more,
    }  # fmt: skip


def dataset(*columns):
    from datasets import Dataset

    return Dataset.from_dict({"prompt": PROMPTS, **{c: RESPONSES[c] for c in columns}})


def reward(completions, **_):
    return [float(len(c)) for c in completions]


def same(trainer, batch, ours):
    """Compare loss and gradients of the trainer with those of `ours` on its model."""
    model, found = trainer.model, []
    for loss in (lambda: trainer.compute_loss(model, dict(batch)), ours):
        model.zero_grad()
        value = loss()
        value.backward()
        found.append((value.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-6)
    size = max(1.0, *(float(g.abs().max()) for g in found[0][1]))
    for x, y in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=2e-6 * size)


def sampled():
    """Left-padded prompts of three and responses of six tokens, some ended early."""
    g = torch.Generator().manual_seed(5)
    ids = torch.randint(2, 20, (4, 9), generator=g)
    prompt_mask = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]])
    mask = (torch.arange(6) < torch.tensor([[6], [4], [2], [5]])).long()
    return ids, prompt_mask, mask, -torch.rand(4, 6, generator=g) * 6


def scored(model, ids, attention, response):
    from meristem_losses.hf import score

    return score(model, ids, response.bool(), input_ids=ids, attention_mask=attention)[0]


def test_rloo_against_trl(tiny_model, tokenizer, tmp_path):
    from trl import RLOOConfig, RLOOTrainer

    args = RLOOConfig(
        num_generations=4, max_completion_length=6, beta=0.0, epsilon=0.2, epsilon_high=0.28,
        **options(tmp_path),
    )  # fmt: skip
    trainer = RLOOTrainer(
        tiny_model(0), reward_funcs=reward, args=args, train_dataset=dataset(),
        processing_class=tokenizer,
    )  # fmt: skip
    ids, prompt_mask, mask, _ = sampled()
    attention = torch.cat([prompt_mask, mask], 1)
    kept = torch.cat([torch.zeros_like(prompt_mask), mask], 1)
    with torch.no_grad():  # near the policy, so that some ratios are clipped and some are not
        close = scored(trainer.model, ids, attention, kept)
    old = close.logprobs - close.mask * torch.tensor([[0.02], [-0.2], [0.3], [0.01]])
    batch = {
        "prompt_ids": ids[:, :3], "prompt_mask": prompt_mask, "completion_ids": ids[:, 3:],
        "completion_mask": mask, "advantages": ADV, "old_logps": old.sum(1),
    }  # fmt: skip

    def ours():
        stats = scored(trainer.model, ids, attention, kept)
        return ml.rloo_loss(stats, old, ADV[:, None], low=0.2, high=0.28).mean()

    same(trainer, batch, ours)


TPO = {
    "sigmoid": lambda p, gold: ml.tpo_loss(p, gold, beta=0.3, alpha=0.7, smoothing=0.1),
    "tpo-l": lambda p, gold: ml.tpo_l_loss(p, gold, beta=0.3, gamma=0.4, alpha=0.7, smoothing=0.1),
    "hinge": lambda p, gold: ml.hinge_loss(p.reference_free(), beta=0.3) + 0.7 * gold,
    "ipo": lambda p, gold: ml.ipo_loss(p.reference_free(), tau=0.3) + 0.7 * gold,
}


@pytest.mark.parametrize("kind", TPO)
def test_tpo_against_trl(kind, tiny_model, tokenizer, tmp_path):
    from trl.experimental.tpo import TPOConfig, TPOTrainer

    smoothing = 0.1 if kind in ("sigmoid", "tpo-l") else 0.0
    args = TPOConfig(
        loss_type=kind, beta=0.3, tpo_alpha=0.7, tpo_l_gamma=0.4, label_smoothing=smoothing,
        **options(tmp_path),
    )  # fmt: skip
    trainer = TPOTrainer(
        tiny_model(0), args=args, train_dataset=dataset(*RESPONSES), processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    ids, attention, kept = (
        batch[name] for name in ("input_ids", "attention_mask", "completion_mask")
    )

    def ours():
        stats = scored(trainer.model, ids, attention, kept)
        two, gold = stats.select(torch.arange(8)), stats.select(torch.arange(8, 12))
        nll = ml.mean_over_tokens(ml.nll_loss(gold), gold.mask)
        return TPO[kind](ml.preference_pairs(two), nll.expand(4)).mean()

    same(trainer, batch, ours)


def test_a2po_against_trl(tiny_model, tokenizer, tmp_path):
    from trl.experimental.a2po import A2POConfig, A2POTrainer

    args = A2POConfig(beta2=0.2, **options(tmp_path, remove_unused_columns=False))
    trainer = A2POTrainer(
        tiny_model(0), reward_funcs=reward, args=args, train_dataset=dataset(),
        processing_class=tokenizer,
    )  # fmt: skip
    ids, prompt_mask, mask, _ = sampled()
    attention = torch.cat([prompt_mask, mask], 1)
    before = torch.tensor([-9.0, -7.0, -3.0, -8.0])
    value = ml.optimal_values(torch.tensor([[0.0, 1.0, 1.0]]), beta=args.beta1).expand(4)
    batch = {
        "input_ids": ids, "attention_mask": attention, "logits_to_keep": 6, "ref_logps": before,
        "rewards": ADV, "v_star": value,
    }  # fmt: skip
    kept = torch.cat([torch.zeros_like(prompt_mask), mask], 1)

    def ours():
        sums = ml.sequence_logprobs(scored(trainer.model, ids, attention, kept))
        return ml.a2po_loss(sums - before, ADV - value, beta=0.2).mean()

    same(trainer, batch, ours)


def test_likelihood_beside_dpo_against_trl(tiny_model, tokenizer, tmp_path):
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(loss_type=["sigmoid", "sft"], loss_weights=[0.8, 0.3], **options(tmp_path))
    trainer = DPOTrainer(
        tiny_model(0), ref_model=tiny_model(1), args=args,
        train_dataset=dataset("chosen", "rejected"), processing_class=tokenizer,
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    ids, attention, kept = (
        batch[name] for name in ("input_ids", "attention_mask", "completion_mask")
    )
    with torch.no_grad():
        reference = scored(tiny_model(1), ids, attention, kept)

    def ours():
        stats = scored(trainer.model, ids, attention, kept)
        chosen = stats.select(torch.arange(4))
        nll = ml.mean_over_tokens(ml.nll_loss(chosen), chosen.mask)
        return 0.8 * ml.dpo_loss(ml.preference_pairs(stats, reference)).mean() + 0.3 * nll

    same(trainer, batch, ours)
