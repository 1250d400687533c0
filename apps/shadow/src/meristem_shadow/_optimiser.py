"""One step of training as a map of the optimiser's state, in any float type.

- a state is one vector: parameters theta, first moments m, second moments v, each of length P
- the map of step t is AdamW with the batch of step t: betas (0.9, 0.95), decoupled weight decay
  0.1 on matrices, gradient norm clipped at 1, a constant rate
- on float64 vectors it stands for the exact map; torch.func differentiates it both ways
- transformers' own RMSNorm and attention pass through float32 whatever their input: they are
  replaced by torch's, which keep its type
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from meristem_core import stream

BETAS = (0.9, 0.95)
WARM_UP = 30  # exact steps before the first, so that the moments are those of training
EPSILON = 1e-8
TINY = 1e-30  # keeps the slope of a root finite at 0
DECAY = 0.1
CLIP_NORM = 1.0

State = Float[Tensor, " three_p"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimiser:
    """The maps f_0, f_1, ... of a training run."""

    model: nn.Module  # its structure; parameters come from the state
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    decay: Float[Tensor, " p"]  # 1 on matrices
    batches: Int[Tensor, "t n length"]  # of the steps -WARM_UP, ..., T - 1
    lr: float

    def step(
        self,
        state: State,
        t: int,
        *,
        compute: torch.dtype | None = None,
        one_by_one: bool = False,
    ) -> State:
        """Return f_t of a state; the arithmetic is that of the state's dtype.

        Parameters
        ----------
        state
            theta, m and v, one after another.
        t
            Which step, from -WARM_UP; the moments began WARM_UP steps before step 0.
        compute
            Type of forward and backward pass, default the state's.
        one_by_one
            Sum the gradients of single sequences from the last to the first.
        """
        theta, m, v = state.chunk(3)
        gradient = self._gradient(theta, t, compute, one_by_one)
        norm = (gradient.square().sum() + TINY).sqrt()
        gradient = gradient * (CLIP_NORM / norm).clamp(max=1.0)
        m = BETAS[0] * m + (1 - BETAS[0]) * gradient
        v = BETAS[1] * v + (1 - BETAS[1]) * gradient.square()
        taken = t + WARM_UP + 1
        mean, square = m / (1 - BETAS[0] ** taken), v / (1 - BETAS[1] ** taken)
        update = mean / ((square + TINY).sqrt() + EPSILON) + DECAY * self.decay.to(theta) * theta
        return torch.cat([theta - self.lr * update, m, v])

    def loss(self, theta: Float[Tensor, " p"], rows: Int[Tensor, "n length"]) -> Tensor:
        """Return the mean loss of next tokens in nats."""
        parts = theta.split([shape.numel() for shape in self.shapes])
        shaped = {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}
        with sdpa_kernel(SDPBackend.MATH):
            logits = torch.func.functional_call(self.model, shaped, (rows[:, :-1],)).logits
        return cross_entropy(logits.flatten(0, 1).to(theta.dtype), rows[:, 1:].flatten())

    def _gradient(
        self, theta: Tensor, t: int, compute: torch.dtype | None, one_by_one: bool
    ) -> Tensor:
        rows = self.batches[t + WARM_UP]
        typed = theta if compute is None else theta.to(compute)
        slope: Callable[..., Tensor] = torch.func.grad(self.loss)
        if not one_by_one:
            return slope(typed, rows).to(theta.dtype)
        parts = [slope(typed, row[None]).to(theta.dtype) for row in rows.flip(0)]
        total = torch.zeros_like(theta)
        for part in parts:
            total = total + part
        return total / len(parts)


def load_model(run: Path, snapshot: int | None) -> tuple[nn.Module, int]:
    """Return the model of a snapshot in float64, by default the middle one, and its step.

    Raises
    ------
    ValueError
        If the run has no such snapshot.
    """
    found = {
        int(p.parent.name[5:]): p.parent for p in run.glob("pretrain/snapshots/step-*/config.json")
    }
    if not found:
        raise ValueError(f"{run} holds no pretrain/snapshots; give a run of meristem grow")
    ordered = sorted(found)
    chosen = ordered[len(ordered) // 2] if snapshot is None else snapshot
    if chosen not in found:
        raise ValueError(f"{run} has no snapshot of step {chosen}; it has {ordered}")
    model = AutoModelForCausalLM.from_pretrained(
        found[chosen], dtype=torch.float64, attn_implementation="sdpa"
    ).eval()
    model.config.use_cache = False
    _keep_type(model)
    return model, chosen


def optimiser_of(
    model: nn.Module, run: Path, *, steps: int, sequences: int, length: int, lr: float, seed: int
) -> tuple[Optimiser, State]:
    """Return the maps with batches of a run's tokens, and the float64 state WARM_UP steps on.

    Raises
    ------
    ValueError
        If the run has too few tokens.
    """
    parameters = dict(model.named_parameters())
    theta = torch.cat([each.detach().flatten() for each in parameters.values()])
    decay = torch.cat(
        [torch.full_like(p.flatten(), float(p.dim() > 1)) for p in parameters.values()]
    )
    optimiser = Optimiser(
        model=model,
        names=tuple(parameters),
        shapes=tuple(each.shape for each in parameters.values()),
        decay=decay.detach(),
        batches=_batches(run, WARM_UP + steps, sequences, length, seed),
        lr=lr,
    )
    state = torch.cat([theta, torch.zeros(2 * len(theta), dtype=theta.dtype)])
    for t in range(-WARM_UP, 0):
        state = optimiser.step(state, t)
    return optimiser, state


def _keep_type(model: nn.Module) -> None:
    """Put torch's RMSNorm in the place of the model's own."""
    for parent in list(model.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(parent, name, norm)


def _batches(
    run: Path, steps: int, sequences: int, length: int, seed: int
) -> Int[Tensor, "t n length"]:
    files = sorted(run.glob("tokens/*.train.npy"))
    tokens = np.concatenate([np.load(file).astype(np.int64) for file in files] or [np.zeros(0)])
    if len(tokens) <= length + 1:
        raise ValueError(f"{run} has {len(tokens)} training tokens; --tokens {length} needs more")
    starts = stream(seed, "batches").integers(0, len(tokens) - length - 1, (steps, sequences, 1))
    return torch.from_numpy(tokens[starts + np.arange(length + 1)].astype(np.int64))
