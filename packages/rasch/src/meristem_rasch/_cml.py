"""Conditional maximum likelihood (Andersen 1972; Fischer 1995), exact.

- -log L_c = sum x_+ih beta_ih + sum_r n_r log gamma_r, beta the cumulative thresholds
- gradient x_+ih - E_ih, Hessian M - sum_r n_r pi_r pi_r' (in beta); both from the kernel
- Newton steps while they are long; then the Hessian, O(R^3), is kept and corrected from the
  gradients, O(R^2) each (L-BFGS), and computed anew at the optimum for the errors
- thresholds are tau = W eta + offset: identity (partial credit), rating scale, or the user's
- a common shift of all thresholds changes nothing; where W contains it, it is projected out
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri

from meristem_rasch._calibration import Calibration
from meristem_rasch._design import (
    Anchor,
    Linear,
    anchored,
    linear,
    partial_credit,
    rating_scale,
)
from meristem_rasch._errors import DataError, ExistenceError, Status, conclude
from meristem_rasch._existence import check_existence
from meristem_rasch._kernel import (
    backward,
    blocks,
    conditional,
    expected_counts,
    log_gamma,
    padded,
)
from meristem_rasch._moments import second_moments
from meristem_rasch._optimise import Solve, minimise
from meristem_rasch._patterns import Pattern, extreme_persons, patterns
from meristem_rasch._responses import Responses

LARGEST_STEP = 20.0  # logits; a threshold this far out is running to infinity
ROWS = 4096  # persons counted at once


@dataclass(frozen=True, slots=True, kw_only=True)
class CML:
    """Conditional maximum likelihood.

    Parameters
    ----------
    model
        "rasch" (0/1 items), "pcm" (partial credit) or "rsm" (rating scale).
    design, offset
        One row per threshold: tau = design @ eta + offset replaces the model's own design (LLTM,
        LPCM, LRSM). The columns must be linearly independent.
    anchors
        Fixed thresholds per item: a number (0/1 item) or one number per threshold.
    reference
        Items whose mean location is 0; default all. Ignored with anchors.
    tol
        Largest change of a threshold, in logits, in the last step.
    """

    model: Literal["rasch", "pcm", "rsm"] = "rasch"
    design: Float[np.ndarray, "H P"] | None = None
    offset: Float[np.ndarray, " H"] | None = None
    anchors: Mapping[str, Anchor] = field(default_factory=dict[str, Anchor])
    reference: Sequence[str] | None = None
    tol: float = 1e-10
    max_steps: int = 100

    def fit(self, data: Responses, *, strict: bool = True) -> Calibration:
        """Return the calibration of `data`.

        Parameters
        ----------
        strict
            Whether a search that ends before `tol` raises; else its last state is returned, of
            status "max_steps".

        Raises
        ------
        DataError
            If scores or design do not fit the model.
        ExistenceError
            If an estimate is infinite; names the items.
        IdentificationError
            If the design's columns depend on each other.
        ConvergenceError
            If `max_steps` steps do not reach `tol`.
        """
        check_model(self.model, data)
        groups = patterns(data)
        # a design may leave an item's category to others: then the information matrix decides
        check_existence(data, groups, each_item=self.design is None and self.model != "rsm")
        model = self._model(data)
        problem = Problem(data, groups)
        eta, n_iter, converged = self._maximise(problem, model)
        return conclude(
            lambda status: self._calibration(problem, model, eta, n_iter, status),
            converged=converged,
            strict=strict,
            tol=self.tol,
            max_steps=self.max_steps,
        )

    def _model(self, data: Responses) -> Linear:
        m = data.max_score
        size = int(m.sum())
        if self.anchors:
            if self.design is not None or self.model == "rsm":
                raise DataError("anchors need model 'rasch' or 'pcm' without a design; use offset")
            return anchored(self.anchors, data.items, m)
        if self.design is None and self.offset is None and self.model != "rsm":
            return partial_credit(m)
        design = rating_scale(m) if self.model == "rsm" else np.eye(size)
        design = design if self.design is None else np.asarray(self.design, dtype=float)
        offset = np.zeros(size) if self.offset is None else np.asarray(self.offset, dtype=float)
        if design.shape[0] != size or offset.shape != (size,):
            raise DataError(
                f"design has {design.shape[0]} rows and offset {len(offset)}; both need one per "
                f"threshold, {size}"
            )
        return linear(design, offset)

    def _maximise(
        self, problem: "Problem", model: Linear
    ) -> tuple[Float[np.ndarray, " P"], int, bool]:
        eta = model.start(problem.start())
        if not len(eta):
            return eta, 0, True

        def evaluate(x: Float[np.ndarray, " P"]) -> tuple[float, Float[np.ndarray, " P"]]:
            value, gradient = problem.value_and_gradient(model.thresholds(x))
            return value, model.gradient(gradient)

        def curvature(x: Float[np.ndarray, " P"]) -> Solve:
            factor = _factor(model.hessian(problem.hessian(model.thresholds(x))), model.null)
            return lambda g: cho_solve(factor, g)

        def check(x: Float[np.ndarray, " P"]) -> None:
            # A common step of anchored items' partners is not a symptom; only spread is.
            tau = model.thresholds(x)
            if np.ptp(tau) > 2 * LARGEST_STEP + np.ptp(model.offset):
                raise ExistenceError(
                    f"threshold {int(np.abs(tau).argmax())} runs beyond {LARGEST_STEP} logits: its "
                    "estimate is infinite; drop the item or merge its categories"
                )

        found = minimise(
            evaluate,
            curvature,
            eta,
            tol=self.tol,
            max_steps=self.max_steps,
            check=check,
            measure=lambda step: float(np.abs(model.change(step)).max()),
        )
        return found.x, found.n_iter, found.converged

    def _calibration(
        self,
        problem: "Problem",
        model: Linear,
        eta: Float[np.ndarray, " P"],
        n_iter: int,
        status: Status,
    ) -> Calibration:
        tau, data, null = model.thresholds(eta), problem.data, model.null
        hessian = model.hessian(problem.hessian(tau))
        eta_vcov = _inverse(_factor(hessian, null)) if len(eta) else np.zeros((0, 0))
        vcov = model.covariance(eta_vcov)
        if null.any():
            eta_vcov = eta_vcov - np.outer(null, null) / (null @ null) ** 2 / _scale(hessian)
        out = Calibration(
            model=self.model if self.design is None else "linear",
            method="CML",
            items=data.items,
            max_score=data.max_score,
            threshold=tau,
            vcov=vcov,
            eta=eta,
            eta_vcov=eta_vcov,
            slope=np.ones(len(data.items)),
            slope_se=np.zeros(len(data.items)),
            guess=np.zeros(len(data.items)),
            latent_mean=np.nan,
            latent_sd=np.nan,
            loglik=-problem.value(tau),
            n_parameters=len(eta) - int(null.any()),
            n_iter=n_iter,
            extreme_persons=extreme_persons(data),
            status=status,
        )
        return out if self.anchors else out.renormalise(self.reference or data.items)


def check_model(model: str, data: Responses) -> None:
    """Raise DataError where scores above 1 meet a dichotomous model."""
    if model == "rasch" and (data.max_score > 1).any():
        i = int(np.argmax(data.max_score > 1))
        raise DataError(
            f"item {data.items[i]} has scores up to {data.max_score[i]}; model 'rasch' takes 0/1 "
            "items: use model 'pcm'"
        )


class Problem:
    """Minus the conditional log-likelihood as a function of the thresholds."""

    def __init__(self, data: Responses, groups: list[Pattern]) -> None:
        self.data, self.groups = data, groups
        inside = np.arange(int(data.max_score.max())) < data.max_score[:, None]
        self._inside = inside
        counts = np.zeros(inside.shape)
        for group in groups:
            for at in range(0, len(group.rows), ROWS):
                rows = group.rows[at : at + ROWS]
                part = data.scores[rows]
                for h in range(1, inside.shape[1] + 1):
                    counts[:, h - 1] += data.weight[rows] @ (part == h)
        self.observed = counts

    def value(self, tau: Float[np.ndarray, " H"]) -> float:
        """Return -log L_c."""
        logw = padded(tau, self.data.max_score)
        total = float(self.observed[self._inside] @ -logw[:, 1:][self._inside])
        for group in self.groups:
            for block in blocks(logw[group.items], group.scores):
                total += float(_counts(group, block.scores) @ log_gamma(block))
        return total

    def value_and_gradient(
        self, tau: Float[np.ndarray, " H"]
    ) -> tuple[float, Float[np.ndarray, " H"]]:
        """Return -log L_c and its gradient in the thresholds."""
        logw = padded(tau, self.data.max_score)
        total = float(self.observed[self._inside] @ -logw[:, 1:][self._inside])
        expected = np.zeros_like(self.observed)
        for group in self.groups:
            for block in blocks(logw[group.items], group.scores):
                n = _counts(group, block.scores)
                total += float(n @ log_gamma(block))
                expected[group.items] += expected_counts(block, backward(block, n))[:, 1:]
        excess = np.where(self._inside, self.observed - expected, 0.0)
        return total, np.cumsum(excess[:, ::-1], axis=1)[:, ::-1][self._inside]

    def hessian(self, tau: Float[np.ndarray, " H"]) -> Float[np.ndarray, "H H"]:
        """Return the Hessian of -log L_c in the thresholds."""
        logw = padded(tau, self.data.max_score)
        out = np.zeros((len(tau), len(tau)))
        for group in self.groups:
            inside = self._inside[group.items]
            for block in blocks(logw[group.items], group.scores):
                n = _counts(group, block.scores)
                pi = conditional(block)[:, :, 1:][:, inside]
                moments = second_moments(block, backward(block, n))
                out[np.ix_(group.thresholds, group.thresholds)] += moments - (pi.T * n) @ pi
        if not (self.data.max_score > 1).any():
            return out
        # beta_ih = sum of the item's first h thresholds
        item = np.repeat(np.arange(len(self.data.items)), self.data.max_score)
        cumulate = np.tril(item[:, None] == item).astype(float)
        return cumulate.T @ out @ cumulate

    def start(self) -> Float[np.ndarray, " H"]:
        """Return centred log-odds of adjacent categories, spread as PROX does for the persons.

        A normal distribution of abilities with variance v shrinks the log-odds of an item by about
        sqrt(1 + v / 2.89) (Cohen 1979).
        """
        answered = np.zeros(len(self.data.items))
        for group in self.groups:
            answered[group.items] += group.counts.sum()
        zero = answered - self.observed.sum(axis=1)
        n = np.column_stack([zero, self.observed]).clip(min=0.5)
        tau = np.log(n[:, :-1] / n[:, 1:])[self._inside]
        logits = np.concatenate([_logits(group, self.data) for group in self.groups])
        weight = np.concatenate([group.counts for group in self.groups])
        centre = np.average(logits, weights=weight)
        v, u = float(np.average((logits - centre) ** 2, weights=weight)), float(tau.var())
        spread = (1 + v / 2.89) / (1 - min(u * v / 8.35, 0.8))
        return (tau - tau.mean()) * np.sqrt(spread)


def _counts(group: Pattern, scores: np.ndarray) -> Float[np.ndarray, " S"]:
    return group.counts[np.searchsorted(group.scores, scores)]


def _logits(group: Pattern, data: Responses) -> Float[np.ndarray, " S"]:
    possible = int(data.max_score[group.items].sum())
    return np.log(group.scores / (possible - group.scores))


def _scale(hessian: Float[np.ndarray, "P P"]) -> float:
    return float(np.trace(hessian)) / len(hessian)


def _factor(
    hessian: Float[np.ndarray, "P P"], null: Float[np.ndarray, " P"]
) -> tuple[Float[np.ndarray, "P P"], bool]:
    full = hessian + _scale(hessian) * np.outer(null, null) if null.any() else hessian
    try:
        return cho_factor(full)
    except np.linalg.LinAlgError as error:
        raise ExistenceError(
            "the information matrix is singular, so some estimates are infinite or undetermined; "
            "drop items with rare categories or simplify the design"
        ) from error


def _inverse(factor: tuple[Float[np.ndarray, "P P"], bool]) -> Float[np.ndarray, "P P"]:
    triangle, lower = factor
    half, _ = dpotri(triangle, lower=lower)
    half = np.tril(half) if lower else np.triu(half)
    return half + half.T - np.diag(np.diag(half))
