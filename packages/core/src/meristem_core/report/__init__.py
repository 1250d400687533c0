"""Self-contained HTML reports: one file, inline SVG, no network, readable without JavaScript."""

from meristem_core.report._blocks import (
    Block,
    Check,
    Checks,
    Details,
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

__all__ = [
    "Block",
    "Check",
    "Checks",
    "Details",
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
    "document",
    "fragments",
    "render",
    "render_svg",
]
