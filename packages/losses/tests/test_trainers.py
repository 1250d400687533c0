"""Any loss inside the trainers of TRL and transformers: parity with TRL's own, real training."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

import meristem_losses as ml

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

PROMPTS = ["a b", "h", "q r s", "t"]
CHOSEN = ["c d e", "i", "u v w x y", "z"]
REJECTED = ["f g", "j k l m", "p", "n o"]


def pair_data():
    from datasets import Dataset

    rows = zip(PROMPTS, CHOSEN, REJECTED, strict=True)
    return Dataset.from_list(
        [{"prompt": p, "chosen": f" {c}", "rejected": f" {r}"} for p, c, r in rows]
    )


def sft_data():
    from datasets import Dataset

    rows = zip(PROMPTS, CHOSEN, strict=True)
    return Dataset.from_list([{"prompt": p, "completion": f" {c}"} for p, c in rows])


def options(tmp_path, **more):
    return {
        "output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False,
        "per_device_train_batch_size": 4, "save_strategy": "no", "disable_tqdm": True, **more,
    }  # fmt: skip


def dpo_trainer(kind, model, reference, tokenizer, tmp_path, **more):
    from trl import DPOConfig

    return kind(
        model, ref_model=reference, args=DPOConfig(**options(tmp_path, **more)),
        train_dataset=pair_data(), processing_class=tokenizer,
    )  # fmt: skip


def value_and_gradients(trainer, batch, **more):
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch), **more)
    loss.backward()
    return loss.item(), [p.grad.clone() for p in trainer.model.parameters()]


def same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
    size = max(float(g.abs().max()) for g in expected[1])
    for x, y in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=2e-6 * max(size, 1.0))


DPO = {  # TRL's name: ours
    "sigmoid": ml.dpo_loss,
    "hinge": ml.hinge_loss,
    "ipo": lambda p, divergence: ml.ipo_loss(p, tau=0.1, divergence=divergence),
    "exo_pair": lambda p, divergence: ml.exo_loss(p, divergence=divergence, smoothing=0.1),
    "robust": lambda p, divergence: ml.robust_dpo_loss(p, divergence=divergence, flip_rate=0.1),
    "discopop": ml.discopop_loss,
    "sigmoid_norm": ml.length_normalised_dpo_loss,
    "nca_pair": lambda p, divergence: ml.nca_loss(p),
    "bco_pair": lambda p, divergence: ml.bco_loss(p),
    "sppo_hard": lambda p, divergence: ml.sppo_loss(p),
    "aot": lambda p, divergence: ml.aot_loss(p, smoothing=0.1),
    "aot_unpaired": lambda p, divergence: ml.aot_unpaired_loss(p, smoothing=0.1),
    "apo_zero": lambda p, divergence: ml.apo_zero_loss(p),
    "apo_down": lambda p, divergence: ml.apo_down_loss(p),
}
JS = ml.JENSEN_SHANNON
HALF_JS = ml.Divergence(  # TRL's link is half of ours, whose curvature at 1 is 1
    name="half JS", f=JS.f, f_prime=JS.f_prime, phi=None, phi_prime=None,
    link=lambda r: JS.reward(r) / 2,
)  # fmt: skip
LINKS = {
    "reverse_kl": ml.REVERSE_KL,
    "forward_kl": ml.FORWARD_KL,
    "js_divergence": HALF_JS,
    "alpha_divergence": ml.alpha_divergence(0.5),
}
BOTH = [(name, link) for name in list(DPO)[:7] for link in LINKS] + [
    (name, "reverse_kl") for name in list(DPO)[7:]
]


@pytest.fixture(scope="module")
def dpo(tiny_model, tokenizer, tmp_path_factory):
    """TRL's trainer and the adapted one on one model, and a batch."""
    from trl import DPOTrainer

    from meristem_losses.trl import with_preference_loss

    current = {}
    adapted = with_preference_loss(DPOTrainer, lambda pairs: current["loss"](pairs))
    model, path = tiny_model(0), tmp_path_factory.mktemp("dpo")
    theirs = dpo_trainer(DPOTrainer, model, tiny_model(1), tokenizer, path, label_smoothing=0.1)
    ours = dpo_trainer(adapted, model, tiny_model(1), tokenizer, path)
    return theirs, ours, current, next(iter(theirs.get_train_dataloader()))


