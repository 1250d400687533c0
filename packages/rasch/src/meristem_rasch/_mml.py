"""Marginal maximum likelihood: persons are normal, their abilities integrated out.

- thresholds tau_ih; P_h proportional to exp(a (h theta - beta_ih)) with slopes 1 and a free sd
  (Rasch, partial credit, rating scale) or free slopes and sd 1 in the first group (2PL, GPCM);
  3PL: g + (1 - g) sigma(a (theta - b)); graded: P(x >= h) = sigma(a (theta - b_h))
- a negative slope is a finding, not an error
- Newton steps with the complete-data information are steps of EM (Lange 1995); the gradients seen
  correct it (L-BFGS), which is what makes it fast where much information is missing
- the trapezoid sum is accurate to 1e-8 while the spacing is at most the posterior's standard
  deviation; nodes are added until that holds for everyone
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from meristem_rasch._calibration import Calibration, LatentGroup
from meristem_rasch._checkpoint import Checkpoint
from meristem_rasch._cml import check_model
from meristem_rasch._design import Anchor
from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError, Status, conclude
from meristem_rasch._information import covariance
from meristem_rasch._optimise import minimise
from meristem_rasch._parameters import Layout, item_parameters, layout
from meristem_rasch._posterior import Marginal
from meristem_rasch._responses import Labels, Responses

FEWEST_NODES = 41
MOST_NODES = 2001
ROUGH = 0.03  # logits; a step this short ends the search on a provisional grid
SAMPLE = 20_000  # persons whose estimates are a good start for four times as many
SMALLEST_SD = 1e-2  # logits; below it the variance is 0 for every purpose

Errors = Literal["auto", "oakes", "opg", "sandwich"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MML:
    """Marginal maximum likelihood.

    Parameters
    ----------
    model
        "rasch", "pcm", "rsm" (slopes 1, free sd); "2pl", "3pl", "gpcm", "grm" (free slopes, sd 1).
    n_nodes
        Number of nodes; default 41, doubled while the spacing exceeds a posterior's sd.
    anchors
        Items held where they are: thresholds by item (slopes 1), or a calibration by the same
        model, whose items are held; mean and sd of all groups are then free.
    guess_prior
        Beta(a, b) of the 3PL's lower asymptote, or None for plain maximum likelihood.
    se
        Covariance: "oakes" (observed information, by Oakes's identity), "opg" (inverse sum of
        squared scores), "sandwich" (both, robust; weights count as sampling weights) or "auto":
        "oakes" unless its 2 P expectation steps cost too much, then "opg".
    tol
        Largest change of a parameter in the last step, in logits.

    References
    ----------
    Bock & Aitkin (1981), Lange (1995), Oakes (1999); Beta(5, 17) is the default of BILOG.
    """

    model: Literal["rasch", "pcm", "rsm", "2pl", "3pl", "gpcm", "grm"] = "rasch"
    n_nodes: int | None = None
    anchors: Mapping[str, Anchor] | Calibration = field(default_factory=dict[str, Anchor])
    guess_prior: tuple[float, float] | None = (5.0, 17.0)
    se: Errors = "auto"
    tol: float | int = 1e-7
    max_steps: int = 2000

    def fit(
        self,
        data: Responses,
        groups: Labels | None = None,
        *,
        strict: bool = True,
        progress: Callable[[int, float], None] | None = None,
        checkpoint: Path | str | None = None,
    ) -> Calibration:
        """Return the calibration of `data`.

        Parameters
        ----------
        groups
            A label for each person; every group has its own mean and sd. The first group in order
            of appearance has mean 0 (and sd 1 where slopes are free) unless items are anchored.
        strict
            Whether a search that ends before `tol` raises; else its last state is returned, of
            status "max_steps".
        progress
            Called after each step on all persons with its number and the largest change, in
            logits; numbers start again when the nodes are refined.
        checkpoint
            File that holds the unfinished fit; where it exists, the fit goes on from it and ends
            with the same numbers, bit for bit.

        Raises
        ------
        DataError
            If scores, labels or anchors do not fit the model, `n_nodes` is below 3, or `checkpoint`
            is of another fit.
        ExistenceError
            If a category is never observed, or the information matrix is singular.
        ConvergenceError
            If `max_steps` steps do not reach `tol`, or more than 2001 nodes are needed.
        """
        check_model("rasch" if self.model in ("2pl", "3pl") else self.model, data)
        if self.n_nodes is not None and self.n_nodes < 3:
            raise DataError(f"n_nodes is {self.n_nodes}; give at least 3")
        _check_categories(data)
        names, parts = _groups(data, groups)
        plan = layout(self.model, data, len(parts), self.anchors)
        marginal = Marginal(plan, parts, self.guess_prior if self.model == "3pl" else None)
        kept = None
        if checkpoint is not None:
            label = np.array([] if groups is None else [str(group) for group in groups])
            parts_of = (data.scores, data.max_score, data.weight, label)
            kept = Checkpoint(checkpoint, (self, data.items), parts_of)
        psi = self._from_sample(data, groups, plan, self._start(data, plan, groups))
        psi, history, converged = self._maximise(marginal, psi, kept, progress)
        return conclude(
            lambda status: self._calibration(data, marginal, psi, names, history, status),
            converged=converged,
            strict=strict,
            tol=self.tol,
            max_steps=self.max_steps,
        )

    def _maximise(
        self,
        marginal: Marginal,
        psi: Float[np.ndarray, " P"],
        kept: Checkpoint | None,
        progress: Callable[[int, float], None] | None,
    ) -> tuple[Float[np.ndarray, " P"], tuple[float, ...], bool]:
        """Return where the search ended, the likelihoods on the way, and whether it converged.

        The grid is fine enough at the optimum.

        A coarse grid has its own optimum: the search goes there only roughly, then on a finer grid.
        """
        rough, history = self.n_nodes is None, list[float]()
        marginal.n_nodes = self.n_nodes or _enough(marginal, psi, FEWEST_NODES)
        while True:
            evaluate = marginal.value_and_gradient
            if kept is not None:
                evaluate = kept.remembered(evaluate, f"{marginal.n_nodes} nodes")
            found = minimise(
                evaluate,
                marginal.curvature,
                psi,
                tol=max(self.tol, ROUGH) if rough else self.tol,
                max_steps=self.max_steps,
                check=lambda x: _check_spread(marginal.plan, x),
                progress=progress,
            )
            psi, history = found.x, history + [-value for value in found.history]
            if not found.converged:
                return psi, tuple(history), False
            wanted = _enough(marginal, psi, marginal.n_nodes)
            if not rough and (self.n_nodes is not None or wanted == marginal.n_nodes):
                return psi, tuple(history), True
            rough = wanted > marginal.n_nodes
            marginal.n_nodes = wanted

    def _start(
        self, data: Responses, plan: Layout, groups: Labels | None
    ) -> Float[np.ndarray, " P"]:
        if self.model != "3pl":
            return plan.start(data)
        easier = MML(model="2pl", n_nodes=self.n_nodes, tol=1e-3, se="opg")
        return plan.start_from(easier.fit(data, groups)) if not self.anchors else plan.start(data)

    def _from_sample(
        self, data: Responses, groups: Labels | None, plan: Layout, psi: Float[np.ndarray, " P"]
    ) -> Float[np.ndarray, " P"]:
        """Return rough estimates of every k-th person of very many, a start for the rest."""
        stride = len(data.persons) // SAMPLE
        if stride < 4:
            return psi
        part = data.select(persons=slice(None, None, stride))
        label = None if groups is None else list(groups)
        names, parts = _groups(part, None if label is None else label[::stride])
        if _lacking(part).any() or (label is not None and names != _groups(data, label)[0]):
            return psi
        marginal = Marginal(plan, parts, self.guess_prior if self.model == "3pl" else None)
        marginal.n_nodes = self.n_nodes or _enough(marginal, psi, FEWEST_NODES)
        return minimise(
            marginal.value_and_gradient,
            marginal.curvature,
            psi,
            tol=ROUGH / 10,
            max_steps=self.max_steps,
            check=lambda x: _check_spread(plan, x),
        ).x

    def _calibration(
        self,
        data: Responses,
        marginal: Marginal,
        psi: Float[np.ndarray, " P"],
        names: tuple[str, ...],
        history: tuple[float, ...],
        status: Status,
    ) -> Calibration:
        plan = marginal.plan
        spread = covariance(marginal, psi, self.se)
        items = item_parameters(plan, psi)
        full = items.jacobian @ spread @ items.jacobian.T
        size, count = int(data.max_score.sum()), len(data.items)
        latent, latent_se = plan.latent(psi), plan.latent_se(psi, spread)
        slope_se = np.sqrt(np.diag(full)[size : size + count].clip(min=0))
        guess_se = np.sqrt(np.diag(full)[size + count :].clip(min=0))
        value = marginal.value_and_gradient(psi)[0]
        out = Calibration(
            model=self.model,
            method="MML",
            items=data.items,
            max_score=data.max_score,
            threshold=items.threshold,
            vcov=full[:size, :size],
            eta=psi,
            eta_vcov=spread,
            slope=items.slope,
            slope_se=slope_se,
            guess=items.guess,
            guess_se=guess_se,
            latent_mean=float(latent[0, 0]),
            latent_sd=float(latent[0, 1]),
            latent=tuple(
                LatentGroup(label=name, mean=m, sd=s, mean_se=u, sd_se=t)
                for name, (m, s), (u, t) in zip(
                    names, latent.tolist(), latent_se.tolist(), strict=True
                )
            ),
            latent_cov=plan.mean_rows(spread) @ items.jacobian[:size].T,
            loglik=-value + marginal.log_prior(psi),
            n_parameters=len(psi),
            n_iter=len(history),
            history=history,
            extreme_persons=(),
            status=status,
        )
        free = not self.anchors and not plan.slopes_free
        return out.renormalise(data.items) if free else out


def _enough(marginal: Marginal, psi: Float[np.ndarray, " P"], n_nodes: int) -> int:
    """Return the number of nodes, doubled until neighbours are within a posterior's sd."""
    marginal.n_nodes = n_nodes
    while marginal.spacing(psi) > marginal.smallest_sd(psi):
        marginal.n_nodes = 2 * marginal.n_nodes - 1
        if marginal.n_nodes > MOST_NODES:
            raise ConvergenceError(
                f"a posterior is narrower than the spacing of {MOST_NODES} nodes; a slope may be "
                "running to infinity: set n_nodes, or look for items that repeat each other"
            )
    return marginal.n_nodes


