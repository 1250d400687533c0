"""Persons x items: observed scores, labels, largest scores, weights.

- a score is an integer from 0 to the item's largest score; -1 marks a missing answer; a cell takes
  one byte where the scores fit
- weights multiply a person's contribution: 2 is the same as the row twice, 0 as no row
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped
from numpy.typing import ArrayLike

from meristem_rasch._errors import DataError

COUNTED = 250_000  # cells counted at once: two megabytes as floats stay in the cache

Labels = Sequence[object] | Shaped[np.ndarray, " n"]


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
        persons: Labels | None = None,
        items: Labels | None = None,
        max_score: Sequence[int] | Int[np.ndarray, " I"] | None = None,
        weight: ArrayLike | None = None,
        missing: Sequence[float | int] = (),
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
        missing
            Numbers besides NaN that stand for no answer, such as 9 or -1.

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
        raw = _numbers(table)
        if raw.ndim != 2 or 0 in raw.shape:
            raise DataError(f"the table has shape {raw.shape}; give persons x items, both >= 1")
        if missing:
            raw = np.where(np.isin(raw, missing), np.nan, raw)
        names = _labels(items, raw.shape[1], "I", "items")
        people = _labels(persons, raw.shape[0], "", "persons")
        _check_scores(raw, people, names)
        scores = _smallest(raw)
        largest = _largest(scores, max_score, people, names)
        weights = np.ones(len(raw)) if weight is None else np.asarray(weight, dtype=float)
        _check_weight(weights, people)
        return cls(scores=scores, persons=people, items=names, max_score=largest, weight=weights)

    @classmethod
    def from_long(
        cls,
        person: Labels,
        item: Labels,
        score: ArrayLike,
        *,
        max_score: Sequence[int] | None = None,
        weight: Mapping[str, float] | None = None,
    ) -> "Responses":
        """Return the responses of (person, item, score) triples, labels in order of appearance.

        Parameters
        ----------
        max_score
            Largest possible score of each item, in the order of appearance.
        weight
            Weight of every person by label; default 1.

        Raises
        ------
        DataError
            If lengths differ, a person answers an item twice or has no weight; else as `from_wide`.

        Examples
        --------
        >>> Responses.from_long(["a", "b", "a"], ["x", "x", "y"], [1, 0, 2]).scores
        array([[ 1,  2],
               [ 0, -1]], dtype=int8)
        """
        values = _numbers(score)
        if not len(person) == len(item) == len(values):
            raise DataError(
                f"{len(person)} persons, {len(item)} items and {len(values)} scores; "
                "give columns of one length"
            )
        people, rows = codes(person)
        names, columns = codes(item)
        _check_pairs(rows * len(names) + columns, person, item)
        answered = np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
        bad = ~(answered | np.isnan(values)) | (values < 0) | (values != np.floor(values))
        if bad.any():
            at = int(np.argmax(bad))
            raise DataError(_bad_score(str(person[at]), str(item[at]), float(values[at])))
        top = int(values[answered].max(initial=0))
        table = np.full((len(people), len(names)), -1, dtype=_dtype(top))
        table[rows[answered], columns[answered]] = values[answered]
        largest = _largest(table, max_score, people, names)
        weights = np.ones(len(people)) if weight is None else _weights(weight, people)
        return cls(scores=table, persons=people, items=names, max_score=largest, weight=weights)

    @property
    def mask(self) -> Bool[np.ndarray, "N I"]:
        """True where an answer was observed."""
        return self.scores >= 0

    @property
    def complete(self) -> bool:
        """True where nobody misses an answer."""
        return bool(self.scores.min() >= 0)

    @property
    def raw(self) -> Int[np.ndarray, " N"]:
        """Sum of each person's observed scores."""
        total = np.einsum("ij->i", self.scores, dtype=np.int64)  # twice as fast as sum
        return total if self.complete else total + len(self.items) - self.answered

    @property
    def answered(self) -> Int[np.ndarray, " N"]:
        """Number of each person's observed answers."""
        return np.count_nonzero(self.scores >= 0, axis=1)

    @property
    def category_counts(self) -> Float[np.ndarray, "I K"]:
        """Weighted number of answers in each category 0...K - 1, K - 1 the largest max_score."""
        out = np.zeros((len(self.items), int(self.max_score.max()) + 1))
        size = max(1, COUNTED // len(self.items))
        for at in range(0, len(self.scores), size):
            part, weight = self.scores[at : at + size], self.weight[at : at + size]
            for k in range(out.shape[1]):
                out[:, k] += weight @ (part == k)
        return out

    @property
    def possible(self) -> Int[np.ndarray, " N"]:
        """Largest raw score each person could reach on the answered items."""
        if self.complete:
            return np.full(len(self.persons), self.max_score.sum(), dtype=np.int64)
        mask, out = self.mask, np.zeros(len(self.persons), dtype=np.int64)
        for top in np.unique(self.max_score):
            same = self.max_score == top
            out += top * (mask if same.all() else mask[:, same]).sum(axis=1)
        return out

    def wide(self) -> Float[np.ndarray, "N I"]:
        """Return the scores as numbers, NaN where missing: what `from_wide` takes."""
        return np.where(self.mask, self.scores, np.nan)

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
            scores=np.where(self.mask, 1 - self.scores, -1).T.astype(np.int8),
            persons=self.items,
            items=self.persons,
            max_score=np.ones(len(self.persons), dtype=np.int64),
            weight=np.ones(len(self.items)),
        )


