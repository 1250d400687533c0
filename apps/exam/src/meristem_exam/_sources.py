"""Everything an exam is given: scores, and what is known about systems, items and graders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from meristem_rasch import (
    DataError,
    ScoreMatrix,
    Table,
    is_lm_eval,
    read_lm_eval,
    read_scores,
    read_table,
)

if TYPE_CHECKING:
    from meristem_exam._command import ExamConfig

WORDS = (  # ordered difficulty labels in use
    ("easy", "medium", "hard"),
    ("very easy", "easy", "medium", "hard", "very hard"),
    ("low", "medium", "high"),
    ("beginner", "intermediate", "advanced", "expert"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graders:
    """Ratings as a units x raters table; NaN = not rated."""

    table: Float[np.ndarray, "U R"]
    units: tuple[str, ...]
    raters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Scores of systems on items, and what else was given."""

    source: tuple[str, ...]
    matrix: ScoreMatrix
    max_score: Float[np.ndarray, " I"] | None = None
    weight: int | None = None
    difficulty: Float[np.ndarray, " I"] | None = None
    difficulty_names: tuple[str, ...] = ()  # of the ranks 1, 2, ... where labels were words
    subject: tuple[str, ...] | None = None
    length: Float[np.ndarray, "V I"] | None = None
    answered: Bool[np.ndarray, "V I"] | None = None
    group: tuple[str, ...] | None = None
    graders: Graders | None = None
    human: Graders | None = None


def read_evidence(config: "ExamConfig") -> Evidence:
    """Return what the files of a configuration hold.

    Raises
    ------
    DataError
        If a file, a column or a value cannot be used; the message names it.
    """
    if not config.sources:
        raise DataError("no source; give a score file or lm-evaluation-harness logs")
    first = next(iter(config.sources))
    raters = {name: None if path is None else _graders(path) for name, path in
              (("graders", config.graders), ("human", config.human))}  # fmt: skip
    if config.layout == "lm-eval" or (config.layout == "auto" and is_lm_eval(first)):
        matrix = read_lm_eval(config.sources, metric=config.metric, filter=config.filter)
        return _evidence(config, matrix, None, raters)
    if len(config.sources) > 1:
        raise DataError(f"{len(config.sources)} sources; give one table, or harness logs")
    table = _joined_items(read_table(first), config.item)
    item = "/".join(config.item) or None
    matrix = read_scores(
        table, layout=config.layout, person=config.person, item=item, score=config.score
    )
    return _evidence(config, matrix, table, raters)


def _evidence(
    config: "ExamConfig",
    matrix: ScoreMatrix,
    table: Table | None,
    raters: dict[str, Graders | None],
) -> Evidence:
    look = _Lookup(config, matrix, table)
    difficulty, names = look.difficulty()
    answered = look.cells(config.answered)
    return Evidence(
        source=tuple(config.sources),
        matrix=matrix,
        max_score=look.max_score(),
        weight=config.weight,
        difficulty=difficulty,
        difficulty_names=names,
        subject=look.by("item", config.subject),
        length=look.cells(config.length),
        answered=None if answered is None else answered != 0,
        group=look.by("person", config.group),
        graders=raters["graders"],
        human=raters["human"],
    )


def _joined_items(table: Table, names: Sequence[str]) -> Table:
    if len(names) < 2:
        return table
    parts = [table.text(name) for name in names]
    joined = [" ".join(row) for row in zip(*parts, strict=True)]
    return Table(source=table.source, columns={**table.columns, "/".join(names): joined})


