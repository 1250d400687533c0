"""What was claimed, what was measured, and the verdict: the rows of every result."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["reproduced", "partly", "refuted", "not testable here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim of a paper against one measurement.

    `low` and `high` bound `measured` at 95 %; the note says over what they were resampled.
    """

    claim: str
    source: str  # where the claim stands
    claimed: float | str | None
    measured: float | str | None
    low: float | None
    high: float | None
    n: int  # measurements behind the interval
    verdict: Verdict
    note: str
    seconds: float
    seed: int


def table(rows: list[Row]) -> str:
    """Return the rows as aligned text: claim, claimed, measured with interval, verdict."""
    cells = [("claim", "claimed", "measured", "verdict")]
    cells += [(row.claim, _text(row.claimed), measured_text(row), row.verdict) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def measured_text(row: Row) -> str:
    """Return the measurement with its interval."""
    interval = "" if row.low is None else f" [{_text(row.low)}, {_text(row.high)}]"
    return _text(row.measured) + interval


def _text(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.4g}"
