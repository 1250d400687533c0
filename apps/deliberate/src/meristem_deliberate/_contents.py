"""A report that begins with a list of its contents: a line for each stratum, a link a section."""

from itertools import groupby

from meristem_core.report import Page, clean, document, fragments

STYLE = """
nav { border-bottom: 1px solid var(--line); padding-bottom: 1rem; }
nav h2 { font-size: 1rem; margin: 0 0 .4rem; }
nav ul { list-style: none; margin: 0; padding: 0; columns: 2; column-gap: 2.5rem; }
nav ul:has(> :only-child) { columns: 1; }
nav li { break-inside: avoid; padding: .2rem 0; }
nav li span { display: block; color: var(--soft); font-size: .84rem; overflow-wrap: anywhere; }
nav a { display: inline-block; margin-right: .9rem; }
nav a:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
section { scroll-margin-top: 1rem; }
@media (max-width: 40rem) { nav ul { columns: 1; } }
"""


def render_with_contents(page: Page) -> str:
    """Return the page as `meristem_core.report.render` does, with links to its sections.

    A title "stratum: topic" is listed under its stratum. Links are plain anchors: they need no
    script, take the keyboard, and move its focus to the section.
    """
    titles = [section.title for section in page.sections]
    blocks = fragments([section.blocks for section in page.sections])
    sections = "".join(
        f'<section id="s{i}" tabindex="-1" aria-labelledby="t{i}">'
        f'<h2 id="t{i}">{clean(title)}</h2>{inside}</section>'
        for i, (title, inside) in enumerate(zip(titles, blocks, strict=True))
    )
    return document(
        page.title,
        f"<header><h1>{clean(page.title)}</h1><p>{clean(page.subtitle)}</p></header>"
        f"{_contents(titles)}<main>{sections}</main>",
        style=STYLE,
    )


def _contents(titles: list[str]) -> str:
    items: list[str] = []
    numbered = [(f"#s{i}", title) for i, title in enumerate(titles)]
    for stratum, several in groupby(numbered, key=lambda each: each[1].rpartition(": ")[0]):
        links = "".join(
            f'<a href="{place}">{clean(title.rpartition(": ")[2])}</a>' for place, title in several
        )
        name = f"<span>{clean(stratum)}</span>" if stratum else ""
        items.append(f"<li>{name}{links}</li>")
    return (
        '<nav aria-labelledby="contents"><h2 id="contents">Contents</h2>'
        f"<ul>{''.join(items)}</ul></nav>"
    )
