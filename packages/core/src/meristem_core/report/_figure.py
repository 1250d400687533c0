"""Charts side by side as one SVG file, for a page that cannot hold HTML."""

from collections.abc import Sequence
from importlib.resources import files

from meristem_core.report._blocks import LineChart
from meristem_core.report._chart import HEIGHT, WIDTH, drawing, legend_entries, sample_line
from meristem_core.report._text import clean

ROW = 17  # of the legend
TITLE = 24
GAP = 24  # between two charts


def render_svg(charts: Sequence[LineChart]) -> str:
    """Return the charts in a row as one SVG file, each on the axis that it shows first.

    Equal charts give equal text. The file follows the reader's dark or light setting.

    Examples
    --------
    >>> from meristem_core.report import LineChart, Series
    >>> loss = Series(name="loss", x=[0, 1], y=[2, 1])
    >>> text = render_svg([LineChart(title="A", x_label="step", y_label="nats", series=[loss])])
    >>> text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    True
    """
    if not charts:
        raise ValueError("charts is empty; give at least one chart")
    rows = max(len(legend_entries(chart)) for chart in charts)
    top = TITLE + rows * ROW + 6
    width = len(charts) * (WIDTH + GAP) - GAP
    parts = [_placed(chart, place * (WIDTH + GAP), top) for place, chart in enumerate(charts)]
    style = files("meristem_core.report").joinpath("page.css").read_text("utf-8")
    titles = ", ".join(clean(chart.title) for chart in charts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + HEIGHT}" '
        f'role="img" aria-label="{titles}" font-family="system-ui, sans-serif">'
        f"<style>{style}</style>{''.join(parts)}</svg>\n"
    )


def _placed(chart: LineChart, left: int, top: int) -> str:
    legend = "".join(
        f'<g transform="translate(4 {TITLE + ROW * place})">{sample_line(kind, dash)}'
        f'<text x="36" y="8">{clean(name)}</text></g>'
        for place, (name, kind, dash) in enumerate(legend_entries(chart))
    )
    return (
        f'<g transform="translate({left} 0)">'
        f'<text x="4" y="15" font-weight="600">{clean(chart.title)}</text>{legend}'
        f'<g transform="translate(0 {top})">{drawing(chart, chart.first == "log")}</g></g>'
    )
