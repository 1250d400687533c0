"""An append-only file of JSON lines that survives a kill at any byte.

- a record is one line, written with one call, so a kill tears at most the last line
- opening cuts a torn last line away: it was never reported as written
- a failed write is taken back, so the next record starts on a line of its own
- records are dropped by writing a new file and renaming it over the old one
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from meristem_core._files import replacing, sync, unwritten
from meristem_core._json import line_of, parse

Record = dict[str, Any]


class Journal:
    """A file of records, one JSON object per line; open for appending.

    Parameters
    ----------
    path
        The file; made if missing. One process at a time may have it open (see `open_run`).

    Attributes
    ----------
    path
        The file.
    repaired_bytes
        Length of the torn last line that opening cut away, in bytes; 0 if there was none.

    Raises
    ------
    ValueError
        If a line other than the last is not a JSON object, or the last one is not the beginning
        of one; names file, line and column.
    OSError
        If the file cannot be opened or written.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "metrics.jsonl"
    >>> with Journal(path) as journal:
    ...     journal.append({"step": 1, "loss": 2.5})
    ...     journal.append({"step": 2, "loss": 2.25})
    >>> _ = path.write_bytes(path.read_bytes()[:-4])
    >>> with Journal(path) as journal:
    ...     journal.repaired_bytes, list(journal)
    (22, [{'step': 1, 'loss': 2.5}])
    >>> folder.cleanup()
    """

    __slots__ = ("_descriptor", "_end", "path", "repaired_bytes")

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        is_new = not self.path.exists()
        self._descriptor = self._opened()
        try:
            self._end = self._whole()
            self.repaired_bytes = os.fstat(self._descriptor).st_size - self._end
            if self.repaired_bytes:
                os.ftruncate(self._descriptor, self._end)
                os.fsync(self._descriptor)
            if is_new:
                sync(self.path.resolve().parent)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order, one in memory at a time."""
        for _, record in self._lines():
            yield record

    def append(self, record: Mapping[str, object], *, sync: bool = True) -> None:
        """Add `record` as one line.

        Parameters
        ----------
        record
            An object with values as for `write_json`.
        sync
            Whether to wait until it is on the disk. Without, a power cut can lose the latest
            records; a killed process loses none.

        Raises
        ------
        ValueError, TypeError
            If the record has no JSON form (a number that is not finite, for one); names its place.
        OSError
            If the line cannot be written; the journal is as before.
        """
        line = line_of(dict(record))
        try:
            written = 0
            while written < len(line):  # a full disk writes a part first and fails then
                written += os.write(self._descriptor, line[written:])
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, self._end)
            raise OSError(error.errno, unwritten(f"a record of {self.path}", error)) from error
        except BaseException:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(line)

    def rewind(self, keep: Callable[[Record], bool]) -> int:
        """Drop the records for which `keep` is False, atomically; return how many.

        Parameters
        ----------
        keep
            Called once per record, in order. To resume at step s:
            ``journal.rewind(lambda record: record["step"] <= s)``.

        Raises
        ------
        OSError
            If the new file cannot be written; the journal is as before.
        """
        dropped = 0
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            for line, record in self._lines():
                if keep(record):
                    file.write(line)
                else:
                    dropped += 1
        self.close()
        self._descriptor = self._opened()
        self._end = os.fstat(self._descriptor).st_size
        return dropped

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _whole(self) -> int:
        """Return the length of the file without a torn last line."""
        end = 0
        for line, _ in self._lines(torn_end=True):
            end += len(line)
        return end

    def _lines(self, *, torn_end: bool = False) -> Iterator[tuple[bytes, Record]]:
        """Yield each line with its record; stop before a torn last one if that is allowed."""
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for number, line in enumerate(file, start=1):
                if torn_end and file.tell() == size and _is_torn(line):
                    return
                yield line, _record(line, f"{self.path}", number)


def _is_torn(line: bytes) -> bool:
    """Return whether `line`, the last one, is an unfinished record of ours.

    An unfinished write leaves the beginning of an object, zero bytes where the file system kept
    only the length, or both. Anything else was never ours to cut.
    """
    if line.strip(b"\0\n") and not line.startswith(b"{"):
        return False
    if not line.endswith(b"\n"):
        return True
    try:
        parse(line, "")
    except ValueError:
        return True
    return False


def _record(line: bytes, name: str, number: int) -> Record:
    record = parse(line.removesuffix(b"\n"), name, line=number)
    if not isinstance(record, dict):
        raise ValueError(
            f"{name}:{number}:1: a {type(record).__name__}, not a JSON object; "
            "mend the file or delete it"
        )
    return cast("Record", record)
