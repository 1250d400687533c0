"""How a crosscoder is trained, and what a run says of itself."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train.

    Penalty, its weight and the shape of the schedule are those of the script of arXiv 2509.17196.

    Parameters
    ----------
    steps
        Number of batches, at least 1.
    lr, threshold_lr_ratio
        Peak learning rate, and the thresholds' as a share of it.
    warmup, cooldown, final_lr_ratio
        Shares of the run in which the rate grows to and falls from its peak, and where it ends.
    penalty, sparsity, sparsity_warmup
        Which penalty, its weight, and the share of the run over which the weight grows from 0.
        "none" for "topk" and "batchtopk", which need no other.
    preactivation
        Weight of `preactivation_penalty`.
    auxk, dead_after
        Weight of `auxk_loss`, and after how many tokens without firing a feature is dead: give a
        tenth of a run of less than 100 M tokens.
    clip
        Largest norm of the whole gradient; None leaves it. It costs the gradients once more.
    parity
        Whether the encoder bias moves S times as fast, as the one per snapshot of the authors' code
        does, whose sum is what counts.
    checkpoint_every, progress_every
        In steps.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    steps: int
    lr: float = 3e-4
    threshold_lr_ratio: float = 0.1
    warmup: float = 0.1
    cooldown: float = 0.2
    final_lr_ratio: float = 1 / 32
    penalty: Literal["tanh_quad", "tanh", "l1", "none"] = "tanh_quad"
    sparsity: float = 0.3
    sparsity_warmup: float = 0.1
    preactivation: float = 0.0
    auxk: float = 1 / 32
    dead_after: int = 10_000_000
    clip: float | None = None
    parity: bool = False
    checkpoint_every: int = 1000
    progress_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "dead_after", "checkpoint_every", "progress_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        for name in ("lr", "threshold_lr_ratio", "sparsity", "preactivation", "auxk"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} ({getattr(self, name)}) must be finite and at least 0")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip ({self.clip}) must be positive and finite; None leaves it out")
        for name in ("warmup", "cooldown", "final_lr_ratio", "sparsity_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} ({getattr(self, name)}) is a share; give 0 to 1")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        up = (step + 1) / max(self.warmup * self.steps, 1)
        left = (self.steps - step) / max(self.cooldown * self.steps, 1)
        down = self.final_lr_ratio + (1 - self.final_lr_ratio) * left
        return self.lr * min(1.0, up, down)

    def sparsity_at(self, step: int) -> float:
        """Return the weight of the penalty at a step, counted from 0."""
        return self.sparsity * min(1.0, step / max(self.sparsity_warmup * self.steps, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the training loss was made of at one step."""

    step: int  # steps done
    loss: float
    reconstruction: float  # squared error per token and snapshot
    l0: Float[Tensor, " S"]  # open features per token
    dead: int  # features silent for `dead_after` tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """Where training began and ended."""

    resumed_from: int  # steps done before this call, 0 for a new run
    steps: int
    tokens_since_fired: Int[Tensor, " F"]
