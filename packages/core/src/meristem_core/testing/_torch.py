"""The parts of the test set-up that import torch; themselves imported when called."""

import importlib
from types import ModuleType

import numpy as np
import torch
from hypothesis import strategies as st


def cap_threads() -> None:
    """Leave one thread to torch's kernels."""
    torch.set_num_threads(1)


def namespace() -> ModuleType:
    """Return torch as an array API namespace."""
    cap_threads()
    return importlib.import_module("array_api_compat.torch")


def generators() -> st.SearchStrategy[torch.Generator]:
    """Draw a seeded generator on the CPU."""
    return st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def tensor_of(array: np.ndarray, dtype: str) -> torch.Tensor:
    """Return a tensor with a copy of `array`; bfloat16 is rounded towards 0."""
    if dtype == "bfloat16":
        array = (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return torch.tensor(array).to(getattr(torch, dtype))


def array_of(tensor: torch.Tensor) -> tuple[np.ndarray, float]:
    """Return the values as NumPy array and the dtype's epsilon, 0 for whole numbers."""
    values = tensor.detach().cpu()
    if not (values.dtype.is_floating_point or values.dtype.is_complex):
        return values.numpy(), 0.0
    eps = torch.finfo(values.dtype).eps
    wide = torch.complex128 if values.dtype.is_complex else torch.float64
    return values.to(wide).numpy(), eps
