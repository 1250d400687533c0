"""Optimiser steps that are not taken: those whose gradient is too large (Intern-S1, 2508.15763)."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from meristem_losses._stats import positive


def drop_large_gradients(parameters: Iterable[Tensor], *, max_norm: float = 0.3) -> float:
    """Drop all gradients where their global norm is above `max_norm` or not finite; return it.

    Call between backward pass and optimiser step. A dropped gradient is None, which the optimisers
    of torch pass over: no update, no weight decay, moments and their counts as before.

    Examples
    --------
    >>> x = torch.ones(2, requires_grad=True)
    >>> (3 * x).sum().backward()
    >>> round(drop_large_gradients([x]), 3), x.grad
    (4.243, None)
    """
    positive("max_norm", max_norm)
    every = list(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in every if p.grad is not None])
    value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    if not value <= max_norm:
        for p in every:
            p.grad = None
    return value
