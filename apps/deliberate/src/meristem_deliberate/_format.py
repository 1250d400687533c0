"""Estimates with their intervals as text."""

import meristem_testtime as tt

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
