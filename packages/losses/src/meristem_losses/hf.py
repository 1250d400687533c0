"""Any loss inside transformers' Trainer and TRL's SFTTrainer; needs the extra `hf`.

- a subclass overrides `compute_loss` alone; data, saving and logging stay the trainer's
- the wrapped model is called as always, asked for no logits; the last hidden state is read by a
  hook on the decoder, so that DDP, FSDP, adapters and autocast see a normal forward pass
"""

# the trainers carry no types
# pyright: reportUntypedBaseClass=false

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import TrainerCallback

from meristem_losses._gradient_filter import drop_large_gradients
from meristem_losses._model_head import Head, head_of, head_options, unwrap
from meristem_losses._one_pass import fused_loss
from meristem_losses._primitive import token_logprobs
from meristem_losses._snapshot import Snapshot
from meristem_losses._stats import TokenStats, next_token_targets, positive
from meristem_losses._teacher import Teacher

__all__ = [
    "GradientNormFilter",
    "Head",
    "SFTLoss",
    "Statistics",
    "head_of",
    "head_options",
    "hidden_states",
    "score",
    "with_sft_loss",
]

SFTLoss = Callable[[TokenStats, TokenStats | None], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The further statistics of `token_logprobs` that a loss needs."""

    entropy: bool = False
    mean_logit: bool = False
    log_collision: bool = False
    top_k_entropy: int | None = None
    is_top1: bool = False


PLAIN = Statistics()


def hidden_states(
    model: nn.Module, **inputs: Any
) -> tuple[Float[Tensor, "B S D"], Float[Tensor, ""] | None]:
    """Return the last hidden states of a forward pass without logits, and its auxiliary loss.

    The auxiliary loss of a mixture of experts is weighted by the model's own coefficient, None
    where the model has none. `inputs` are those of the model's forward pass, without labels.
    """
    inner = unwrap(model)
    found: list[Tensor] = []

    def read(module: nn.Module, arguments: object, output: Any) -> None:
        found.append(output[0])

    nothing = torch.empty(0, dtype=torch.long, device=inputs["input_ids"].device)
    handle = inner.get_decoder().register_forward_hook(read)
    try:
        outputs = model(**inputs, logits_to_keep=nothing, use_cache=False)
    finally:
        handle.remove()
    auxiliary = getattr(outputs, "aux_loss", None)
    if auxiliary is not None:
        auxiliary = auxiliary * inner.config.get_text_config().router_aux_loss_coef
    return found[-1], auxiliary


def score(
    model: nn.Module,
    labels: Tensor,
    mask: Tensor,
    *,
    statistics: Statistics = PLAIN,
    temperature: float = 1.0,
    **inputs: Any,
) -> tuple[TokenStats, Tensor | None]:
    """Return the statistics of next tokens where `mask` keeps the token, and the auxiliary loss.

    Rows and positions are those of `labels` and `mask`, (B, S); position t predicts token t + 1.
    """
    hidden, auxiliary = hidden_states(model, **inputs)
    targets, kept = next_token_targets(labels, mask)
    stats = token_logprobs(
        hidden[:, -targets.shape[1] :],  # behind the virtual tokens of a prompt adapter
        targets=targets,
        mask=kept,
        temperature=temperature,
        **head_options(model),
        **asdict(statistics),
    )
    return stats, auxiliary


def with_sft_loss(
    trainer_class: type,
    loss: SFTLoss,
    *,
    reference: nn.Module | None = None,
    snapshot_steps: int | None = None,
    compare: Callable[..., Teacher] | None = None,
    statistics: Statistics = PLAIN,
) -> type:
    """Return a subclass of transformers' `Trainer` or TRL's `SFTTrainer` that minimises a loss.

    Parameters
    ----------
    loss
        Called with the statistics of whole rows and those of the reference (or None), returns
        one value a token, (B, S); reduced by the mean over the tokens of the accumulated batch.
        A loss must not couple rows: they come in blocks, in one pass over the head.
    reference
        Frozen model that scores the same batch, on the trainer's device.
    snapshot_steps
        In place of a reference: the policy itself, as it was at the last multiple of so many
        optimiser steps (the outer batches of `psft_loss`); a run that is continued elsewhere takes
        one where it goes on. Costs a copy of what is trained.
    compare
        Makes the reference a teacher: the statistics hold `divergence` from it, and the loss gets
        None in place of the reference's own. For example ``partial(Teacher, beta=0.5)``.

    Examples
    --------
    >>> from transformers import Trainer
    >>> from meristem_losses import dft_loss
    >>> with_sft_loss(Trainer, lambda stats, ref: dft_loss(stats)).__name__
    'TrainerWithLoss'
    """
    if reference is not None and snapshot_steps is not None:
        raise ValueError("reference and snapshot_steps are two old policies; choose one")
    if compare is not None and reference is None and snapshot_steps is None:
        raise ValueError("compare needs a reference to compare with, or snapshot_steps")
    snapshot = None if snapshot_steps is None else Snapshot(snapshot_steps)

    def beside(referee: nn.Module, targets: Tensor, mask: Tensor, rest: dict[str, Any]) -> Any:
        """Return the statistics of the reference, or the reference as teacher."""
        hidden = hidden_states(referee, **rest)[0][:, -targets.shape[1] :]
        head = {k: v.detach() if isinstance(v, Tensor) else v  # of now: a snapshot leaves again
                for k, v in head_options(referee).items()}  # fmt: skip
        if compare is not None:
            return None, compare(hidden=hidden, **head)
        more = asdict(statistics)
        return token_logprobs(hidden, targets=targets, mask=mask, **head, **more), None

    class WithLoss(trainer_class):
        def compute_loss(
            self,
            model: nn.Module,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Tensor | int | None = None,
        ) -> Any:
            rest = {k: v for k, v in inputs.items() if k not in ("labels", "use_cache")}
            labels = inputs["labels"]
            targets, mask = next_token_targets(labels.clamp(min=0), labels != -100)
            other, teacher = None, None
            if reference is not None:
                with torch.no_grad():
                    other, teacher = beside(reference, targets, mask, rest)
            elif snapshot is not None:
                if model.training:
                    snapshot.follow(model, self.state.global_step)
                with snapshot.inside(model) as before:
                    other, teacher = beside(before, targets, mask, rest)
            hidden, auxiliary = hidden_states(model, **rest)
            count = int(mask.sum()) if num_items_in_batch is None else int(num_items_in_batch)
            count = max(count, 1)

            def share(stats: TokenStats, rows: Tensor) -> Tensor:
                return loss(stats, None if other is None else other.select(rows)).sum() / count

            value = fused_loss(
                hidden[:, -targets.shape[1] :],
                targets=targets,
                mask=mask,
                loss=share,
                groups=torch.arange(len(targets), device=targets.device),
                teacher=teacher,
                **head_options(model),
                **asdict(statistics),
            ).value
            if num_items_in_batch is not None and self.args.average_tokens_across_devices:
                value = value * self.accelerator.num_processes  # processes are averaged after
            if auxiliary is not None:
                steps = (
                    1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
                )
                value = value + auxiliary / steps
            return (value, {}) if return_outputs else value

        def prediction_step(
            self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
        ) -> tuple[Tensor, None, None]:
            inputs = self._prepare_inputs(inputs)
            with torch.no_grad(), self.compute_loss_context_manager():
                return self.compute_loss(model, inputs).detach(), None, None

    return named(WithLoss, trainer_class)


class GradientNormFilter(TrainerCallback):
    """Callback that skips optimiser steps of a gradient norm above a threshold (2508.15763: 0.3).

    For any of the trainers: ``Trainer(..., callbacks=[GradientNormFilter(max_norm=0.3)])``. A
    skipped step moves neither parameters nor moments; the learning rate goes on. `skipped` counts
    norms above, `not_finite` NaN and infinity apart, `steps` all.
    """

    def __init__(self, *, max_norm: float = 0.3) -> None:
        positive("max_norm", max_norm)
        self.max_norm = max_norm
        self.steps = self.skipped = self.not_finite = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Refuse a trainer that clips to the threshold first."""
        if args.max_grad_norm and args.max_grad_norm <= self.max_norm:
            raise ValueError(
                f"max_grad_norm ({args.max_grad_norm}) clips every gradient to the threshold "
                f"({self.max_norm}) or below, so that none is ever skipped; raise it or set it to 0"
            )

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, **given: Any
    ) -> None:
        """Drop the gradients of a step that is not to be taken."""
        norm = drop_large_gradients(model.parameters(), max_norm=self.max_norm)
        self.steps += 1
        self.skipped += self.max_norm < norm < float("inf")
        self.not_finite += not norm < float("inf")


def named(made: type, trainer_class: type) -> type:
    """Name a subclass after its parent."""
    made.__name__ = made.__qualname__ = f"{trainer_class.__name__}WithLoss"
    return made
