"""A run's model: loaded, the part of it that is trained, saved whole."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from meristem_core.command import UsageError


def load(name: str) -> tuple[Any, Any]:
    """Return a model in float32 and its tokenizer.

    Raises
    ------
    UsageError
        A name that is no causal language model, or a tokenizer without an end of text.
    """
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--model {name}: {reason}") from error
    if tokenizer.eos_token_id is None:
        raise UsageError(f"--model {name}: its tokenizer has no end of text; set eos_token")
    return model, tokenizer


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that have gradients."""
    return [p for p in model.parameters() if p.requires_grad]


def optimizer_of(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return AdamW on what is trained."""
    return torch.optim.AdamW(
        trained_parameters(model), lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )


def changing_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state but its frozen parameters, which stay as they were loaded."""
    frozen = _frozen(model)
    return {k: v for k, v in model.state_dict().items() if k not in frozen}


def restore_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back what `changing_state` returned."""
    frozen = _frozen(model)
    kept = {k: v for k, v in model.state_dict().items() if k in frozen}
    model.load_state_dict({**kept, **state})


def save_whole(folder: Path, *write: Callable[[Path], Any]) -> None:
    """Make or replace a folder, in one piece, by functions that write into it."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    for each in write:
        each(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _frozen(model: nn.Module) -> set[str]:
    return {n for n, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
