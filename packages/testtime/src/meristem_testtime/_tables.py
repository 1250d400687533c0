"""Samples and chains of revisions from a table, CSV or JSON lines; every complaint names the line.

- a row with step r > 0 is the r-th revision of the sample of its number; rows of step 0 are samples
"""

import csv
import gzip
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meristem_testtime._revisions import Chains
from meristem_testtime._traces import MARKERS, Traces

REQUIRED = ("question", "sample", "tokens", "answer", "correct")
EXACT = 2**53  # largest of the whole numbers that a float tells apart
Row = tuple[int, dict[str, Any]]  # line, cells


def read_traces(path: Path | str, *, by: Sequence[str] = ("model", "dataset")) -> dict[str, Traces]:
    """Return the traces in a file, one entry for each combination of the columns `by`.

    Parameters
    ----------
    path
        CSV with a header, or JSON lines (`.jsonl`); `.gz` is decompressed. Columns question,
        sample, tokens, answer and correct; optional wait, alternatively, capped, `score:NAME`, and
        step: rows of a step above 0 are revisions, which `read_chains` reads.
    by
        Columns that separate strata; those the file lacks are ignored. Keys join the values by
        "/"; without such columns the one key is "".

    Raises
    ------
    ValueError
        If a row is malformed, a (question, sample, step) occurs twice, or a class is both right and
        wrong; names the line.
    """
    strata = _strata(Path(path), by)
    return {key: _traces(path, rows) for key, rows in strata.items()}


def read_chains(path: Path | str, *, by: Sequence[str] = ("model", "dataset")) -> dict[str, Chains]:
    """Return the chains of revisions in a file, one entry for each stratum that has any.

    Questions are numbered as in `read_traces`. A chain that ended early keeps its last answer.

    Parameters
    ----------
    path, by
        As for `read_traces`; `tokens` counts what a step generated, discarded text included.

    Raises
    ------
    ValueError
        If a row is malformed, or the steps of a chain are not 0, 1, 2...; names the line.
    """
    found: dict[str, Chains] = {}
    for key, rows in _strata(Path(path), by).items():
        chains = _chains(path, rows)
        if chains is not None:
            found[key] = chains
    return found


def _strata(path: Path, by: Sequence[str]) -> dict[str, list[Row]]:
    strata: dict[str, list[Row]] = {}
    for line, row in _rows(path):
        _complete(path, line, row)
        key = "/".join(str(row[name]) for name in by if name in row)
        strata.setdefault(key, []).append((line, row))
    if not strata:
        raise ValueError(f"{path} holds no sample; give a file with at least one row")
    return {key: _ordered(path, rows) for key, rows in strata.items()}


def _complete(path: Path, line: int, row: Mapping[str, Any]) -> None:
    absent = [name for name in REQUIRED if name not in row]
    if absent:
        raise ValueError(
            f"{path}:{line}: the columns are {', '.join(map(str, row))}; a sample needs "
            f"{', '.join(REQUIRED)}, so add or rename {', '.join(absent)}"
        )
    empty = [name for name in REQUIRED if row[name] in (None, "")]
    if empty:
        raise ValueError(f"{path}:{line}: {empty[0]} is empty; give it a value, or drop the row")


def _ordered(path: Path, rows: list[Row]) -> list[Row]:
    """Return the rows by question, sample and step, questions in the order of the file."""
    number = _numbers(rows)
    seen: dict[tuple[int, int, int], Row] = {}
    for line, row in rows:
        sample, step = (_whole(path, line, row, name) for name in ("sample", "step"))
        if step < 0:
            raise ValueError(f"{path}:{line}: step is {step}; it must be at least 0")
        key = (number[str(row["question"])], sample, step)
        if key in seen:
            where = f", step {step}" if step else ""
            raise ValueError(
                f"{path}:{line}: question {str(row['question'])!r}, sample {sample}{where} is also "
                f"on line {seen[key][0]}; keep one"
            )
        seen[key] = (line, row)
    for (question, sample, step), (line, row) in seen.items():
        if step and (question, sample, step - 1) not in seen:
            raise ValueError(
                f"{path}:{line}: question {str(row['question'])!r}, sample {sample} has step "
                f"{step} but no step {step - 1}; number the steps from 0"
            )
    return [seen[key] for key in sorted(seen)]


