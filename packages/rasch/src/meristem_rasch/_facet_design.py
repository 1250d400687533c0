"""Ratings as the engine sees them: facets, interactions as facets of cells, constraints.

- one column of levels a facet and interaction; persons integrated out share one level, their mean
- "epsilon" adjusts every indicator so that no estimate is infinite
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from meristem_rasch._ascent import Vector
from meristem_rasch._connected import null_basis
from meristem_rasch._errors import DataError, ExistenceError
from meristem_rasch._newton_cg import Design
from meristem_rasch._ratings import Ratings
from meristem_rasch._subspaces import SMALL, Directions, Margins

Measures = Float[np.ndarray, " P"] | Float[np.ndarray, "P d"]
Correction = Literal["epsilon", "wright", "jackknife", "none"]
MOST_LEVELS = 5000  # of a group-anchored design: a full matrix of them is decomposed
MOST_CELLS = 20_000_000  # of the table of an interaction: 160 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a many-facet model consists of; the fields are those of `Facets`."""

    person: str
    steps: str | None
    interactions: Sequence[tuple[str, str]]
    marginal: bool
    epsilon: float  # 0: scores as they are
    extremes: bool  # whether persons may have extreme scores where scores are as they are
    anchors: Mapping[str, Mapping[str, float]]
    group_anchor: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """A facet or interaction."""

    name: str
    labels: tuple[str, ...]
    level: Int[np.ndarray, " n"]
    space: Margins | None = None


def build(plan: Plan, data: Ratings) -> tuple[Design, Vector, tuple[Column, ...]]:
    """Return the design of a model, a start that holds the anchors, and its columns.

    Raises
    ------
    DataError
        If the model names what the data lack, or contradicts itself.
    ExistenceError
        If a category of a step group is never used, or a level is extreme and stays so.
    """
    _check(plan, data)
    columns = _columns(plan, data)
    sizes = tuple(len(column.labels) for column in columns)
    group = data.codes[plan.steps] if plan.steps else np.zeros(len(data.score), dtype=np.int64)
    top = np.zeros(len(data.facets[plan.steps]) if plan.steps else 1, dtype=np.int64)
    np.maximum.at(top, group, data.score)
    _check_used(data, group, top, plan.steps)
    free, x = np.ones(sum(sizes), dtype=bool), np.zeros(sum(sizes) + len(top) * int(top.max()))
    start = 0
    for column in columns:
        for label, value in plan.anchors.get(column.name, {}).items():
            at = start + column.labels.index(label)
            free[at], x[at] = False, value
        start += len(column.labels)
    target, passed = _targets(plan, data, group, top)
    design = Design(
        levels=tuple(column.level for column in columns),
        sizes=sizes,
        signs=tuple(1.0 if column.name == plan.person else -1.0 for column in columns),
        group=group,
        top=top,
        weight=data.weight,
        target=target,
        passed=passed,
        free=free,
        spaces=tuple(column.space for column in columns),
    )
    if plan.group_anchor:
        design = _group_anchored(plan, design, columns)
    if not plan.epsilon:
        _check_extreme(plan, data, design, columns)
    return design, x, columns


def level_names(columns: tuple[Column, ...]) -> tuple[str, ...]:
    """Return "facet level" of all levels, column by column."""
    return tuple(f"{column.name} {label}" for column in columns for label in column.labels)


def centred(plan: Plan, design: Design, columns: tuple[Column, ...], x: Measures) -> Measures:
    """Return x, or its columns, with the mean of every loose facet but the persons at 0."""
    out = x.copy()
    if plan.anchors.get(plan.person):
        return out
    person = design.blocks[[column.name for column in columns].index(plan.person)]
    for f in design.loose:
        if columns[f].name != plan.person:
            shift = out[design.blocks[f]].mean(axis=0)
            out[design.blocks[f]] -= shift
            out[person] -= shift
    return out


def interaction_name(pair: tuple[str, str]) -> str:
    """Return the name of an interaction: "rater:item"."""
    return ":".join(pair)


def _check(plan: Plan, data: Ratings) -> None:
    inside = [name for pair in plan.interactions for name in pair]
    for name in (plan.person, *plan.anchors, *plan.group_anchor, *inside):
        if name not in data.facets:
            raise DataError(f"{name!r} is no facet; the facets are {list(data.facets)}")
    if plan.steps is not None and plan.steps not in data.facets:
        raise DataError(f"{plan.steps!r} is no facet; the facets are {list(data.facets)}")
    for name, held in plan.anchors.items():
        unknown = [label for label in held if label not in data.facets[name]]
        if unknown:
            raise DataError(
                f"anchor {unknown[0]!r} is no level of {name!r}: {data.facets[name][:6]}"
            )
        if not np.isfinite(list(held.values())).all():
            raise DataError(f"anchors {dict(held)} of {name!r} must be finite")
        if held and name in plan.group_anchor:
            raise DataError(f"{name!r} has anchors and is group-anchored; take one of the two")
    pairs = [frozenset(pair) for pair in plan.interactions]
    for pair, found in zip(plan.interactions, pairs, strict=True):
        if len(found) < 2 or pairs.count(found) > 1:
            raise DataError(f"interaction {pair} names a facet, or a pair, twice; give each once")
        if interaction_name(pair) in data.facets:
            raise DataError(f"{interaction_name(pair)!r} is a facet and an interaction; rename it")
    if plan.marginal and plan.person in (*plan.anchors, *plan.group_anchor, plan.steps, *inside):
        raise DataError(
            f"{plan.person!r} is integrated out by method 'mml', so that it takes no anchors, "
            "steps or interactions; use method 'jml'"
        )


