"""Many-facet Rasch measurement (Linacre 1989) by joint maximum likelihood on long data.

- log P(x = h) / P(x = h - 1) = person - sum of the other facets - step h; any number of facets
- steps are shared, or those of each level of one facet (partial credit, rater-specific scales)
- "epsilon": every indicator 1[x = h] becomes (1 - (m + 1) e) 1[x = h] + e with
  e = epsilon / sum m (m + 1) / 2 over a person's ratings, so that the score r of dichotomous
  ratings becomes epsilon + (M - 2 epsilon) r / M (Bertoli-Barsotti et al. 2014): always finite
- standard errors are (sum of variances)^(-1/2), the others held: those of joint maximum likelihood
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import chi2

from meristem_rasch._checkpoint import Checkpoint
from meristem_rasch._connected import check_connected
from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError
from meristem_rasch._facet_results import FacetCalibration, FacetTable
from meristem_rasch._newton_cg import (
    Design,
    Moments,
    Solution,
    eta_of,
    maximise,
    moments,
    steps_of,
)
from meristem_rasch._ratings import Ratings

Correction = Literal["epsilon", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """Many-facet Rasch measurement.

    Parameters
    ----------
    person
        The facet that counts upwards.
    steps
        None: all ratings share the steps; or the facet whose levels have their own.
    correction
        "epsilon" (finite for every design without empty levels) or "none" (plain joint maximum
        likelihood, as in Facets; extreme levels are refused).
    anchors
        Held measures: facet -> level -> logits.
    tol
        Largest change of a measure, in logits, in the last step.
    """

    person: str = "person"
    steps: str | None = None
    correction: Correction = "epsilon"
    epsilon: float | int = 0.3
    anchors: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )
    tol: float = 1e-5
    max_steps: int = 100

    def fit(
        self,
        data: Ratings,
        *,
        progress: Callable[[int, float], None] | None = None,
        checkpoint: Path | str | None = None,
    ) -> FacetCalibration:
        """Return the calibration of `data`.

        Parameters
        ----------
        progress
            Called after each step with its number and the largest change.
        checkpoint
            File that holds the unfinished fit; where it exists, the fit goes on from it and ends
            with the same numbers, bit for bit.

        Raises
        ------
        DataError
            If a facet or an anchored level is unknown, or `checkpoint` is of another fit.
        ExistenceError
            If a category of a step group is never used, or (without correction) a level is extreme.
        IdentificationError
            If the design leaves measures undetermined; names levels.
        ConvergenceError
            If `max_steps` steps do not reach `tol`.
        """
        design, x, names = self._design(data)
        check_connected(design, names)
        kept = None
        if checkpoint is not None:
            parts = (data.score, data.weight, *data.codes.values())
            kept = Checkpoint(checkpoint, (self, data.facets), parts)
        found = maximise(
            design,
            x,
            tol=self.tol,
            max_steps=self.max_steps,
            progress=progress,
            checkpoint=kept,
        )
        if not found.converged:
            raise ConvergenceError(
                f"no convergence to {self.tol} within {self.max_steps} steps; raise max_steps"
            )
        return self._calibration(data, design, found)

    def _design(self, data: Ratings) -> tuple[Design, Float[np.ndarray, " P"], tuple[str, ...]]:
        for name in (self.person, *self.anchors, *([self.steps] if self.steps else [])):
            if name not in data.facets:
                raise DataError(f"{name!r} is no facet; the facets are {list(data.facets)}")
        sizes = tuple(len(labels) for labels in data.facets.values())
        ends = np.cumsum(sizes)
        group = data.codes[self.steps] if self.steps else np.zeros(len(data.score), dtype=np.int64)
        count = len(data.facets[self.steps]) if self.steps else 1
        top = np.zeros(count, dtype=np.int64)
        np.maximum.at(top, group, data.score)
        _check_used(data, group, top, self.steps)
        free, x = np.ones(sum(sizes), dtype=bool), np.zeros(sum(sizes) + count * int(top.max()))
        for (name, labels), end in zip(data.facets.items(), ends, strict=True):
            for label, value in self.anchors.get(name, {}).items():
                if label not in labels:
                    raise DataError(f"anchor {label!r} is no level of {name!r}: {labels[:6]}")
                at = end - len(labels) + labels.index(label)
                free[at], x[at] = False, value
        e = self._share(data, top[group])
        target = (1 - (top[group] + 1) * e) * data.score + e * top[group] * (top[group] + 1) / 2
        passed = [
            np.bincount(
                group,
                data.weight
                * ((1 - (top[group] + 1) * e) * (data.score >= k) + e * (top[group] - k + 1))
                * (k <= top[group]),
                count,
            )
            for k in range(1, int(top.max()) + 1)
        ]
        design = Design(
            levels=tuple(data.codes.values()),
            sizes=sizes,
            signs=tuple(1.0 if name == self.person else -1.0 for name in data.facets),
            group=group,
            top=top,
            weight=data.weight,
            target=target,
            passed=np.column_stack(passed),
            free=free,
        )
        names = tuple(f"{name} {label}" for name, labels in data.facets.items() for label in labels)
        if self.correction == "none":
            _check_extreme(data, design, names)
        return design, x, names

    def _share(self, data: Ratings, top: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        if self.correction == "none":
            return np.zeros(len(top))
        person = data.codes[self.person]
        total = np.bincount(person, data.weight * top * (top + 1) / 2)
        return self.epsilon / np.maximum(total, 2 * self.epsilon)[person]

    def _calibration(self, data: Ratings, design: Design, found: Solution) -> FacetCalibration:
        x = _centred(self, data, design, found.x)
        at = moments(design, x)
        steps = steps_of(design, x)
        inside = np.arange(1, steps.shape[1] + 1) <= design.top[:, None]
        tables: dict[str, FacetTable] = {}
        start = 0
        for f, (name, labels) in enumerate(data.facets.items()):
            part = slice(start, start + len(labels))
            start += len(labels)
            tables[name] = _table(data, design, at, x, f, labels, part)
        free = int(design.free.sum()) + int((design.top - 1).sum())
        loose = sum(not self.anchors.get(name) for name in data.facets)
        return FacetCalibration(
            facets=tables,
            step_groups=data.facets[self.steps] if self.steps else ("all",),
            steps=np.where(inside, steps, np.nan),
            loglik=at.loglik,
            n_parameters=free - max(loose - 1, 0),
            n_iter=len(found.history),
            history=found.history,
            ratings=data,
            expected=at.mean,
            variance=at.variance,
            logit=eta_of(design, x),
            group=design.group,
        )


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


def _check_extreme(data: Ratings, design: Design, names: tuple[str, ...]) -> None:
    at = 0
    for level, size in zip(design.levels, design.sizes, strict=True):
        score = np.bincount(level, data.weight * data.score, size)
        most = np.bincount(level, data.weight * design.top[design.group], size)
        bad = np.flatnonzero(((score == 0) | (score == most)) & design.free[at : at + size])
        if len(bad):
            raise ExistenceError(
                f"{names[at + bad[0]]} has only extreme ratings, so its measure is infinite; "
                "use correction 'epsilon', or leave it out"
            )
        at += size


def _centred(
    config: Facets, data: Ratings, design: Design, x: Float[np.ndarray, " P"]
) -> Float[np.ndarray, " P"]:
    """Return x with the mean of every unanchored facet but the persons at 0."""
    x, start = x.copy(), 0
    parts: dict[str, slice] = {}
    for name, labels in data.facets.items():
        parts[name] = slice(start, start + len(labels))
        start += len(labels)
    if config.anchors.get(config.person):
        return x
    for name, part in parts.items():
        if name != config.person and not config.anchors.get(name):
            shift = float(x[part].mean())
            x[part] -= shift
            x[parts[config.person]] -= shift
    return x


def _table(
    data: Ratings,
    design: Design,
    at: Moments,
    x: Float[np.ndarray, " P"],
    f: int,
    labels: tuple[str, ...],
    part: slice,
) -> FacetTable:
    level, size, w = design.levels[f], design.sizes[f], design.weight
    squares = (data.score - at.mean) ** 2
    count = np.bincount(level, w, size)
    information = np.bincount(level, w * at.variance, size)
    free = design.free[part]
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.where(free, information**-0.5, 0.0)
        outfit = np.bincount(level, w * squares / at.variance, size) / count
        infit = np.bincount(level, w * squares, size) / information
        observed = np.bincount(level, w * data.score, size) / count
    measure = x[part]
    error = float(np.mean(se**2))
    true = max(float(measure.var(ddof=1)) - error, 0.0) if size > 1 else 0.0
    separation = float(np.sqrt(true / error)) if error > 0 else 0.0
    precision = np.where(free, information, 0.0)
    total = float(precision.sum())
    spread = float(precision @ measure**2)
    if total > 0:
        spread -= float(precision @ measure) ** 2 / total
    df = max(int(free.sum()) - 1, 0)
    return FacetTable(
        labels=labels,
        measure=measure,
        se=se,
        infit=infit,
        outfit=outfit,
        count=count,
        observed=observed,
        fair=_fair(design, x, f, part),
        separation=separation,
        reliability=separation**2 / (1 + separation**2),
        chi2=spread,
        df=df,
        p=float(chi2.sf(spread, df)) if df else 1.0,
    )


def _fair(
    design: Design, x: Float[np.ndarray, " P"], f: int, part: slice
) -> Float[np.ndarray, " k"]:
    """Return E x at each level, other facets at their means, averaged over step groups."""
    base, at = 0.0, 0
    for other, (size, sign) in enumerate(zip(design.sizes, design.signs, strict=True)):
        if other != f:
            base += sign * float(x[at : at + size].mean())
        at += size
    eta = base + design.signs[f] * x[part]
    steps = steps_of(design, x)
    out = np.zeros(len(eta))
    for kappa, top in zip(steps, design.top, strict=True):
        total = np.concatenate([[0.0], np.cumsum(kappa[:top])])
        z = np.multiply.outer(eta, np.arange(top + 1.0)) - total
        p = np.exp(z - z.max(axis=1, keepdims=True))
        out += (p @ np.arange(top + 1.0)) / p.sum(axis=1) / len(steps)
    return out
