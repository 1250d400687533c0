"""Many-facet Rasch measurement (Linacre 1989) on long data, joint or marginal.

- log P(x = h) / P(x = h - 1) = person - sum of the other facets - step h; any number of facets
- steps are shared, or those of each level of one facet (partial credit, rater-specific scales)
- interactions are facets of cells with zero margins
- "jml" estimates persons and everything else together; "mml" takes persons as normal and
  integrates them out
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from meristem_rasch._ascent import Top, Vector, ascend
from meristem_rasch._checkpoint import Checkpoint
from meristem_rasch._connected import check_connected
from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError, Status, conclude
from meristem_rasch._facet_correction import corrected
from meristem_rasch._facet_design import (
    Column,
    Correction,
    Plan,
    build,
    centred,
    level_names,
)
from meristem_rasch._facet_marginal import Marginal
from meristem_rasch._facet_measures import joint_calibration, marginal_calibration
from meristem_rasch._facet_results import FacetCalibration
from meristem_rasch._newton_cg import Design, Joint
from meristem_rasch._ratings import Ratings

FEWEST_NODES = 41
MOST_NODES = 2001
ROUGH = 0.03  # logits; a step this short ends the search on a provisional grid
MOST_PARAMETERS = 3000  # of marginal likelihood: its information is a full matrix
SMALLEST_SD = 1e-2  # logits; below it the variance is 0 for every purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """Many-facet Rasch measurement.

    Parameters
    ----------
    person
        The facet that counts upwards.
    steps
        None: all ratings share the steps; or the facet whose levels have their own.
    interactions
        Pairs of facets whose cells have a measure of their own beyond the two facets; it sums to 0
        within each level of both. Counts downwards, as facets other than persons do.
    method
        "jml", or "mml": persons are normal, with estimated mean and sd.
    correction
        Of joint estimates. "epsilon": every indicator 1[x = h] becomes (1 - (m + 1) e) 1[x = h] + e
        with e = epsilon / sum m (m + 1) / 2 over a person's ratings, so that the score r of
        dichotomous ratings becomes epsilon + (M - 2 epsilon) r / M (Bertoli-Barsotti et al. 2014):
        finite for every design without empty levels. "none": plain joint maximum likelihood, as in
        Facets, biased outwards; extreme levels are refused. "wright": all but persons times
        (L - 1) / L, L the mean number of a person's ratings. "jackknife": twice the estimates less
        their mean over two halves of each person's ratings. Both leave persons with extreme scores
        out, and measure them at the end at 0.3 points inside.
    anchors
        Held measures: facet -> level -> logits.
    group_anchor
        Facets whose measures average 0 within every subset of ratings that nothing else links.
    n_nodes
        Number of nodes of "mml"; default 41, doubled until none is further from the next than the
        standard deviation of a person's posterior.
    tol
        Largest change of a measure, in logits, in the last step.

    References
    ----------
    Linacre (1989); Bertoli-Barsotti, Lando & Punzo (2014); Wright & Douglas (1977); Dhaene &
    Jochmans (2015); Louis (1982) for the observed information.
    """

    person: str = "person"
    steps: str | None = None
    interactions: Sequence[tuple[str, str]] = ()
    method: Literal["jml", "mml"] = "jml"
    correction: Correction = "epsilon"
    epsilon: float | int = 0.3
    anchors: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )
    group_anchor: str | Sequence[str] = ()
    n_nodes: int | None = None
    tol: float = 1e-5
    max_steps: int = 100

    def fit(
        self,
        data: Ratings,
        *,
        strict: bool = True,
        progress: Callable[[int, float], None] | None = None,
        checkpoint: Path | str | None = None,
    ) -> FacetCalibration:
        """Return the calibration of `data`.

        Parameters
        ----------
        strict
            Whether a search that ends before `tol` raises; else its last state is returned, of
            status "max_steps".
        progress
            Called after each step with its number and the largest change.
        checkpoint
            File that holds the unfinished fit; where it exists, the fit goes on from it and ends
            with the same numbers, bit for bit.

        Raises
        ------
        DataError
            If a facet or an anchored level is unknown, settings contradict each other, or
            `checkpoint` is of another fit.
        ExistenceError
            If a category of a step group is never used, a level is extreme (by "mml", or without
            the correction "epsilon"), or the persons' variance is 0.
        IdentificationError
            If the design leaves measures undetermined; names levels.
        ConvergenceError
            If `max_steps` steps do not reach `tol`, or more than 2001 nodes are needed.
        """
        moved = self.correction in ("wright", "jackknife")
        if moved and self.method == "mml":
            raise DataError(
                f"correction {self.correction!r} is of joint estimates; 'mml' needs none: leave it "
                "out"
            )
        if moved and self.anchors:
            raise DataError(
                f"correction {self.correction!r} moves measures, so that it takes no anchors; use "
                "'epsilon' or 'none'"
            )
        design, x, columns = build(self._plan(), data)
        check_connected(design, level_names(columns))
        kept = None
        if checkpoint is not None:
            parts = (data.score, data.weight, *data.codes.values())
            kept = Checkpoint(checkpoint, (self, data.facets), parts)
        search = _Search(self, progress, kept)
        estimate = self._marginal if self.method == "mml" else self._joint
        result = estimate(data, design, x, columns, search)
        return conclude(
            result,
            converged=all(search.converged),
            strict=strict,
            tol=self.tol,
            max_steps=self.max_steps,
        )

    def _plan(self) -> Plan:
        grouped = self.group_anchor
        plain = self.method == "mml" or self.correction != "epsilon"
        return Plan(
            person=self.person,
            steps=self.steps,
            interactions=self.interactions,
            marginal=self.method == "mml",
            epsilon=0.0 if plain else float(self.epsilon),
            extremes=self.correction in ("wright", "jackknife"),
            anchors=self.anchors,
            group_anchor=(grouped,) if isinstance(grouped, str) else grouped,
        )

    def _joint(
        self,
        data: Ratings,
        design: Design,
        x: Vector,
        columns: tuple[Column, ...],
        search: "_Search",
    ) -> Callable[[Status], FacetCalibration]:
        plan = self._plan()
        if self.correction in ("wright", "jackknife"):
            halves = self.correction == "jackknife"
            x, found = corrected(plan, data, design, search.joint, halves=halves)
        else:
            found = search.joint(design, x)
            x = centred(plan, design, columns, found.x)
        return partial(joint_calibration, plan, data, design, columns, x, found)

    def _marginal(
        self,
        data: Ratings,
        design: Design,
        x: Vector,
        columns: tuple[Column, ...],
        search: "_Search",
    ) -> Callable[[Status], FacetCalibration]:
        if self.n_nodes is not None and not 3 <= self.n_nodes <= MOST_NODES:
            raise DataError(f"n_nodes is {self.n_nodes}; give 3 to {MOST_NODES}")
        if len(x) > MOST_PARAMETERS:
            raise DataError(
                f"{len(x):,} parameters are more than {MOST_PARAMETERS:,}, for which method 'mml' "
                "gives errors; use method 'jml'"
            )
        person, x, history = data.codes[self.person], np.append(x, 0.0), tuple[float, ...]()
        n_nodes = self.n_nodes or FEWEST_NODES
        # a coarse grid has its own optimum: go there only roughly, then refine the grid
        tol = self.tol if self.n_nodes else max(self.tol, ROUGH)
        while n_nodes <= MOST_NODES:
            surface = Marginal(design, person, n_nodes=n_nodes)
            label = f"{n_nodes} nodes, {tol} "
            found = search(surface, x, label=label, tol=tol, check=self._check_spread)
            x, history = found.x, history + found.history
            wanted = self.n_nodes or surface.at(x).enough()
            if not found.converged or (tol == self.tol and wanted == n_nodes):
                plan = self._plan()
                return partial(marginal_calibration, plan, data, surface, columns, x, history)
            n_nodes, tol = wanted, self.tol
        raise ConvergenceError(
            f"a posterior is narrower than the spacing of {MOST_NODES} nodes; set n_nodes, or use "
            "method 'jml', which is right with so many ratings a person"
        )

    def _check_spread(self, x: Vector) -> None:
        if np.exp(x[-1]) < SMALLEST_SD:
            raise ExistenceError(
                f"the variance of {self.person!r} is estimated as 0: the ratings of one are no "
                "more alike than chance; use method 'jml', or look for reversed scores"
            )


@dataclass(frozen=True, slots=True)
class _Search:
    """The searches of one fit, and whether each has converged."""

    config: Facets
    progress: Callable[[int, float], None] | None
    checkpoint: Checkpoint | None
    converged: list[bool] = field(default_factory=list[bool])

    def joint(self, design: Design, x: Vector, label: str = "") -> Top:
        return self(Joint(design), x, label=label, tol=self.config.tol)

    def __call__(
        self,
        surface: Joint | Marginal,
        x: Vector,
        *,
        label: str,
        tol: float,
        check: Callable[[Vector], None] = lambda _: None,
    ) -> Top:
        config = self.config
        found = ascend(
            surface,
            x,
            tol=tol,
            max_steps=config.max_steps,
            progress=self.progress,
            checkpoint=self.checkpoint,
            label=label,
            check=check,
        )
        self.converged.append(found.converged)
        return found
