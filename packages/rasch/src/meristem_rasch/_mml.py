"""Marginal maximum likelihood: theta ~ N(0, sd^2) integrated over equally spaced nodes.

- P_h proportional to exp(a (h theta - beta_ih)); slopes 1 and sd free (Rasch, partial credit), or
  slopes free and sd 1 (2PL, generalised partial credit); a negative slope is a finding
- the gradient of log L is the expected gradient of the complete data (Fisher's identity), from the
  expected counts r_iqh of item, node and category
- L-BFGS, then Newton steps with the Hessian of the marginal log-likelihood (central differences of
  its gradient), whose inverse is the covariance
- the trapezoid sum is accurate to 1e-8 while the spacing is at most the posterior's standard
  deviation; nodes are added until that holds for everyone

Legend: n distinct answer patterns, I items, Q nodes, K categories.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from meristem_rasch._calibration import Calibration
from meristem_rasch._cml import check_model
from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError
from meristem_rasch._kernel import padded
from meristem_rasch._responses import Responses

REACH = 6.0  # nodes lie within this many standard deviations; 2e-9 of the mass is beyond
MOST_NODES = 2001
DIFFERENCE = 1e-4  # step of the central differences: error 1e-8 against rounding of 1e-11
SMALLEST_SD = 1e-2  # logits; below it the variance is 0 for every purpose
CHUNK = 4_000_000  # cells of a posterior held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class MML:
    """Marginal maximum likelihood.

    Parameters
    ----------
    model
        "rasch" or "pcm" (one slope, free sd), "2pl" or "gpcm" (free slopes, sd 1).
    n_nodes
        Number of nodes; default 61, doubled while the spacing exceeds a posterior's sd.
    tol
        Largest change of a parameter in the last Newton step.
    """

    model: Literal["rasch", "pcm", "2pl", "gpcm"] = "rasch"
    n_nodes: int | None = None
    tol: float = 1e-8

    def fit(self, data: Responses) -> Calibration:
        """Return the calibration of `data`.

        Raises
        ------
        DataError
            If a score above 1 meets a dichotomous model, or `n_nodes` is below 3.
        ExistenceError
            If a category is never observed, or the information matrix is singular.
        ConvergenceError
            If the Newton steps do not reach `tol`, or more than 2001 nodes are needed.
        """
        check_model("rasch" if self.model == "2pl" else self.model, data)
        _check_categories(data)
        if self.n_nodes is not None and self.n_nodes < 3:
            raise DataError(f"n_nodes is {self.n_nodes}; give at least 3")
        marginal = Marginal(data, free_slopes=self.model in ("2pl", "gpcm"))
        psi, n_nodes = marginal.start(), self.n_nodes or 61
        while True:
            psi, hessian, n_iter = _maximise(marginal, psi, n_nodes, self.tol)
            spacing = 2 * REACH * marginal.sd(psi) / (n_nodes - 1)
            if self.n_nodes is not None or spacing <= marginal.smallest_sd(psi, n_nodes):
                return self._calibration(marginal, psi, hessian, n_nodes, n_iter)
            n_nodes = 2 * n_nodes - 1
            if n_nodes > MOST_NODES:
                raise ConvergenceError(
                    f"a posterior is narrower than the spacing of {MOST_NODES} nodes; a slope may "
                    "be running to infinity: set n_nodes, or look for items that repeat each other"
                )

    def _calibration(
        self,
        marginal: "Marginal",
        psi: Float[np.ndarray, " P"],
        hessian: Float[np.ndarray, "P P"],
        n_nodes: int,
        n_iter: int,
    ) -> Calibration:
        data, size = marginal.data, int(marginal.data.max_score.sum())
        covariance = cho_solve(cho_factor(hessian), np.eye(len(psi)))
        slope, tau, sd = marginal.parts(psi)
        slope_se = np.sqrt(np.diag(covariance)[size:])
        out = Calibration(
            model=self.model,
            method="MML",
            items=data.items,
            max_score=data.max_score,
            threshold=tau,
            vcov=covariance[:size, :size],
            eta=psi,
            eta_vcov=covariance,
            slope=slope,
            slope_se=slope_se if marginal.free_slopes else np.zeros(len(slope)),
            guess=np.zeros(len(slope)),
            latent_mean=0.0,
            latent_sd=sd,
            loglik=-marginal.value_and_gradient(psi, n_nodes)[0],
            n_parameters=len(psi),
            n_iter=n_iter,
            extreme_persons=(),
            status="converged",
        )
        return out if marginal.free_slopes else out.renormalise(data.items)


class Marginal:
    """Minus the marginal log-likelihood; parameters are thresholds, then slopes or log sd."""

    def __init__(self, data: Responses, *, free_slopes: bool) -> None:
        self.data, self.free_slopes = data, free_slopes
        self.rows, where = np.unique(data.scores, axis=0, return_inverse=True)
        self.weight = np.bincount(where.ravel(), weights=data.weight)
        self._inside = np.arange(int(data.max_score.max())) < data.max_score[:, None]

    def parts(
        self, psi: Float[np.ndarray, " P"]
    ) -> tuple[Float[np.ndarray, " I"], Float[np.ndarray, " H"], float]:
        """Return slopes, thresholds and the sd of theta."""
        size = int(self.data.max_score.sum())
        if self.free_slopes:
            return psi[size:], psi[:size], 1.0
        return np.ones(len(self.data.items)), psi[:size], float(np.exp(psi[size]))

    def sd(self, psi: Float[np.ndarray, " P"]) -> float:
        """Return the sd of theta."""
        return self.parts(psi)[2]

    def start(self) -> Float[np.ndarray, " P"]:
        """Return log-odds of adjacent categories, slopes and sd 1."""
        n = np.zeros((len(self.data.items), int(self.data.max_score.max()) + 1))
        for h in range(n.shape[1]):
            n[:, h] = self.weight @ (self.rows == h)
        tau = np.log(n[:, :-1].clip(min=0.5) / n[:, 1:].clip(min=0.5))[self._inside]
        return np.concatenate([tau, np.ones(len(n)) if self.free_slopes else np.zeros(1)])

    def value_and_gradient(
        self, psi: Float[np.ndarray, " P"], n_nodes: int
    ) -> tuple[float, Float[np.ndarray, " P"]]:
        """Return -log L and its gradient."""
        slope, tau, sd = self.parts(psi)
        z = np.linspace(-REACH, REACH, n_nodes)
        h: Float[np.ndarray, " K"] = np.arange(self._inside.shape[1] + 1, dtype=float)
        beta = padded(tau, self.data.max_score)
        inner = sd * z[None, :, None] * h + beta[:, None, :]  # (I, Q, K): h theta - beta
        finite = np.isfinite(inner)
        exponent = np.where(finite, slope[:, None, None] * np.where(finite, inner, 0), -np.inf)
        top = exponent.max(axis=2, keepdims=True)
        log_p = exponent - top - np.log(np.exp(exponent - top).sum(axis=2, keepdims=True))
        loglik, counts = self._e_step(np.where(finite, log_p, 0.0), z)
        p = np.exp(log_p)
        excess = counts - counts.sum(axis=2, keepdims=True) * p
        above = excess.sum(axis=1)[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        d_tau = -(slope[:, None] * above)[self._inside]
        d_slope = (excess * np.where(finite, inner, 0)).sum(axis=(1, 2))
        d_sd = float(((excess @ h) @ z * slope).sum()) * sd
        last = d_slope if self.free_slopes else np.array([d_sd])
        return -loglik, -np.concatenate([d_tau, last])

    def _e_step(
        self, log_p: Float[np.ndarray, "I Q K"], z: Float[np.ndarray, " Q"]
    ) -> tuple[float, Float[np.ndarray, "I Q K"]]:
        loglik, counts = 0.0, np.zeros_like(log_p)
        for part in self._chunks(len(z)):
            rows, weight = self.rows[part], self.weight[part]
            log_joint = _log_joint(rows, log_p, z)
            top = log_joint.max(axis=1, keepdims=True)
            posterior = np.exp(log_joint - top)
            total = posterior.sum(axis=1, keepdims=True)
            loglik += float(weight @ (top + np.log(total))[:, 0])
            posterior *= weight[:, None] / total
            for k in range(log_p.shape[2]):
                counts[:, :, k] += (rows == k).T.astype(float) @ posterior
        return loglik, counts

    def smallest_sd(self, psi: Float[np.ndarray, " P"], n_nodes: int) -> float:
        """Return a lower bound of the posteriors' standard deviations, from the information."""
        slope, tau, sd = self.parts(psi)
        theta = sd * np.linspace(-REACH, REACH, n_nodes)
        h: Float[np.ndarray, " K"] = np.arange(self._inside.shape[1] + 1, dtype=float)
        beta = padded(tau, self.data.max_score)
        finite = np.isfinite(beta)
        inner = theta[None, :, None] * h + np.where(finite, beta, 0)[:, None, :]
        inner = np.where(finite[:, None, :], slope[:, None, None] * inner, -np.inf)
        p = np.exp(inner - inner.max(axis=2, keepdims=True))
        p /= p.sum(axis=2, keepdims=True)
        variance = p @ h**2 - (p @ h) ** 2
        most = float((slope[:, None] ** 2 * variance).sum(axis=0).max())
        return (most + sd**-2) ** -0.5

    def _chunks(self, n_nodes: int) -> list[slice]:
        size = max(1, CHUNK // n_nodes)
        return [slice(k, k + size) for k in range(0, len(self.rows), size)]


def _log_joint(
    rows: Int[np.ndarray, "n I"], log_p: Float[np.ndarray, "I Q K"], z: Float[np.ndarray, " Q"]
) -> Float[np.ndarray, "n Q"]:
    prior = -(z**2) / 2
    out = np.tile(prior - np.log(np.exp(prior).sum()), (len(rows), 1))
    for k in range(log_p.shape[2]):
        out += (rows == k).astype(float) @ log_p[:, :, k]
    return out


def _check_categories(data: Responses) -> None:
    for i, top in enumerate(data.max_score):
        seen = set(data.scores[data.weight > 0, i].tolist())
        missing = [h for h in range(int(top) + 1) if h not in seen]
        if missing:
            raise ExistenceError(
                f"item {data.items[i]}: nobody scores {missing}; its estimates are infinite: drop "
                "the item or merge categories"
            )


def _maximise(
    marginal: Marginal, psi: Float[np.ndarray, " P"], n_nodes: int, tol: float
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P P"], int]:
    n = float(marginal.weight.sum())

    def scaled(x: Float[np.ndarray, " P"]) -> tuple[float, Float[np.ndarray, " P"]]:
        value, gradient = marginal.value_and_gradient(x, n_nodes)
        return value / n, gradient / n

    found = minimize(
        scaled,
        psi,
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-7, "maxiter": 2000, "maxfun": 4000},
    )
    psi, n_iter = found.x, int(found.nit)
    _check_spread(marginal, psi)
    hessian = _hessian(marginal, psi, n_nodes)
    try:
        factor = cho_factor(hessian)
    except np.linalg.LinAlgError as error:
        raise ExistenceError(
            "the information matrix is singular at the estimate, so a slope or threshold runs to "
            "infinity or is undetermined; drop the item or use a model without slopes"
        ) from error
    for extra in range(1, 21):
        step = cho_solve(factor, marginal.value_and_gradient(psi, n_nodes)[1])
        psi = psi - step
        _check_spread(marginal, psi)
        if np.abs(step).max() < tol:
            return psi, hessian, n_iter + extra
    raise ConvergenceError(f"no convergence to {tol}; raise tol or simplify the model")


def _check_spread(marginal: Marginal, psi: Float[np.ndarray, " P"]) -> None:
    if marginal.sd(psi) < SMALLEST_SD:
        raise ExistenceError(
            "the persons' variance is estimated as 0: their answers are no more alike than chance; "
            "use CML, or look for items scored the wrong way round"
        )


def _hessian(
    marginal: Marginal, psi: Float[np.ndarray, " P"], n_nodes: int
) -> Float[np.ndarray, "P P"]:
    half = np.zeros((len(psi), len(psi)))
    for k, direction in enumerate(DIFFERENCE * np.eye(len(psi))):
        up = marginal.value_and_gradient(psi + direction, n_nodes)[1]
        down = marginal.value_and_gradient(psi - direction, n_nodes)[1]
        half[k] = (up - down) / (2 * DIFFERENCE)
    return (half + half.T) / 2
