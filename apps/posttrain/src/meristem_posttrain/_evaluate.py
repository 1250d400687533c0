"""Held-out loss, implicit rewards, divergence from the reference, and length of responses."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

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

    `nll` a token of the (chosen) response; `kl` KL(policy || reference) a token, exact over the
    vocabulary at the prefixes of the data, left out for heads with a soft-cap or a bias; `reward`
    beta times the summed log-ratio of a response, `value` its soft value V_0; for pairs
    `reward_chosen`, `reward_rejected`, `margin` and `accuracy`, a tie counting half.
    """
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    tokens = 0.0
    for start in range(0, len(examples), micro_batch):
        part = examples[start : start + micro_batch]
        rows = pad(part, 0)
        found, kept = _measure(model, reference, rows, objective, device, len(part))
        tokens += kept
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value
    per_token = ("nll", "kl")
    return {k: v / (tokens if k in per_token else len(examples)) for k, v in sums.items()}


def _measure(
    model: nn.Module,
    reference: nn.Module,
    rows: Rows,
    objective: Objective,
    device: torch.device,
    n: int,
) -> tuple[dict[str, float], float]:
    """Return sums over the examples of a part, and its number of (chosen) tokens."""
    ids, attention = rows.ids.to(device), rows.attention.to(device)
    targets, mask = next_token_targets(ids, rows.response.to(device))
    scored = []
    for each in (model, reference):
        hidden, _ = hidden_states(each, input_ids=ids, attention_mask=attention)
        scored.append((hidden, token_logprobs(hidden, targets=targets, mask=mask,
                                              **head_options(each))))  # fmt: skip
    (hidden, stats), (ref_hidden, ref) = scored
    first = mask[:n]
    head, ref_head = head_of(model), head_of(reference)
    plain = all(h.softcap is None and h.bias is None for h in (head, ref_head))
    sums = {"nll": -float(stats.logprobs[:n].sum())}
    if plain and len(head.weight) == len(ref_head.weight):
        kl = token_reverse_kl(
            hidden[:n] * head.scale, head.weight, ref_hidden=ref_hidden[:n] * ref_head.scale,
            ref_weight=ref_head.weight, mask=first,
        )  # fmt: skip
        sums["kl"] = float(kl.sum())
    advantages = token_advantages(stats, ref, beta=objective.beta).sum(1)
    if objective.stage == "sft":
        sums["reward"] = float(advantages.sum())
        rewards = implicit_rewards(stats, ref, beta=objective.beta).sum(1)
        sums["value"] = float((rewards - advantages).sum())
        return sums, float(first.sum())
    chosen, rejected = advantages.chunk(2)
    better = (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
    logps = sequence_logprobs(stats).chunk(2)
    sums |= {
        "reward_chosen": float(chosen.sum()),
        "reward_rejected": float(rejected.sum()),
        "margin": float((chosen - rejected).sum()),
        "accuracy": float(better.sum()),
        "logprob_chosen": float(logps[0].sum()),
        "logprob_rejected": float(logps[1].sum()),
    }
    return sums, float(first.sum())


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
