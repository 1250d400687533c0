"""Which model and estimator the data ask for, and why."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from meristem_rasch import DataError

Model = Literal["rasch", "pcm", "rsm"]
Method = Literal["cml", "dual", "mml", "fractional"]

FEW_PATTERNS = 50  # sets of answered items; the conditional likelihood is a sum over them
MANY_SCORES = 1500  # summed largest scores above which the conditional Hessian takes minutes
MANY_STEPS = 20  # of one item; more leave categories that nobody reaches
FEW_SYSTEMS = 400  # systems as the items of the dual


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A model, an estimator and the reason, in words for a reader."""

    model: Model
    method: Method
    reason: str


def choose(
    values: Float[np.ndarray, "V I"], *, model: Model | None, method: Method | None
) -> Choice:
    """Return the user's choice, completed by what the data ask for.

    Parameters
    ----------
    values
        Scores, NaN = missing.

    Raises
    ------
    DataError
        If the choice does not go with the data.
    """
    seen = ~np.isnan(values)
    scores = values[seen]
    whole = bool((scores == np.round(scores)).all())
    largest = float(scores.max())
    fine = not whole or largest > MANY_STEPS
    if method == "fractional" or (method is None and model is None and fine):
        return Choice(
            model="rasch",
            method="fractional",
            reason="scores are fractions or have many steps (grades, pass rates), "
            "so a Rasch curve is fitted to them by quasi-likelihood",
        )
    if not whole:
        part = float(scores[scores != np.round(scores)][0])
        asked = f"model {model}" if method is None else f"method {method}"
        raise DataError(
            f"a score is {part:g}; {asked} takes whole scores; fractions need method fractional"
        )
    chosen: Model = model or ("pcm" if largest > 1 else "rasch")
    if chosen == "rasch" and largest > 1:
        raise DataError(f"scores reach {largest:g}, model rasch takes 0 and 1: use model pcm")
    steps = float(np.nanmax(values, axis=0).clip(min=1).sum())
    people, items = values.shape
    few = people <= FEW_SYSTEMS and people < items and largest <= 1
    if method == "dual" and largest > 1:
        raise DataError("method dual takes scores 0 and 1: use method cml or mml")
    if method == "dual" or (method is None and few and _patterns(seen.T) <= FEW_PATTERNS):
        return Choice(
            model=chosen,
            method="dual",
            reason=f"few systems ({people}) and many items ({items}): abilities are estimated by "
            "conditional likelihood given how many systems solve each item, which assumes nothing "
            "about the items' difficulties",
        )
    if method == "cml" or (
        method is None and _patterns(seen) <= FEW_PATTERNS and steps <= MANY_SCORES
    ):
        return Choice(
            model=chosen,
            method="cml",
            reason="difficulties are estimated by conditional likelihood given each system's raw "
            "score, which assumes nothing about how abilities are spread",
        )
    return Choice(
        model=chosen,
        method="mml",
        reason=f"{_patterns(seen):,} different sets of answered items: difficulties are estimated "
        "by marginal likelihood, which assumes normally spread abilities"
        if method is None
        else "marginal likelihood as asked; it assumes normally spread abilities",
    )


def _patterns(seen: np.ndarray) -> int:
    return len(np.unique(np.packbits(seen, axis=1), axis=0))
