"""Fractional Rasch measurement: mean scores in [0, 1], such as pass rates or graded shares.

- E y_vi = sigma(theta_v - b_i), Var y_vi = phi p (1 - p) / w_vi: quasi-likelihood (Wedderburn 1974;
  Papke & Wooldridge 1996), with a ridge on the difficulties that keeps all-right items finite
- Newton's method with the Schur complement of the larger side, which is diagonal
- phi = Pearson X^2 / (cells - parameters); standard errors are multiplied by sqrt(phi)
- intervals of the abilities resample items: few systems, many items is the usual case
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.special import expit

from meristem_rasch._errors import ConvergenceError, DataError, ExistenceError

RIDGE_ABILITY = 1e-6  # decides nothing but the shift that the difficulties' ridge leaves open
FARTHEST = 30.0  # logits
Table = Float[np.ndarray, "N I"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FractionalFit:
    """Abilities and difficulties in logits; the mean difficulty is 0."""

    ability: Float[np.ndarray, " N"]
    ability_se: Float[np.ndarray, " N"]
    difficulty: Float[np.ndarray, " I"]
    difficulty_se: Float[np.ndarray, " I"]
    interval: Float[np.ndarray, "N 2"]  # 95 % over resampled items; NaN without bootstrap
    dispersion: float  # phi; 1 for independent trials, more for anything the model misses
    fitted: Table
    ridge: float | int
    n_iter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fractional:
    """Rasch measurement of mean scores.

    Parameters
    ----------
    ridge
        Precision of a normal prior of the difficulties around 0; 0 for none.
    bootstrap
        Draws of items for the abilities' intervals; 0 for none.
    """

    ridge: float | int = 0.3
    bootstrap: int = 1000
    tol: float = 1e-9
    max_steps: int = 100

    def fit(
        self,
        scores: ArrayLike,
        weight: ArrayLike | None = None,
        *,
        rng: np.random.Generator | int = 0,
    ) -> FractionalFit:
        """Return the fit of systems x items mean scores; NaN = missing.

        Parameters
        ----------
        weight
            Trials behind each mean (points, samples or graders), shape (N, I) or (I,); default 1.

        Raises
        ------
        DataError
            If a score is outside [0, 1], a weight is not positive, or a row or column is empty.
        ExistenceError
            If, without a ridge, an estimate is infinite.
        ConvergenceError
            If `max_steps` steps do not reach `tol`.
        """
        y, w = _checked(scores, weight)
        if self.ridge == 0:
            _check_interior(y, w)
        theta, b, n_iter = self._solve(y, w, np.ones(y.shape[1]))
        p = expit(theta[:, None] - b)
        theta_se, b_se = _errors(p, w, self.ridge)
        cells = int((w > 0).sum())
        spare = max(cells - sum(y.shape) + 1, 1)
        phi = float((w * (y - p) ** 2 / (p * (1 - p))).sum()) / spare
        return FractionalFit(
            ability=theta,
            ability_se=theta_se * phi**0.5,
            difficulty=b,
            difficulty_se=b_se * phi**0.5,
            interval=self._resample(y, w, theta, b, np.random.default_rng(rng)),
            dispersion=phi,
            fitted=p,
            ridge=self.ridge,
            n_iter=n_iter,
        )

    def held_out(self, scores: ArrayLike, weight: ArrayLike | None = None) -> Table:
        """Return each system's expected scores from difficulties that the others determine.

        Its ability is the root of its own score equation at those difficulties; NaN where all
        others left the item out.
        """
        y, w = _checked(scores, weight)
        out = np.full(y.shape, np.nan)
        for v in range(len(y)):
            others = np.arange(len(y)) != v
            known = w[others].sum(axis=0) > 0
            _, b, _ = self._solve(y[others][:, known], w[others][:, known], np.ones(known.sum()))
            theta = _ability(y[v, known], w[v, known], b)
            out[v, known] = expit(theta - b)
        return out

    def _solve(
        self,
        y: Table,
        w: Table,
        times: Float[np.ndarray, " I"],
        start: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " I"], int]:
        w, ridge = w * times, self.ridge * times
        theta, b = start or (np.zeros(len(y)), np.zeros(y.shape[1]))
        value = _objective(y, w, ridge, theta, b)
        for n_iter in range(1, self.max_steps + 1):
            p = expit(theta[:, None] - b)
            excess = w * (y - p)
            up = excess.sum(axis=1) - RIDGE_ABILITY * theta
            down = -excess.sum(axis=0) - ridge * b
            d_theta, d_b = _newton(w * p * (1 - p), ridge, up, down)
            if self.ridge == 0:  # a common shift decides nothing, and is rounding
                d_theta, d_b = d_theta - d_b.mean(), d_b - d_b.mean()
            scale = min(1.0, 3.0 / max(np.abs(d_theta).max(), np.abs(d_b).max(), 1e-300))
            while True:
                new = theta + scale * d_theta, b + scale * d_b
                after = _objective(y, w, ridge, *new)
                if after <= value + 1e-12 * abs(value) or scale < 1e-8:
                    break
                scale /= 2
            (theta, b), value = new, after
            moved = scale * max(float(np.abs(d_theta).max()), float(np.abs(d_b).max()))
            if moved < self.tol:
                centre = float(b.mean()) if start is None else 0.0
                return theta - centre, b - centre, n_iter
        raise ConvergenceError(f"no convergence to {self.tol} within {self.max_steps} steps")

    def _resample(
        self,
        y: Table,
        w: Table,
        theta: Float[np.ndarray, " N"],
        b: Float[np.ndarray, " I"],
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "N 2"]:
        if not self.bootstrap:
            return np.full((len(y), 2), np.nan)
        items, drawn = y.shape[1], list[np.ndarray]()
        for _ in range(self.bootstrap):
            times = rng.multinomial(items, np.full(items, 1 / items)).astype(float)
            kept = times > 0
            start = theta, b[kept]
            t, c, _ = self._solve(y[:, kept], w[:, kept], times[kept], start)
            drawn.append(t - np.average(c, weights=times[kept]))
        return np.quantile(np.array(drawn), [0.025, 0.975], axis=0).T


def _checked(scores: ArrayLike, weight: ArrayLike | None) -> tuple[Table, Table]:
    y = np.asarray(scores, dtype=float)
    if y.ndim != 2 or min(y.shape) < 2:
        raise DataError(f"the scores have shape {y.shape}; give systems x items, both >= 2")
    seen: Bool[np.ndarray, "N I"] = ~np.isnan(y)
    bad = seen & ~((y >= 0) & (y <= 1))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"score {y[row, column]} of system {row + 1}, item {column + 1} is outside [0, 1]; "
            "divide by the largest score"
        )
    w = np.ones(y.shape) if weight is None else np.broadcast_to(np.asarray(weight, float), y.shape)
    if not (np.isfinite(w) & (w > 0))[seen].all():
        raise DataError("weights must be finite and > 0, shape (N, I) or (I,)")
    if not (seen.any(axis=0).all() and seen.any(axis=1).all()):
        raise DataError("a system or item has no score; drop it")
    return np.where(seen, y, 0.0), np.where(seen, w, 0.0)


def _check_interior(y: Table, w: Table) -> None:
    for kind, axis in (("item", 0), ("system", 1)):
        right, total = (w * y).sum(axis=axis), w.sum(axis=axis)
        extreme = np.flatnonzero((right == 0) | (right == total))
        if len(extreme):
            raise ExistenceError(
                f"{kind} {extreme[0] + 1} is all right or all wrong, so its estimate is infinite; "
                "use a ridge, or drop it"
            )


def _objective(
    y: Table,
    w: Table,
    ridge: Float[np.ndarray, " I"],
    theta: Float[np.ndarray, " N"],
    b: Float[np.ndarray, " I"],
) -> float:
    z = theta[:, None] - b
    loss = float((w * (np.logaddexp(0, z) - y * z)).sum())
    return loss + float(ridge @ b**2) / 2 + RIDGE_ABILITY * float(theta @ theta) / 2


def _newton(
    c: Table,
    ridge: Float[np.ndarray, " I"],
    up: Float[np.ndarray, " N"],
    down: Float[np.ndarray, " I"],
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " I"]]:
    """Solve [[A, -C], [-C', D]] (t, d) = (up, down), A and D diagonal."""
    a, d = c.sum(axis=1) + RIDGE_ABILITY, c.sum(axis=0) + ridge
    if c.shape[0] > c.shape[1]:
        half = c.T / a
        b = np.linalg.solve(np.diag(d) - half @ c, down + half @ up)
        return (up + c @ b) / a, b
    half = c / d
    theta = np.linalg.solve(np.diag(a) - half @ c.T, up + half @ down)
    return theta, (down + c.T @ theta) / d


def _errors(
    p: Table, w: Table, ridge: float | int
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " I"]]:
    """Return standard errors at phi = 1, in the normalisation mean difficulty = 0."""
    c = w * p * (1 - p)
    a, d = c.sum(axis=1) + RIDGE_ABILITY, c.sum(axis=0) + ridge + 1e-12
    n, items = c.shape
    # (theta, b) -> shift by the mean of b: needs the covariance of each with that mean
    if n <= items:
        core = np.linalg.inv(np.diag(a) - (c / d) @ c.T)
        lift = (c / d).T  # b = lift theta + noise / d
        b_variance = 1 / d + np.einsum("in,nm,im->i", lift, core, lift)
        mean_row = lift.mean(axis=0)
        mean_theta = core @ mean_row
        mean_b = lift @ mean_theta + 1 / d / items
        theta_variance = np.diag(core)
    else:
        core = np.linalg.inv(np.diag(d) - (c.T / a) @ c)
        lift = c / a[:, None]
        theta_variance = 1 / a + np.einsum("ni,ij,nj->n", lift, core, lift)
        mean_b = core.mean(axis=1)
        mean_theta = lift @ mean_b
        b_variance = np.diag(core)
    mean_variance = float(mean_b.mean())
    return (
        np.sqrt((theta_variance - 2 * mean_theta + mean_variance).clip(min=0)),
        np.sqrt((b_variance - 2 * mean_b + mean_variance).clip(min=0)),
    )


def _ability(
    y: Float[np.ndarray, " i"], w: Float[np.ndarray, " i"], b: Float[np.ndarray, " i"]
) -> float:
    """Return the root of sum w (y - sigma(theta - b)), at most `FARTHEST` from the items."""
    theta = 0.0
    for _ in range(200):
        p = expit(theta - b)
        step = float(w @ (y - p)) / max(float(w @ (p * (1 - p))), 1e-12)
        theta = float(np.clip(theta + np.clip(step, -1, 1), -FARTHEST, FARTHEST))
        if abs(step) < 1e-10:
            break
    return theta
