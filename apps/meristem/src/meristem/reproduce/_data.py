"""Published measurements that a reproduction reads; they are not part of Meristem."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

import meristem_testtime as tt
from meristem._rows import Row, Verdict
from meristem_core.command import UsageError

BESIDE = Path("../shared/data")  # where it lies beside a checkout


def data_file(*parts: str) -> Path | None:
    """Return a file of the data folder, MERISTEM_DATA or `../shared/data`, None if it is absent.

    Raises
    ------
    UsageError
        If MERISTEM_DATA is set and no folder.
    """
    named = os.environ.get("MERISTEM_DATA")
    if named and not Path(named).is_dir():
        raise UsageError(f"MERISTEM_DATA ({named}) is not a folder; correct or unset it")
    path = (Path(named) if named else BESIDE).joinpath(*parts)
    return path if path.exists() else None


def read_zst(path: Path) -> str:
    """Return the text of a .zst file."""
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read().decode("utf-8")


def read_json_zst(path: Path) -> Any:
    """Return the value of a .json.zst file."""
    return json.loads(read_zst(path))


def absent(claim: str, source: str, part: str, seed: int) -> Row:
    """Return the row of a claim whose data is not here."""
    return Row(
        claim=claim, source=source, claimed=None, measured=None, low=None, high=None, n=0,
        verdict="not testable here", seconds=0.0, seed=seed,
        note=f"needs {part}; name the folder that holds it in MERISTEM_DATA",
    )  # fmt: skip


def judge(found: tt.MeanInterval, sign: int) -> Verdict:
    """Return the verdict on a claim about a sign: the rule is stated before the run.

    Reproduced: the 95 % interval lies on the claimed side of zero; refuted: on the other side;
    partly: it holds zero.
    """
    if sign * found.low > 0 and sign * found.high > 0:
        return "reproduced"
    return "refuted" if sign * found.low < 0 and sign * found.high < 0 else "partly"


def sign_row(
    claim: str,
    source: str,
    found: tt.MeanInterval,
    sign: int,
    *,
    note: str,
    seconds: float,
    seed: int,
) -> Row:
    """Return the row of a claim that a mean over questions is above (sign 1) or below 0 (-1)."""
    return Row(
        claim=claim, source=source, claimed="above 0" if sign > 0 else "below 0",
        measured=found.mean, low=found.low, high=found.high, n=found.n_questions,
        verdict=judge(found, sign), note=note, seconds=seconds, seed=seed,
    )  # fmt: skip


def pooled(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict over models: reproduced or refuted only where all agree."""
    tested: list[Verdict] = [each for each in verdicts if each != "not testable here"]
    if not tested:
        return "not testable here"
    return tested[0] if len(set(tested)) == 1 else "partly"


def correctness(rows: list[list[bool]]) -> tt.Traces:
    """Return traces of which only the correctness is known: right is class 0, wrong class 1."""
    right = np.array([each for row in rows for each in row])
    return tt.Traces(
        question=np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
        answer=np.where(right, 0, 1),
        tokens=np.ones(right.size, np.int64),
        correct=right,
        questions=tuple(map(str, range(len(rows)))),
    )
