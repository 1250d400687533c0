"""Any loss inside TRL's DPOTrainer and GRPOTrainer; needs the extra `trl`.

`meristem_losses.hf.with_sft_loss` serves its SFTTrainer. Metrics have TRL's names.
"""

# the trainers carry no types
# pyright: reportUntypedBaseClass=false

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meristem_losses._pairs import Pairs, preference_pairs
from meristem_losses._primitive import token_logprobs
from meristem_losses._stats import TokenStats
from meristem_losses.hf import PLAIN, Statistics, head_options, hidden_states, named, score


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What GRPOTrainer knows of sampled responses; rows and positions as the statistics.

    `tokens` is the number of kept tokens of a micro-batch, averaged over the generation batch and
    all processes: the count for `mean_over_tokens` under which micro-batches sum to the whole.
    """

    old_logprobs: Float[Tensor, "B S"]
    advantages: Float[Tensor, "B _"]
    ref_logprobs: Float[Tensor, "B S"] | None
    sampling_logprobs: Float[Tensor, "B S"] | None  # the sampling engine's own
    weights: Float[Tensor, "B _"] | None  # correction for the engine
    tokens: float


PreferenceLoss = Callable[[Pairs], Tensor]
PolicyLoss = Callable[[TokenStats, Rollout], Tensor]


def _with_metrics(trainer_class: type) -> type:
    """Return a subclass whose `note` adds averages to the trainer's own log."""

    class WithMetrics(trainer_class):
        def note(self, values: dict[str, Tensor]) -> None:
            for name, value in values.items():
                every = self.accelerator.gather(value.detach().float().reshape(1))
                self._noted(name).append(every.mean().item())

        def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
            prefix = "" if self.model.training else "eval_"
            mode = self.model.training
            for (name, training), values in self.__dict__.get("_values", {}).items():
                if values and training == mode:
                    logs[prefix + name] = sum(values) / len(values)
                    values.clear()
            super().log(logs, *arguments, **options)

        def _noted(self, name: str) -> list[float]:
            values = self.__dict__.setdefault("_values", {})
            return values.setdefault((name, self.model.training), [])

    return WithMetrics


def with_preference_loss(
    trainer_class: type,
    loss: PreferenceLoss,
    *,
    reference: bool = True,
    tail_weight: float = 1.0,
    beta: float = 0.1,
) -> type:
    """Return a subclass of TRL's `DPOTrainer` that minimises the mean of a loss of `Pairs`.

    Parameters
    ----------
    loss
        Called with the pairs of a batch, returns one value a pair.
    reference
        Whether to score the batch with the trainer's reference: its model, the model without its
        adapter, or log-probabilities it has precomputed. False for `simpo_loss` and the like.
    tail_weight
        As in `preference_pairs`.
    beta
        Scale of the logged rewards only.
    """

    class WithLoss(_with_metrics(trainer_class)):
        def compute_loss(
            self,
            model: nn.Module,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Tensor | int | None = None,
        ) -> Any:
            known = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")
            rest = {k: v for k, v in inputs.items() if k not in known}
            ids, mask = inputs["input_ids"], inputs["completion_mask"].bool()
            stats, auxiliary = score(model, ids, mask, **rest)
            if reference and "ref_chosen_logps" in inputs:
                pairs = replace(
                    preference_pairs(stats, tail_weight=tail_weight),
                    chosen_ref=inputs["ref_chosen_logps"],
                    rejected_ref=inputs["ref_rejected_logps"],
                )
            else:
                other = None
                if reference:
                    with torch.no_grad(), _reference(self, model) as scorer:
                        other, _ = score(scorer, ids, mask, **rest)
                pairs = preference_pairs(stats, other, tail_weight=tail_weight)
            value = loss(pairs).mean()
            self.note(_preference_metrics(pairs, beta))
            value = value if auxiliary is None else value + auxiliary
            return (value, {}) if return_outputs else value

    return named(WithLoss, trainer_class)


