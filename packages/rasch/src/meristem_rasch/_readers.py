"""Evaluation results from files: wide and long tables in CSV, JSONL and Parquet.

- a wide table has one row a person and one column an item; a long one has one row an answer
- CSV and JSONL need nothing (`.gz` too); Parquet needs the extra `frame`
- nothing is guessed away: a cell that is neither a number nor missing is named and refused
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Float

from meristem_rasch._errors import DataError
from meristem_rasch._ratings import Ratings
from meristem_rasch._responses import Responses

Layout = Literal["auto", "wide", "long"]
MISSING = ("", "NA", "NaN", "nan", "null", "None")
Kind = Literal["person", "item", "score"]
USUAL: dict[Kind, tuple[str, ...]] = {
    "person": ("person", "system", "model", "student", "examinee", "subject_id", "name"),
    "item": ("item", "question_id", "question", "task", "doc_id", "item_id", "problem"),
    "score": (
        "score", "correct", "pass@1", "Pass@1", "resp", "response", "accuracy", "acc", "value",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Columns of one length, as text or numbers."""

    source: str
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), list[Any]()))

    def text(self, name: str) -> list[str]:
        """Return a column as text."""
        return ["" if x is None else str(x) for x in self._column(name)]

    def numbers(self, name: str, *, missing: Sequence[str] = MISSING) -> Float[np.ndarray, " n"]:
        """Return a column as numbers, NaN where missing.

        Raises
        ------
        DataError
            If a cell is neither a number nor missing; names row and value.
        """
        return np.array(
            [
                _number(x, missing, f"{self.source}: row {row + 1}, column {name}")
                for row, x in enumerate(self._column(name))
            ]
        )

    def usual(self, kind: Kind) -> str | None:
        """Return the first column that has one of the usual names of its kind."""
        return next((name for name in USUAL[kind] if name in self.columns), None)

    def _column(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise DataError(f"{self.source}: no column {name!r}; there are {list(self.columns)}")
        return self.columns[name]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreMatrix:
    """Scores of persons on items, whole numbers or fractions; NaN = missing."""

    values: Float[np.ndarray, "N I"]
    persons: tuple[str, ...]
    items: tuple[str, ...]

    def responses(self, *, max_score: Sequence[int] | None = None) -> Responses:
        """Return the matrix as responses; raises DataError where a score is not an integer."""
        return Responses.from_wide(
            self.values, persons=self.persons, items=self.items, max_score=max_score
        )


def read_table(path: str | Path) -> Table:
    """Return the columns of a `.csv`, `.tsv`, `.jsonl` or `.parquet` file, plain or `.gz`.

    Raises
    ------
    DataError
        If there is no such file, its kind is unknown, it is empty, a row has another number of
        cells than the header, or a header name repeats.
    """
    file = Path(path)
    if not file.exists():
        raise DataError(f"{path} not found; give a .csv, .tsv, .jsonl or .parquet file")
    kind = Path(file.name.removesuffix(".gz")).suffix.lower()
    if kind == ".parquet":
        columns = _parquet(file)
    elif kind in (".csv", ".tsv", ".txt"):
        columns = _csv(_lines(file), str(path))
    elif kind in (".jsonl", ".ndjson"):
        columns = _jsonl(_lines(file), str(path))
    else:
        raise DataError(f"{path}: give a .csv, .tsv, .jsonl or .parquet file")
    if not columns or not next(iter(columns.values())):
        raise DataError(f"{path}: no rows; give a header and at least one row")
    return Table(source=str(path), columns=columns)


def read_scores(
    path: str | Path | Table,
    *,
    layout: Layout = "auto",
    person: str | None = None,
    item: str | None = None,
    score: str | None = None,
    missing: Sequence[str] = MISSING,
) -> ScoreMatrix:
    """Return the score matrix of a table.

    Parameters
    ----------
    layout
        "wide", "long", or "auto": long where columns for person, item and score are named or
        have one of their usual names.
    person, item, score
        Column names; a wide table uses `person` for its labels, default a first column of text.
    missing
        Cells that stand for no answer.

    Raises
    ------
    DataError
        If a column is missing, a cell is no number, or a person answers an item twice.

    Examples
    --------
    >>> table = Table(source="t", columns={"model": ["a", "b"], "q1": ["1", "0"], "q2": ["0", ""]})
    >>> read_scores(table).values.tolist()
    [[1.0, 0.0], [0.0, nan]]
    """
    table = path if isinstance(path, Table) else read_table(path)
    names = (
        person or table.usual("person"),
        item or table.usual("item"),
        score or table.usual("score"),
    )
    if layout == "long" or (layout == "auto" and all(names)):
        kinds = ("person", "item", "score")
        absent = [kind for kind, name in zip(kinds, names, strict=True) if name is None]
        if absent:
            raise DataError(
                f"{table.source}: no column for {', '.join(absent)} among {list(table.columns)}; "
                "name it"
            )
        return _long(table, str(names[0]), str(names[1]), str(names[2]), missing)
    return _wide(table, person, missing)


def read_responses(path: str | Path, **options: Any) -> Responses:
    """Return whole-number responses of a file; options as `read_scores`."""
    return read_scores(path, **options).responses()


def read_ratings(
    path: str | Path | Table,
    *,
    score: str,
    facets: Sequence[str],
    weight: str | None = None,
    missing: Sequence[str] = MISSING,
) -> Ratings:
    """Return the ratings of a long table, one rating a row.

    Parameters
    ----------
    score, weight
        Columns of numbers.
    facets
        Columns of labels, two or more; their names are those of the facets.
    missing
        Cells that stand for no rating.

    Raises
    ------
    DataError
        If a column is absent, a level is empty, a score is missing or no whole number, or a weight
        is none.

    Examples
    --------
    >>> columns = {"essay": ["a", "a"], "rater": ["x", "y"], "points": ["2", "3"]}
    >>> read_ratings(Table(source="t", columns=columns), score="points",
    ...              facets=["essay", "rater"]).facets["rater"]
    ('x', 'y')
    """
    table = path if isinstance(path, Table) else read_table(path)
    values = table.numbers(score, missing=missing)
    if np.isnan(values).any():
        row = int(np.argmax(np.isnan(values))) + 1
        raise DataError(f"{table.source}: row {row} has no {score}; leave the row out")
    levels = {name: table.text(name) for name in facets}
    for name, labels in levels.items():
        empty = [row for row, label in enumerate(labels, start=1) if label.strip() in missing]
        if empty:
            raise DataError(f"{table.source}: row {empty[0]} has no {name}; name the level")
    weights = None if weight is None else table.numbers(weight, missing=missing)
    return Ratings.from_long(values, levels, weight=weights)


def _wide(table: Table, person: str | None, missing: Sequence[str]) -> ScoreMatrix:
    names = list(table.columns)
    if person is None and not _numeric(table.columns[names[0]], missing):
        person = names[0]
    people = table.text(person) if person else [f"{k + 1}" for k in range(len(table))]
    items = [name for name in names if name != person]
    if not items:
        raise DataError(f"{table.source}: no item columns besides {person!r}")
    values = np.column_stack([table.numbers(name, missing=missing) for name in items])
    _distinct(people, f"{table.source}: the label")
    return ScoreMatrix(values=values, persons=tuple(people), items=tuple(items))


def _long(table: Table, person: str, item: str, score: str, missing: Sequence[str]) -> ScoreMatrix:
    people, rows = _codes(table.text(person))
    items, columns = _codes(table.text(item))
    numbers = table.numbers(score, missing=missing)
    cell = rows * len(items) + columns
    _, first, count = np.unique(cell, return_index=True, return_counts=True)
    if (count > 1).any():
        at = int(first[np.argmax(count > 1)])
        raise DataError(
            f"{table.source}: {people[rows[at]]} answers {items[columns[at]]} "
            f"{int(count.max())} times; average the samples, or name a further column of items "
            f"that tells them apart: there are {list(table.columns)}"
        )
    values = np.full((len(people), len(items)), np.nan)
    values[rows, columns] = numbers
    return ScoreMatrix(values=values, persons=tuple(people), items=tuple(items))


def _codes(labels: Sequence[str]) -> tuple[list[str], np.ndarray]:
    place = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return list(place), np.array([place[label] for label in labels])


def _distinct(labels: Sequence[str], where: str) -> None:
    if len(set(labels)) != len(labels):
        seen: set[str] = set()
        twice = next(label for label in labels if label in seen or seen.add(label))
        raise DataError(f"{where} {twice!r} names two rows; labels must differ")


def _number(value: Any, missing: Sequence[str], where: str) -> float:
    if value is None or (isinstance(value, str) and value.strip() in missing):
        return float("nan")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: {value!r} is not a number; recode it or name it missing"
        ) from None
    if np.isinf(number):
        raise DataError(f"{where}: {value!r} is infinite; scores are finite")
    return number


