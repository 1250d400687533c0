"""How a step is cut over processes: the batch, the features, or neither.

Every operation is the identity for one process, so the step is written once.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

Cut = Literal["data", "features", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The processes that share one part of the work."""

    size: int = 1
    rank: int = 0

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over the processes, in place where there are several."""
        if self.size > 1:
            value = value.contiguous()
            dist.all_reduce(value)
        return value

    def gather(self, value: Tensor) -> list[Tensor]:
        """Return the value of every process; shapes are equal."""
        if self.size == 1:
            return [value]
        parts = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(parts, value.contiguous())
        return parts

    def broadcast(self, value: Tensor, source: int) -> Tensor:
        """Return the value that process `source` gives; shapes are equal."""
        if self.size == 1:
            return value
        out = value if self.rank == source else torch.empty_like(value)
        dist.broadcast(out, source)
        return out

    def gather_uneven(self, value: Tensor) -> list[Tensor]:
        """Return the vector of every process; lengths may differ."""
        lengths = [int(n) for n in self.gather(torch.tensor([len(value)], device=value.device))]
        padded = value.new_zeros(max(lengths))
        padded[: len(value)] = value
        parts = self.gather(padded)
        return [part[:n] for part, n in zip(parts, lengths, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Who shares the tokens of a batch, and who the features."""

    data: Cohort = Cohort()
    features: Cohort = Cohort()

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.data.rank == 0 and self.features.rank == 0


def mesh(cut: Cut) -> Mesh:
    """Return the mesh of all running processes; one process is its own mesh, as is each at "none".

    `torch.distributed` must be initialised by whoever starts the processes: accelerate's
    `Accelerator()` does it, or `torch.distributed.init_process_group`.
    """
    if cut == "none" or not (dist.is_available() and dist.is_initialized()):
        return Mesh()
    cohort = Cohort(size=dist.get_world_size(), rank=dist.get_rank())
    return Mesh(data=cohort) if cut == "data" else Mesh(features=cohort)
