"""Axes: where a value stands on the paper, and which values are worth a label."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from meristem_core.report._text import Number

ZERO_GAP = 0.09  # share of a logarithmic axis that x = 0 and its break take


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A scale from values to positions in [0, 1], with its labelled ticks."""

    low: Number
    high: Number
    ticks: Sequence[Number]
    minor: Sequence[Number] = ()
    logarithmic: bool = False
    zero: bool = False  # a logarithmic axis with a place for 0 left of its break

    def place(self, value: Number) -> float:
        """Return the position of a value, 0 at the low end and 1 at the high end."""
        if not self.logarithmic:
            return (value - self.low) / (self.high - self.low)
        if value == 0:
            return 0.0
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return ZERO_GAP + (1 - ZERO_GAP) * share if self.zero else share


def linear_axis(values: Sequence[Number], *, count: int = 5, tight: bool = False) -> Axis:
    """Return a linear axis over the values with about `count` ticks at 1, 2 or 5 times 10**n.

    `tight` ends the axis at the values instead of at ticks.
    """
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    step = _step((high - low) / count)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    if not tight:
        return Axis(low=ticks[0], high=ticks[-1], ticks=ticks)
    margin = 1e-9 * (high - low)
    inside = [tick for tick in ticks if low - margin <= tick <= high + margin]
    return Axis(low=low, high=high, ticks=inside)


def log_axis(values: Sequence[Number]) -> Axis:
    """Return a logarithmic axis over non-negative values; decades are labelled, or 1, 2, 5."""
    positive = [value for value in values if value > 0]
    if not positive:
        return linear_axis(values, tight=True)
    low, high = min(positive), max(positive)
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 2 else (1, 2, 5)
    ticks = [f * 10.0**d for d in decades for f in factors]
    minor = [f * 10.0**d for d in decades for f in range(2, 10)]
    zero = min(values) == 0
    return Axis(
        low=low,
        high=high,
        ticks=[*([0.0] if zero else []), *_within(ticks, low, high)],
        minor=_within(minor, low, high),
        logarithmic=True,
        zero=zero,
    )


def label(value: Number) -> str:
    """Return a tick's text.

    Examples
    --------
    >>> [label(value) for value in (0.0, 0.25, 1200.0, 3e6)]
    ['0', '0.25', '1,200', '3M']
    """
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{round(value, 10):.4g}"


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))


def _within(values: Sequence[Number], low: Number, high: Number) -> list[Number]:
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
