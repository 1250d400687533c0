"""What every command does at its end: the folder's files, then one sentence or the JSON."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from meristem_core import write_atomic, write_json
from meristem_core.report import Page, render


@runtime_checkable
class Config(Protocol):
    """What of a configuration says where results go and how they are told."""

    @property
    def out(self) -> Path:
        """Folder of the results."""
        ...

    @property
    def json(self) -> bool:
        """Whether JSON is printed."""
        ...


def write(config: Config, result: Mapping[str, Any], page: Page) -> None:
    """Write result.json and report.html."""
    write_json(config.out / "result.json", result)
    write_atomic(config.out / "report.html", render(page))


def tell(config: Config, text: str) -> None:
    """Print the sentence and where the report is, or the JSON."""
    if config.json:
        print((config.out / "result.json").read_text("utf-8"), end="")
    else:
        print(f"{text}\nreport: {config.out / 'report.html'}")


def finite(value: Any) -> Any:
    """Return nested dicts, lists and numbers with None for every infinity and NaN."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(each) for each in value]
    return value


def capital(text: str) -> str:
    """Return a sentence of its own: first letter large, full stop at the end."""
    return f"{text[:1].upper()}{text[1:]}."
