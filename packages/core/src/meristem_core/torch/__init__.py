"""Torch side of Meristem's core; needs the extra `torch`."""

from meristem_core.torch._divergences import NGramDivergences, ngram_divergences
from meristem_core.torch._state import load_state, save_state

__all__ = ["NGramDivergences", "load_state", "ngram_divergences", "save_state"]
