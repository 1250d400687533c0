"""The bytes of plain and compressed files in bounded chunks, and where a source's files lie."""

import errno
import glob
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

CHUNK = 2**18  # bytes read at a time; a decompressed chunk may be larger
MAGIC = "*?["


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield the content of `path` in chunks, decompressed if it ends in .gz or .zst.

    Raises
    ------
    OSError
        If the file is missing, not a regular file or not readable.
    ValueError
        If compressed data is cut short or damaged.
    ImportError
        If a .zst file needs the package zstandard.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if path.suffix == ".gz":
            yield from _gz(path)
        elif path.suffix == ".zst":
            yield from _zst(path)
        else:
            yield from _plain(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} cannot be read ({error.strerror}); mend its permissions or leave it out",
        ) from error


def files_of(source: str | Path) -> list[tuple[str, Path]]:
    """Return name and path of each file of a file, folder or glob, sorted by name.

    Parameters
    ----------
    source
        A file; a folder, read with its subfolders but without hidden entries; or a glob, in which
        `**` stands for any folders.

    Raises
    ------
    ValueError
        If nothing is there.
    OSError
        If a folder cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        names = _below(path)
        if not names:
            raise ValueError(f"{source} holds no files; give a folder with text or .jsonl files")
        return [(name, path / name) for name in sorted(names)]
    if path.exists() or not any(sign in str(source) for sign in MAGIC):
        if not path.exists():
            raise FileNotFoundError(
                errno.ENOENT, f"{source} not found; give an existing file, folder or glob"
            )
        return [(path.name, path)]
    found = [Path(name) for name in glob.glob(str(source), recursive=True)]  # noqa: PTH207 absolute
    base = _fixed_part(path)
    named = sorted((file.relative_to(base).as_posix(), file) for file in found if file.is_file())
    if not named:
        raise ValueError(f"{source} matches no file; check the pattern ('**' goes into folders)")
    return named


def _below(folder: Path) -> list[str]:
    """Return the files below `folder`, as paths relative to it."""

    def refuse(error: OSError) -> None:
        raise OSError(
            error.errno,
            f"{error.filename} cannot be read ({error.strerror}); mend its permissions",
        )

    names: list[str] = []
    for base, subfolders, files in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(base).relative_to(folder)
        names += [(below / name).as_posix() for name in files if not name.startswith(".")]
    return names


def _fixed_part(pattern: Path) -> Path:
    """Return the folders of a glob before its first sign."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if any(sign in part for sign in MAGIC))
    return Path(*parts[:first])


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _gz(path: Path) -> Iterator[bytes]:
    if path.stat().st_size == 0:
        raise _cut(path)
    try:
        with gzip.open(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except EOFError:
        raise _cut(path) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def _zst(path: Path) -> Iterator[bytes]:
    try:
        import zstandard  # noqa: PLC0415 an extra, and only this format needs it
    except ImportError:
        raise ImportError(
            f"{path} needs zstandard; install it with: pip install 'meristem-core[zstd]'"
        ) from None
    new = zstandard.ZstdDecompressor().decompressobj
    frame = new()
    try:
        for chunk in _plain(path):
            while chunk:
                if frame.eof:
                    frame = new()
                yield frame.decompress(chunk)
                chunk = frame.unused_data
    except zstandard.ZstdError as error:
        raise _damaged(path, error) from None
    if not frame.eof:
        raise _cut(path)


def _cut(path: Path) -> ValueError:
    return ValueError(f"{path} ends before its compressed data does; fetch or compress it again")


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not whole compressed data ({error}); fetch or compress it again")
