"""Persons grouped by which items they answered; the conditional likelihood adds up over groups."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from meristem_rasch._responses import Responses


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Informative persons who answered the same items."""

    rows: Int[np.ndarray, " n"]
    items: Int[np.ndarray, " i"]
    thresholds: Int[np.ndarray, " h"]  # numbers of the answered items' thresholds
    raw: Int[np.ndarray, " n"]
    scores: Int[np.ndarray, " S"]  # distinct raw scores with positive weight
    counts: Float[np.ndarray, " S"]  # weighted persons with each


def patterns(data: Responses) -> list[Pattern]:
    """Return the groups of persons with raw scores strictly between 0 and the possible."""
    raw = data.raw
    informative = (raw > 0) & (raw < data.possible) & (data.weight > 0)
    rows = np.flatnonzero(informative)
    if not len(rows):
        return []
    mask = data.mask
    if mask.all():
        return [_pattern(data, raw, rows)]
    _, group = distinct_rows(np.packbits(mask[rows], axis=1))
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    return [_pattern(data, raw, rows[part]) for part in np.split(order, edges)]


def _pattern(data: Responses, raw: Int[np.ndarray, " N"], rows: Int[np.ndarray, " n"]) -> Pattern:
    answered = data.scores[rows[0]] >= 0
    items = np.flatnonzero(answered)
    scores, where = np.unique(raw[rows], return_inverse=True)
    return Pattern(
        rows=rows,
        items=items,
        thresholds=np.flatnonzero(np.repeat(answered, data.max_score)),
        raw=raw[rows],
        scores=scores,
        counts=np.bincount(where, weights=data.weight[rows]),
    )


def distinct_rows(
    table: Shaped[np.ndarray, "N I"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " N"]]:
    """Return the first row of each kind, and each row's kind, by comparing rows as bytes."""
    rows = np.ascontiguousarray(table)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    first, kind = np.unique(keys, return_index=True, return_inverse=True)[1:]
    return first, kind.ravel()


def extreme_persons(data: Responses) -> tuple[str, ...]:
    """Return the labels of persons with the lowest or highest score possible, or no answer."""
    raw = data.raw
    extreme = (raw == 0) | (raw == data.possible)
    return tuple(data.persons[row] for row in np.flatnonzero(extreme))