def with_policy_loss(
    trainer_class: type, loss: PolicyLoss, *, statistics: Statistics = PLAIN
) -> type:
    """Return a subclass of TRL's `GRPOTrainer` that minimises a loss of its rollouts.

    `loss` is called with the statistics of the sampled tokens and a `Rollout`, returns one number,
    for example ``mean_over_tokens(ppo_clip_loss(stats, r.old_logprobs, r.advantages), stats.mask,
    count=r.tokens)``. The reference's log-probabilities are there where the trainer's beta is
    not 0.
    """

    class WithLoss(_with_metrics(trainer_class)):
        def compute_loss(
            self,
            model: nn.Module,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Tensor | int | None = None,
        ) -> Any:
            stats, auxiliary = self._score(model, inputs)
            old = inputs.get("old_per_token_logps")
            advantages = inputs["advantages"]
            per_generation = self.accelerator.num_processes * self.args.steps_per_generation
            rollout = Rollout(
                old_logprobs=stats.logprobs.detach() if old is None else old,
                advantages=advantages if advantages.dim() == 2 else advantages[:, None],
                ref_logprobs=inputs.get("ref_per_token_logps"),
                sampling_logprobs=inputs.get("sampling_per_token_logps"),
                weights=inputs.get("importance_sampling_ratio"),
                tokens=max(float(inputs["num_items_in_batch"]), 1.0) / per_generation,
            )
            value = loss(stats, rollout)
            if auxiliary is not None:
                value = value + auxiliary
            if stats.entropy is not None:
                self.note({"entropy": stats.entropy.sum() / stats.mask.sum().clamp(min=1)})
            steps = self.current_gradient_accumulation_steps if self.model.training else 1
            return value / steps

        def _score(
            self, model: nn.Module, inputs: dict[str, Any]
        ) -> tuple[TokenStats, Tensor | None]:
            completion = inputs["completion_ids"]
            mask = inputs["completion_mask"]
            mask = mask * inputs["tool_mask"] if "tool_mask" in inputs else mask
            hidden, auxiliary = hidden_states(
                model,
                input_ids=torch.cat([inputs["prompt_ids"], completion], 1),
                attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            )
            stats = token_logprobs(
                hidden[:, -completion.shape[1] - 1 : -1],
                targets=completion,
                mask=mask.bool(),
                temperature=float(self.temperature),
                **head_options(model),
                **asdict(statistics),
            )
            return stats, auxiliary

    return named(WithLoss, trainer_class)


def _reference(trainer: Any, model: nn.Module) -> Any:
    """Return a context with the reference: the trainer's, or the model without its adapter."""
    if trainer.ref_model is not None:
        return nullcontext(trainer.ref_model)
    inner = trainer.accelerator.unwrap_model(model)
    if not hasattr(inner, "disable_adapter"):
        raise ValueError("the trainer has no reference model; pass one, or reference=False")
    return _Without(model, inner.disable_adapter())


class _Without:
    def __init__(self, model: nn.Module, context: Any) -> None:
        self.model, self.context = model, context

    def __enter__(self) -> nn.Module:
        self.context.__enter__()
        return self.model

    def __exit__(self, *reason: Any) -> None:
        self.context.__exit__(*reason)


def _preference_metrics(pairs: Pairs, beta: float) -> dict[str, Tensor]:
    metrics = {"logps/chosen": pairs.chosen.mean(), "logps/rejected": pairs.rejected.mean()}
    if pairs.chosen_ref is None:
        return metrics
    chosen, rejected = (beta * r for r in pairs.log_ratios())
    return {
        **metrics,
        "rewards/chosen": chosen.mean(),
        "rewards/rejected": rejected.mean(),
        "rewards/margins": (chosen - rejected).mean(),
        "rewards/accuracies": (chosen > rejected).float().mean(),
    }
