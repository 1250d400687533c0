"""Persons x items: observed scores, labels, largest scores, weights.

- a score is an integer from 0 to the item's largest score; -1 marks a missing answer
- weights multiply a person's contribution: 2 is the same as the row twice, 0 as no row
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from meristem_rasch._errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Responses:
    """Scores of persons on items."""

    scores: Int[np.ndarray, "N I"]  # -1 = missing
    persons: tuple[str, ...]
    items: tuple[str, ...]
    max_score: Int[np.ndarray, " I"]
    weight: Float[np.ndarray, " N"]

    @classmethod
    def from_wide(
        cls,
        table: ArrayLike,
        *,
        persons: Sequence[object] | None = None,
        items: Sequence[object] | None = None,
        max_score: Sequence[int] | Int[np.ndarray, " I"] | None = None,
        weight: ArrayLike | None = None,
    ) -> "Responses":
        """Return the responses of a table, persons in rows and items in columns; NaN = missing.

        Parameters
        ----------
        table
            Scores, shape (N, I): non-negative integers or NaN.
        persons, items
            Labels; default "1", "2", ... and "I1", "I2", ...
        max_score
            Largest possible score of each item; default the largest observed.
        weight
            Non-negative weight of each person, shape (N,); default 1.

        Raises
        ------
        DataError
            If a score is negative, infinite, not an integer or above its item's largest score; if
            an item has no answer; if labels repeat; if a weight is negative or not finite.

        Examples
        --------
        >>> Responses.from_wide([[0, 1], [1, float("nan")]]).raw
        array([1, 1])
        """
        raw = np.asarray(table, dtype=float)
        if raw.ndim != 2 or 0 in raw.shape:
            raise DataError(f"the table has shape {raw.shape}; give persons x items, both >= 1")
        names = _labels(items, raw.shape[1], "I", "items")
        people = _labels(persons, raw.shape[0], "", "persons")
        _check_scores(raw, people, names)
        scores = np.where(np.isnan(raw), -1, raw).astype(np.int32)
        largest = _largest(scores, max_score, people, names)
        weights = np.ones(len(raw)) if weight is None else np.asarray(weight, dtype=float)
        _check_weight(weights, people)
        return cls(scores=scores, persons=people, items=names, max_score=largest, weight=weights)

    @classmethod
    def from_long(
        cls,
        person: Sequence[object],
        item: Sequence[object],
        score: ArrayLike,
        *,
        max_score: Sequence[int] | None = None,
    ) -> "Responses":
        """Return the responses of (person, item, score) triples, labels in order of appearance.

        Raises
        ------
        DataError
            If lengths differ or a person answers an item twice; else as `from_wide`.

        Examples
        --------
        >>> Responses.from_long(["a", "b", "a"], ["x", "x", "y"], [1, 0, 2]).scores
        array([[ 1,  2],
               [ 0, -1]], dtype=int32)
        """
        values = np.asarray(score, dtype=float)
        if not len(person) == len(item) == len(values):
            raise DataError(
                f"{len(person)} persons, {len(item)} items and {len(values)} scores; "
                "give columns of one length"
            )
        people = {label: row for row, label in enumerate(dict.fromkeys(map(str, person)))}
        names = {label: column for column, label in enumerate(dict.fromkeys(map(str, item)))}
        rows = np.array([people[str(label)] for label in person])
        columns = np.array([names[str(label)] for label in item])
        _, first, count = np.unique(
            rows * len(names) + columns, return_index=True, return_counts=True
        )
        if (count > 1).any():
            at = first[np.argmax(count > 1)]
            raise DataError(
                f"person {person[at]!s} answers item {item[at]!s} more than once; "
                "keep one answer or give the occasions different item labels"
            )
        table = np.full((len(people), len(names)), np.nan)
        table[rows, columns] = values
        return cls.from_wide(table, persons=list(people), items=list(names), max_score=max_score)

    @property
    def mask(self) -> Bool[np.ndarray, "N I"]:
        """True where an answer was observed."""
        return self.scores >= 0

    @property
    def raw(self) -> Int[np.ndarray, " N"]:
        """Sum of each person's observed scores."""
        return np.where(self.mask, self.scores, 0).sum(axis=1)

    @property
    def possible(self) -> Int[np.ndarray, " N"]:
        """Largest raw score each person could reach on the answered items."""
        return self.mask.astype(np.int64) @ self.max_score.astype(np.int64)

    def select(self, persons: Any = None, items: Any = None) -> "Responses":
        """Return the responses of some persons and items (indices or boolean masks)."""
        rows: Int[np.ndarray, " n"] = np.arange(len(self.persons), dtype=np.int64)[
            slice(None) if persons is None else persons
        ]
        columns: Int[np.ndarray, " i"] = np.arange(len(self.items), dtype=np.int64)[
            slice(None) if items is None else items
        ]
        return Responses(
            scores=self.scores[np.ix_(rows, columns)],
            persons=tuple(self.persons[int(row)] for row in rows),
            items=tuple(self.items[int(column)] for column in columns),
            max_score=self.max_score[columns],
            weight=self.weight[rows],
        )

    def transpose(self) -> "Responses":
        """Return the dual of 0/1 responses: items answer persons, ability becomes -difficulty.

        A 1 of the dual is a 0 here, so that a dual item's difficulty is the person's ability.
        """
        if (self.max_score > 1).any():
            raise DataError("only 0/1 responses have a dual; dichotomise the scores first")
        if (self.weight != 1).any():
            raise DataError("weighted persons have no dual; expand or drop the weights")
        return Responses(
            scores=np.where(self.mask, 1 - self.scores, -1).T.astype(np.int32),
            persons=self.items,
            items=self.persons,
            max_score=np.ones(len(self.persons), dtype=np.int64),
            weight=np.ones(len(self.items)),
        )


