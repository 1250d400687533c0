"""The explorer as one HTML file that asks for nothing else."""

from importlib.resources import files

from meristem_core.report import clean, document, fragments
from meristem_evolution._explorer import Explorer
from meristem_evolution._pack import pack_explorer

SCRIPTS = (
    "data.js",
    "search.js",
    "draw.js",
    "overview.js",
    "table.js",
    "feature.js",
    "explorer.js",
)
FRAME = "explorer.html"


def render_explorer(explorer: Explorer) -> str:
    """Return the page as one HTML file; equal explorers give equal text.

    It opens from a file, sends no request, and keeps what is shown in the part of its address
    after #, so that a link opens the same feature with the same search and order.
    """
    header, data = pack_explorer(explorer)
    source = files("meristem_evolution")
    overview, tasks, about = fragments([explorer.overview, explorer.tasks, explorer.about])
    frame = source.joinpath(FRAME).read_text("utf-8")
    filling = {
        "title": clean(explorer.title),
        "subtitle": clean(explorer.subtitle),
        "overview": overview,
        "tasks": tasks,
        "about": about,
        "header": header,
        "data": data,
    }
    for name, text in filling.items():
        frame = frame.replace(f"<!--{name}-->", text, 1)
    return document(
        explorer.title,
        frame,
        style=source.joinpath("explorer.css").read_text("utf-8"),
        script="".join(source.joinpath(name).read_text("utf-8") for name in SCRIPTS),
    )
