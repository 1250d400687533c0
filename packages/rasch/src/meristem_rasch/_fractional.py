"""Rasch measurement of scores between 0 and 1: mean grades, pass rates over samples.

- E y_vi = sigma(theta_v - b_i), Var = phi p (1 - p) / w; quasi-likelihood (Wedderburn 1974)
- w counts points, graders or samples; phi is Pearson's X^2 / (cells - parameters)
- a ridge on b keeps items that all systems solve, or none, finite; it is part of the result
- standard errors are those of the penalised information times sqrt(phi); intervals of abilities
  resample items
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from meristem_rasch._alignment import Cells, Weight, check_scores
from meristem_rasch._errors import DataError
from meristem_rasch._two_way import FLOOR, two_way


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FractionalFit:
    """Abilities and difficulties in logits, mean difficulty 0."""

    ability: Float[np.ndarray, " V"]
    ability_se: Float[np.ndarray, " V"]
    interval: Float[np.ndarray, "V 2"]  # 95 %, resampling items
    difficulty: Float[np.ndarray, " I"]
    difficulty_se: Float[np.ndarray, " I"]
    dispersion: float  # phi; 1 for independent trials
    fitted: Float[np.ndarray, "V I"]
    ridge: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fractional:
    """Quasi-likelihood estimation for fractions.

    Parameters
    ----------
    ridge
        Weight of sum b^2 / 2 in the penalty; 0 needs data without items that all or no system
        solves.
    bootstrap
        Resamples of the items for the intervals of the abilities.
    """

    ridge: float | int = 0.3
    bootstrap: int = 1000

    def fit(
        self,
        scores: ArrayLike,
        weight: Weight | None = None,
        *,
        rng: np.random.Generator | int = 0,
    ) -> FractionalFit:
        """Return the fit of systems x items scores in [0, 1]; NaN = not observed.

        Raises
        ------
        DataError
            If scores leave [0, 1], weights are not positive or the ridge is negative.
        ConvergenceError
            If without a ridge an estimate is infinite.

        Examples
        --------
        >>> scores = [[0.9, 0.6, 0.2], [0.8, 0.4, 0.1]]
        >>> Fractional(ridge=0.01, bootstrap=10).fit(scores, 20).ability.round(2).tolist()
        [0.4, -0.4]
        """
        if not 0 <= self.ridge < np.inf or self.bootstrap < 1:
            raise DataError(
                f"ridge ({self.ridge}) must be finite and >= 0, bootstrap ({self.bootstrap}) >= 1"
            )
        y, w = check_scores(scores, weight)
        theta, b = two_way(y, w, ridge=self.ridge)
        p = np.asarray(expit(theta[:, None] - b), dtype=float)
        free = int((w > 0).sum()) - sum(y.shape) + 1
        spread = np.maximum(p * (1 - p), 1e-12)
        phi = float((w * (y - p) ** 2 / spread).sum()) / max(free, 1)
        se_theta, se_b = _standard_errors(w * p * (1 - p), self.ridge)
        interval = self._intervals(y, w, np.random.default_rng(rng))
        return FractionalFit(
            ability=theta,
            ability_se=se_theta * np.sqrt(phi),
            interval=interval,
            difficulty=b,
            difficulty_se=se_b * np.sqrt(phi),
            dispersion=phi,
            fitted=p,
            ridge=float(self.ridge),
        )

    def _intervals(self, y: Cells, w: Cells, rng: np.random.Generator) -> Float[np.ndarray, "V 2"]:
        drawn: list[Float[np.ndarray, " V"]] = []
        for _ in range(self.bootstrap):
            rows = rng.integers(len(y.T), size=len(y.T))
            drawn.append(two_way(y[:, rows], w[:, rows], ridge=self.ridge)[0])
        return np.quantile(drawn, [0.025, 0.975], axis=0).T


def _standard_errors(
    info: Cells, ridge: float | int
) -> tuple[Float[np.ndarray, " V"], Float[np.ndarray, " I"]]:
    """Return standard errors of theta and b in the normalisation mean b = 0."""
    small, large = (FLOOR, max(ridge, FLOOR)) if len(info) <= len(info.T) else (ridge, FLOOR)
    x = info if len(info) <= len(info.T) else info.T
    d_s, d_t = x.sum(axis=1) + max(small, FLOOR), x.sum(axis=0) + large
    scaled = x / d_t
    schur = np.asarray(np.diag(d_s) - scaled @ x.T, dtype=float)
    inverse = cho_solve(cho_factor(schur), np.eye(len(x)))
    inverse = np.asarray(inverse, dtype=float)
    v_s = np.diag(inverse)
    v_t = 1 / d_t + np.einsum("vi,vu,ui->i", scaled, inverse, scaled)
    if x is info:  # the mean of b is that of the larger side
        mean = scaled.mean(axis=1)
        cov_s, cov_t = inverse @ mean, 1 / (d_t * len(d_t)) + scaled.T @ inverse @ mean
        v_mean = float((1 / d_t).mean()) / len(d_t) + float(mean @ inverse @ mean)
        return np.sqrt(v_s - 2 * cov_s + v_mean), np.sqrt(v_t - 2 * cov_t + v_mean)
    mean = np.full(len(x), 1 / len(x))
    cov_s, cov_t = inverse @ mean, scaled.T @ inverse @ mean
    v_mean = float(mean @ inverse @ mean)
    return np.sqrt(v_t - 2 * cov_t + v_mean), np.sqrt(v_s - 2 * cov_s + v_mean)