def _columns(plan: Plan, data: Ratings) -> tuple[Column, ...]:
    out: list[Column] = []
    for name, labels in data.facets.items():
        if plan.marginal and name == plan.person:
            one = np.zeros(len(data.score), dtype=np.int64)
            out.append(Column(name=name, labels=("(mean)",), level=one))
        else:
            out.append(Column(name=name, labels=labels, level=data.codes[name]))
    return (*out, *(_interaction(pair, data) for pair in plan.interactions))


def _interaction(pair: tuple[str, str], data: Ratings) -> Column:
    first, second = (data.facets[name] for name in pair)
    if len(first) * len(second) > MOST_CELLS:
        raise DataError(
            f"interaction {pair}: {len(first):,} x {len(second):,} cells are too many; leave it "
            "out, and look at bias() of the fit"
        )
    code = data.codes[pair[0]] * len(second) + data.codes[pair[1]]
    cells, level = np.unique(code, return_inverse=True)
    row, column = np.divmod(cells, len(second))
    labels = tuple(f"{first[i]}:{second[j]}" for i, j in zip(row, column, strict=True))
    empty = np.flatnonzero(np.bincount(level, data.weight) == 0)
    if len(empty):
        raise DataError(
            f"interaction {pair}: all ratings of {labels[empty[0]]} have weight 0; leave them out"
        )
    if len(first) < len(second):  # the smaller facet is the one whose table is inverted
        space = Margins(first=column, second=row, shape=(len(second), len(first)))
    else:
        space = Margins(first=row, second=column, shape=(len(first), len(second)))
    return Column(name=interaction_name(pair), labels=labels, level=level, space=space)


def _targets(
    plan: Plan, data: Ratings, group: Int[np.ndarray, " n"], top: Int[np.ndarray, " G"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "G m"]]:
    """Return the (adjusted) scores, and sums of the (adjusted) indicators of each step."""
    m = top[group]
    e = np.zeros(len(m))
    if plan.epsilon:
        person = data.codes[plan.person]
        total = np.bincount(person, data.weight * m * (m + 1) / 2)
        e = plan.epsilon / np.maximum(total, 2 * plan.epsilon)[person]
    passed = [
        np.bincount(
            group,
            data.weight * ((1 - (m + 1) * e) * (data.score >= k) + e * (m - k + 1)) * (k <= m),
            len(top),
        )
        for k in range(1, int(top.max()) + 1)
    ]
    return (1 - (m + 1) * e) * data.score + e * m * (m + 1) / 2, np.column_stack(passed)


def _group_anchored(plan: Plan, design: Design, columns: tuple[Column, ...]) -> Design:
    """Keep each of the facets, in turn, orthogonal to the directions that are still open."""
    names = [column.name for column in columns]
    mains, person = len(names) - len(plan.interactions), names.index(plan.person)
    others = sum(design.sizes[:mains]) - design.sizes[person]
    if others > MOST_LEVELS:
        raise DataError(
            f"group_anchor takes at most {MOST_LEVELS:,} levels besides the persons, not "
            f"{others:,}; use anchors"
        )
    open_ = null_basis(design, mains, person)
    spaces = list(design.spaces)
    for name in plan.group_anchor:
        f = names.index(name)
        part = open_[design.blocks[f]]
        size, direction = np.linalg.eigh(part.T @ part)
        seen = size > SMALL
        spaces[f] = Directions(basis=part @ direction[:, seen] / np.sqrt(size[seen]))
        open_ = open_ @ direction[:, ~seen]  # what the facets anchored so far leave open
    return replace(design, spaces=tuple(spaces))


def _check_used(
    data: Ratings, group: Int[np.ndarray, " n"], top: Int[np.ndarray, " G"], steps: str | None
) -> None:
    names = data.facets[steps] if steps else ("all ratings",)
    width = int(top.max()) + 1
    used = np.bincount(group * width + data.score, data.weight, len(top) * width).reshape(-1, width)
    for g, name in enumerate(names):
        empty = np.flatnonzero(used[g, : top[g] + 1] == 0)
        if len(empty) or top[g] == 0:
            raise ExistenceError(
                f"{name}: no rating uses {empty.tolist() or 'a score above 0'}; its steps are "
                "infinite: merge categories, or share steps"
            )


def _check_extreme(plan: Plan, data: Ratings, design: Design, columns: tuple[Column, ...]) -> None:
    for block, column in zip(design.blocks, columns, strict=True):
        if plan.extremes and column.name == plan.person:
            continue
        size = len(column.labels)
        score = np.bincount(column.level, data.weight * data.score, size)
        most = np.bincount(column.level, data.weight * design.top[design.group], size)
        bad = np.flatnonzero(((score == 0) | (score == most)) & design.free[block])
        if len(bad):
            raise ExistenceError(
                f"{column.name} {column.labels[bad[0]]} has only extreme ratings, so its measure "
                "is infinite; use method 'jml' with correction 'epsilon', or leave it out"
            )