@pytest.mark.parametrize(("name", "link"), BOTH)
def test_preference_losses_against_trl(dpo, name, link):
    theirs, ours, current, batch = dpo
    theirs.loss_types, theirs.loss_weights, theirs.f_divergence_type = [name], [1.0], link
    theirs.f_alpha_divergence_coef = 0.5
    current["loss"] = lambda pairs: DPO[name](pairs, divergence=LINKS[link])
    same(value_and_gradients(ours, batch), value_and_gradients(theirs, batch))


def test_tail_weight_and_pair_weights_against_trl(tiny_model, tokenizer, tmp_path):
    from trl import DPOTrainer

    from meristem_losses.hf import Statistics, score

    more = {"ld_alpha": 0.3, "use_weighting": True}
    theirs = dpo_trainer(DPOTrainer, tiny_model(0), tiny_model(1), tokenizer, tmp_path, **more)
    batch = next(iter(theirs.get_train_dataloader()))
    expected = value_and_gradients(theirs, batch)
    model, ids, keep = theirs.model, batch["input_ids"], batch["completion_mask"].bool()
    model.zero_grad()
    inputs = {"input_ids": ids, "attention_mask": batch["attention_mask"]}
    wanted = Statistics(log_collision=True)
    stats, other = (
        score(m, ids, keep, statistics=wanted, **inputs)[0] for m in (model, tiny_model(1))
    )
    pairs = ml.preference_pairs(stats, other, tail_weight=0.3)
    loss = (ml.dpo_loss(pairs) * ml.wpo_weights(stats)).mean()
    loss.backward()
    same((loss.item(), [p.grad for p in model.parameters()]), expected)


