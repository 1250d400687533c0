"""The part of an Accelerator that the training loop uses, for one process beside others.

A stage that the main process of many makes alone must not wait for the others in a collective, and
an Accelerator of accelerate cannot be told that it is alone.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SingleProcess:
    """One process on one device, in float32."""

    num_processes, process_index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @contextmanager
    def no_sync(self, model: nn.Module) -> Generator[None, None, None]:
        """There is nothing to synchronise."""
        yield

    @contextmanager
    def autocast(self) -> Generator[None, None, None]:
        """Nothing is cast."""
        yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        loss.backward()

    def clip_grad_norm_(self, parameters: Iterable[Tensor], max_norm: float) -> Tensor:
        """Clip the gradients and return their norm before."""
        return nn.utils.clip_grad_norm_(list(parameters), max_norm)

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        """Return the tensor: sum and mean over one process."""
        return tensor
