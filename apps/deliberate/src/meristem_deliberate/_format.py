"""Estimates with their intervals as text."""

import meristem_testtime as tt

ROUNDING = 1e-12  # of equal shares that two ways of counting give
NARROW = "\u00a0"  # keeps an estimate and its interval on one line


def percent(found: tt.MeanInterval) -> str:
    """Return a share in percent."""
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]".replace(
        " ", NARROW
    )


def points(found: tt.MeanInterval) -> str:
    """Return a difference of shares in points, with its sign."""
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]".replace(
        " ", NARROW
    )


def finding(what: str, found: tt.MeanInterval, where: str = "") -> str:
    """Return a sentence: the difference, on which side of zero it is, what would be detected."""
    side = "is not told from zero" if found.low <= 0 <= found.high else (
        "is above zero" if found.low > 0 else "is below zero"
    )  # fmt: skip
    place = f" {where}" if where else ""
    if max(abs(found.low), abs(found.high)) < ROUNDING:
        return f"{what}{place}: nothing, on every question."
    return (
        f"{what}{place}: {points(found)} points, which {side}; detectable here: "
        f"{100 * found.minimal_detectable:.1f}."
    )
