"""What a report is made of; every text is plain and escaped when it is rendered."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from meristem_core.report._text import Number

Cell = str | float | int | None
LINKED = re.compile(r"[\w.-][\w./-]*")
ACTIVE = {"script", "foreignObject", "style", "image", "use", "a", "animate", "set"}


@dataclass(frozen=True, slots=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One key number."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Key numbers side by side."""

    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells; numbers are set to the right with four digits, None is a dash."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A claim and whether it holds: yes, no, or only partly (None)."""

    claim: str
    verdict: str
    holds: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Checks:
    """A list of claims with their verdicts."""

    checks: Sequence[Check]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line of a chart, with an optional band from `low` to `high`."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None

    def __post_init__(self) -> None:
        """Refuse lists of different length and values that cannot be drawn."""
        lists = {"x": self.x, "y": self.y, "low": self.low, "high": self.high}
        for label, values in lists.items():
            if values is None:
                continue
            if len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name}: {label} has {len(values)} values, x has {len(self.x)}; "
                    "every point needs both"
                )
            for place, value in enumerate(values):
                if not math.isfinite(value):
                    raise ValueError(
                        f"series {self.name}: {label}[{place}] is {value}; leave the point out"
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizontalLine:
    """A level that the series are compared with."""

    name: str
    y: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Series over one x axis, drawn on a linear and on a logarithmic axis; one is shown first.

    x = 0 has its own place on the logarithmic axis, left of a visible break.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    lines: Sequence[HorizontalLine] = ()
    first: Literal["log", "linear"] = "log"
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a chart without points or with a negative x."""
        xs = [x for series in self.series for x in series.x]
        if not xs:
            raise ValueError(f"chart {self.title} has no points; give at least one series with one")
        if min(xs) < 0:
            raise ValueError(f"chart {self.title}: x ({min(xs)}) must be >= 0; shift the axis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure of one's own: an SVG element in the colours of the page (classes c0 ... c5).

    `svg` is markup and not escaped; texts in it pass through `clean`. Drawings and charts next to
    each other share a row; a wide one takes a row of its own.
    """

    title: str
    svg: str
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()  # class of the mark, what it means
    wide: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no single SVG element or could act."""
        try:
            root = ElementTree.fromstring(self.svg)
        except ElementTree.ParseError as error:
            raise ValueError(f"drawing {self.title}: {error}; give one well-formed svg") from None
        for element in root.iter():
            name = element.tag.rpartition("}")[2]
            acts = [key for key in element.attrib if key.startswith("on") or key.endswith("href")]
            if (element is root) != (name == "svg") or name in ACTIVE or acts:
                raise ValueError(
                    f"drawing {self.title}: <{name}> with {acts or 'this name'}; give one svg "
                    "element without scripts, links and other documents"
                )


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled texts in their own line breaks."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A paragraph that opens a file beside the report."""

    text: str
    file: str  # path relative to the report

    def __post_init__(self) -> None:
        """Refuse what is no file beside the report."""
        if not LINKED.fullmatch(self.file) or ".." in self.file.split("/"):
            raise ValueError(
                f"file {self.file!r} must be a relative path of letters, digits, '.', '_', '-' and "
                "'/'; a report leads nowhere else"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """Blocks behind a line that opens them."""

    summary: str
    blocks: "Sequence[Block]"


Block = Text | Link | Tiles | Table | Checks | LineChart | Drawing | Samples | Details


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it; charts next to each other share a row."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]
