"""Self-contained HTML reports: one file, inline SVG, no network, readable without JavaScript."""

from meristem_core.report._blocks import (
    Block,
    Check,
    Checks,
    Details,
    Drawing,
    HorizontalLine,
    LineChart,
    Page,
    Samples,
    Section,
    Series,
    Table,
    Text,
    Tile,
    Tiles,
)
from meristem_core.report._figure import render_svg
from meristem_core.report._page import render
from meristem_core.report._text import clean

__all__ = [
    "Block",
    "Check",
    "Checks",
    "Details",
    "Drawing",
    "HorizontalLine",
    "LineChart",
    "Page",
    "Samples",
    "Section",
    "Series",
    "Table",
    "Text",
    "Tile",
    "Tiles",
    "clean",
    "render",
    "render_svg",
]
