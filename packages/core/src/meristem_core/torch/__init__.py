"""Torch side of Meristem's core (extra `torch`)."""

from meristem_core.torch._divergences import NGramDivergences, ngram_divergences

__all__ = ["NGramDivergences", "ngram_divergences"]
