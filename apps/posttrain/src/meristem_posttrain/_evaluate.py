"""Held-out loss, implicit rewards, divergence from the reference, and length of responses."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from meristem_losses import (
    implicit_rewards,
    next_token_targets,
    sequence_logprobs,
    token_advantages,
    token_logprobs,
    token_reverse_kl,
)
from meristem_losses.hf import head_of, head_options, hidden_states
from meristem_posttrain._data import Encoded, Rows, pad
from meristem_posttrain._objective import Objective


@torch.no_grad()
def evaluate(
    model: nn.Module,
    reference: nn.Module,
    examples: Sequence[Encoded],
    objective: Objective,
    *,
    micro_batch: int,
) -> dict[str, float]:
    """Return means over examples; log-probabilities and divergences in nats.

    `nll` a token of the wanted response: the completion, the chosen, the desirable or the best
    one; `kl` KL(policy || reference) a token, exact over the vocabulary at the prefixes of first
    responses, left out for heads with a soft-cap or a bias. Rewards are beta times the summed
    log-ratio of a response. Demonstrations have `reward` and its soft value `value`, V_0; pairs
    `reward_chosen`, `reward_rejected`, `margin` and `accuracy`, a tie counting half; labelled
    responses `reward_desirable`, `reward_undesirable`; rankings `reward_best`, `reward_worst`,
    `margin`, and `accuracy` over all pairs of a list.
    """
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for start in range(0, len(examples), micro_batch):
        part = examples[start : start + micro_batch]
        for name, values in _measure(
            model, reference, pad(part, 0), objective, device, len(part)
        ).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
            counts[name] = counts.get(name, 0.0) + values.numel()
    return {name: value / counts[name] for name, value in sums.items() if counts[name]}


def _measure(
    model: nn.Module,
    reference: nn.Module,
    rows: Rows,
    objective: Objective,
    device: torch.device,
    n: int,
) -> dict[str, Tensor]:
    """Return what is averaged, one value an example or a token."""
    ids, attention = rows.ids.to(device), rows.attention.to(device)
    targets, mask = next_token_targets(ids, rows.response.to(device))
    scored = []
    for each in (model, reference):
        hidden, _ = hidden_states(each, input_ids=ids, attention_mask=attention)
        scored.append((hidden, token_logprobs(hidden, targets=targets, mask=mask,
                                              **head_options(each))))  # fmt: skip
    (hidden, stats), (ref_hidden, ref) = scored
    wanted = mask[:n]
    if objective.stage == "kto" and rows.values is not None:
        wanted = wanted & (rows.values.to(device) > 0.5)[:, None]
    found = {"nll": -stats.logprobs[:n][wanted]}
    head, ref_head = head_of(model), head_of(reference)
    plain = all(h.softcap is None and h.bias is None for h in (head, ref_head))
    if plain and len(head.weight) == len(ref_head.weight):
        kl = token_reverse_kl(
            hidden[:n] * head.scale, head.weight, ref_hidden=ref_hidden[:n] * ref_head.scale,
            ref_weight=ref_head.weight, mask=mask[:n],
        )  # fmt: skip
        found["kl"] = kl[mask[:n]]
    rewards = token_advantages(stats, ref, beta=objective.beta).sum(1)
    if objective.stage == "sft":
        with_value = implicit_rewards(stats, ref, beta=objective.beta).sum(1)
        return {**found, "reward": rewards, "value": with_value - rewards}
    if objective.stage == "kto" and rows.values is not None:
        good = rows.values.to(device) > 0.5
        return {**found, "reward_desirable": rewards[good], "reward_undesirable": rewards[~good]}
    each = rewards.view(-1, n)  # responses, examples
    if objective.stage == "rank":
        upper = torch.triu_indices(len(each), len(each), 1, device=device)
        return found | {
            "reward_best": each[0],
            "reward_worst": each[-1],
            "margin": each[0] - each[-1],
            "accuracy": _better(each[upper[0]], each[upper[1]]).flatten(),
        }
    logps = sequence_logprobs(stats).view(-1, n)
    return found | {
        "reward_chosen": each[0],
        "reward_rejected": each[1],
        "margin": each[0] - each[1],
        "accuracy": _better(each[0], each[1]),
        "logprob_chosen": logps[0],
        "logprob_rejected": logps[1],
    }


def _better(first: Tensor, second: Tensor) -> Tensor:
    return (first > second).float() + 0.5 * (first == second).float()


@torch.no_grad()
def generated_lengths(
    model: Any, examples: Sequence[Encoded], *, end: int, tokens: int
) -> list[list[int]]:
    """Return the greedy answer to each prompt, without the end, at most `tokens` long."""
    device = next(model.parameters()).device
    answers = []
    for example in examples:
        prompt = torch.tensor([example.prompt], device=device)
        found = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens,
            eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        answer = found[0, prompt.shape[1] :].tolist()
        answers.append(answer[: answer.index(end)] if end in answer else answer)
    return answers
