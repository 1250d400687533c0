"""Long data: one rating a row, with the level of every facet that took part in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from meristem_rasch._errors import DataError
from meristem_rasch._responses import Labels, Responses, codes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratings:
    """Scores with the levels of their facets."""

    score: Int[np.ndarray, " n"]
    facets: Mapping[str, tuple[str, ...]]  # labels of the levels
    codes: Mapping[str, Int[np.ndarray, " n"]]  # level of each rating
    weight: Float[np.ndarray, " n"]

    @classmethod
    def from_long(
        cls,
        score: ArrayLike,
        facets: Mapping[str, Labels],
        *,
        weight: ArrayLike | None = None,
    ) -> "Ratings":
        """Return ratings; each facet gives one level a rating. Equal rows are repeated ratings.

        Raises
        ------
        DataError
            If a score is not a non-negative integer, lengths differ, fewer than two facets are
            given, or a weight is negative or not finite.

        Examples
        --------
        >>> data = Ratings.from_long([0, 2], {"person": ["a", "b"], "rater": ["x", "x"]})
        >>> data.facets["person"]
        ('a', 'b')
        """
        values = np.asarray(score, dtype=float)
        lengths = {name: len(levels) for name, levels in facets.items()}
        if len(facets) < 2 or values.ndim != 1 or not len(values):
            raise DataError(f"facets {sorted(facets)} of {values.shape} scores; give two or more")
        if any(length != len(values) for length in lengths.values()):
            raise DataError(
                f"{len(values)} scores with facets of lengths {lengths}; one level each"
            )
        bad = ~np.isfinite(values) | (values < 0) | (values != np.floor(values))
        if bad.any():
            at = int(np.argmax(bad))
            raise DataError(
                f"rating {at + 1}: score {values[at]} is not a non-negative integer; recode it, or "
                "leave the row out"
            )
        w = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=float)
        if w.shape != values.shape or not np.isfinite(w).all() or (w < 0).any():
            raise DataError("weights must be finite and >= 0, one for each rating")
        coded = {name: codes(levels) for name, levels in facets.items()}
        return cls(
            score=values.astype(np.int64),
            facets={name: labels for name, (labels, _) in coded.items()},
            codes={name: code for name, (_, code) in coded.items()},
            weight=w,
        )

    def responses(self, person: str = "person", item: str = "item") -> Responses:
        """Return one facet's levels as persons and another's as items.

        Raises
        ------
        DataError
            If a facet is unknown, a rating has a weight other than 1, or a person is rated twice
            on an item: more facets take part, and `Facets` is the model.
        """
        for name in (person, item):
            if name not in self.facets:
                raise DataError(f"{name!r} is no facet; the facets are {list(self.facets)}")
        if (self.weight != 1).any():
            raise DataError("weighted ratings have no table; use `Facets`")
        columns = [
            np.array(self.facets[name], dtype=object)[self.codes[name]] for name in (person, item)
        ]
        return Responses.from_long(columns[0], columns[1], self.score)


def joint_codes(codes: list[Int[np.ndarray, " n"]]) -> Int[np.ndarray, " n"]:
    """Return one code for each combination that occurs, from 0."""
    out = np.zeros(len(codes[0]), dtype=np.int64)
    for code in codes:
        out = np.unique(out * (int(code.max()) + 1) + code, return_inverse=True)[1]
    return out