def _numeric(values: Iterable[Any], missing: Sequence[str]) -> bool:
    try:
        for value in values:
            _number(value, missing, "")
    except DataError:
        return False
    return True


def _lines(file: Path) -> io.TextIOBase:
    data = file.read_bytes()
    if file.suffix == ".gz":
        data = gzip.decompress(data)
    try:
        return io.StringIO(data.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start} is not UTF-8; convert the file") from None


def _csv(lines: io.TextIOBase, source: str) -> dict[str, list[Any]]:
    first = lines.readline()
    lines.seek(0)
    separator = next((mark for mark in ",\t;" if mark in first), ",")
    rows = csv.reader(lines, delimiter=separator)
    header: list[str] = next(rows, list[str]())
    _distinct(header, f"{source}: the column")
    cells: list[list[Any]] = [[] for _ in header]
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"{source}: line {number} has {len(row)} cells, the header {len(header)}; mend it"
            )
        for column, cell in zip(cells, row, strict=True):
            column.append(cell)
    return dict(zip(header, cells, strict=True))


def _jsonl(lines: io.TextIOBase, source: str) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{source}: line {number}: {error.msg}; mend the line") from None
        if not isinstance(row, dict):
            raise DataError(f"{source}: line {number} is no object; give one object a line")
        rows.append(cast("dict[str, Any]", row))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _parquet(file: Path) -> dict[str, list[Any]]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(f"{file}: Parquet needs pip install 'meristem-rasch[frame]'") from None
    table = parquet.read_table(file)
    return {name: table.column(name).to_pylist() for name in table.column_names}