@pytest.mark.parametrize("kind", ["sigmoid", "hinge", "ipo", "simpo", "alphapo", "tpo"])
def test_reference_free_losses_against_trl(kind, tiny_model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    from meristem_losses.hf import score

    alpha = 0.25 if kind == "alphapo" else 0.0
    args = CPOConfig(
        loss_type="simpo" if kind == "alphapo" else "sigmoid" if kind == "tpo" else kind,
        beta=0.5, simpo_gamma=0.3, alpha=alpha, cpo_alpha=0.7, max_length=32,
        **options(tmp_path, remove_unused_columns=False),
    )  # fmt: skip
    trainer = CPOTrainer(
        tiny_model(0), args=args, train_dataset=pair_data(), processing_class=tokenizer
    )
    model = trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    expected = value_and_gradients(trainer, batch)
    width = max(batch[f"{side}_input_ids"].shape[1] for side in ("chosen", "rejected"))

    def both(what, fill):
        pads = [(0, width - batch[f"{s}_{what}"].shape[1]) for s in ("chosen", "rejected")]
        return torch.cat(
            [
                torch.nn.functional.pad(batch[f"{s}_{what}"], pad, value=fill)
                for s, pad in zip(("chosen", "rejected"), pads, strict=True)
            ]
        )

    labels = both("labels", -100)
    model.zero_grad()
    stats, _ = score(
        model, labels.clamp(min=0), labels != -100,
        input_ids=both("input_ids", 0), attention_mask=both("attention_mask", 0),
    )  # fmt: skip
    pairs, n = ml.preference_pairs(stats), len(labels) // 2
    nll = ml.mean_over_tokens(-stats.logprobs[:n], stats.mask[:n])
    lengths = [pairs.chosen_tokens, pairs.rejected_tokens]
    averaged = ml.Pairs(
        chosen=pairs.chosen / lengths[0], rejected=pairs.rejected / lengths[1],
        chosen_tokens=lengths[0], rejected_tokens=lengths[1],
    ).reference_free()  # fmt: skip
    ours = {
        "sigmoid": lambda: ml.cpo_loss(pairs, beta=0.5, alpha=0.0).mean() + 0.7 * nll,
        "hinge": lambda: ml.hinge_loss(pairs.reference_free(), beta=0.5).mean() + 0.7 * nll,
        "ipo": lambda: ml.ipo_loss(averaged, tau=0.5, average=False).mean() + 0.7 * nll,
        "simpo": lambda: ml.simpo_loss(pairs, beta=0.5, gamma=0.3).mean() + 0.7 * nll,
        "alphapo": lambda: ml.alphapo_loss(pairs, beta=0.5, gamma=0.3).mean() + 0.7 * nll,
        "tpo": lambda: ml.tpo_loss(pairs, nll.expand(n), beta=0.5, alpha=0.7).mean(),
    }
    loss = ours[kind]()
    loss.backward()
    same((loss.item(), [p.grad for p in model.parameters()]), expected)


@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired"])
def test_kto_against_trl(kind, tiny_model, tokenizer, tmp_path):
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    from meristem_losses.hf import score

    rows = zip(PROMPTS, CHOSEN, [True, False, True, False], strict=True)
    data = Dataset.from_list([{"prompt": p, "completion": f" {c}", "label": g} for p, c, g in rows])
    trainer = KTOTrainer(
        tiny_model(0), ref_model=tiny_model(1), train_dataset=data, processing_class=tokenizer,
        args=KTOConfig(
            loss_type=kind, beta=0.3, desirable_weight=1.2, undesirable_weight=0.8,
            **options(tmp_path),
        ),
    )  # fmt: skip
    model = trainer.model
    batch = next(iter(trainer.get_train_dataloader()))
    expected = value_and_gradients(trainer, batch)
    model.zero_grad()

    def ratio(prefix):
        sums = []
        for scored in (model, tiny_model(1)):
            ids, keep = batch[f"{prefix}input_ids"], batch[f"{prefix}completion_mask"].bool()
            attention = batch[f"{prefix}attention_mask"]
            stats, _ = score(scored, ids, keep, input_ids=ids, attention_mask=attention)
            sums.append(ml.sequence_logprobs(stats))
        return sums[0] - sums[1].detach()

    labels = torch.as_tensor(batch["label"]).bool()
    point = ml.kto_reference_point(ratio("KL_")) if kind == "kto" else torch.zeros(())
    loss = ml.kto_loss(
        ratio(""), labels, point, beta=0.3, desirable_weight=1.2, undesirable_weight=0.8
    ).mean()
    loss.backward()
    same((loss.item(), [p.grad for p in model.parameters()]), expected)


def test_orpo_against_trl(tiny_model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    args = ORPOConfig(beta=0.3, max_length=32, **options(tmp_path, remove_unused_columns=False))
    trainer = ORPOTrainer(
        tiny_model(0), args=args, train_dataset=pair_data(), processing_class=tokenizer
    )
    average = -torch.rand(2, 5, generator=torch.Generator().manual_seed(3)) * 4
    theirs = trainer.odds_ratio_loss(*average)[0]
    ones = torch.ones(5)
    pairs = ml.Pairs(
        chosen=average[0] * 3, rejected=average[1] * 2, chosen_tokens=ones * 3,
        rejected_tokens=ones * 2,
    )  # fmt: skip
    torch.testing.assert_close(ml.orpo_loss(pairs, weight=0.3) + average[0], -theirs)


def sft_trainer(kind, model, tokenizer, tmp_path, **more):
    from trl import SFTConfig

    return kind(
        model, args=SFTConfig(**options(tmp_path, **more)), train_dataset=sft_data(),
        processing_class=tokenizer,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["nll", "dft"])
@pytest.mark.parametrize("count", [None, 20])
def test_fine_tuning_against_trl(name, count, tiny_model, tokenizer, tmp_path):
    from trl import SFTTrainer

    from meristem_losses.hf import with_sft_loss

    loss = {"nll": ml.nll_loss, "dft": ml.dft_loss}[name]
    adapted = with_sft_loss(SFTTrainer, lambda stats, ref: loss(stats))
    theirs = sft_trainer(SFTTrainer, tiny_model(0), tokenizer, tmp_path, loss_type=name)
    ours = sft_trainer(adapted, tiny_model(0), tokenizer, tmp_path)
    batch = next(iter(theirs.get_train_dataloader()))
    more = {"num_items_in_batch": count}
    same(value_and_gradients(ours, batch, **more), value_and_gradients(theirs, batch, **more))


def grpo_trainer(kind, model, tokenizer, tmp_path, **more):
    from datasets import Dataset
    from trl import GRPOConfig

    args = GRPOConfig(
        num_generations=4, max_completion_length=6, logging_steps=1, **options(tmp_path, **more)
    )
    return kind(
        model, reward_funcs=lambda completions, **_: [float(len(c)) for c in completions],
        args=args, train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tokenizer,
    )  # fmt: skip


def sampled(model):
    g = torch.Generator().manual_seed(5)
    ids = torch.randint(2, 20, (4, 9), generator=g)
    prompt_mask = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]])
    mask = (torch.arange(6) < torch.tensor([[6], [4], [2], [5]])).long()
    return {
        "prompt_ids": ids[:, :3], "prompt_mask": prompt_mask, "completion_ids": ids[:, 3:],
        "completion_mask": mask, "advantages": torch.tensor([1.3, -0.7, 0.4, -1.1]),
        "old_per_token_logps": -torch.rand(4, 6, generator=g) * 6,
        "ref_per_token_logps": -torch.rand(4, 6, generator=g) * 6,
        "sampling_per_token_logps": -torch.rand(4, 6, generator=g) * 6,
        "num_items_in_batch": torch.tensor(30.0),
    }  # fmt: skip


