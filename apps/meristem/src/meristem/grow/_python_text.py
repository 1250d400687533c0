"""The text every machine has: the running Python's documentation and source.

- `english`: pydoc's language topics, and the docstrings of the standard library, one document
  per module
- `python`: the source of the same modules with the docstrings taken out, so that no sentence of
  one domain stands in the other
- tests, vendored wheels and character tables are left out: they are neither prose nor typical code
"""

import ast
import importlib
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from meristem_core.corpus import Document

LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "_bundled"}
    | {"encodings", "pydoc_data"}
)
MIN_DOCSTRING = 40  # characters; shorter ones are labels, not prose


def python_text() -> dict[str, list[Document]]:
    """Return the domains `english` and `python` of the running interpreter."""
    from pydoc_data.topics import topics  # 0.7 MB of source, needed here only

    english = [Document(id=f"topic/{name}", text=text.strip()) for name, text in topics.items()]
    python: list[Document] = []
    seen: set[str] = set()
    for name, source, tree in _modules():
        strings = list(_docstring_nodes(tree))
        english += _document(f"docstrings/{name}", map(_clean, strings), seen)
        python.append(Document(id=f"source/{name}", text=_cut(source, strings)))
    for name in sys.builtin_module_names:
        english += _document(f"docstrings/{name}", _runtime_docstrings(name), seen)
    return {"english": english, "python": [doc for doc in python if doc.text.strip()]}


def _document(name: str, texts: Iterable[str], seen: set[str]) -> list[Document]:
    fresh = [text for text in dict.fromkeys(texts) if len(text) >= MIN_DOCSTRING]
    fresh = [text for text in fresh if text not in seen]
    seen.update(fresh)
    return [Document(id=name, text="\n\n".join(fresh))] if fresh else []


def _modules() -> Iterator[tuple[str, str, ast.Module]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if LEFT_OUT.intersection(parts) or parts[0].startswith("config-"):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            yield "/".join(parts), source, ast.parse(source)
        except (UnicodeDecodeError, SyntaxError):
            continue  # the library keeps some deliberately broken or foreign-encoded files


def _docstring_nodes(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        match node.body[:1]:
            case [ast.Expr(value=ast.Constant(value=str()) as string)]:
                yield string
            case _:
                pass


def _clean(string: ast.Constant) -> str:
    return inspect.cleandoc(str(string.value))


def _runtime_docstrings(module_name: str) -> list[str]:
    """Return the docstrings of a module written in C: its own, its members', their methods'."""
    with warnings.catch_warnings():  # such as Debian's spwd, built in and deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module(module_name)
    texts: list[str] = []
    for owner in [module, *(value for _, value in sorted(vars(module).items()))]:
        inner = [value for _, value in sorted(vars(owner).items())] if _is_class(owner) else []
        texts += [str(getattr(each, "__doc__", None) or "").strip() for each in [owner, *inner]]
    return texts


def _is_class(value: object) -> bool:
    return isinstance(value, type)


def _cut(source: str, strings: list[ast.Constant]) -> str:
    """Return the source without the given string literals (positions are in UTF-8 bytes)."""
    lines: list[bytes | None] = [*source.encode().split(b"\n")]  # a form feed ends no line for ast
    for string in strings:
        first, last = string.lineno - 1, (string.end_lineno or string.lineno) - 1
        head, tail = lines[first] or b"", lines[last] or b""
        before, after = head[: string.col_offset], tail[string.end_col_offset :]
        kept = before + b"..." + after if (before + after).strip() else None
        lines[first : last + 1] = [kept] + [None] * (last - first)
    return b"\n".join(line for line in lines if line is not None).decode()
