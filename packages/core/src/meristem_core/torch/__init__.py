"""Torch side of Meristem's core; needs the extra `torch`."""

from meristem_core.torch._divergences import (
    NGramDivergences,
    NGramTables,
    ngram_divergences,
    ngram_tables,
)
from meristem_core.torch._processes import end_process_group
from meristem_core.torch._scoring import ScoredBlock, score_rows
from meristem_core.torch._state import load_state, save_state

__all__ = [
    "NGramDivergences",
    "NGramTables",
    "ScoredBlock",
    "end_process_group",
    "load_state",
    "ngram_divergences",
    "ngram_tables",
    "save_state",
    "score_rows",
]
