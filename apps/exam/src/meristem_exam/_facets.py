"""Ratings in which more than systems and items take part: many-facet Rasch measurement.

- rows of a long table, or columns of scores beside columns of facets
- scores are counted from the lowest that occurs; a row without a score is counted, not used
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from meristem_exam._findings import Finding
from meristem_rasch import (
    BiasTable,
    DataError,
    FacetCalibration,
    Facets,
    FacetTable,
    Ratings,
    Table,
    read_table,
)

if TYPE_CHECKING:
    from meristem_exam._command import ExamConfig

ITEM = "item"  # name of the facet of score columns
ODD = 3.0  # standardised residual of an unexpected rating
MISFIT = 1.5  # infit
UNUSED = (
    "max_score", "weight", "method", "difficulty", "subject", "length", "answered", "group",
    "graders", "human", "metric", "filter",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RatingTable:
    """Ratings as they were read."""

    source: str
    ratings: Ratings  # scores from 0
    person: str
    steps: str | None  # facet whose levels have their own steps
    lowest: int  # what was taken from the scores
    missing: int  # rows without a score


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacetStudy:
    """The measures of all facets and what stands out."""

    table: RatingTable
    calibration: FacetCalibration
    bias: dict[tuple[str, str], BiasTable]  # of every two facets but the persons
    unexpected: int  # ratings beyond ODD

    @property
    def persons(self) -> FacetTable:
        """The facet that counts upwards."""
        return self.calibration.facets[self.table.person]

    @property
    def others(self) -> dict[str, FacetTable]:
        """The facets that count downwards."""
        every = self.calibration.facets
        return {name: facet for name, facet in every.items() if name != self.table.person}

    @property
    def findings(self) -> list[Finding]:
        """What a reader should take home, in plain sentences."""
        return [
            _spread(self),
            *(_apart(self, *each) for each in self.others.items()),
            _order(self),
            _misfit(self),
            *(_together(*each) for each in self.bias.items()),
            _odd(self),
        ]


def read_ratings(config: "ExamConfig") -> RatingTable:
    """Return the ratings of a configuration with facets.

    Raises
    ------
    DataError
        If a file, an option, a column or a value cannot be used; the message names it.
    """
    for name in UNUSED:
        if getattr(config, name) is not None:
            raise DataError(f"--{name.replace('_', '-')} does not go with --facet; leave it out")
    if len(config.sources) != 1 or config.layout == "lm-eval":
        raise DataError("--facet takes one table of ratings, not logs and not several files")
    table = read_table(config.sources[0])
    person = _column(table, "person", config.person)
    names, scored = [person, *config.facet], config.score or table.usual("score")
    if config.layout == "wide" or (scored is None and config.item):
        levels, score = _melted(table, names, config.item)
    else:
        levels = {name: table.text(name) for name in names} | _items(table, config.item)
        score = table.numbers(_column(table, "score", config.score))
    if len({*names}) < len(names):
        raise DataError(f"--facet {' '.join(config.facet)}: one is named twice, or is the person")
    return _rated(config, levels, score, person)


def _column(table: Table, kind: Literal["person", "score"], given: str | None) -> str:
    found = given or table.usual(kind)
    if found is None:
        raise DataError(
            f"{table.source}: no column for {kind} among {list(table.columns)}; name it with "
            f"--{kind}"
        )
    return found


def _items(table: Table, given: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the items of a long table as one more facet, an empty one where there are none."""
    usual = table.usual("item")
    names = given or ((usual,) if usual else ())
    if not names:
        return {}
    parts = [table.text(name) for name in names]
    return {"/".join(names): [" ".join(row) for row in zip(*parts, strict=True)]}


def _melted(
    table: Table, names: list[str], items: tuple[str, ...]
) -> tuple[dict[str, list[str]], Float[np.ndarray, " n"]]:
    """Return columns of scores one below the other, with their names as a facet."""
    if not items:
        raise DataError("--layout wide: name the columns of scores with --item")
    levels = {name: table.text(name) * len(items) for name in names}
    levels[ITEM] = [name for name in items for _ in range(len(table))]
    return levels, np.concatenate([table.numbers(name) for name in items])


def _rated(
    config: "ExamConfig",
    levels: dict[str, list[str]],
    score: Float[np.ndarray, " n"],
    person: str,
) -> RatingTable:
    source = config.sources[0]
    seen = np.flatnonzero(~np.isnan(score))
    if not len(seen):
        raise DataError(f"{source}: no row has a score")
    for name, values in levels.items():
        blank = next((row for row in seen if not values[row].strip()), None)
        if blank is not None:
            raise DataError(
                f"{source}: the score of row {blank % len(values) + 1} has no {name}; "
                "name it, or leave the row out"
            )
    lowest = float(score[seen].min())
    ratings = Ratings.from_long(
        score[seen] - lowest,
        {name: [values[row] for row in seen] for name, values in levels.items()},
    )
    return RatingTable(
        source=source,
        ratings=ratings,
        person=person,
        steps=_step_facet(config, ratings, list(levels)[len(config.facet) + 1 :]),
        lowest=int(lowest),
        missing=len(score) - len(seen),
    )


