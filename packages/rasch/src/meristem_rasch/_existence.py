"""Whether finite conditional estimates exist.

- every category of every item must occur among informative persons
- Fischer 1981: for 0/1 items the digraph i -> j, "someone solves i and not j", must be strongly
  connected; for thresholds (i,h) -> (j,l), "someone has x_i = h and x_j = l - 1", the same is
  sufficient
"""

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from meristem_rasch._errors import ExistenceError
from meristem_rasch._patterns import Pattern
from meristem_rasch._responses import Responses


def check_existence(data: Responses, groups: list[Pattern], *, each_item: bool = True) -> None:
    """Raise ExistenceError where an estimate is infinite, naming the items.

    With `each_item` every threshold is a parameter, so that every category must occur.

    For polytomous items a digraph that is not strongly connected is left to the fit, since the
    condition is only sufficient there.
    """
    rows = np.concatenate([group.rows for group in groups]) if groups else np.zeros(0, dtype=int)
    if not len(rows):
        raise ExistenceError(
            "no person has a raw score strictly between 0 and the largest possible, so the data "
            "hold no conditional information"
        )
    if not each_item:
        return
    scores = data.scores[rows]
    _check_categories(data, scores)
    if data.max_score.max() > 1:
        return
    parts, label = _components(scores)
    if parts > 1:
        sets = [
            ", ".join(data.items[i] for i in np.flatnonzero(label == part)) for part in range(parts)
        ]
        raise ExistenceError(
            "no finite estimates: the items fall into sets that no answers compare both ways: "
            + " | ".join(sets)
            + "; calibrate the sets apart or add persons"
        )


def _check_categories(data: Responses, scores: Int[np.ndarray, "n I"]) -> None:
    seen = np.array([(scores == h).any(axis=0) for h in range(int(data.max_score.max()) + 1)])
    lacking = ~seen & (np.arange(len(seen))[:, None] <= data.max_score)
    if lacking.any():
        i = int(np.argmax(lacking.any(axis=0)))
        raise ExistenceError(
            f"item {data.items[i]}: no informative person scores "
            f"{np.flatnonzero(lacking[:, i]).tolist()}; its estimates are infinite: see "
            "drop_extreme for such items and collapse_null for such categories"
        )


def _components(scores: Int[np.ndarray, "n I"]) -> tuple[int, Int[np.ndarray, " I"]]:
    """Return the strong components; rows are added only until all items are connected."""
    edges: Bool[np.ndarray, "I I"] = np.zeros((scores.shape[1],) * 2, dtype=bool)
    first, last = 0, 256
    while True:
        part = scores[first:last]
        edges |= (part == 1).astype(np.float32).T @ (part == 0).astype(np.float32) > 0
        parts, label = connected_components(csr_array(edges), directed=True, connection="strong")
        if parts == 1 or last >= len(scores):
            return int(parts), label
        first, last = last, 4 * last
