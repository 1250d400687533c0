"""Whether scores vary more than a Rasch model with independent points allows.

- phi_S = sum (y - p)^2 / sum p (1 - p) / w, a ratio of sums; 1 when the w points of a score are
  independent trials (the variance question of GAOKAO-Eval, arXiv 2412.10056, Eq. 3)
- Pearson phi = sum w (y - p)^2 / (p (1 - p)) / (cells - parameters)
- in sample p comes from all scores; held out, item difficulties come from the other systems
- what chance gives is simulated under phi = 1 and refitted, so that both the optimism of an
  in-sample fit and the price of left-out difficulties are in the comparison
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit

from meristem_rasch._alignment import Cells, Weight, check_scores, left_out_prediction
from meristem_rasch._errors import DataError
from meristem_rasch._two_way import two_way


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispersion:
    """An overdispersion factor, its interval over items, and its range under phi = 1."""

    ratio: float
    low: float  # 95 %, resampling items
    high: float
    chance_low: float  # 95 % of refitted simulations with independent points
    chance_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DispersionBin:
    """Scores of cells with similar expectation."""

    expected: float  # mean of p
    cells: int
    variance: float  # mean of (y - p)^2
    binomial: float  # mean of p (1 - p) / w


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdispersion:
    """Variance of the scores beside what independent points would give."""

    in_sample: Dispersion
    held_out: Dispersion
    pearson: float  # in sample; sensitive to cells with p near 0 or 1
    bins: tuple[DispersionBin, ...]  # in sample, from hard to easy


def overdispersion(
    scores: ArrayLike,
    *,
    weight: Weight,
    ridge: float | int = 0.3,
    bins: int = 10,
    bootstrap: int = 200,
    seed: int = 0,
) -> Overdispersion:
    """Return how much more than binomially the scores vary around a Rasch model.

    Parameters
    ----------
    scores
        Systems x items in [0, 1], shape (V, I); NaN = not observed.
    weight
        Trials behind each score, whole numbers broadcast to (V, I): points of a graded item,
        samples of a pass rate. Points of one solution are not independent, so a ratio above 1
        mixes misfit with dependence within items.
    bins
        Groups of cells by expectation, of equal size.
    bootstrap
        Resamples of items, and simulations under phi = 1.

    Raises
    ------
    DataError
        If scores leave [0, 1] or a weight is not a whole number >= 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = expit(rng.normal(size=(8, 1)) - rng.normal(size=60))
    >>> found = overdispersion(rng.binomial(10, p) / 10, weight=10, bootstrap=50)
    >>> found.held_out.chance_low < found.held_out.ratio < found.held_out.chance_high
    True
    """
    y, w = check_scores(scores, weight)
    if bins < 1 or bootstrap < 1 or not 0 <= ridge < np.inf:
        raise DataError(
            f"bins ({bins}) and bootstrap ({bootstrap}) must be at least 1, ridge ({ridge}) finite "
            "and >= 0"
        )
    if (w != np.round(w)).any():
        raise DataError("weights count independent trials; give whole numbers")
    rng = np.random.default_rng(seed)
    seen = w > 0
    p = _fitted(y, w, ridge)
    left = left_out_prediction(y, w, ridge=ridge)
    chance = np.array([_by_chance(p, w, ridge, rng) for _ in range(bootstrap)])
    n_parameters = sum(y.shape) - 1
    spread = np.maximum(p * (1 - p), 1e-12)
    return Overdispersion(
        in_sample=_dispersion(y, p, w, chance[:, 0], rng),
        held_out=_dispersion(y, left, w, chance[:, 1], rng),
        pearson=float((w * (y - p) ** 2 / spread).sum() / max(int(seen.sum()) - n_parameters, 1)),
        bins=_bins(y, p, w, bins),
    )


def _fitted(y: Cells, w: Cells, ridge: float | int) -> Cells:
    theta, b = two_way(y, w, ridge=ridge)
    return expit(theta[:, None] - b)


def _by_chance(
    p: Cells, w: Cells, ridge: float | int, rng: np.random.Generator
) -> tuple[float, float]:
    trials = w.astype(np.int64)
    y = np.divide(rng.binomial(trials, p), w, out=np.zeros_like(p), where=w > 0)
    again, left = _fitted(y, w, ridge), left_out_prediction(y, w, ridge=ridge)
    return float(_ratio(*_sums(y, again, w))), float(_ratio(*_sums(y, left, w)))


def _sums(y: Cells, p: Cells, w: Cells) -> tuple[Float[np.ndarray, " I"], Float[np.ndarray, " I"]]:
    seen = w > 0
    binomial = p * (1 - p) / np.where(seen, w, 1.0)
    return (seen * (y - p) ** 2).sum(axis=0), (seen * binomial).sum(axis=0)


def _ratio(
    squares: Float[np.ndarray, "*n I"], binomial: Float[np.ndarray, "*n I"]
) -> Float[np.ndarray, "*n"]:
    return np.asarray(squares.sum(axis=-1) / binomial.sum(axis=-1))


def _dispersion(
    y: Cells, p: Cells, w: Cells, chance: Float[np.ndarray, " B"], rng: np.random.Generator
) -> Dispersion:
    squares, binomial = _sums(y, p, w)
    rows = rng.integers(len(squares), size=(2000, len(squares)))
    low, high = np.quantile(_ratio(squares[rows], binomial[rows]), [0.025, 0.975])
    chance_low, chance_high = np.quantile(chance, [0.025, 0.975])
    return Dispersion(
        ratio=float(_ratio(squares, binomial)),
        low=float(low),
        high=float(high),
        chance_low=float(chance_low),
        chance_high=float(chance_high),
    )


def _bins(y: Cells, p: Cells, w: Cells, bins: int) -> tuple[DispersionBin, ...]:
    at = np.nonzero(w)
    expected, squares = p[at], (y[at] - p[at]) ** 2
    binomial = expected * (1 - expected) / w[at]
    parts = np.array_split(np.argsort(expected, kind="stable"), min(bins, len(expected)))
    return tuple(
        DispersionBin(
            expected=float(expected[part].mean()),
            cells=len(part),
            variance=float(squares[part].mean()),
            binomial=float(binomial[part].mean()),
        )
        for part in parts
    )
