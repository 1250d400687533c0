"""What answers have in common beyond the measured ability, and persons out of order.

- Q3 (Yen 1984): correlations of the items' residuals; Q3* is the largest above the mean of all
  pairs (Christensen, Makransky & Horton 2017)
- contrasts: eigenvalues of these correlations; a first one well above what simulated answers give
  is a second dimension
- Guttman errors: pairs of item steps of which a person passes the rarer and fails the commoner
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from meristem_rasch._calibration import Calibration
from meristem_rasch._errors import DataError
from meristem_rasch._fit import q3
from meristem_rasch._responses import Responses


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dependence:
    """Local dependence of items."""

    items: tuple[str, ...]
    q3: Float[np.ndarray, "I I"]  # NaN where two items share no informative person
    mean: float  # over the pairs of items that share persons
    q3_star: float  # largest minus mean
    pair: tuple[str, str]  # with the largest Q3
    contrasts: Float[np.ndarray, " c"]  # eigenvalues, descending; empty where Q3 has a gap


def residual_dependence(cal: Calibration, data: Responses) -> Dependence:
    """Return Yen's Q3 with its largest excess and the residual contrasts.

    Raises
    ------
    DataError
        If no two items share informative persons.
    """
    values = q3(cal, data)
    first, second = np.triu_indices(len(data.items), k=1)
    pairs = values[first, second]
    known = np.isfinite(pairs)
    if not known.any():
        raise DataError("no two items are answered by persons in common; join or fit them apart")
    top = int(np.argmax(np.where(known, pairs, -np.inf)))
    mean = float(pairs[known].mean())
    whole = bool(np.isfinite(values).all())
    return Dependence(
        items=data.items,
        q3=values,
        mean=mean,
        q3_star=float(pairs[top]) - mean,
        pair=(data.items[int(first[top])], data.items[int(second[top])]),
        contrasts=np.linalg.eigvalsh(values)[::-1] if whole else np.empty(0),
    )


def guttman_errors(data: Responses) -> Int[np.ndarray, " N"]:
    """Return each person's number of Guttman errors among the answered items.

    Steps of polytomous items are x >= h; equally common steps make no error.

    Examples
    --------
    >>> guttman_errors(Responses.from_wide([[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0]]))
    array([0, 0, 2, 0])
    """
    item = np.repeat(np.arange(len(data.items)), data.max_score)
    step = np.concatenate([np.arange(1, top + 1) for top in data.max_score])
    scores = data.scores[:, item]
    seen, passed = scores >= 0, scores >= step
    common = (data.weight @ passed) / np.maximum(data.weight @ seen, 1e-300)
    order = np.argsort(-common, kind="stable")
    ranked = common[order]
    # failures among the strictly commoner steps
    start = np.searchsorted(-ranked, -ranked, side="left")
    failed = np.cumsum((seen & ~passed)[:, order], axis=1)
    before = np.concatenate([np.zeros((len(scores), 1), dtype=failed.dtype), failed], axis=1)
    return (before[:, start] * passed[:, order]).sum(axis=1)