def _tokens(loss):
    return lambda s, r: ml.mean_over_tokens(loss(s, r), s.mask, count=r.tokens)


def _means(loss):
    return lambda s, r: ml.mean_of_sequence_means(loss(s, r), s.mask)


def _ppo(**more):
    return lambda s, r: ml.ppo_clip_loss(s, r.old_logprobs, r.advantages, **more)


def _gspo(s, r):
    return ml.gspo_loss(s, r.old_logprobs, r.advantages, low=0.2, high=0.28)


POLICY = {
    "grpo": ({}, _means(_ppo(high=0.28))),
    "bnpo": ({}, lambda s, r: ml.mean_over_tokens(_ppo(high=0.28)(s, r), s.mask)),
    "dr_grpo": (
        {}, lambda s, r: ml.mean_of_sequence_sums(_ppo(high=0.28)(s, r), s.mask, length=6.0),
    ),
    "dapo": ({}, _tokens(_ppo(high=0.28))),
    "delta": ({"loss_type": "dapo", "delta": 1.9}, _tokens(_ppo(high=0.28, delta=1.9))),
    "kl": (
        {"loss_type": "dapo", "kl": 0.3},
        _tokens(
            lambda s, r: (
                _ppo(high=0.28)(s, r)
                + 0.3 * ml.k3(s, r.ref_logprobs, old_logprobs=r.old_logprobs)
            )
        ),
    ),
    "cispo": (
        {"epsilon_high": 3.0},
        _tokens(lambda s, r: ml.cispo_loss(s, r.old_logprobs, r.advantages, cap=3.0)),
    ),
    "sapo": ({}, _means(lambda s, r: ml.sapo_loss(s, r.old_logprobs, r.advantages))),
    "vespo": ({}, _tokens(lambda s, r: ml.vespo_loss(s, r.old_logprobs, r.advantages))),
    "gspo": ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, _means(_gspo)),
    "luspo": (
        {"importance_sampling_level": "sequence"},
        lambda s, r: ml.mean_of_sequence_sums(_gspo(s, r), s.mask),
    ),
    "off-policy mask": (
        {"loss_type": "dapo", "off_policy_mask_threshold": 0.5},
        _tokens(
            lambda s, r: (
                _ppo(high=0.28)(s, r)
                * ml.off_policy_mask(s, r.sampling_logprobs, r.advantages, threshold=0.5)
            )
        ),
    ),
    "high entropy": (
        {"loss_type": "dapo", "top_entropy_quantile": 0.4},
        _tokens(lambda s, r: _ppo(high=0.28)(s, r) * ml.high_entropy_mask(s, fraction=0.4)),
    ),
    "entropy bonus": (
        {"loss_type": "bnpo", "entropy_coef": 0.05},
        lambda s, r: ml.mean_over_tokens(
            _ppo(high=0.28)(s, r) + ml.entropy_bonus(s, 0.05), s.mask
        ),
    ),
    "sampler weights": (
        {"loss_type": "dapo", "engine": True},
        _tokens(lambda s, r: _ppo(high=0.28)(s, r) * r.weights),
    ),
    "gmpo": ({}, _means(lambda s, r: ml.gmpo_loss(s, r.old_logprobs, r.advantages))),
}  # fmt: skip