def _groups(data: Responses, groups: Labels | None) -> tuple[tuple[str, ...], list[Responses]]:
    if groups is None:
        return ("all",), [data]
    if len(groups) != len(data.persons):
        raise DataError(f"{len(groups)} group labels for {len(data.persons)} persons; one each")
    label = np.array([str(group) for group in groups])
    names = tuple(dict.fromkeys(label.tolist()))
    return names, [data.select(persons=label == name) for name in names]


def _check_categories(data: Responses) -> None:
    lacking = _lacking(data)
    if lacking.any():
        i = int(np.argmax(lacking.any(axis=1)))
        raise ExistenceError(
            f"item {data.items[i]}: nobody scores {np.flatnonzero(lacking[i]).tolist()}; its "
            "estimates are infinite: see drop_extreme and collapse_null"
        )


def _lacking(data: Responses) -> Bool[np.ndarray, "I K"]:
    """Return which of the items' categories nobody uses."""
    counts = data.category_counts
    return (counts == 0) & (np.arange(counts.shape[1]) <= data.max_score[:, None])


def _check_spread(plan: Layout, psi: Float[np.ndarray, " P"]) -> None:
    if (plan.latent(psi)[:, 1] < SMALLEST_SD).any():
        raise ExistenceError(
            "the persons' variance is estimated as 0: their answers are no more alike than chance; "
            "use CML, or look for items scored the wrong way round"
        )
