"""Reproductions whose claims are independent parts without intervals."""

import time
from collections.abc import Callable, Sequence

from meristem._rows import Row, Verdict
from meristem_core.command import progress_bar

Claim = tuple[str, str, str, float | str, int, Verdict, str]
"""Claim, source, what was claimed and measured, n, verdict, note."""

Part = Callable[[bool, int], Claim]
"""Told whether the run is quick, and the seed."""


def run_parts(parts: Sequence[Part], quick: bool, seed: int) -> list[Row]:
    """Return the row of every part, with its seconds."""
    rows: list[Row] = []
    with progress_bar("claims") as show:
        for i, part in enumerate(parts):
            start = time.perf_counter()
            claim, source, claimed, measured, n, verdict, note = part(quick, seed)
            rows.append(
                Row(
                    claim=claim, source=source, claimed=claimed, measured=measured, low=None,
                    high=None, n=n, verdict=verdict, note=note,
                    seconds=time.perf_counter() - start, seed=seed,
                )
            )  # fmt: skip
            show(i + 1, len(parts), {})
    return rows
