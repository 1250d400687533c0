"""Documents from files: one per file, or one per line of a `.jsonl` file."""

import codecs
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from meristem_core._bytes import chunks_of, files_of

LINES = re.compile(r"\.jsonl(\.gz|\.zst)?$")
LINE_ID = re.compile(r":\d+$")  # how ids of lines end, so no file name may
NAMED = 3  # skipped files that the warning names


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text and where it comes from."""

    id: str  # the path below the source, plus ":<line>" within a .jsonl file
    text: str


class _BinaryError(Exception):
    """A file that holds zero bytes."""


def read_documents(source: str | Path, *, encoding: str = "utf-8") -> Iterator[Document]:
    """Return the documents of a file, folder or glob, in the order of their names.

    Parameters
    ----------
    source
        A file; a folder, read with its subfolders but without hidden entries; or a glob, in which
        `**` stands for any folders. A `.jsonl` file gives one document per line that is not blank,
        from the field "text"; any other file is one document. Each may also end in `.gz` or
        `.zst` (which needs the extra `zstd`).
    encoding
        Of every text file. `.jsonl` files need one in which a newline is one byte. A byte order
        mark of UTF-8 is no part of the text; line ends stay as they are.

    Returns
    -------
    Iterator[Document]
        One document in memory at a time. Ids are unique within the source.

    Raises
    ------
    OSError
        At once if the source is missing, while reading if a file cannot be read.
    ValueError
        If the source holds no files, or no document with a visible character; if bytes do not
        decode (with file and byte offset), a line is no record with a string "text" (with file,
        line and column), compressed data is cut short, or a single file is binary.
    ImportError
        If a `.zst` file needs the package zstandard.

    Warns
    -----
    UserWarning
        At the end, if a folder or glob held binary files (with zero bytes); they are skipped.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = (Path(folder.name) / "a.txt").write_text("One.")
    >>> _ = (Path(folder.name) / "b.jsonl").write_text('{"text": "Two."}')
    >>> [(document.id, document.text) for document in read_documents(folder.name)]
    [('a.txt', 'One.'), ('b.jsonl:1', 'Two.')]
    >>> read_documents(Path(folder.name) / "c.txt")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] .../c.txt not found; give an existing file, folder or glob
    >>> folder.cleanup()
    """
    try:
        name = codecs.lookup(encoding).name
        _is_wide(name)  # refuses codecs that are no text encoding
    except LookupError:
        raise ValueError(
            f"encoding ({encoding!r}) is not a text encoding; give one such as 'utf-8'"
        ) from None
    files = files_of(source)
    _check_names(files)
    return _documents(source, files, "utf-8-sig" if name == "utf-8" else name)


def _documents(
    source: str | Path, files: list[tuple[str, Path]], encoding: str
) -> Iterator[Document]:
    binary: list[str] = []
    visible = False
    for name, path in files:
        read = _lines if LINES.search(name) else _whole
        try:
            for document in read(name, path, encoding):
                visible = visible or bool(document.text.strip())
                yield document
        except _BinaryError:
            if path == Path(source):
                raise ValueError(
                    f"{path} is a binary file (it holds zero bytes); give text, or the encoding "
                    "if it is UTF-16 or UTF-32"
                ) from None
            binary.append(name)
    if not visible:
        raise ValueError(f"{source} holds no text; give documents with visible characters")
    if binary:
        shown = ", ".join(binary[:NAMED]) + (", ..." if len(binary) > NAMED else "")
        warnings.warn(
            f"{len(binary)} binary files of {source} were skipped: {shown}; "
            "give a glob such as 'folder/**/*.txt' to leave them out",
            stacklevel=2,
        )


def _check_names(files: list[tuple[str, Path]]) -> None:
    for name, path in files:
        if LINE_ID.search(name):
            raise ValueError(
                f"{path} ends like the id of a line (':' and digits), so ids could meet; rename it"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the name of file {str(path)!a} is not UTF-8; rename it") from None


def _whole(name: str, path: Path, encoding: str) -> Iterator[Document]:
    """Yield the one document of a text file."""
    zeros_are_text = _is_wide(encoding)
    content = bytearray()
    for chunk in chunks_of(path):
        if b"\0" in chunk and not zeros_are_text:
            raise _BinaryError
        content += chunk
    text = _decoded(bytes(content), 0, path, encoding)
    if "\0" in text:
        raise _BinaryError
    yield Document(id=name, text=text)


def _lines(name: str, path: Path, encoding: str) -> Iterator[Document]:
    """Yield one document per line that is not blank."""
    if _is_wide(encoding):
        raise ValueError(f"{path} cannot be split into lines in {encoding}; convert it to UTF-8")
    offset = 0
    for number, line in enumerate(_split(chunks_of(path)), start=1):
        if b"\0" in line:
            raise ValueError(
                f"{path}:{number}:{line.index(0) + 1}: a zero byte is not text; mend the line"
            )
        text = _decoded(line, offset, path, encoding if number == 1 else _without_mark(encoding))
        if text.strip():
            yield Document(id=f"{name}:{number}", text=_text_of(text, f"{path}:{number}"))
        offset += len(line) + 1


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines without their newline."""
    pending: list[bytes] = []
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        pending.append(first)
        for part in rest:
            yield b"".join(pending)
            pending = [part]
    if last := b"".join(pending):
        yield last


def _decoded(data: bytes, offset: int, path: Path, encoding: str) -> str:
    """Return the text of `data`, which begins `offset` bytes into the file."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        place = offset + error.start
        mark = len(codecs.BOM_UTF8)
        if encoding == "utf-8-sig" and data.startswith(codecs.BOM_UTF8):
            place += mark  # this codec counts from behind the mark
        found = data[place - offset : place - offset + 1].hex() or "end"
        raise ValueError(
            f"{path}: byte {place} (0x{found}) is not {_without_mark(encoding)} "
            f"({error.reason}); give its encoding, or a glob that leaves the file out"
        ) from None


def _text_of(line: str, place: str) -> str:
    """Return the field "text" of one line of JSON."""
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}:{error.colno}: {error.msg}; mend the line") from None
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{place}:1: JSON too large to read ({error}); mend the line") from None
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise ValueError(f'{place}:1: a {kind}, not an object; write {{"text": ...}} per line')
    fields = cast("dict[str, Any]", record)
    if "text" not in fields:
        raise ValueError(f'{place}:1: no field "text" but {list(fields)}; rename the field')
    if not isinstance(fields["text"], str):
        kind = type(fields["text"]).__name__
        raise ValueError(f'{place}:1: "text" is of type {kind}, not a string; convert it')
    text: str = fields["text"]
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f'{place}:1: "text" holds half a surrogate pair; mend the line')
    return text


def _is_wide(encoding: str) -> bool:
    """Return whether a character takes several bytes, so that zero bytes are no sign of binary."""
    return b"\0" in "a".encode(encoding)


def _without_mark(encoding: str) -> str:
    return encoding.removesuffix("-sig")
