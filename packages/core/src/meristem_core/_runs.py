"""A run folder: opened by one process, resumed only with the config that made it.

- `config.json` holds name, version and config; its presence makes a folder a run
- `env.json` holds what the run was started with: Python, platform, versions, arguments
- `.lock` is held (flock) while the run is open, and falls with the process, even a killed one
- a folder that holds anything else is refused, so nothing of the user's is overwritten
"""

import contextlib
import errno
import fcntl
import importlib.metadata
import logging
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import cast

from meristem_core._files import TEMPORARY_PREFIX, temporaries_in
from meristem_core._json import canonical, plain, read_json, write_json

CONFIG, ENVIRONMENT, LOCK = "config.json", "env.json", ".lock"
WATCHED = ("numpy", "torch", "transformers")  # besides every meristem distribution
SHOWN = 60  # characters of a differing value that an error shows

logger = logging.getLogger(__name__)


class RunDir:
    """An open run folder; a context manager that gives the lock back.

    Attributes
    ----------
    path
        The folder.
    resumed
        Whether the folder was a run already when it was opened.
    """

    __slots__ = ("_lock", "path", "resumed")

    def __init__(self, path: Path, *, resumed: bool, lock: int) -> None:
        self.path = path
        self.resumed = resumed
        self._lock: int | None = lock

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def open_run(path: Path | str, config: Mapping[str, object], *, name: str, version: str) -> RunDir:
    """Create the run folder `path`, or resume it if it was made with an equal config.

    Parameters
    ----------
    path
        The folder; missing, empty, or a run of `name`. Missing parents are made.
    config
        What decides the results; values as for `write_json`. Equal means an equal `digest`.
    name
        Which program makes the run.
    version
        Its version, "major.minor.patch"; a run resumes within one major.minor.

    Returns
    -------
    RunDir
        Holds the lock until `close`, the end of the `with` block or of the process.

    Raises
    ------
    ValueError
        If the folder holds something else, or a run of another name, version or config; the
        message lists the differing fields with both values.
    BlockingIOError
        If another process has the run open.
    OSError
        If the folder cannot be made or written.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with open_run(folder.name, {"seed": 1}, name="demo", version="0.1.0") as run:
    ...     run.resumed
    False
    >>> with open_run(folder.name, {"seed": 1}, name="demo", version="0.1.4") as run:
    ...     run.resumed
    True
    >>> folder.cleanup()
    """
    folder = Path(path)
    made = {"name": name, "version": version, "config": plain(config, "config")}
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{path} is not a folder; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    _check_foreign(folder)
    lock = _locked(folder)
    try:
        _check_foreign(folder)  # again: another process may have been between
        _remove_temporaries(folder)
        resumed = (folder / CONFIG).exists()
        if resumed:
            _check_equal(folder, made)
        else:
            write_json(folder / CONFIG, made)
        _note_environment(folder)
    except BaseException:
        os.close(lock)
        raise
    return RunDir(folder, resumed=resumed, lock=lock)


def _check_foreign(folder: Path) -> None:
    """Refuse a folder that holds files but is not a run."""
    if (folder / CONFIG).exists():
        return
    ours = (LOCK, TEMPORARY_PREFIX)  # all that a run killed before its config can leave
    foreign = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(ours))
    if foreign:
        raise ValueError(
            f"{folder} is not a run folder and not empty (it holds {foreign[0]}); "
            "choose another --out, or empty it"
        )


def _locked(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode() or "unknown"
        os.close(lock)
        raise BlockingIOError(
            errno.EWOULDBLOCK,
            f"{folder} is open in another process (pid {holder}); "
            "wait until it ends, or choose another --out",
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _remove_temporaries(folder: Path) -> None:
    for left in temporaries_in(folder):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _check_equal(folder: Path, made: Mapping[str, object]) -> None:
    """Refuse to resume a run of another program, version or config."""
    stored: object = read_json(folder / CONFIG)
    if not isinstance(stored, dict) or stored.keys() != made.keys():
        raise ValueError(
            f"{folder / CONFIG} was not written by a run (it needs name, version and config); "
            "choose another --out"
        )
    stored = cast("dict[str, object]", stored)
    mend = "choose another --out, or delete the folder"
    if stored["name"] != made["name"]:
        raise ValueError(f"{folder} is a run of {stored['name']}, not of {made['name']}; {mend}")
    if _minor(stored["version"]) != _minor(made["version"]):
        raise ValueError(
            f"{folder} was made by {stored['name']} {stored['version']}, this is "
            f"{made['version']}; runs resume within one major.minor, so install that one, or {mend}"
        )
    differing = _differences(stored["config"], made["config"])
    if differing:
        raise ValueError(f"{folder} has another config: {', '.join(differing)}; {mend}")


def _minor(version: object) -> str:
    return ".".join(str(version).split(".")[:2])


def _differences(stored: object, given: object) -> list[str]:
    """Return one phrase per differing field: its dotted name and both values."""
    left, right = _flat(stored), _flat(given)
    pairs = {
        field: (left.get(field, "absent"), right.get(field, "absent")) for field in left | right
    }
    return [
        f"{field} is {_shown(there, here)} there and {_shown(here, there)} here"
        for field, (there, here) in pairs.items()
        if there != here
    ]


def _flat(value: object, place: str = "") -> dict[str, str]:
    """Return the canonical text of each leaf of nested mappings under its dotted name."""
    if not isinstance(value, dict) or not value:
        return {place or "config": canonical(cast("object", value))}
    leaves: dict[str, str] = {}
    for key, item in cast("dict[str, object]", value).items():
        leaves |= _flat(item, f"{place}.{key}" if place else key)
    return leaves


def _shown(text: str, other: str) -> str:
    """Return a text, of a long one the part around the first place where it differs."""
    pairs = enumerate(zip(text, other, strict=False))
    start = next((i for i, (a, b) in pairs if a != b), 0) - SHOWN // 2
    if len(text) > SHOWN and start > 0:
        text = "..." + text[start:]
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _note_environment(folder: Path) -> None:
    """Write `env.json` for a new run; for a resumed one log what differs."""
    now = environment()
    with contextlib.suppress(FileNotFoundError):
        stored = read_json(folder / ENVIRONMENT)
        changed = [line for line in _differences(stored, now) if not line.startswith("argv ")]
        if changed:
            logger.info("%s resumes in another environment: %s", folder, ", ".join(changed))
        return
    write_json(folder / ENVIRONMENT, now)


def environment() -> dict[str, object]:
    """Return what a run was started with; no host, user or path names."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.release()}-{platform.machine()}",
        "cpu_count": os.cpu_count(),
        "versions": _versions(),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


@cache  # every installed package is looked at
def _versions() -> dict[str, str]:
    found = {
        dist.name: dist.version
        for dist in importlib.metadata.distributions()
        if dist.name in WATCHED or dist.name.startswith("meristem")
    }
    return dict(sorted(found.items()))