def _labels(given: Sequence[object] | None, n: int, prefix: str, kind: str) -> tuple[str, ...]:
    labels = (
        tuple(f"{prefix}{k + 1}" for k in range(n)) if given is None else tuple(map(str, given))
    )
    if len(labels) != n:
        raise DataError(f"{len(labels)} labels for {n} {kind}; give one label each")
    if len(set(labels)) != n:
        twice = next(label for label in labels if labels.count(label) > 1)
        raise DataError(f"the label {twice!r} names two {kind}; labels must differ")
    return labels


def _check_scores(
    raw: Float[np.ndarray, "N I"], people: tuple[str, ...], names: tuple[str, ...]
) -> None:
    bad = ~np.isnan(raw) & (~np.isfinite(raw) | (raw < 0) | (raw != np.floor(raw)))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"person {people[row]}, item {names[column]}: score {raw[row, column]} is not a "
            "non-negative integer; recode it, or mark a missing answer as NaN"
        )


def _largest(
    scores: Int[np.ndarray, "N I"],
    given: Sequence[int] | Int[np.ndarray, " I"] | None,
    people: tuple[str, ...],
    names: tuple[str, ...],
) -> Int[np.ndarray, " I"]:
    observed = scores.max(axis=0).astype(np.int64)
    if (observed < 0).any():
        raise DataError(f"item {names[int(np.argmin(observed))]} has no answer; drop it")
    if given is None:
        return np.maximum(observed, 1)
    largest = np.asarray(given, dtype=np.int64)
    if largest.shape != observed.shape or (largest < 1).any():
        raise DataError(f"max_score must hold one integer >= 1 for each of {len(names)} items")
    if (observed > largest).any():
        column = int(np.argmax(observed > largest))
        row = int(np.argmax(scores[:, column]))
        raise DataError(
            f"person {people[row]}, item {names[column]}: score {observed[column]} is above "
            f"max_score {largest[column]}; raise max_score or correct the score"
        )
    return largest


def _check_weight(weight: Float[np.ndarray, " W"], people: tuple[str, ...]) -> None:
    if weight.shape != (len(people),):
        raise DataError(f"{len(weight)} weights for {len(people)} persons; give one each")
    bad = ~np.isfinite(weight) | (weight < 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"person {people[row]}: weight {weight[row]}; weights are finite and >= 0")
