"""Responses cut down to what has finite estimates; what was taken out is returned beside them.

- an item with one score among the persons who carry information has an infinite difficulty
- so has the step into a category that none of them uses
- taking out either may leave further persons with an extreme score, so both go on until all is well
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from meristem_rasch._errors import ExistenceError
from meristem_rasch._responses import Responses


def drop_extreme(data: Responses) -> tuple[Responses, tuple[str, ...]]:
    """Return the responses without the items of one score, and these items' labels.

    Only persons with a weight and a raw score strictly between 0 and the largest possible count.
    All persons stay.

    Raises
    ------
    ExistenceError
        If no item is left.

    Examples
    --------
    >>> data = Responses.from_wide([[1, 1, 0], [1, 0, 1], [1, 0, 0]], items=["a", "b", "c"])
    >>> drop_extreme(data)[1]
    ('a',)
    """
    keep = np.ones(len(data.items), dtype=bool)
    while True:
        kept = data.select(items=keep)
        constant = _used(kept).sum(axis=1) < 2
        if not constant.any():
            return kept, tuple(data.items[i] for i in np.flatnonzero(~keep))
        keep[np.flatnonzero(keep)[constant]] = False
        if not keep.any():
            raise ExistenceError(
                "no item has two scores among persons without an extreme raw score; there is "
                "nothing to estimate: add persons or items"
            )


def collapse_null(data: Responses) -> tuple[Responses, dict[str, tuple[int, ...]]]:
    """Return the responses without unused categories, and the new score of each old one.

    A category that no person with information uses joins the one below, the lowest ones the first
    that is used; scores then count from 0 without a gap (psychotools' "downcode"). Items that have
    one score only are left as they are: see `drop_extreme`.

    Examples
    --------
    >>> data = Responses.from_wide([[0, 1], [2, 0], [2, 1], [0, 0]], items=["a", "b"])
    >>> collapse_null(data)[1]
    {'a': (0, 0, 1)}
    """
    codes = [np.arange(top + 1) for top in data.max_score]
    while True:
        used = _used(data)
        gap = ~used & (np.arange(used.shape[1]) <= data.max_score[:, None])
        bad = np.flatnonzero(gap.any(axis=1) & (used.sum(axis=1) > 1))
        if not len(bad):
            moved = {
                item: tuple(code.tolist())
                for item, code in zip(data.items, codes, strict=True)
                if (code != np.arange(len(code))).any()
            }
            return data, moved
        scores, largest = data.scores.copy(), data.max_score.copy()
        for i in bad:
            code = (np.cumsum(used[i, : largest[i] + 1]) - 1).clip(min=0)
            answered = scores[:, i] >= 0
            scores[answered, i] = code[scores[answered, i]]
            codes[i], largest[i] = code[codes[i]], code[-1]
        data = replace(data, scores=scores, max_score=largest)


def _used(data: Responses) -> Bool[np.ndarray, "I K"]:
    """Return which categories of each item persons with information use."""
    rows = (data.raw > 0) & (data.raw < data.possible) & (data.weight > 0)
    scores: Int[np.ndarray, "n I"] = data.scores[rows]
    width = int(data.max_score.max()) + 1
    return np.array([(scores == h).any(axis=0) for h in range(width)]).T
