"""The training loop: one loss, gradients in one pass over the head where the loss allows it.

- a step's batch is cut over processes and micro-batches; counts are those of the whole batch, so
  the loss depends on neither
- rate, order and dropout are functions of seed and step: with weights and optimiser they are all
  that a bit-exact continuation needs
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from meristem_core import derive_seed, shuffled_indices
from meristem_core.command import UsageError
from meristem_losses import (
    TokenStats,
    fused_loss,
    kto_reference_point,
    next_token_targets,
    token_advantages,
    token_forward_kl,
    token_logprobs,
)
from meristem_losses.hf import head_of, head_options, hidden_states, score
from meristem_posttrain._data import Encoded, Rows, length, pad
from meristem_posttrain._objective import Given, Objective
from meristem_posttrain._single import SingleProcess

WARMUP, FINAL_RATE, CLIP_NORM = 0.1, 0.1, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How many steps of what size; the rate warms up, then follows a cosine to a tenth."""

    steps: int
    batch: int
    micro_batch: int
    learning_rate: float

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        warmup = max(1, round(WARMUP * self.steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def fit(
    model: nn.Module,
    reference: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Encoded],
    objective: Objective,
    schedule: Schedule,
    *,
    seed: int,
    accelerator: Accelerator | SingleProcess,
    start: int = 0,
    before: Callable[[int], None] = lambda step: None,
    after: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> None:
    """Train `model` in place from step `start` to the schedule's end.

    Parameters
    ----------
    model, optimizer
        Prepared by `accelerator`.
    before
        Called with every step before it is taken, and with the number of steps at the end.
    after
        Called with the number of steps taken and the step's loss, gradient norm and rate.

    Raises
    ------
    UsageError
        If processes cannot share the batch, or the loss is not finite.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    if schedule.batch % world:
        raise UsageError(
            f"{world} processes cannot share a batch of {schedule.batch} evenly; "
            "use a number of processes that divides it"
        )
    if objective.mismatched and schedule.batch < 2:
        raise UsageError(
            f"{objective.name} compares responses with other prompts of the batch; use a batch of "
            "at least 2"
        )
    for step in range(start, schedule.steps):
        before(step)
        first = step * schedule.batch
        order = shuffled_indices(
            len(examples), first, first + schedule.batch, seed=derive_seed(seed, "order")
        )
        batch = [examples[i] for i in order]
        with torch.random.fork_rng(enabled=True):
            torch.manual_seed(derive_seed(seed, "dropout", step, rank) % 2**63)
            loss, norm = _step(
                model, reference, optimizer, batch, objective, schedule, step, accelerator
            )
        after(step + 1, {"loss": loss, "gradient_norm": norm, "learning_rate": schedule.rate(step)})
    before(schedule.steps)


def _step(
    model: nn.Module,
    reference: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    batch: list[Encoded],
    objective: Objective,
    schedule: Schedule,
    step: int,
    accelerator: Accelerator | SingleProcess,
) -> tuple[float, float]:
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    mine = batch[accelerator.process_index :: accelerator.num_processes]
    tokens = float(sum(len(r) for example in batch for r in example.responses))
    size = len(mine) if objective.coupled else schedule.micro_batch
    parts = [mine[i : i + size] for i in range(0, len(mine), size)]
    point = None
    if objective.mismatched and reference is not None:
        point = _reference_point(model, reference, batch, objective, schedule, accelerator)
    total = torch.zeros((), device=accelerator.device)
    for i, part in enumerate(parts):
        last = i + 1 == len(parts)
        with nullcontext() if last else accelerator.no_sync(model):
            rows = pad(part, 0)
            counts = {"tokens": tokens, "examples": float(len(batch))}
            given = Given(examples=len(part), values=rows.values, reference_point=point)
            loss = _loss(model, reference, rows, objective, counts, given, accelerator)
            # processes are averaged, the loss is a sum over them
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach()
    norm = accelerator.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad()
    reduced: Any = accelerator.reduce(total, "sum")
    value, size_of_gradient = float(reduced), 0.0 if norm is None else float(norm)
    if not (math.isfinite(value) and math.isfinite(size_of_gradient)):
        raise UsageError(
            f"loss {value}, gradient norm {size_of_gradient} at step {step + 1}; the run diverged, "
            "lower --learning-rate"
        )
    return value, size_of_gradient


def _reference_point(
    model: nn.Module,
    reference: nn.Module,
    batch: list[Encoded],
    objective: Objective,
    schedule: Schedule,
    accelerator: Accelerator | SingleProcess,
) -> Tensor:
    """Return KTO's k: each prompt of the batch with the response to the next.

    A response is cut where the row would be longer than every example of the batch.
    """
    longest = max(map(length, batch))
    mixed = [
        Encoded(prompt=e.prompt, responses=(other.responses[0][: longest - len(e.prompt)],))
        for e, other in zip(batch, batch[1:] + batch[:1], strict=True)
    ]
    mine = mixed[accelerator.process_index :: accelerator.num_processes]
    total = torch.zeros((), device=accelerator.device)
    with torch.no_grad(), accelerator.autocast():
        for start in range(0, len(mine), schedule.micro_batch):
            rows = pad(mine[start : start + schedule.micro_batch], 0)
            ids, response = rows.ids.to(total.device), rows.response.to(total.device)
            attention = rows.attention.to(total.device)
            inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": attention}
            stats, _ = score(model, ids, response, **inputs)
            ref, _ = score(reference, ids, response, **inputs)
            total += token_advantages(stats, ref).sum()
    summed: Any = accelerator.reduce(total, "sum")
    return kto_reference_point(summed[None] / len(batch))


def _loss(
    model: nn.Module,
    reference: nn.Module | None,
    rows: Rows,
    objective: Objective,
    counts: dict[str, float],
    given: Given,
    accelerator: Accelerator | SingleProcess,
) -> Tensor:
    """Return this part's share of the batch's loss."""
    device = accelerator.device
    ids, response = rows.ids.to(device), rows.response.to(device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": rows.attention.to(device)}
    targets, mask = next_token_targets(ids, response)
    count = given.examples
    if given.values is not None:
        given = replace(given, values=given.values.to(device))

    def share(stats: TokenStats, other: TokenStats | None, given: Given) -> Tensor:
        values = objective.values(stats, other, given)
        return values.sum() / counts["tokens" if values.dim() == 2 else "examples"]

    with accelerator.autocast():
        hidden, auxiliary = hidden_states(model, **inputs)
        other = None
        if objective.forward_kl and reference is not None:
            kl = _forward_kl(model, hidden, reference, mask, inputs)
            given = replace(given, forward_kl=kl)
        elif objective.reference and reference is not None:
            with torch.no_grad():
                other, _ = score(
                    reference, ids, response, statistics=objective.statistics, **inputs
                )
        options = {**head_options(model), **asdict(objective.statistics)}
        if objective.coupled or objective.forward_kl:
            stats = token_logprobs(hidden, targets=targets, mask=mask, **options)
            value = share(stats, other, given)
        else:
            groups = torch.arange(count, device=device).repeat(len(ids) // count)
            value = fused_loss(
                hidden, targets=targets, mask=mask, groups=groups,
                loss=lambda stats, index: share(
                    stats, None if other is None else other.select(index), given.select(index)
                ),
                **options,
            ).value  # fmt: skip
    return value if auxiliary is None else value + auxiliary * (count / counts["examples"])


def _forward_kl(
    model: nn.Module, hidden: Tensor, reference: nn.Module, mask: Tensor, inputs: dict[str, Any]
) -> Tensor:
    with torch.no_grad():
        ref_hidden, _ = hidden_states(reference, **inputs)
    head, ref_head = head_of(model), head_of(reference)
    if any(h.softcap is not None or h.bias is not None for h in (head, ref_head)):
        raise UsageError("this loss does not serve heads with a soft-cap or a bias; take another")
    return token_forward_kl(
        hidden * head.scale,
        head.weight,
        ref_hidden=ref_hidden * ref_head.scale,
        ref_weight=ref_head.weight,
        mask=mask,
    )
