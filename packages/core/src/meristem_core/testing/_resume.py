"""A run killed at a moment and resumed, beside the same run left alone."""

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULT = "result.json"
ENDED = (0, 1)  # exit codes of a run that came to its end: the verdict holds, or does not
TAIL = 2000  # characters of stderr that an error shows


@dataclass(frozen=True, slots=True, kw_only=True)
class KilledRun:
    """The result of a run left alone and of one that was killed and run again."""

    whole: bytes  # result.json of the run left alone
    resumed: bytes  # result.json after the kill and the second start
    killed_after: float  # seconds from the start of the process to SIGKILL
    was_running: bool  # False if the process had ended by then, so that nothing was interrupted


def kill_and_resume(command: Sequence[str], run_dir: Path, *, at: float) -> KilledRun:
    """Run `command` to its end, run it again with a `kill -9` on the way, and resume it.

    Parameters
    ----------
    command
        A command that writes or resumes the run folder `run_dir`, with `result.json` in the end.
        It exits with 0, or with 1 if its verdict does not hold.
    run_dir
        Missing at the start; holds the resumed run at the end. The run left alone lies beside it
        as `<name>-whole`, for a comparison of other files.
    at
        Moment of the kill as a fraction of the time that the run left alone took, in [0, 1).

    Returns
    -------
    KilledRun
        Both results as bytes.

    Raises
    ------
    ValueError
        If `run_dir` or the folder beside it exists, or `at` is out of range.
    RuntimeError
        If a run fails or leaves no result; the end of its stderr is in the message.

    Examples
    --------
    >>> kill_and_resume(["true"], Path("never-made"), at=1.0)
    Traceback (most recent call last):
    ValueError: at (1.0) must lie in [0, 1); it is a fraction of the time of a whole run
    """
    whole_dir = run_dir.with_name(f"{run_dir.name}-whole")
    _check(run_dir, whole_dir, at)
    start = time.monotonic()
    whole = _result(command, run_dir)
    moment = at * (time.monotonic() - start)
    run_dir.rename(whole_dir)
    was_running = _killed(command, moment)
    return KilledRun(
        whole=whole,
        resumed=_result(command, run_dir),
        killed_after=moment,
        was_running=was_running,
    )


def _check(run_dir: Path, whole_dir: Path, at: float) -> None:
    if not (math.isfinite(at) and 0 <= at < 1):
        raise ValueError(
            f"at ({at}) must lie in [0, 1); it is a fraction of the time of a whole run"
        )
    for folder in (run_dir, whole_dir):
        if folder.exists():
            raise ValueError(f"{folder} exists; both runs start anew, so give another run_dir")


def _result(command: Sequence[str], run_dir: Path) -> bytes:
    """Run `command` to its end and return the result it leaves."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode not in ENDED or not (run_dir / RESULT).is_file():
        raise RuntimeError(
            f"{command[0]} exited with {ended.returncode} and "
            f"{'a' if (run_dir / RESULT).is_file() else 'no'} result in {run_dir}; its stderr "
            f"ends with: {ended.stderr[-TAIL:]}"
        )
    return (run_dir / RESULT).read_bytes()


def _killed(command: Sequence[str], moment: float) -> bool:
    """Start `command`, kill it and its children after `moment` seconds; return if it still ran."""
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=silent, stderr=silent, start_new_session=True) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        was_running = process.returncode is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return was_running
