"""The policy as it was at the start of an outer batch: the old policy of `psft_loss`."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Snapshot:
    """Trainable parameters of a model, taken anew every so many optimiser steps.

    Holds one copy of what is trained: of an adapter, the adapter.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"snapshot_steps is {steps}; it must be at least 1")
        self.steps = steps
        self._values: list[Tensor] = []
        self._taken: int | None = None

    def follow(self, model: nn.Module, step: int) -> None:
        """Take the parameters where an outer batch begins, or where there are none yet."""
        begins = step % self.steps == 0 and step != self._taken
        if begins or self._taken is None:
            self._values = [p.detach().clone() for p in _trained(model)]
            self._taken = step

    @contextmanager
    def inside(self, model: nn.Module) -> Generator[nn.Module, None, None]:
        """Give the model with the parameters of the snapshot, evaluating, without gradients."""
        training = model.training
        with torch.no_grad():
            self._exchange(model)
            model.eval()
            try:
                yield model
            finally:
                model.train(training)
                self._exchange(model)

    def _exchange(self, model: nn.Module) -> None:
        for i, p in enumerate(_trained(model)):
            p.data, self._values[i] = self._values[i], p.data


def _trained(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]
