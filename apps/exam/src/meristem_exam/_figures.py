"""Drawings of an exam: one ruler for systems and items, intervals, fit, labels.

All coordinates are of a drawing 400 units wide; texts pass through `clean`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from meristem_core.report import clean

Number = float | int  # type checkers of running programs tell them apart
WIDTH = 400
LEFT, RIGHT = 44, 12


def ticks(low: Number, high: Number, count: int = 6) -> list[float]:
    """Return round values inside [low, high]."""
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    return [
        float(k * step) for k in range(int(np.ceil(low / step - 1e-9)), int(high / step + 1e-9) + 1)
    ]


def text(x: Number, y: Number, words: str, kind: str = "x", *, more: str = "") -> str:
    """Return a text element."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{more}>{clean(words)}</text>'


def svg(height: Number, label: str, parts: Sequence[str]) -> str:
    """Return the element around the parts."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{clean(label)}">{"".join(parts)}</svg>'
    )


def _label(value: Number) -> str:
    return f"{value:.4g}".replace("-", "−")


def ruler(
    ability: Float[np.ndarray, " V"],
    systems: Sequence[str],
    difficulty: Float[np.ndarray, " I"],
    items: Sequence[str],
) -> str:
    """Return the Wright map: systems above the line, items below, on one scale in logits."""
    a, b = ability[np.isfinite(ability)], difficulty[np.isfinite(difficulty)]
    low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    margin = 0.05 * max(high - low, 1.0)
    low, high = low - margin, high + margin
    left, right, middle, tall = 10, WIDTH - 10, 128, 84
    bins = 36
    width = (right - left) / bins

    def x_of(value: Number) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = [f'<path class="axis" d="M{left} {middle}H{right}"/>']
    for tick in ticks(low, high, 8):
        x = x_of(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {middle - tall}V{middle + tall + 18}"/>')
        parts.append(text(x, middle + tall + 30, _label(tick)))
    for values, names, up, kind in ((a, systems, True, "c0"), (b, items, False, "c1")):
        source = ability if up else difficulty
        known = np.flatnonzero(np.isfinite(source))
        place = ((values - low) / (high - low) * bins).astype(int).clip(0, bins - 1)
        count = np.bincount(place, minlength=bins)
        scale = tall / max(count.max(), 1)
        if up and len(values) <= 60:  # every system is a dot
            step = min(scale, 9.0)
            seen = np.zeros(bins, dtype=int)
            for k in known[np.argsort(source[known])]:
                slot = int(np.clip((source[k] - low) / (high - low) * bins, 0, bins - 1))
                y = middle - 6 - step * seen[slot]
                seen[slot] += 1
                parts.append(
                    f'<circle class="{kind}" cx="{left + (slot + 0.5) * width:.1f}" cy="{y:.1f}" '
                    f'r="{min(step / 2, 3.6):.1f}"><title>{clean(str(names[k]))}: '
                    f"{_label(float(source[k]))}</title></circle>"
                )
            continue
        for slot in np.flatnonzero(count):
            height = max(float(count[slot] * scale), 1.0)
            x, y = left + slot * width + 0.5, middle - height if up else middle + 1
            edge = low + slot * (high - low) / bins
            parts.append(
                f'<rect class="fill {kind}" x="{x:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
                f'height="{height:.1f}"><title>{count[slot]} from {_label(edge)} to '
                f"{_label(edge + (high - low) / bins)}</title></rect>"
            )
    parts += [
        text(
            left,
            14,
            f"systems ({len(a):,}), each a dot" if len(a) <= 60 else f"systems ({len(a):,})",
            "start ink",
        ),
        text(right, 10, "stronger →", "y"),
        text(left, middle + tall + 14, f"items ({len(b):,})", "start ink"),
        text(right, middle + tall + 10, "harder →", "y"),
        text(
            WIDTH / 2,
            middle + tall + 46,
            "logits; a system solves half of the items at its own place",
        ),
    ]
    return svg(middle + tall + 54, "Systems and items on one ruler", parts)


def intervals(
    names: Sequence[str],
    middle: Sequence[Number],
    low: Sequence[Number],
    high: Sequence[Number],
    *,
    axis: str,
    kinds: Sequence[str] | None = None,
) -> str:
    """Return one row a name with a dot and its interval, in the given order."""
    row, top = 15, 8
    left = min(176, 18 + 6.6 * max(len(_short(name)) for name in names))
    start, end = min(low), max(high)
    margin = 0.03 * max(end - start, 1e-9)
    start, end = start - margin, end + margin
    floor = top + row * len(names)

    def x_of(value: Number) -> float:
        return left + (value - start) / (end - start) * (WIDTH - RIGHT - left)

    parts = [
        f'<path class="grid" d="M{x_of(t):.1f} {top}V{floor}"/>'
        + text(x_of(t), floor + 15, _label(t))
        for t in ticks(start, end)
    ]
    if start < 0 < end:
        parts.append(f'<path class="level" d="M{x_of(0):.1f} {top}V{floor}"/>')
    for k, (name, m, a, b) in enumerate(zip(names, middle, low, high, strict=True)):
        y, kind = top + row * (k + 0.5), "c0" if kinds is None else kinds[k]
        parts.append(text(left - 8, y, _short(name), "y ink"))
        parts.append(f'<path class="{kind}" d="M{x_of(a):.1f} {y:.1f}H{x_of(b):.1f}"/>')
        parts.append(
            f'<circle class="{kind}" cx="{x_of(m):.1f}" cy="{y:.1f}" r="3"><title>{clean(name)}: '
            f"{_label(m)} [{_label(a)}, {_label(b)}]</title></circle>"
        )
    parts.append(text(WIDTH / 2, floor + 32, axis, "x title"))
    return svg(floor + 40, axis, parts)


def scatter(
    x: Sequence[Number],
    y: Sequence[Number],
    names: Sequence[str],
    kinds: Sequence[str],
    *,
    x_label: str,
    y_label: str,
    zone: tuple[Number, Number] | None = None,
    log_y: bool = False,
    x_ticks: Sequence[tuple[Number, str]] | None = None,
    lines: Sequence[tuple[Sequence[Number], Sequence[Number], str]] = (),
    limit: int = 1500,
) -> str:
    """Return points, with a shaded zone of y and curves; of many points an even sample is drawn."""
    left, top, floor = LEFT, 8, 222
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    every = [v for line in lines for v in line[1]]
    shown_y = np.log(ys) if log_y else ys
    low_y, high_y = float(min([*shown_y, *every])), float(max([*shown_y, *every]))
    if zone is not None:
        edges = np.log(zone) if log_y else np.array(zone)
        low_y, high_y = min(low_y, float(edges[0])), max(high_y, float(edges[1]))
    pad_y = 0.05 * max(high_y - low_y, 1e-9)
    low_y, high_y = low_y - pad_y, high_y + pad_y
    pad_x = 0.05 * max(float(np.ptp(xs)), 1e-9)
    low_x, high_x = float(xs.min()) - pad_x, float(xs.max()) + pad_x

    def x_of(value: Number) -> float:
        return left + (value - low_x) / (high_x - low_x) * (WIDTH - RIGHT - left)

    def y_of(value: Number) -> float:
        return floor - (value - low_y) / (high_y - low_y) * (floor - top)

    parts: list[str] = []
    if zone is not None:
        bottom, upper = (y_of(float(np.log(v) if log_y else v)) for v in zone)
        parts.append(
            f'<rect class="zone" x="{left}" y="{upper:.1f}" width="{WIDTH - RIGHT - left}" '
            f'height="{bottom - upper:.1f}"/>'
        )
    heights = (
        _log_ticks(low_y, high_y, y_of)
        if log_y
        else [(v, _label(v)) for v in ticks(low_y, high_y, 5)]
    )
    for value, words in heights:
        parts.append(f'<path class="grid" d="M{left} {y_of(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(text(left - 6, y_of(value), words, "y"))
    for value, words in x_ticks or [(v, _label(v)) for v in ticks(low_x, high_x)]:
        parts.append(text(x_of(value), floor + 16, words))
    parts.append(f'<path class="axis" d="M{left} {floor}H{WIDTH - RIGHT}"/>')
    plain = [k for k in range(len(xs)) if kinds[k] == "c0"]
    step = max(1, -(-len(plain) // limit))
    drawn = sorted({*plain[::step], *(k for k in range(len(xs)) if kinds[k] != "c0")},
                   key=lambda k: kinds[k])  # fmt: skip
    size = 3 if len(drawn) < 150 else 2
    parts += [
        f'<circle class="{kinds[k]}" cx="{x_of(float(xs[k])):.1f}" '
        f'cy="{y_of(float(shown_y[k])):.1f}" r="{size}" opacity=".75"><title>{clean(names[k])}: '
        f"{_label(float(xs[k]))}, {_label(float(ys[k]))}</title></circle>"
        for k in drawn
    ]
    for line_x, line_y, kind in lines:
        path = "M" + "L".join(
            f"{x_of(a):.1f} {y_of(b):.1f}" for a, b in zip(line_x, line_y, strict=True)
        )
        parts.append(f'<path class="{kind}" d="{path}"/>')
    parts.append(text((left + WIDTH - RIGHT) / 2, floor + 34, x_label, "x title"))
    turned = f' transform="translate(11 {(top + floor) / 2:.0f}) rotate(-90)"'
    parts.append(f'<text class="x title"{turned}>{clean(y_label)}</text>')
    return svg(floor + 42, f"{y_label} against {x_label}", parts)


def _log_ticks(
    low: Number, high: Number, y_of: Callable[[Number], Number]
) -> list[tuple[Number, str]]:
    """Return ticks of a logarithmic axis that do not run into each other."""
    powers = [10.0**k for k in range(-4, 8)]
    wanted = [1.0, 0.7, 1.3, *powers, *(5 * p for p in powers), *(2 * p for p in powers)]
    chosen: list[float] = []
    for value in wanted:
        at = float(np.log(value))
        if low <= at <= high and all(abs(y_of(at) - y_of(other)) >= 13 for other in chosen):
            chosen.append(at)
    return [(at, _label(float(np.exp(at)))) for at in chosen]


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:11] + "…" + name[-12:]