@pytest.mark.parametrize("name", POLICY)
def test_policy_losses_against_trl(name, tiny_model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl import GRPOTrainer

    from meristem_losses.hf import Statistics
    from meristem_losses.trl import with_policy_loss

    more, loss = dict(POLICY[name][0]), POLICY[name][1]
    kind = GRPOTrainer
    if name == "gmpo":
        from trl.experimental.gmpo import GMPOTrainer as kind

        more = {"epsilon": 0.4, "epsilon_high": 0.4}
    else:
        more = {"loss_type": name, "epsilon": 0.2, "epsilon_high": 0.28, **more}
    kl, engine = more.pop("kl", 0.0), more.pop("engine", False)
    theirs = grpo_trainer(kind, tiny_model(0), tokenizer, tmp_path, **more)
    theirs.beta = kl  # set late: the trainer would look for its reference on a hub
    theirs.use_vllm = engine  # set late too: there is no engine
    adapted = with_policy_loss(GRPOTrainer, loss, statistics=Statistics(entropy=True))
    ours = grpo_trainer(adapted, tiny_model(0), tokenizer, tmp_path)
    for trainer in (theirs, ours):
        trainer.current_gradient_accumulation_steps = 2
        trainer.model.train()
    batch = sampled(theirs.model)
    if engine:
        before, there = batch["old_per_token_logps"], batch["sampling_per_token_logps"]
        stats = ml.TokenStats(logprobs=before, lse=before, mask=batch["completion_mask"].bool())
        batch["importance_sampling_ratio"] = ml.sampler_weights(stats, before, there, high=3.0)
    same(value_and_gradients(ours, batch), value_and_gradients(theirs, batch))


# ---- real training ---------------------------------------------------------------------------


def test_a_model_trains_through_transformers_trainer(tiny_model, tmp_path):
    from transformers import Trainer, TrainingArguments

    from meristem_losses.hf import with_sft_loss

    ids = torch.randint(2, 28, (6, 8), generator=torch.Generator().manual_seed(1))
    rows = []
    for i, row in enumerate(ids):  # responses of six lengths
        labels = row.clone()
        labels[: i + 1] = -100
        rows.append({"input_ids": row, "labels": labels})
    reference = tiny_model(0).eval()
    adapted = with_sft_loss(
        Trainer, lambda s, ref: ml.f_sft_loss(s, ref, ml.PEARSON_CHI2, beta=0.5),
        reference=reference,
    )  # fmt: skip

    def fit(batch, steps):
        args = TrainingArguments(
            **options(tmp_path, max_steps=8, learning_rate=3e-3, logging_steps=8, seed=0)
            | {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        )
        trainer = adapted(tiny_model(0), args=args, train_dataset=rows)
        loss = trainer.train().training_loss
        return loss, trainer

    def nll(model):
        logits = model(torch.stack([r["input_ids"] for r in rows])).logits[:, :-1]
        labels = torch.stack([r["labels"] for r in rows])[:, 1:]
        return cross_entropy(logits.flatten(0, 1), labels.flatten()).item()

    loss, trainer = fit(6, 1)
    split, other = fit(1, 6)
    assert nll(trainer.model) < 0.7 * nll(tiny_model(0))
    assert split == pytest.approx(loss, rel=1e-4)  # six micro-batches are one batch
    for x, y in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-2, atol=1e-4)  # Adam divides by small gradients


def test_a_model_trains_through_sft_trainer(tiny_model, tokenizer, tmp_path):
    from trl import SFTTrainer

    from meristem_losses.hf import Statistics, with_sft_loss

    adapted = with_sft_loss(
        SFTTrainer, lambda s, ref: ml.eaft_loss(s, k=4), statistics=Statistics(top_k_entropy=4)
    )
    trainer = sft_trainer(
        adapted, tiny_model(0), tokenizer, tmp_path, max_steps=6, learning_rate=1e-2,
        logging_steps=1, eval_strategy="no",
    )  # fmt: skip
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] < losses[0]


