"""Pairwise conditional likelihood: thresholds compared two at a time (Zwinderman 1995).

- given that two answers are (h, l - 1) or (h - 1, l), the first has probability
  sigma(tau_jl - tau_ih), whatever the ability; n_(ih),(jl) counts it
- no distribution of abilities, and any pattern of missing answers: the cost does not depend on it
- answers of a person enter many pairs, so that the errors are Godambe's H^-1 J H^-1
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit

from meristem_rasch._calibration import Calibration
from meristem_rasch._cml import check_model
from meristem_rasch._design import Anchor, Linear, anchored, linear, partial_credit, rating_scale
from meristem_rasch._errors import ExistenceError, Status, conclude
from meristem_rasch._optimise import Solve, minimise
from meristem_rasch._patterns import extreme_persons
from meristem_rasch._responses import Responses

CELLS = 2_000_000  # of an indicator matrix held at once

Table = Float[np.ndarray, "H H"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairwise:
    """Pairwise conditional maximum likelihood; for two items it is CML."""

    model: Literal["rasch", "pcm", "rsm"] = "rasch"
    anchors: Mapping[str, Anchor] = field(default_factory=dict[str, Anchor])
    tol: float = 1e-10
    max_steps: int = 100

    def fit(self, data: Responses, *, strict: bool = True) -> Calibration:
        """Return the calibration of `data`; `loglik` is the composite log-likelihood.

        Parameters
        ----------
        strict
            Whether a search that ends before `tol` raises; else its last state is returned, of
            status "max_steps".

        Raises
        ------
        DataError
            If scores or anchors do not fit the model.
        ExistenceError
            If thresholds are not compared in both directions; names the sets of items.
        ConvergenceError
            If `max_steps` steps do not reach `tol`.
        """
        check_model(self.model, data)
        model = self._model(data)
        counts = _counts(data)
        _check_compared(data, counts)
        upper = np.triu(counts + counts.T)

        def evaluate(eta: Float[np.ndarray, " P"]) -> tuple[float, Float[np.ndarray, " P"]]:
            gap = np.subtract.outer(*(model.thresholds(eta),) * 2)  # tau_a - tau_b
            lost = counts * expit(gap)  # n_ab (1 - sigma(tau_b - tau_a))
            value = -float((counts * log_expit(-gap)).sum())
            return value, model.gradient(lost.sum(axis=1) - lost.sum(axis=0))

        def hessian(eta: Float[np.ndarray, " P"]) -> Table:
            gap = np.subtract.outer(*(model.thresholds(eta),) * 2)
            v = upper * expit(gap) * expit(-gap)
            v = v + v.T
            return model.hessian(np.diag(v.sum(axis=1)) - v)

        def curvature(eta: Float[np.ndarray, " P"]) -> Solve:
            factor = _factor(hessian(eta), model.null)
            return lambda g: cho_solve(factor, g)

        eta = model.start(np.zeros(len(counts)))
        found = minimise(evaluate, curvature, eta, tol=self.tol, max_steps=self.max_steps)

        def result(status: Status) -> Calibration:
            tau = model.thresholds(found.x)
            inverse = cho_solve(_factor(hessian(found.x), model.null), np.eye(len(eta)))
            spread = sum(
                ((s * w[:, None]).T @ s for w, s in _scores(data, tau)), np.zeros(counts.shape)
            )
            eta_vcov = inverse @ model.hessian(spread) @ inverse
            out = Calibration(
                model=self.model,
                method="pairwise",
                items=data.items,
                max_score=data.max_score,
                threshold=tau,
                vcov=model.covariance(eta_vcov),
                eta=found.x,
                eta_vcov=eta_vcov,
                slope=np.ones(len(data.items)),
                slope_se=np.zeros(len(data.items)),
                guess=np.zeros(len(data.items)),
                latent_mean=np.nan,
                latent_sd=np.nan,
                loglik=-found.value,
                n_parameters=len(eta) - int(model.null.any()),
                n_iter=found.n_iter,
                history=tuple(-value for value in found.history),
                extreme_persons=extreme_persons(data),
                status=status,
            )
            return out if self.anchors else out.renormalise(data.items)

        return conclude(
            result,
            converged=found.converged,
            strict=strict,
            tol=self.tol,
            max_steps=self.max_steps,
        )

    def _model(self, data: Responses) -> Linear:
        if self.model == "rsm":
            return linear(rating_scale(data.max_score))
        if self.anchors:
            return anchored(self.anchors, data.items, data.max_score)
        return partial_credit(data.max_score)


def _indicators(
    data: Responses,
) -> Iterator[tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n H"], Float[np.ndarray, "n H"]]]:
    """Yield weights, 1[x_i = h] and 1[x_i = h - 1] of all thresholds (i, h), by chunks."""
    item = np.repeat(np.arange(len(data.items)), data.max_score)
    step = np.arange(len(item)) - np.repeat(
        np.cumsum(data.max_score) - data.max_score, data.max_score
    )
    size = max(1, CELLS // len(item))
    for at in range(0, len(data.scores), size):
        rows = data.scores[at : at + size][:, item]
        yield data.weight[at : at + size], (rows == step + 1) * 1.0, (rows == step) * 1.0


def _counts(data: Responses) -> Table:
    size = int(data.max_score.sum())
    out = np.zeros((size, size))
    for weight, above, below in _indicators(data):
        out += (above * weight[:, None]).T @ below
    item = np.repeat(np.arange(len(data.items)), data.max_score)
    return np.where(item[:, None] == item, 0.0, out)


def _scores(
    data: Responses, tau: Float[np.ndarray, " H"]
) -> Iterator[tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n H"]]]:
    """Yield weights and each person's gradient of the composite log-likelihood."""
    item = np.repeat(np.arange(len(data.items)), data.max_score)
    lost = np.where(item[:, None] == item, 0.0, expit(np.subtract.outer(tau, tau)))
    for weight, above, below in _indicators(data):
        yield weight, below * (above @ lost) - above * (below @ lost.T)


def _check_compared(data: Responses, counts: Table) -> None:
    parts, label = connected_components(
        csr_array((counts > 0).astype(float)), directed=True, connection="strong"
    )
    if parts > 1:
        item = np.repeat(np.arange(len(data.items)), data.max_score)
        sets = [
            ", ".join(dict.fromkeys(data.items[i] for i in item[label == part]))
            for part in range(parts)
        ]
        raise ExistenceError(
            "no finite estimates: thresholds fall into sets that no answers compare both ways: "
            + " | ".join(sets[:6])
            + "; drop items, merge categories, calibrate the sets apart or add persons"
        )


def _factor(hessian: Table, null: Float[np.ndarray, " P"]) -> tuple[Table, bool]:
    scale = float(np.trace(hessian)) / max(len(hessian), 1)
    return cho_factor(hessian + scale * np.outer(null, null))
