"""Logs of lm-evaluation-harness: `samples_*.jsonl`, one line per (document, filter).

- the system is the folder of a file, the item is task/doc_id
- metric values are extra keys of a line, named in its `metrics`; filters are in `filter`
- files are opened for append by the harness, so a repeated document is refused, not averaged
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from meristem_rasch._errors import DataError
from meristem_rasch._readers import ScoreMatrix

NAME = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d{2}-\d{2}T[\d\-.:]+$")
Cells = dict[tuple[str, str], float]


def read_lm_eval(
    paths: Sequence[str | Path], *, metric: str | None = None, filter: str | None = None
) -> ScoreMatrix:
    """Return the score matrix of sample logs.

    Parameters
    ----------
    paths
        Files, or folders in which `samples_*.jsonl` are found at any depth.
    metric, filter
        Which to take where the logs hold several.

    Raises
    ------
    DataError
        If no log is found, several metrics or filters need a choice, a value is not a finite
        number, a document repeats within a system, equal items have different hashes, or two
        folders have one name.
    """
    files = [file for path in paths for file in _files(Path(path))]
    cells: Cells = {}
    hashes: dict[str, tuple[str, Path]] = {}
    folders: dict[str, Path] = {}
    for file in files:
        place = file.resolve().parent
        if folders.setdefault(place.name, place) != place:
            raise DataError(
                f"{folders[place.name]} and {place} would both be system {place.name!r}; rename "
                "one, or put the logs of one system into one folder"
            )
        _read(file, metric, filter, cells, hashes)
    persons = list(dict.fromkeys(person for person, _ in cells))
    items = list(dict.fromkeys(item for _, item in cells))
    row, column = ({name: k for k, name in enumerate(names)} for names in (persons, items))
    values = np.full((len(persons), len(items)), np.nan)
    for (person, item), value in cells.items():
        values[row[person], column[item]] = value
    return ScoreMatrix(values=values, persons=tuple(persons), items=tuple(items))


def is_lm_eval(path: str | Path) -> bool:
    """Return whether a path is such a log or a folder that holds one."""
    place = Path(path)
    if place.is_dir():
        return next(place.rglob("samples_*.jsonl"), None) is not None
    return place.name.startswith("samples_") and place.suffix == ".jsonl"


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path} not found; give a samples_*.jsonl file or a folder of them")
    found = [path] if path.is_file() else sorted(path.rglob("samples_*.jsonl"))
    if not found:
        raise DataError(f"{path} holds no samples_*.jsonl; run the harness with --log_samples")
    return found


def _read(
    file: Path,
    metric: str | None,
    wanted: str | None,
    cells: Cells,
    hashes: dict[str, tuple[str, Path]],
) -> None:
    match = NAME.match(file.stem)
    task = match["task"] if match else file.stem.removeprefix("samples_")
    system = file.resolve().parent.name
    lines = file.read_text("utf-8").splitlines()
    records = [_record(line, f"{file}:{k + 1}") for k, line in enumerate(lines) if line.strip()]
    filters = sorted({str(record.get("filter", "none")) for record in records})
    if wanted is None and len(filters) > 1:
        raise DataError(f"{file} holds filters {filters}; choose one with filter=")
    chosen = filters[0] if wanted is None else wanted
    if chosen not in filters:
        raise DataError(f"{file} has no filter {chosen!r}; there are {filters}")
    for k, record in enumerate(records):
        if str(record.get("filter", "none")) != chosen:
            continue
        where, item = f"{file}: record {k + 1}", f"{task}/{record['doc_id']}"
        if (system, item) in cells:
            raise DataError(
                f"{where}: document {item} repeats in system {system}; the file was appended to: "
                "keep one run"
            )
        cells[system, item] = _value(record, metric, where)
        _check_hash(record, item, file, hashes)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: {error.msg}; mend the line") from None
    if not isinstance(record, dict) or "doc_id" not in record:
        raise DataError(f"{where} has no doc_id; it is no log of lm-evaluation-harness")
    return cast("dict[str, Any]", record)


def _value(record: dict[str, Any], metric: str | None, where: str) -> float:
    names = list(record.get("metrics") or [])
    if metric is None:
        if len(names) != 1:
            raise DataError(f"{where} holds metrics {names}; choose one with metric=")
        metric = str(names[0])
    value = record.get(metric)
    if isinstance(value, bool):
        value = float(value)
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise DataError(f"{where}: {metric} is {value!r}, not a finite number; of {names}")
    return float(value)


def _check_hash(
    record: dict[str, Any], item: str, file: Path, hashes: dict[str, tuple[str, Path]]
) -> None:
    own = record.get("doc_hash")
    if own is None:
        return
    first = hashes.setdefault(item, (str(own), file))
    if first[0] != str(own):
        raise DataError(f"document {item} differs between {first[1]} and {file}; use one version")