@pytest.mark.parametrize("reference", [True, False])
def test_a_model_trains_through_dpo_trainer(reference, tiny_model, tokenizer, tmp_path):
    from trl import DPOTrainer

    from meristem_losses.trl import with_preference_loss

    loss = (lambda p: ml.dpo_loss(p, divergence=ml.CHI2_KL)) if reference else ml.simpo_loss
    trainer = dpo_trainer(
        with_preference_loss(DPOTrainer, loss, reference=reference), tiny_model(0), tiny_model(0),
        tokenizer, tmp_path, max_steps=6, learning_rate=1e-2, logging_steps=1,
        precompute_ref_log_probs=reference,
    )  # fmt: skip
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    assert log[-1]["loss"] < log[0]["loss"]
    gap = [row["logps/chosen"] - row["logps/rejected"] for row in log]
    assert gap[-1] > gap[0]
    if reference:
        assert log[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
        assert log[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
        assert log[-1]["rewards/margins"] > 0.1


def test_a_model_trains_through_grpo_trainer(tiny_model, tokenizer, tmp_path):
    from trl import GRPOTrainer

    from meristem_losses.hf import Statistics
    from meristem_losses.trl import with_policy_loss

    adapted = with_policy_loss(
        GRPOTrainer,
        _tokens(lambda s, r: ml.kl_cov_loss(s, r.old_logprobs, r.advantages, top_frac=0.1)),
        statistics=Statistics(entropy=True),
    )
    trainer = grpo_trainer(
        adapted, tiny_model(0), tokenizer, tmp_path, max_steps=2, learning_rate=1e-2, seed=1
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    assert all(0 < row["entropy"] < math.log(28) for row in log)
    after = trainer.model.parameters()
    assert any(not torch.equal(x, y) for x, y in zip(before, after, strict=True))


# ---- heads of model families ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("Llama", {}),
        ("Qwen3", {"head_dim": 8}),
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0}),
        ("Granite", {"logits_scaling": 4.0}),
        ("Cohere", {"logit_scale": 0.3}),
    ],
)
def test_head_and_hidden_states_give_the_models_logits(family, more, tiny_model):
    from meristem_losses.hf import head_of, hidden_states

    model = tiny_model(0, family, **more)
    ids = torch.randint(2, 28, (2, 5), generator=torch.Generator().manual_seed(1))
    hidden, auxiliary = hidden_states(model, input_ids=ids)
    head = head_of(model)
    y = head.scale * linear(hidden, head.weight, head.bias)
    y = y if head.softcap is None else head.softcap * torch.tanh(y / head.softcap)
    torch.testing.assert_close(y, model(ids).logits)
    assert auxiliary is None
    assert model.get_decoder()._forward_hooks == {}
