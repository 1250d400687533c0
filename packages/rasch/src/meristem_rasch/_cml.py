"""Conditional maximum likelihood (Andersen 1972; Fischer 1995), exact, by Newton's method.

- -log L_c = sum x_+ih beta_ih + sum_r n_r log gamma_r, beta the cumulative thresholds
- gradient x_+ih - E_ih, Hessian M - sum_r n_r pi_r pi_r' (in beta); both from the kernel
- thresholds are tau = W eta + offset: identity (partial credit), rating scale, or the user's
- a common shift of all thresholds changes nothing; where W contains it, it is projected out
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from meristem_rasch._calibration import Calibration
from meristem_rasch._design import Anchor, anchored, null_direction, partial_credit, rating_scale
from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError
from meristem_rasch._existence import check_existence
from meristem_rasch._kernel import (
    backward,
    blocks,
    conditional,
    expected_counts,
    log_gamma,
    padded,
    second_moments,
)
from meristem_rasch._patterns import Pattern, extreme_persons, patterns
from meristem_rasch._responses import Responses

LARGEST_STEP = 20.0  # logits; a threshold this far out is running to infinity
MANY_SCORES = 400  # above this a Hessian costs more than many gradients


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
        Largest change of a threshold, in logits, in the last Newton step.
    """

    model: Literal["rasch", "pcm", "rsm"] = "rasch"
    design: Float[np.ndarray, "H P"] | None = None
    offset: Float[np.ndarray, " H"] | None = None
    anchors: Mapping[str, Anchor] = field(default_factory=dict[str, Anchor])
    reference: Sequence[str] | None = None
    tol: float = 1e-10
    max_steps: int = 100

    def fit(self, data: Responses) -> Calibration:
        """Return the calibration of `data`.

        Raises
        ------
        DataError
            If scores or design do not fit the model.
        ExistenceError
            If an estimate is infinite; names the items.
        IdentificationError
            If the design's columns depend on each other.
        ConvergenceError
            If `max_steps` Newton steps do not reach `tol`.
        """
        check_model(self.model, data)
        groups = patterns(data)
        check_existence(data, groups)
        design, offset = self._design(data)
        null = null_direction(design)
        problem = Problem(data, groups)
        eta, n_iter = _newton(problem, design, offset, null, self)
        return self._calibration(problem, design, offset, null, eta, n_iter)

    def _design(self, data: Responses) -> tuple[Float[np.ndarray, "H P"], Float[np.ndarray, " H"]]:
        m = data.max_score
        size = int(m.sum())
        if self.design is None:
            design = rating_scale(m) if self.model == "rsm" else partial_credit(m)
        else:
            design = np.asarray(self.design, dtype=float)
        if self.anchors:
            if self.design is not None or self.model == "rsm":
                raise DataError("anchors need model 'rasch' or 'pcm' without a design; use offset")
            return anchored(design, self.anchors, data.items, m)
        offset = np.zeros(size) if self.offset is None else np.asarray(self.offset, dtype=float)
        if design.shape[0] != size or offset.shape != (size,):
            raise DataError(
                f"design has {design.shape[0]} rows and offset {len(offset)}; both need one per "
                f"threshold, {size}"
            )
        return design, offset

    def _calibration(
        self,
        problem: "Problem",
        design: Float[np.ndarray, "H P"],
        offset: Float[np.ndarray, " H"],
        null: Float[np.ndarray, " P"],
        eta: Float[np.ndarray, " P"],
        n_iter: int,
    ) -> Calibration:
        tau, data = design @ eta + offset, problem.data
        hessian = design.T @ problem.hessian(tau) @ design
        size = len(eta)
        eta_vcov = cho_solve(_factor(hessian, null), np.eye(size)) if size else np.zeros((0, 0))
        vcov = design @ eta_vcov @ design.T
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
            n_parameters=size - int(null.any()),
            n_iter=n_iter,
            extreme_persons=extreme_persons(data),
            status="converged",
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
            part = data.scores[group.rows]
            for h in range(1, inside.shape[1] + 1):
                counts[:, h - 1] += data.weight[group.rows] @ (part == h)
        self.observed = counts
        # beta_ih = sum of the item's first h thresholds
        item = np.repeat(np.arange(len(data.items)), data.max_score)
        self.cumulate = np.tril(item[:, None] == item).astype(float)

    def value(self, tau: Float[np.ndarray, " H"]) -> float:
        """Return -log L_c."""
        logw = padded(tau, self.data.max_score)
        total = float(self.observed[self._inside] @ (self.cumulate @ tau))
        for group in self.groups:
            for block in blocks(logw[group.items], group.scores):
                total += float(_counts(group, block.scores) @ log_gamma(block))
        return total

    def value_and_gradient(
        self, tau: Float[np.ndarray, " H"]
    ) -> tuple[float, Float[np.ndarray, " H"]]:
        """Return -log L_c and its gradient in the thresholds."""
        logw = padded(tau, self.data.max_score)
        total = float(self.observed[self._inside] @ (self.cumulate @ tau))
        expected = np.zeros_like(self.observed)
        for group in self.groups:
            for block in blocks(logw[group.items], group.scores):
                n = _counts(group, block.scores)
                total += float(n @ log_gamma(block))
                expected[group.items] += expected_counts(block, backward(block, n))[:, 1:]
        return total, self.cumulate.T @ (self.observed - expected)[self._inside]

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
        return self.cumulate.T @ out @ self.cumulate

    def start(self) -> Float[np.ndarray, " H"]:
        """Return centred log-odds of adjacent categories."""
        answered = np.zeros(len(self.data.items))
        for group in self.groups:
            answered[group.items] += group.counts.sum()
        zero = answered - self.observed.sum(axis=1)
        n = np.column_stack([zero, self.observed]).clip(min=0.5)
        tau = np.log(n[:, :-1] / n[:, 1:])[self._inside]
        return tau - tau.mean()


