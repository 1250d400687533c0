"""What the Meristem packages share for PyTorch; needs the extra `torch`."""

from meristem_core.torch._state import load_state, save_state

__all__ = ["load_state", "save_state"]
