"""Adam by blocks of features: a block's gradient is formed, applied and forgotten.

Updates are those of `torch.optim.Adam(fused=True)`; only the order of the rows differs. Every row
moves at every step, those without a gradient by their momentum: skipping them would be another
optimiser.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from meristem_crosscoders._entries import Coarse, coarse_rows
from meristem_crosscoders._gradients import BLOCK, Gradients
from meristem_crosscoders._mesh import Cohort
from meristem_crosscoders._model import Crosscoder

BETAS, EPSILON = (0.9, 0.999), 1e-8
MATRICES = ("W_enc", "W_dec")


class BlockAdam:
    """Moments of all parameters of a crosscoder, and its updates.

    Parameters
    ----------
    crosscoder
        Updated in place.
    data
        Processes over whose parts of the batch gradients are summed.
    features
        Processes that hold other features; they count in the norm of the gradient.
    """

    def __init__(self, crosscoder: Crosscoder, *, data: Cohort, features: Cohort) -> None:
        self.parameters = {name: p.detach() for name, p in crosscoder.named_parameters()}
        self.first = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.data, self.features, self.steps = data, features, 0

    @torch.no_grad()
    def step(
        self,
        gradients: Gradients,
        rates: Mapping[str, float],
        *,
        clip: float | None,
        coarse: Coarse | None = None,
    ) -> None:
        """Take a step; learning rates are by parameter, `clip` bounds the norm of the gradient."""
        self.steps += 1
        factor = 1.0 if clip is None else min(1.0, clip / max(self.norm(gradients), EPSILON))
        for name, rows, grad in self._blocks(gradients):
            self._update(name, rows, grad if factor == 1.0 else grad * factor, rates[name])
            if name == "W_enc" and coarse is not None:
                coarse_rows(self.parameters[name][rows].flatten(1), coarse, rows.start)

    def norm(self, gradients: Gradients) -> float:
        """Return the Euclidean norm of the whole gradient, over all processes."""
        squares = torch.zeros((), dtype=torch.float64)
        shared = torch.zeros((), dtype=torch.float64)
        for name, _, grad in self._blocks(gradients):
            size = grad.double().square().sum().cpu()
            if name == "b_dec":
                shared += size  # every process of features has it
            else:
                squares += size
        return float((self.features.sum(squares) + shared).sqrt())

    def _blocks(self, gradients: Gradients) -> Iterator[tuple[str, slice, Tensor]]:
        """Yield parameter, rows and gradient summed over the batch; matrices by blocks."""
        for name, parameter in self.parameters.items():
            if name not in MATRICES:
                yield name, slice(None), self.data.sum(getattr(gradients, name).contiguous())
                continue
            of_block = gradients.encoder if name == "W_enc" else gradients.decoder
            for start in range(0, len(parameter), BLOCK):
                rows = slice(start, min(start + BLOCK, len(parameter)))
                yield name, rows, self.data.sum(of_block(rows))

    def _update(self, name: str, rows: slice, grad: Tensor, rate: float) -> None:
        count = torch.tensor(float(self.steps), device=grad.device)
        torch._fused_adam_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] what Adam(fused=True) runs
            [self.parameters[name][rows]], [grad], [self.first[name][rows]],
            [self.second[name][rows]], [], [count], lr=rate, beta1=BETAS[0], beta2=BETAS[1],
            weight_decay=0.0, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"steps": self.steps, "first": self.first, "second": self.second}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.steps = state["steps"]
        for kind, mine in (("first", self.first), ("second", self.second)):
            for name, moment in mine.items():
                moment.copy_(state[kind][name])