def _counts(group: Pattern, scores: np.ndarray) -> Float[np.ndarray, " S"]:
    return group.counts[np.searchsorted(group.scores, scores)]


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


def _newton(
    problem: Problem,
    design: Float[np.ndarray, "H P"],
    offset: Float[np.ndarray, " H"],
    null: Float[np.ndarray, " P"],
    config: CML,
) -> tuple[Float[np.ndarray, " P"], int]:
    eta = np.linalg.lstsq(design, problem.start() - offset, rcond=None)[0]
    if not len(eta):
        return eta, 0
    if len(offset) > MANY_SCORES:
        eta = _lbfgs(problem, design, offset, eta)
    value, gradient = problem.value_and_gradient(design @ eta + offset)
    for n_iter in range(1, config.max_steps + 1):
        tau = design @ eta + offset
        # A common step of anchored items' partners is not a symptom; only spread is.
        if np.ptp(tau) > 2 * LARGEST_STEP + np.ptp(offset):
            raise ExistenceError(
                f"threshold {int(np.abs(tau).argmax())} runs beyond {LARGEST_STEP} logits: its "
                "estimate is infinite; drop the item or merge its categories"
            )
        hessian = design.T @ problem.hessian(tau) @ design
        step = -cho_solve(_factor(hessian, null), design.T @ gradient)
        eta, value, gradient, scale = _search(problem, design, offset, eta, step, value)
        if scale * np.abs(design @ step).max() < config.tol:
            return eta, n_iter
    raise ConvergenceError(
        f"no convergence to {config.tol} within {config.max_steps} Newton steps; raise max_steps"
    )


def _lbfgs(
    problem: Problem,
    design: Float[np.ndarray, "H P"],
    offset: Float[np.ndarray, " H"],
    eta: Float[np.ndarray, " P"],
) -> Float[np.ndarray, " P"]:
    n = sum(float(group.counts.sum()) for group in problem.groups)

    def scaled(x: Float[np.ndarray, " P"]) -> tuple[float, Float[np.ndarray, " P"]]:
        value, gradient = problem.value_and_gradient(design @ x + offset)
        return value / n, design.T @ gradient / n

    done = minimize(scaled, eta, jac=True, method="L-BFGS-B", options={"ftol": 1e-13, "gtol": 1e-7})
    return done.x


def _search(
    problem: Problem,
    design: Float[np.ndarray, "H P"],
    offset: Float[np.ndarray, " H"],
    eta: Float[np.ndarray, " P"],
    step: Float[np.ndarray, " P"],
    value: float,
) -> tuple[Float[np.ndarray, " P"], float, Float[np.ndarray, " H"], float]:
    scale, slack = 1.0, 1e-12 * abs(value)  # below this the value is rounding
    while True:
        trial = eta + scale * step
        new, gradient = problem.value_and_gradient(design @ trial + offset)
        if new <= value + slack or scale < 1e-8:
            return trial, new, gradient, scale
        scale /= 2
