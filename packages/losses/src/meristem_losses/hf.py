"""Any loss inside transformers' Trainer and TRL's SFTTrainer; needs the extra `hf`.

- a subclass overrides `compute_loss` alone; data, saving and logging stay the trainer's
- the wrapped model is called as always, asked for no logits; the last hidden state is read by a
  hook on the decoder, so that DDP, FSDP, adapters and autocast see a normal forward pass
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from meristem_losses._one_pass import fused_loss
from meristem_losses._primitive import token_logprobs
from meristem_losses._stats import TokenStats, next_token_targets

SFTLoss = Callable[[TokenStats, TokenStats | None], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The output embedding of a model and what shapes its logits."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None
    scale: float
    softcap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The further statistics of `token_logprobs` that a loss needs."""

    entropy: bool = False
    mean_logit: bool = False
    log_collision: bool = False
    top_k_entropy: int | None = None


PLAIN = Statistics()


def head_of(model: nn.Module) -> Head:
    """Return the head of a causal model, unwrapped; shards are gathered.

    Raises
    ------
    ValueError
        A model without output embeddings, or with an adapter on them.
    """
    inner = unwrap(model)
    linear = inner.get_output_embeddings()
    if linear is None:
        raise ValueError(f"{type(inner).__name__} has no output embeddings; pass a causal model")
    if hasattr(linear, "base_layer"):
        raise ValueError(
            "an adapter sits on the output embeddings, whose weight alone would be used; leave "
            "lm_head out of its target modules"
        )
    config = inner.config.get_text_config()
    bias = getattr(linear, "bias", None)
    return Head(
        weight=_whole(linear.weight),
        bias=None if bias is None else _whole(bias),
        scale=_scale(config),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


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


def head_options(model: nn.Module) -> dict[str, Any]:
    """Return the head as keyword arguments of the primitive."""
    head = head_of(model)
    return {"weight": head.weight, "bias": head.bias, "scale": head.scale, "softcap": head.softcap}


def with_sft_loss(
    trainer_class: type,
    loss: SFTLoss,
    *,
    reference: nn.Module | None = None,
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

    Examples
    --------
    >>> from transformers import Trainer
    >>> from meristem_losses import dft_loss
    >>> with_sft_loss(Trainer, lambda stats, ref: dft_loss(stats)).__name__
    'TrainerWithLoss'
    """

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
            other = None
            if reference is not None:
                with torch.no_grad():
                    other, _ = score(
                        reference, labels.clamp(min=0), labels != -100, statistics=statistics,
                        **rest,
                    )  # fmt: skip
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


def named(made: type, trainer_class: type) -> type:
    """Name a subclass after its parent."""
    made.__name__ = made.__qualname__ = f"{trainer_class.__name__}WithLoss"
    return made


def unwrap(model: nn.Module) -> Any:
    """Return the model below data-parallel wrappers, compilation and adapters."""
    inner: Any = model
    while True:
        if isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = inner.module
        elif hasattr(inner, "_orig_mod"):  # torch.compile
            inner = inner._orig_mod
        elif hasattr(inner, "get_base_model"):  # PEFT
            inner = inner.get_base_model()
        else:
            return inner


def _whole(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def _scale(config: Any) -> float:
    """Return what multiplies the logits; names as the models' configurations have them."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    divisor = getattr(config, "logits_scaling", None)
    if divisor is None:
        return 1.0
    return float(divisor) if config.model_type == "hyperclovax" else 1 / float(divisor)
