"""A line chart as HTML: a legend, two inline SVG drawings and the switch between them."""

import json
from collections.abc import Sequence
from html import escape

from meristem_core.report._axes import Axis, label, linear_axis, log_axis
from meristem_core.report._blocks import LineChart, Series
from meristem_core.report._text import Number, clean

WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 10, 38
COLOURS = 6  # of the style sheet: .c0 ... .c5
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")  # so that colours are not needed
MARKED = 40  # points up to which each gets a dot


def chart_html(chart: LineChart, number: int) -> str:
    """Return a figure; `number` makes the ids of the page's charts unique."""
    names = ("log", "linear") if chart.first == "log" else ("linear", "log")
    radios = "".join(
        f'<input type="radio" name="axis{number}" id="axis{number}{name}"'
        f"{' checked' if place == 0 else ''}>"
        f'<label for="axis{number}{name}">{name}</label>'
        for place, name in enumerate(names)
    )
    drawings = "".join(_svg(chart, name == "log") for name in names)
    note = f"<p>{clean(chart.note)}</p>" if chart.note else ""
    return (
        f'<figure class="chart"><figcaption>{clean(chart.title)}</figcaption>'
        f'{_legend(chart)}<div class="plot">{radios}{drawings}</div>'
        f'<output aria-live="polite"></output>{note}</figure>'
    )


def legend_entries(chart: LineChart) -> list[tuple[str, str, str]]:
    """Return the name, the class and the dashes of every line of a chart."""
    entries = [
        (series.name, f"c{place % COLOURS}", DASHES[place % len(DASHES)])
        for place, series in enumerate(chart.series)
    ]
    return entries + [
        (f"{line.name} ({label(line.y)})", "level", DASHES[1 + place % 4])
        for place, line in enumerate(chart.lines)
    ]


def sample_line(kind: str, dash: str) -> str:
    """Return the short line that stands before a name in a legend."""
    return f'<path class="{kind}" d="M0 4H28"{_dash(dash)}/>'


def drawing(chart: LineChart, logarithmic: bool) -> str:
    """Return what a chart draws on WIDTH x HEIGHT: grid, levels, series."""
    x_axis, y_axis = _axes(chart, logarithmic)
    return "".join(
        [
            _grid(chart, x_axis, y_axis),
            *(
                f'<path class="level" d="M{LEFT} {_y(line.y, y_axis)}H{WIDTH - RIGHT}"'
                f"{_dash(DASHES[1 + place % 4])}/>"
                for place, line in enumerate(chart.lines)
            ),
            *(_line(series, place, x_axis, y_axis) for place, series in enumerate(chart.series)),
        ]
    )


def _axes(chart: LineChart, logarithmic: bool) -> tuple[Axis, Axis]:
    xs = [x for series in chart.series for x in series.x]
    x_axis = log_axis(xs) if logarithmic else linear_axis(xs, tight=True)
    return x_axis, linear_axis(_heights(chart))


def _legend(chart: LineChart) -> str:
    items = "".join(
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true">{sample_line(kind, dash)}</svg>'
        f"{clean(name)}</li>"
        for name, kind, dash in legend_entries(chart)
    )
    return f'<ul class="legend">{items}</ul>'


def _svg(chart: LineChart, logarithmic: bool) -> str:
    kind = "logarithmic" if logarithmic else "linear"
    x_axis, _ = _axes(chart, logarithmic)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{clean(chart.title)}, {kind} axis" '
        f'data-points="{escape(_readout(chart, x_axis))}">{drawing(chart, logarithmic)}'
        f'<path class="cursor" d="M0 {TOP}V{HEIGHT - BOTTOM}"/></svg>'
    )


def _grid(chart: LineChart, x_axis: Axis, y_axis: Axis) -> str:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<path class="grid" d="M{LEFT} {y}H{right}"/>'
        f'<text class="y" x="{LEFT - 6}" y="{y}">{label(tick)}</text>'
        for tick in y_axis.ticks
        for y in [_y(tick, y_axis)]
    ]
    parts += [f'<path class="tick" d="M{_x(tick, x_axis)} {floor}v3"/>' for tick in x_axis.minor]
    parts += [
        f'<path class="tick" d="M{x} {floor}v6"/>'
        f'<text class="x" x="{x}" y="{floor + 17}">{label(tick)}</text>'
        for tick in x_axis.ticks
        for x in [_x(tick, x_axis)]
    ]
    axis = f"M{LEFT} {floor}H{right}"
    if x_axis.zero:
        gap = (_x(0, x_axis) + _x(x_axis.low, x_axis)) / 2
        axis = f"M{LEFT} {floor}H{gap - 3:.1f}M{gap + 3:.1f} {floor}H{right}"
        axis += f"M{gap - 5:.1f} {floor + 4}l4 -8M{gap + 1:.1f} {floor + 4}l4 -8"
    parts.append(f'<path class="axis" d="{axis}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="x title" x="{middle}" y="{HEIGHT - 4}">{clean(chart.x_label)}</text>'
    )
    turned = f"translate(11 {(TOP + floor) / 2}) rotate(-90)"
    parts.append(f'<text class="x title" transform="{turned}">{clean(chart.y_label)}</text>')
    return "".join(parts)


def _line(series: Series, place: int, x_axis: Axis, y_axis: Axis) -> str:
    colour = f"c{place % COLOURS}"
    xs = [_x(x, x_axis) for x in series.x]
    points = list(zip(xs, (_y(y, y_axis) for y in series.y), strict=True))
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    parts = [f'<path class="{colour}" d="{path}"{_dash(DASHES[place % len(DASHES)])}/>']
    if series.low is not None and series.high is not None:
        edge = [*zip(xs, series.low, strict=True), *reversed([*zip(xs, series.high, strict=True)])]
        band = "M" + "L".join(f"{x} {_y(y, y_axis)}" for x, y in edge) + "Z"
        parts.insert(0, f'<path class="band {colour}" d="{band}"/>')
    if len(points) <= MARKED:
        parts += [
            f'<circle class="{colour}" cx="{x}" cy="{y}" r="2.2"><title>{clean(series.name)} '
            f"at {label(at)}: {value:.4g}</title></circle>"
            for (x, y), at, value in zip(points, series.x, series.y, strict=True)
        ]
    return "".join(parts)


def _readout(chart: LineChart, x_axis: Axis) -> str:
    """Return what the page's script shows under the pointer: a place, an x and values."""
    found: dict[Number, list[str]] = {}
    for series in chart.series:
        for x, y in zip(series.x, series.y, strict=True):
            found.setdefault(x, []).append(f"{series.name} {y:.4g}")
    rows = [[_x(x, x_axis), label(x), "  ".join(found[x])] for x in sorted(found)]
    return json.dumps([chart.x_label, rows])


def _heights(chart: LineChart) -> Sequence[Number]:
    bands = [values for each in chart.series for values in (each.y, each.low, each.high) if values]
    return [value for values in bands for value in values] + [line.y for line in chart.lines]


def _x(value: Number, axis: Axis) -> float:
    return round(LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT), 1)


def _y(value: Number, axis: Axis) -> float:
    return round(HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM), 1)


def _dash(dash: str) -> str:
    return f' stroke-dasharray="{dash}"' if dash else ""
