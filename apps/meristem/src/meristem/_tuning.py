"""Fine-tuning and preference tuning of a small model in memory, and what came of it."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedModel

from meristem_losses import sequence_logprobs
from meristem_losses.hf import score
from meristem_posttrain import Encoded, Objective, Schedule, SingleProcess, evaluate, fit, pad

BLOCK = 256  # examples scored at once


def tuned(
    base: PreTrainedModel,
    examples: Sequence[Encoded],
    objective: Objective,
    schedule: Schedule,
    *,
    seed: int,
    watch: Callable[[int, PreTrainedModel], None] = lambda step, model: None,
) -> PreTrainedModel:
    """Return a trained copy of a model, whose reference is the model itself.

    `watch` sees the copy before every step and at the end.
    """
    model = copy.deepcopy(base)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    reference = base.eval() if objective.reference else None
    fit(
        model, reference, optimizer, examples, objective, schedule,
        seed=seed, accelerator=SingleProcess(model.device),
        before=lambda step: watch(step, model),
    )  # fmt: skip
    return model.eval()


@torch.no_grad()
def solved(model: PreTrainedModel, examples: Sequence[Encoded]) -> Float[np.ndarray, " n"]:
    """Return the probability that a sampled answer to each example is its (first) response."""
    model.eval()
    found = []
    for start in range(0, len(examples), BLOCK):
        some = examples[start : start + BLOCK]
        rows = pad([Encoded(prompt=e.prompt, responses=e.responses[:1]) for e in some], 0)
        stats, _ = score(
            model, rows.ids, rows.response, input_ids=rows.ids, attention_mask=rows.attention
        )
        found.append(sequence_logprobs(stats).exp())
    return torch.cat(found).double().numpy()


def drift(
    model: PreTrainedModel, base: PreTrainedModel, examples: Sequence[Encoded], objective: Objective
) -> float:
    """Return KL(model || base) in nats a token at the prefixes of the examples."""
    return evaluate(model.eval(), base.eval(), examples, objective, micro_batch=BLOCK)["kl"]
