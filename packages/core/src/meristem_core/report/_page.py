"""The whole page: blocks to HTML, with its style and its one small script inside."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import count

from meristem_core.report._blocks import (
    Block,
    Cell,
    Checks,
    Details,
    Drawing,
    LineChart,
    Link,
    Page,
    Samples,
    Table,
    Text,
    Tiles,
)
from meristem_core.report._chart import chart_html
from meristem_core.report._text import clean

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
MARKS = {True: ("yes", "✓"), False: ("no", "✗"), None: ("partly", "◐")}


def render(page: Page) -> str:
    """Return the page as one HTML file that opens without a network.

    Equal pages give equal text. All texts are escaped; characters that HTML forbids become U+FFFD.

    Examples
    --------
    >>> text = render(Page(title="A & B", subtitle="", sections=[]))
    >>> "<h1>A &amp; B</h1>" in text
    True
    """
    numbers = count()
    sections = "".join(
        f"<section><h2>{clean(section.title)}</h2>{_blocks(section.blocks, numbers)}</section>"
        for section in page.sections
    )
    return document(
        page.title,
        f"<header><h1>{clean(page.title)}</h1><p>{clean(page.subtitle)}</p></header>"
        f"<main>{sections}</main>",
    )


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Return a whole HTML file in the look of the reports, around a body of its own.

    Parameters
    ----------
    title
        Plain text.
    body
        HTML, for instance with the blocks of `fragments` in it; it is not escaped.
    style, script
        What the page needs beyond a report; neither holds its own closing tag.

    Raises
    ------
    ValueError
        If style or script would close the element that holds it.
    """
    for name, text in (("style", style), ("script", script)):
        if f"</{name}" in text.lower():
            raise ValueError(f"the {name} holds </{name}, which would end it; write <\\/{name}")
    source = files("meristem_core.report")
    base, reader = (source.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{clean(title)}</title><style>\n{base}{style}</style></head><body>"
        f"{body}<script>\n{reader}{script}</script></body></html>\n"
    )


def fragments(parts: Sequence[Sequence[Block]]) -> list[str]:
    """Return the HTML of several lists of blocks that stand in one document.

    Examples
    --------
    >>> fragments([[Text("A & B")], []])
    ['<p>A &amp; B</p>', '']
    """
    numbers = count()
    return [_blocks(blocks, numbers) for blocks in parts]


def _blocks(blocks: Sequence[Block], numbers: Iterator[int]) -> str:
    parts: list[str] = []
    row: list[str] = []
    for block in blocks:
        if isinstance(block, LineChart):
            row.append(chart_html(block, next(numbers)))
            continue
        if isinstance(block, Drawing) and not block.wide:
            row.append(_drawing(block))
            continue
        parts += [_row(row), _block(block, numbers)]
        row = []
    return "".join([*parts, _row(row)])


def _row(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _block(block: Block, numbers: Iterator[int]) -> str:
    match block:
        case Text():
            return f"<p>{clean(block.text)}</p>"
        case Link():
            return f'<p class="link"><a href="{clean(block.file)}">{clean(block.text)}</a></p>'
        case Tiles():
            return _tiles(block)
        case Table():
            return _table(block)
        case Checks():
            return _checks(block)
        case Samples():
            items = "".join(
                f"<dt>{clean(label)}</dt><dd>{clean(text)}</dd>" for label, text in block.items
            )
            return f'<dl class="samples">{items}</dl>'
        case Details():
            inside = _blocks(block.blocks, numbers)
            return f"<details><summary>{clean(block.summary)}</summary>{inside}</details>"
        case Drawing():
            return _drawing(block)
        case LineChart():
            return _row([chart_html(block, next(numbers))])


def _drawing(block: Drawing) -> str:
    entries = "".join(
        f'<li><svg viewBox="0 0 10 10" aria-hidden="true"><circle class="{clean(kind)}" cx="5" '
        f'cy="5" r="3.5"/></svg>{clean(text)}</li>'
        for kind, text in block.legend
    )
    legend = f'<ul class="legend marks">{entries}</ul>' if entries else ""
    note = f"<p>{clean(block.note)}</p>" if block.note else ""
    return (
        f'<figure class="chart drawing"><figcaption>{clean(block.title)}</figcaption>{legend}'
        f"{block.svg}{note}</figure>"
    )


def _tiles(block: Tiles) -> str:
    tiles = "".join(
        f"<div><dt>{clean(tile.label)}</dt><dd>{clean(tile.value)}"
        f"<small>{clean(tile.note)}</small></dd></div>"
        for tile in block.tiles
    )
    return f'<dl class="tiles">{tiles}</dl>'


def _table(block: Table) -> str:
    head = "".join(
        f'<th scope="col"{_kind([row[i] for row in block.rows])}>{clean(name)}</th>'
        for i, name in enumerate(block.columns)
    )
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in block.rows)
    caption = f"<caption>{clean(block.caption)}</caption>" if block.caption else ""
    return (
        f'<div class="table"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _kind(column: Sequence[Cell]) -> str:
    """Return the attribute of a heading above numbers: it stands over their last digits."""
    return "" if not column or any(isinstance(cell, str) for cell in column) else ' class="number"'


def _cell(value: Cell) -> str:
    if value is None:
        return '<td class="number">-</td>'
    if isinstance(value, str):
        return f"<td>{clean(value)}</td>"
    return (
        f'<td class="number">{value:,}</td>'
        if isinstance(value, int)
        else (f'<td class="number">{value:.4g}</td>')
    )


def _checks(block: Checks) -> str:
    items = "".join(
        f'<li class="{MARKS[check.holds][0]}"><b aria-hidden="true">{MARKS[check.holds][1]}</b>'
        f"<div>{clean(check.claim)} <em>{clean(check.verdict)}</em>"
        f"<small>{clean(check.detail)}</small></div></li>"
        for check in block.checks
    )
    return f'<ul class="checks">{items}</ul>'
