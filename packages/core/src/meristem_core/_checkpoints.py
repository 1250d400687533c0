"""Checkpoints: folders that are whole or absent, with the hash of every file.

- files are written into a temporary folder, synced, and the folder is renamed to `step-<n>`
- `manifest.json` holds size and SHA-256 of every other file; loading compares them
- steps only grow, so the newest checkpoint is the one with the largest number
- an older checkpoint is renamed away before it is removed, so none is ever half there
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from meristem_core._files import sha256_of, sync, temporaries_in, temporary_beside, unwritten
from meristem_core._json import read_json, write_json

MANIFEST, STATE = "manifest.json", "state.json"
PREFIX, DIGITS = "step-", 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files agree with its manifest."""

    step: int
    path: Path
    state: Mapping[str, Any]


def save_checkpoint(
    directory: Path | str,
    step: int,
    write: Callable[[Path], None],
    *,
    state: Mapping[str, object],
    keep: int = 2,
) -> Path:
    """Save a checkpoint of `step` and return its folder, `step-<step>` in `directory`.

    Parameters
    ----------
    directory
        Where checkpoints lie; made if missing. One process at a time writes there.
    step
        At least 0 and greater than every step saved there before.
    write
        Called with an empty folder, into which it writes any files and folders but `state.json`
        and `manifest.json`.
    state
        Small values such as the data position, stored as JSON; values as for `write_json`.
    keep
        How many checkpoints to keep, the new one included; at least 1. Older ones are removed
        only when the new one is on the disk.

    Raises
    ------
    ValueError
        If `step` or `keep` is out of range, or `state` holds a number that is not finite.
    OSError
        If something cannot be written. After any error, one raised by `write` included, the
        checkpoints there are unchanged.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> def write(path: Path) -> None:
    ...     _ = (path / "weights").write_bytes(b"1234")
    >>> for step in (10, 20, 30):
    ...     save_checkpoint(folder.name, step, write, state={"seen": 8 * step}).name
    'step-00000010'
    'step-00000020'
    'step-00000030'
    >>> latest_checkpoint(folder.name).state["seen"]
    240
    >>> [path.name for path in sorted(Path(folder.name).iterdir())]
    ['step-00000020', 'step-00000030']
    >>> folder.cleanup()
    """
    parent = Path(directory)
    _check_step(parent, step, keep)
    temporary = temporary_beside(parent / MANIFEST)
    target = parent / f"{PREFIX}{step:0{DIGITS}d}"
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        _seal(temporary, step, state)
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(error.errno, unwritten(f"checkpoint {target}", error)) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(parent)
    _prune(parent, keep)
    return target


def latest_checkpoint(directory: Path | str) -> Checkpoint | None:
    """Return the checkpoint with the largest step, verified, or None if there is none.

    Parameters
    ----------
    directory
        Where `save_checkpoint` wrote; it may be missing.

    Raises
    ------
    ValueError
        If a file is missing or does not have the size and hash of the manifest. The message
        says which checkpoint is next in line once the damaged folder is deleted.
    OSError
        If a file cannot be read.
    """
    found = _steps(Path(directory))
    if not found:
        return None
    step = max(found)
    path = found.pop(step)
    before = f"checkpoint {max(found)} is used then" if found else "the run starts anew then"
    _verify(path, step, mend=f"delete the folder {path} ({before})")
    return Checkpoint(step=step, path=path, state=read_json(path / STATE))


def _check_step(parent: Path, step: int, keep: int) -> None:
    if keep < 1:
        raise ValueError(f"keep ({keep}) must be at least 1; the new checkpoint is one of them")
    if not 0 <= step < 10**DIGITS:
        raise ValueError(f"step ({step}) must lie between 0 and {10**DIGITS - 1}; count from 0")
    last = max(_steps(parent), default=-1)
    if step <= last:
        raise ValueError(
            f"step ({step}) must be greater than the last step saved in {parent} ({last}); "
            f"continue from that checkpoint, or delete it"
        )


def _steps(parent: Path) -> dict[int, Path]:
    """Return the folder of each step."""
    names = {path.name.removeprefix(PREFIX): path for path in parent.glob(f"{PREFIX}*")}
    return {int(n): path for n, path in names.items() if len(n) == DIGITS and n.isdecimal()}


def _seal(folder: Path, step: int, state: Mapping[str, object]) -> None:
    """Add state and manifest, and put the whole tree on the disk."""
    for name in (STATE, MANIFEST):
        if (folder / name).exists():
            raise ValueError(f"write made {name}, a name that checkpoints need; choose another")
    write_json(folder / STATE, dict(state))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in files
    }
    for path in files:
        sync(path)
    write_json(folder / MANIFEST, {"step": step, "files": entries})
    for base, _, _ in os.walk(folder, topdown=False):
        sync(Path(base))


def _prune(parent: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and what killed writers left."""
    found = _steps(parent)
    for step in sorted(found)[:-keep]:
        found[step].rename(temporary_beside(found[step]))
    for left in temporaries_in(parent):
        shutil.rmtree(left)


def _verify(path: Path, step: int, *, mend: str) -> None:
    for name, entry in _entries(path, step, mend).items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{file} is missing, though the manifest names it; {mend}")
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise ValueError(f"{file} has {size} bytes, not the saved {entry['bytes']}; {mend}")
        found = sha256_of(file)
        if found != entry["sha256"]:
            raise ValueError(f"{file} has SHA-256 {found}, not the saved {entry['sha256']}; {mend}")


def _entries(path: Path, step: int, mend: str) -> dict[str, dict[str, Any]]:
    """Return what the manifest says of each file."""
    try:
        manifest: object = read_json(path / MANIFEST)
    except (FileNotFoundError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"{path} has no readable manifest ({cause}); {mend}") from None
    match manifest:
        case {"step": int(saved), "files": {"state.json": {}}} if saved == step:
            return cast("dict[str, Any]", manifest)["files"]
        case _:
            raise ValueError(f"{path / MANIFEST} is not the manifest of step {step}; {mend}")