def _numbers(rows: list[Row]) -> dict[str, int]:
    names = dict.fromkeys(str(row["question"]) for _, row in rows)
    return {name: i for i, name in enumerate(names)}


def _chains(path: Path | str, rows: list[Row]) -> Chains | None:
    several: list[list[Row]] = []
    for row in rows:
        if _whole(path, *row, "step"):
            several[-1].append(row)
        else:
            several.append([row])
    several = [chain for chain in several if len(chain) > 1]
    if not several:
        return None
    number = _numbers(rows)
    most = max(len(chain) for chain in several)
    padded = [chain + [chain[-1]] * (most - len(chain)) for chain in several]
    alive = np.arange(most) < np.array([[len(chain)] for chain in several])

    def whole(name: str) -> np.ndarray:
        return np.array([[_whole(path, *row, name) for row in chain] for chain in padded], np.int64)

    return Chains(
        question=np.array([number[str(chain[0][1]["question"])] for chain in several], np.int64),
        answer=whole("answer"),
        correct=np.array([[_flag(path, *row, "correct") for row in chain] for chain in padded]),
        tokens=np.where(alive, whole("tokens"), 0),
        alive=alive,
    )


def _traces(path: Path | str, rows: list[Row]) -> Traces:
    number = _numbers(rows)
    rows = [row for row in rows if not _whole(path, *row, "step")]

    def whole(name: str) -> np.ndarray:
        return np.array([_whole(path, *row, name) for row in rows], np.int64)

    def real(name: str) -> np.ndarray:
        return np.array([_real(path, *row, name) for row in rows])

    held = rows[0][1]
    return Traces(
        question=np.array([number[str(row["question"])] for _, row in rows], np.int64),
        answer=whole("answer"),
        tokens=whole("tokens"),
        correct=np.array([_flag(path, *row, "correct") for row in rows]),
        questions=tuple(number),
        scores={key.removeprefix("score:"): real(key) for key in held if key[:6] == "score:"},
        markers={name: whole(name) for name in MARKERS if name in held},
        capped=np.array([_flag(path, *row, "capped") for row in rows])
        if "capped" in held
        else None,
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    data = path.read_bytes()
    name = path.name.removesuffix(".gz")
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    if name.endswith(".jsonl"):
        for line, content in enumerate(text.splitlines(), 1):
            try:
                row = json.loads(content)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}:{line}:{error.colno}: {error.msg}; mend the line"
                ) from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{line}:1: a line must be a JSON object; mend the line")
            yield line, row
        return
    reader = csv.DictReader(io.StringIO(text))
    for row in reader:
        if None in row:
            raise ValueError(
                f"{path}:{reader.line_num}: the row has more cells than the header; mend the line"
            )
        yield reader.line_num, dict(row)


def _whole(path: Path | str, line: int, row: Mapping[str, Any], name: str) -> int:
    if name == "step" and name not in row:
        return 0
    value = _real(path, line, row, name)
    if value != int(value) or abs(value) > EXACT:
        raise ValueError(
            f"{path}:{line}: {name} is {row[name]!r}; it must be a whole number of at most 2**53"
        )
    return int(value)


def _real(path: Path | str, line: int, row: Mapping[str, Any], name: str) -> float:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}:{line}: {name} is {row.get(name)!r}; it must be a finite number")
    return value


def _flag(path: Path | str, line: int, row: Mapping[str, Any], name: str) -> bool:
    value = str(row.get(name)).strip().lower()
    if value not in ("0", "1", "true", "false"):
        raise ValueError(f"{path}:{line}: {name} is {row.get(name)!r}; it must be 0 or 1")
    return value in ("1", "true")
