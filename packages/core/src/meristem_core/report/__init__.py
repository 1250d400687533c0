"""Self-contained HTML reports: one file, inline SVG, no network, readable without JavaScript."""

from meristem_core.report._blocks import (
    Block,
    Cell,
    Check,
    Checks,
    Details,
    Drawing,
    HorizontalLine,
    LineChart,
    Link,
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
from meristem_core.report._page import document, fragments, render
from meristem_core.report._text import clean

__all__ = [
    "Block",
    "Cell",
    "Check",
    "Checks",
    "Details",
    "Drawing",
    "HorizontalLine",
    "LineChart",
    "Link",
    "Page",
    "Samples",
    "Section",
    "Series",
    "Table",
    "Text",
    "Tile",
    "Tiles",
    "clean",
    "document",
    "fragments",
    "render",
    "render_svg",
]