def _labels(given: Labels | None, n: int, prefix: str, kind: str) -> tuple[str, ...]:
    if given is None:
        return tuple([f"{prefix}{k}" for k in range(1, n + 1)])
    labels = tuple(map(str, given))
    if len(labels) != n:
        raise DataError(f"{len(labels)} labels for {n} {kind}; give one label each")
    if len(set(labels)) != n:
        twice = next(label for label in labels if labels.count(label) > 1)
        raise DataError(f"the label {twice!r} names two {kind}; labels must differ")
    return labels


def codes(labels: Labels) -> tuple[tuple[str, ...], Int[np.ndarray, " n"]]:
    """Return the distinct labels as text, in order of appearance, and each one's number."""
    values = np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "iubfUS":
        values = np.array([str(label) for label in labels])
    distinct, first, code = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return tuple(str(label) for label in distinct[order]), rank[code.ravel()]


def _numbers(values: ArrayLike) -> Num[np.ndarray, "..."]:
    table = np.asarray(values)
    if table.dtype == bool:
        return table.astype(np.int8)
    return table if table.dtype.kind in "iu" else np.asarray(table, dtype=float)


def _dtype(top: int) -> type[np.signedinteger[Any]]:
    return np.int8 if top < 128 else np.int16 if top < 32768 else np.int32


def _smallest(raw: Num[np.ndarray, "N I"]) -> Int[np.ndarray, "N I"]:
    """Return the scores in the smallest integer type, missing ones as -1."""
    dtype = _dtype(int(np.nanmax(raw)) if not np.isnan(raw).all() else 0)
    if raw.dtype.kind != "f":
        return raw.astype(dtype)
    out = np.empty(raw.shape, dtype=dtype)
    for at in range(0, len(raw), 4096):  # no second float copy of a large table
        part = raw[at : at + 4096]
        out[at : at + 4096] = np.where(np.isnan(part), -1, part)
    return out


def _bad_score(person: str, item: str, score: float) -> str:
    return (
        f"person {person}, item {item}: score {score} is not a non-negative integer; recode it, "
        "or mark a missing answer as NaN"
    )


def _check_pairs(pair: Int[np.ndarray, " n"], person: Labels, item: Labels) -> None:
    order = np.argsort(pair, kind="stable")
    twice = np.flatnonzero(pair[order][1:] == pair[order][:-1])
    if len(twice):
        at = int(order[twice].min())
        raise DataError(
            f"person {person[at]!s} answers item {item[at]!s} more than once; "
            "keep one answer or give the occasions different item labels"
        )


def _check_scores(
    raw: Num[np.ndarray, "N I"], people: tuple[str, ...], names: tuple[str, ...]
) -> None:
    for at in range(0, len(raw), 4096):
        part = raw[at : at + 4096]
        bad = part < 0
        if raw.dtype.kind == "f":
            bad |= ~np.isnan(part) & (~np.isfinite(part) | (part != np.floor(part)))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            label = people[at + row]
            raise DataError(_bad_score(label, names[column], float(part[row, column])))


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


def _weights(given: Mapping[str, float], people: tuple[str, ...]) -> Float[np.ndarray, " N"]:
    absent = [name for name in people if name not in given]
    unknown = sorted(set(given).difference(people))
    if absent or unknown:
        raise DataError(
            f"persons without a weight: {absent[:5]}, weights of nobody: {unknown[:5]}; give every "
            "person's weight by label"
        )
    weights = np.array([float(given[name]) for name in people])
    _check_weight(weights, people)
    return weights


def _check_weight(weight: Float[np.ndarray, " W"], people: tuple[str, ...]) -> None:
    if weight.shape != (len(people),):
        raise DataError(f"{len(weight)} weights for {len(people)} persons; give one each")
    bad = ~np.isfinite(weight) | (weight < 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"person {people[row]}: weight {weight[row]}; weights are finite and >= 0")
