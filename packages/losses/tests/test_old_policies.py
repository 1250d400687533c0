"""The policy of some steps ago, a teacher, and skipped steps inside transformers' Trainer."""

import copy
from functools import partial

import pytest
import torch

import meristem_losses as ml

pytest.importorskip("transformers")
ROWS, LENGTH = 4, 7


def rows():
    ids = torch.randint(2, 28, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    labels = ids.masked_fill(torch.arange(LENGTH) < torch.tensor([[2], [3], [1], [2]]), -100)
    return [{"input_ids": x, "labels": y} for x, y in zip(ids, labels, strict=True)]


def trained(kind, model, tmp_path, *, batch=ROWS, steps=5, **more):
    from transformers import TrainingArguments

    args = TrainingArguments(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        max_steps=steps, per_device_train_batch_size=batch, max_grad_norm=0.0, optim="sgd",
        gradient_accumulation_steps=ROWS // batch, learning_rate=0.5, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = kind(model, args=args, train_dataset=rows(), **more)
    trainer.train()
    return trainer


def by_hand(model, loss, referee_of, *, steps=5):
    """The same steps by plain autograd on whole logits; the last old policy as well."""
    batch = {k: torch.stack([r[k] for r in rows()]) for k in ("input_ids", "labels")}
    targets = batch["labels"][:, 1:]
    mask = targets != -100

    def scored(network):
        logits = network(batch["input_ids"]).logits[:, :-1]
        return ml.token_logprobs_from_logits(logits, targets.clamp(min=0), mask=mask), logits

    referee = None
    for step in range(steps):
        referee = referee_of(step, model, referee)
        with torch.no_grad():
            other = scored(referee)
        value = ml.mean_over_tokens(loss(*scored(model), *other), mask)
        gradients = torch.autograd.grad(value, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients, strict=True):
                p -= 0.5 * g
    return model


def close(one, other, tolerance=2e-4):
    for x, y in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def test_proximal_fine_tuning_follows_snapshots_of_the_policy(tiny_model, tmp_path):
    from transformers import Trainer

    from meristem_losses.hf import with_sft_loss

    adapted = with_sft_loss(
        Trainer, lambda s, old: ml.psft_loss(s, old.logprobs, high=0.1), snapshot_steps=2
    )
    found = trained(adapted, tiny_model(0), tmp_path, batch=2).model

    def expected(every):
        return by_hand(
            tiny_model(0),
            lambda s, z, old, _: ml.psft_loss(s, old.logprobs, high=0.1),
            lambda step, model, last: last if step % every else copy.deepcopy(model),
        )

    close(found, expected(2))
    with pytest.raises(AssertionError):  # what the number of steps changes is seen
        close(found, expected(1))


def test_a_model_is_distilled_from_a_teacher(tiny_model, tmp_path):
    from transformers import Trainer

    from meristem_losses.hf import with_sft_loss

    teacher = tiny_model(3, hidden_act="relu").eval()
    adapted = with_sft_loss(
        Trainer, lambda s, none: s.divergence - 0.1 * s.logprobs, reference=teacher,
        compare=partial(ml.Teacher, beta=0.3),
    )  # fmt: skip
    found = trained(adapted, tiny_model(0), tmp_path, batch=2, steps=3).model

    def loss(s, z, _, reference):
        p, q = z.log_softmax(2), reference.log_softmax(2)
        m = (0.7 * p.exp() + 0.3 * q.exp()).log()
        own, its = (p.exp() * (p - m)).sum(2), (q.exp() * (q - m)).sum(2)
        return 0.7 * own + 0.3 * its - 0.1 * s.logprobs

    close(found, by_hand(tiny_model(0), loss, lambda *_: teacher, steps=3))


def test_steps_of_large_gradients_are_skipped(tiny_model, tmp_path):
    from transformers import Trainer

    from meristem_losses.hf import GradientNormFilter, with_sft_loss

    adapted = with_sft_loss(Trainer, lambda s, _: ml.nll_loss(s))
    start = tiny_model(0)
    plain = trained(adapted, tiny_model(0), tmp_path, steps=2).model
    for limit, kept in ((1e-3, start), (1e3, plain)):
        watch = GradientNormFilter(max_norm=limit)
        found = trained(adapted, tiny_model(0), tmp_path, steps=2, callbacks=[watch]).model
        close(found, kept, tolerance=1e-6)
        assert (watch.steps, watch.skipped, watch.not_finite) == (2, 2 * (limit < 1), 0)
    with pytest.raises(AssertionError):
        close(start, plain)


def test_a_filter_below_the_clip_is_refused(tiny_model):
    from transformers import TrainingArguments

    from meristem_losses.hf import GradientNormFilter

    args = TrainingArguments(use_cpu=True, report_to=[], max_grad_norm=0.2)
    with pytest.raises(ValueError, match=r"max_grad_norm \(0.2\) clips"):
        GradientNormFilter(max_norm=0.3).on_train_begin(args, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": torch.nn.Linear(1, 1), "snapshot_steps": 2}, "two old policies"),
        ({"compare": ml.Teacher}, "needs a reference"),
        ({"snapshot_steps": 0}, "snapshot_steps is 0"),
    ],
)
def test_old_policies_that_do_not_fit_are_refused(options, message):
    from transformers import Trainer

    from meristem_losses.hf import with_sft_loss

    with pytest.raises(ValueError, match=message):
        with_sft_loss(Trainer, lambda s, _: ml.nll_loss(s), **options)