def _step_facet(config: "ExamConfig", ratings: Ratings, items: list[str]) -> str | None:
    """Return the items if they have steps of their own: by the model, or by unequal scales."""
    top = int(ratings.score.max())
    if config.model == "rasch" and top > 1:
        raise DataError(f"--model rasch takes scores 0 and 1, not {top}; take rsm or pcm")
    if config.model == "pcm" and not items:
        raise DataError("--model pcm gives each item steps of its own; name items with --item")
    if not items:
        return None
    (item,) = items
    tops = np.zeros(len(ratings.facets[item]), dtype=np.int64)
    np.maximum.at(tops, ratings.codes[item], ratings.score)
    unequal = config.model is None and len(set(tops.tolist())) > 1
    return item if config.model == "pcm" or unequal else None


def rate(table: RatingTable) -> FacetStudy:
    """Return the measures of all facets, and the combinations of two that stand out.

    Raises
    ------
    ExistenceError, IdentificationError
        If the ratings do not identify the measures.
    """
    found = Facets(person=table.person, steps=table.steps).fit(table.ratings)
    others = [name for name in found.facets if name != table.person]
    return FacetStudy(
        table=table,
        calibration=found,
        bias={pair: found.bias(*pair) for pair in combinations(others, 2)},
        unexpected=len(found.unexpected(ODD)),
    )


def _spread(study: FacetStudy) -> Finding:
    facet = study.persons
    return Finding(
        f"{len(facet.labels):,} levels of {study.table.person} are measured with reliability "
        f"{facet.reliability:.2f}, corrected for everything else that took part.",
        True if facet.reliability >= 0.8 else None if facet.reliability >= 0.5 else False,
    )


def _apart(study: FacetStudy, name: str, facet: FacetTable) -> Finding:
    high, low = int(np.argmax(facet.measure)), int(np.argmin(facet.measure))
    lowest = study.table.lowest
    text = (
        f"{name}: {facet.labels[high]} is hardest to score with and {facet.labels[low]} easiest; "
        f"for the same performance they give {facet.fair[high] + lowest:.2f} and "
        f"{facet.fair[low] + lowest:.2f} on average"
    )
    spread = float(np.std(study.persons.measure))
    if facet.p >= 0.05:
        return Finding(f"{text}, no more apart than chance makes levels (p = {facet.p:.2g}).", True)
    share = float(np.ptp(facet.measure)) / spread if spread else np.inf
    return Finding(
        f"{text}, {share:.1f} standard deviations of {study.table.person} apart.",
        None if share < 1 else False,
    )


def _order(study: FacetStudy) -> Finding:
    """How far the order by raw means is from the order by fair means."""
    facet = study.persons
    raw, fair = (rankdata(-x.round(6)) for x in (facet.observed, facet.measure))  # ties share
    moved = np.abs(raw - fair)
    most = int(np.argmax(moved))
    share = float(np.mean(moved > 0.05 * len(moved)))
    if not share:
        return Finding("The order by mean scores is that of the measures.", True)
    return Finding(
        f"Ordered by measures instead of mean scores, {share:.0%} of {study.table.person} move by "
        f"more than a twentieth of the list; {facet.labels[most]} moves most, from place "
        f"{raw[most]:,.0f} to {fair[most]:,.0f}.",
        True if share < 0.05 else None,
    )


def _misfit(study: FacetStudy) -> Finding:
    erratic = [
        f"{name} {facet.labels[k]}"
        for name, facet in study.others.items()
        for k in np.argsort(-facet.infit)
        if facet.infit[k] > MISFIT
    ]
    if not erratic:
        return Finding(f"No level of any facet is erratic (infit above {MISFIT}).", True)
    return Finding(
        f"Erratic (infit above {MISFIT}), so that no correction of severity mends them: "
        f"{', '.join(erratic[:5])}{f' and {len(erratic) - 5} more' if len(erratic) > 5 else ''}.",
        None,
    )


def _together(pair: tuple[str, str], found: BiasTable) -> Finding:
    sure = np.flatnonzero(found.p_holm < 0.05)
    words = f"{len(found.bias):,} combinations of {pair[0]} and {pair[1]}"
    if not len(sure):
        return Finding(f"None of {words} scores otherwise than its parts say.", True)
    first = sure[np.argmax(np.abs(found.z[sure]))]
    return Finding(
        f"{len(sure):,} of {words} score otherwise than their parts say, surest "
        f"{found.first[first]} with {found.second[first]} ({found.bias[first]:+.2f} logits).",
        None,
    )


def _odd(study: FacetStudy) -> Finding:
    total = len(study.table.ratings.score)
    share = study.unexpected / total
    return Finding(
        f"{study.unexpected:,} of {total:,} ratings ({share:.2%}) are further than {ODD:.0f} "
        "standard errors from what the measures expect; about 0.3 % are by chance alone.",
        True if share < 0.01 else None,
    )