class _Lookup:
    """Finds columns of a long table by person, by item or by cell."""

    def __init__(self, config: "ExamConfig", matrix: ScoreMatrix, table: Table | None) -> None:
        self.config, self.matrix, self.table = config, matrix, table
        self.person = self._label(config.person, matrix.persons)
        self.item = self._label("/".join(config.item) or None, matrix.items)

    def _label(self, name: str | None, labels: tuple[str, ...]) -> str | None:
        """Return the column whose values are these labels."""
        if self.table is None:
            return None
        wanted = set(labels)
        names = [name] if name else list(self.table.columns)
        return next((n for n in names if set(self.table.text(n)) == wanted), None)

    def _long(self, name: str) -> tuple[Table, list[int], list[int]]:
        if self.table is None or self.item is None or self.person is None:
            raise DataError(f"column {name!r} needs a long table with columns for person and item")
        rows = {label: k for k, label in enumerate(self.matrix.persons)}
        columns = {label: k for k, label in enumerate(self.matrix.items)}
        return (
            self.table,
            [rows[x] for x in self.table.text(self.person)],
            [columns[x] for x in self.table.text(self.item)],
        )

    def cells(self, name: str | None) -> Float[np.ndarray, "V I"] | None:
        """Return a numeric column laid out as the scores."""
        if name is None:
            return None
        table, rows, columns = self._long(name)
        out = np.full(self.matrix.values.shape, np.nan)
        out[rows, columns] = table.numbers(name)
        return out

    def by(self, kind: str, name: str | None) -> tuple[str, ...] | None:
        """Return a column that is constant within each person or item."""
        if name is None:
            return None
        if kind == "person" and self.item is None and self.table is not None:
            return tuple(self.table.text(name))  # a wide table: one row a person
        table, rows, columns = self._long(name)
        place, labels = (
            (rows, self.matrix.persons) if kind == "person" else (columns, self.matrix.items)
        )
        found: dict[int, str] = {}
        for k, value in zip(place, table.text(name), strict=True):
            if found.setdefault(k, value) != value:
                raise DataError(
                    f"column {name}: {labels[k]} has the values {found[k]!r} and {value!r}; a "
                    f"column of {kind}s has one value each"
                )
        return tuple(found[k] for k in range(len(labels)))

    def max_score(self) -> Float[np.ndarray, " I"] | None:
        """Return the largest possible score of each item."""
        given = self.config.max_score
        if given is None:
            return None
        try:
            return np.full(len(self.matrix.items), float(given))
        except ValueError:
            return _numbers(self.by("item", given) or (), f"column {given}")

    def difficulty(self) -> tuple[Float[np.ndarray, " I"] | None, tuple[str, ...]]:
        """Return a label for each item, NaN where none is given, and its words if it had any."""
        given = self.config.difficulty
        if given is None:
            return None, ()
        if self.table is not None and given in self.table.columns:
            return _ranked(self.by("item", given) or (), given)
        labels = read_table(given)
        known = dict(zip(labels.text("item"), labels.text("difficulty"), strict=True))
        unknown = [name for name in known if name not in self.matrix.items]
        if len(unknown) == len(known):
            raise DataError(f"{given}: no item of it is in the scores, such as {unknown[0]!r}")
        return _ranked(tuple(known.get(name, "") for name in self.matrix.items), given)


def _ranked(values: Sequence[str], where: str) -> tuple[Float[np.ndarray, " I"], tuple[str, ...]]:
    lowered = [value.strip().lower() for value in values]
    for words in WORDS:
        if set(lowered) - {""} <= set(words):
            rank = {word: float(k + 1) for k, word in enumerate(words)}
            return np.array([rank.get(value, np.nan) for value in lowered]), words
    return _numbers(values, where), ()


def _numbers(values: Sequence[str], where: str) -> Float[np.ndarray, " I"]:
    return Table(source=where, columns={"value": list(values)}).numbers("value")


def _graders(path: Path) -> Graders:
    table = read_table(path)
    units = table.text("unit")
    if "criterion" in table.columns:
        units = [" ".join(pair) for pair in zip(units, table.text("criterion"), strict=True)]
    columns = {"unit": units, "rater": table.text("rater"), "score": table.columns["score"]}
    found = read_scores(
        Table(source=str(path), columns=columns), layout="long", person="unit", item="rater"
    )
    return Graders(table=found.values, units=found.persons, raters=found.items)
