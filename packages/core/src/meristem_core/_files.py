"""Files that are either old or new, never torn.

- a file is written under a temporary name in its own folder, flushed, synced, then renamed
- a rename within one folder is atomic, so a reader or a kill sees the old or the new content
- the folder is synced after the rename, so that the new name survives a power cut
- a killed writer can leave a temporary file; its name starts with `TEMPORARY_PREFIX`
"""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"  # hidden, and never the name of a finished file or checkpoint
NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP}  # said by file systems that cannot sync a folder


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader, a kill or a full disk never leaves it torn.

    Parameters
    ----------
    path
        The file; its folder exists. A symbolic link is followed. Permissions of an existing
        file are kept.
    data
        The content; text is written as UTF-8.

    Raises
    ------
    OSError
        If the file cannot be written (disk full, no permission, not a regular file). The old
        content is unchanged and the temporary file is removed; `errno` is the cause's.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_atomic(Path(folder.name) / "a.txt", "one")
    >>> write_atomic(Path(folder.name) / "a.txt", b"")
    >>> (Path(folder.name) / "a.txt").read_bytes()
    b''
    >>> folder.cleanup()
    """
    content = data.encode() if isinstance(data, str) else data
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path | str) -> Generator[Path, None, None]:
    """Yield an empty temporary file that takes the place of `path` when the block ends well.

    Parameters
    ----------
    path
        The file to write or replace. The block writes to the yielded path instead, which lies in
        the same folder; it is synced and renamed at the end, removed if the block raises.

    Raises
    ------
    OSError
        As `write_atomic`.
    """
    target = Path(path).resolve()
    temporary = temporary_beside(target)
    try:
        mode = _mode_of(target)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if mode is not None:
            temporary.chmod(mode)
        yield temporary
        sync(temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, unwritten(str(path), error)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)


def temporary_beside(path: Path) -> Path:
    """Return an unused temporary name in the folder of `path`."""
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")


def temporaries_in(folder: Path) -> list[Path]:
    """Return the temporary files and folders that killed writers left in `folder`, sorted."""
    return sorted(folder.glob(f"{TEMPORARY_PREFIX}*"))


def unwritten(what: str, error: OSError) -> str:
    """Return the sentence for a write that failed: what, why, what is left, and the mend."""
    cause = error.strerror or str(error)
    mend = {
        errno.ENOSPC: "free space on the disk or choose another folder",
        errno.EDQUOT: "free space within the quota or choose another folder",
        errno.EFBIG: "raise the file size limit (ulimit -f) or choose another folder",
        errno.ENOENT: "create the folder first",
    }.get(error.errno or 0, "choose a folder you may write to")
    return f"{what} was not written ({cause}), what was there before is unchanged; {mend}"


def sync(path: Path) -> None:
    """Ask the system to put `path`, a file or a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in NO_DIRECTORY_SYNC):
            raise
    finally:
        os.close(descriptor)


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as empty:
    ...     sha256_of(empty.name)[:16]
    'e3b0c44298fc1c14'
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mode_of(target: Path) -> int | None:
    """Return the permission bits of an existing regular file, None if there is none."""
    if not target.exists():
        return None
    if not target.is_file():
        code = errno.EISDIR if target.is_dir() else errno.EINVAL
        kind = "it is a folder" if target.is_dir() else "it is not a regular file"
        raise OSError(code, kind)
    return target.stat().st_mode & 0o7777
