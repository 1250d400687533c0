"""What `meristem posttrain` is told."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from meristem_core.command import UsageError

RATES = {"sft": 1e-5, "dpo": 1e-6, "kto": 1e-6, "rank": 1e-6}
LORA_RANK, LORA_ALPHA = 16, 32  # as TRL's; the latter as Schulman et al. too
LORA_RATE = 10  # times that of all weights (Schulman et al. 2025, "LoRA Without Regret")
LOSSES = {"sft": "nll", "dpo": "dpo", "kto": "kto", "rank": "plackett_luce"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PosttrainConfig:
    """Fine-tune (sft) or align (dpo, kto, rank) a causal language model on JSONL data.

    A line has a prompt and: a completion for sft; chosen and rejected for dpo; a completion and a
    label, true or false, for kto; ranked, a list from best to worst, for rank. Responses are texts,
    or lists of messages where the tokenizer has a chat template.
    An interrupted run goes on where it stopped when the same command is given again. On a CPU:
    meristem posttrain sft --model runs/grow/pretrain/snapshots/step-000000800 --data my.jsonl
    """

    stage: Annotated[Literal["sft", "dpo", "kto", "rank"], tyro.conf.Positional]
    """sft: demonstrations; dpo: pairs; kto: labelled responses; rank: rankings."""

    model: str
    """A Hugging Face folder or name of a causal language model."""

    data: Path
    """JSONL file; the loss tpo wants a gold response a line too, soft_dpo a probability."""

    out: Path = Path("runs/posttrain")
    """The run folder: made if absent, continued if it holds the same run."""

    loss: str | None = None
    """A loss of meristem-losses without its "_loss": nll, dft, asft; dpo, ipo, tpo; kto; ..."""

    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A parameter of the loss, NAME=VALUE, such as beta=0.2 or divergence=pearson_chi2. Repeat."""

    reference: str | None = None
    """Model that the policy is compared with; by default the one it starts from."""

    steps: int | None = None
    """Optimiser steps; by default one pass over the data."""

    batch: int = 16
    """Examples or pairs of a step, over all processes."""

    micro_batch: int = 8
    """Examples or pairs of a forward pass, per process."""

    learning_rate: float | None = None
    """Peak rate; by default 1e-5 for sft, else 1e-6, and ten times that with --lora. After a tenth
    of warm-up, a cosine to a tenth."""

    lora: bool = False
    """Train a LoRA adapter on every linear layer but the head, in place of all weights; the run
    folder then holds it beside the merged model. Needs meristem-posttrain[lora]."""

    lora_rank: int = LORA_RANK
    """Rank of the adapter."""

    lora_alpha: int = LORA_ALPHA
    """Its product is scaled by alpha / rank."""

    max_length: int = 1024
    """Tokens of prompt and response; longer examples are left out, and counted."""

    held_out: float = 0.1
    """Fraction of the examples kept for evaluation, at least one."""

    evaluations: int = 10
    """How often the held-out examples are evaluated, besides the start."""

    sample_prompts: int = 8
    """Held-out prompts answered greedily for the length of responses."""

    sample_tokens: int = 64
    """Longest answer to them."""

    checkpoint_every: int = 50
    """Steps between checkpoints."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward pass; weights and sums stay in float32."""

    seed: int = 0
    """Of the split, the order of the data, dropout and the adapter."""


def check_config(config: PosttrainConfig) -> None:
    """Refuse what can be refused before anything heavy is imported."""
    for name in ("steps", "batch", "micro_batch", "max_length", "evaluations", "checkpoint_every"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} ({value}) must be at least 1")
    if config.learning_rate is not None and not 0 < config.learning_rate < float("inf"):
        raise UsageError(f"--learning-rate ({config.learning_rate}) must be above 0 and finite")
    _check_adapter(config)
    if not 0 < config.held_out < 1:
        raise UsageError(f"--held-out ({config.held_out}) must lie between 0 and 1")
    if config.sample_prompts < 0 or config.sample_tokens < 1:
        raise UsageError("--sample-prompts must be at least 0, --sample-tokens at least 1")
    if not config.data.is_file():
        raise UsageError(f"--data {config.data} is no file; give a JSONL file")


def _check_adapter(config: PosttrainConfig) -> None:
    for name, default in (("lora_rank", LORA_RANK), ("lora_alpha", LORA_ALPHA)):
        value, flag = getattr(config, name), f"--{name.replace('_', '-')}"
        if value < 1:
            raise UsageError(f"{flag} ({value}) must be at least 1")
        if value != default and not config.lora:
            raise UsageError(f"{flag} ({value}) shapes an adapter; add --lora")
    if config.lora and find_spec("peft") is None:
        raise UsageError('--lora needs peft: pip install "meristem-posttrain[lora]"')
