"""LoRA on every linear layer but the head, and the model without it as its own reference.

- a layer gives W x + (alpha / rank) B A x; A is drawn, B starts at 0, so that the first step starts
  from the model itself (Hu et al. 2021, arXiv 2106.09685, section 4.1)
- needs the extra `lora`
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from meristem_core import derive_seed
from meristem_core.command import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What a run trains in place of the model's own weights."""

    rank: int
    alpha: int  # the product of the factors is scaled by alpha / rank
    layers: dict[str, int]  # how many linear layers of each name have one


def add_adapter(model: Any, *, rank: int, alpha: int, seed: int) -> Any:
    """Return a model of transformers with a LoRA adapter, and nothing else of it trained.

    Parameters
    ----------
    model
        Changed in place.
    rank, alpha
        At least 1.
    seed
        Decides the drawn factors; no global generator moves.

    Raises
    ------
    UsageError
        A model without a linear layer beside its head.
    """
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    if not linear:
        raise UsageError(
            f"--lora finds no linear layer in {type(model).__name__} beside its head; train all "
            "weights, without --lora"
        )
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        # peft 0.21 reads a name that transformers 5.23 warns of
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.manual_seed(derive_seed(seed, "adapter") % 2**63)
        return get_peft_model(model, config)


def describe(model: nn.Module, *, rank: int, alpha: int) -> Adapter:
    """Return what the adapter of a model sits on."""
    names = (n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, LoraLayer))
    return Adapter(rank=rank, alpha=alpha, layers=dict(sorted(Counter(names).items())))


class WithoutAdapter(nn.Module):
    """The same model with its adapter disabled and without dropout: no second copy in memory.

    To be called without gradients.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.adapted = model

    def get_base_model(self) -> nn.Module:
        """Return the model of transformers, from which the head is read."""
        return self.adapted.get_base_model()

    def forward(self, **inputs: Any) -> Any:
        """Return what the model without its adapter gives."""
        was_training = self.adapted.training
        self.adapted.eval()
        try:
            with self.adapted.disable_adapter():
                return self.adapted(**inputs)
        finally:
            self.adapted.train(was_training)
