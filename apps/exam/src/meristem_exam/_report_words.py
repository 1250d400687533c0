"""What the sections of the report share: numbers as words, and how much is shown."""

import numpy as np

SHOWN = 50  # rows of a table; the JSON holds all
RANKED = 40  # systems or raters in a drawing


def fixed(x: float | int) -> str | None:
    """Return a number with two decimals, None where it is not finite."""
    return f"{x:.2f}".replace("-", "−") if np.isfinite(x) else None


def shown_of(shown: int, total: int, what: str) -> str:
    """Return the beginning of a caption that says how many rows are shown."""
    return "" if shown == total else f"{shown} of {total:,} {what}, all in the JSON; "


def chance(p: float | int) -> str:
    """Return a p-value with its sign of relation."""
    return f"= {p:.2g}" if p >= 1e-4 else "< 0.0001"
