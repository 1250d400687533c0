"""Power laws and sigmoids with intervals; needs SciPy (extra `fits`).

- a power law without a floor is a straight line through the logarithms
- a floor, and a sigmoid, are found by bounded least squares from a grid of starts
- intervals resample whole groups (model families, seeds) where they are given
"""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

try:
    from scipy.optimize import OptimizeResult, least_squares
except ImportError as error:
    raise ImportError(
        "meristem_core.fits needs SciPy; install it with: pip install 'meristem-core[fits]'"
    ) from error

from meristem_core._intervals import Interval, resample_indices

Vector = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]
Parameters = Float[np.ndarray, " parameters"]
FLOOR_STARTS = (0.0, 0.5, 0.9, 0.99)  # of the smallest y
SLOPE_STARTS = (1.0, 4.0, 16.0)  # in units of the inverse range of x
SPREAD = 1e-12  # relative residual below which a fit counts as exact


class Status(enum.Enum):
    """How a fit ended; the value is the sentence the user reads."""

    CONVERGED = "the fit converged"
    MAX_STEPS = "stopped at the largest number of evaluations; give more or less noisy points"
    FLOOR_UNDETERMINED = "the data cannot tell the floor from 0; extend the range of x"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """y = scale * x**-exponent + floor."""

    exponent: Interval
    scale: Interval
    floor: Interval
    r2: float  # of log y
    n_iter: int  # evaluations of the best start; 0 for the closed form
    status: Status

    def predict(self, x: Vector) -> Vector:
        """Return y at x > 0."""
        return self.scale.estimate * x**-self.exponent.estimate + self.floor.estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid:
    """y = low + (high - low) / (1 + exp(-slope (x - middle)))."""

    low: Interval
    high: Interval
    slope: Interval
    middle: Interval
    r2: float
    n_iter: int
    status: Status

    def predict(self, x: Vector) -> Vector:
        """Return y at x."""
        parameters = (each.estimate for each in (self.low, self.high, self.slope, self.middle))
        return _sigmoid(np.array([*parameters]), x)


def fit_power_law(
    x: Vector,
    y: Vector,
    *,
    rng: np.random.Generator,
    floor: bool = False,
    groups: Labels | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> PowerLaw:
    """Fit y = scale * x**-exponent (+ floor) by least squares of log y.

    Parameters
    ----------
    x, y
        Positive and finite, shape (n,); at least 3 different x, 4 with a floor.
    floor
        Whether y falls to a level above 0.
    groups
        Label of each point; whole groups are resampled.

    Raises
    ------
    ValueError
        If a value is not positive, or there are too few points.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 4.0, 8.0])
    >>> found = fit_power_law(x, 3 * x**-0.5, rng=np.random.default_rng(0), n_resamples=50)
    >>> round(found.exponent.estimate, 8), round(found.scale.estimate, 8)
    (0.5, 3.0)
    """
    _check_points(x, y, 4 if floor else 3)
    for name, values in (("x", x), ("y", y)):
        if values.min() <= 0:
            raise ValueError(f"{name}[{int(values.argmin())}] is {values.min()}; it must be > 0")
    fit = _fit_floor if floor else _fit_line
    best, n_iter, converged = fit(x, y)
    draws = _resampled(fit, x, y, 4 if floor else 3, groups, n_resamples, rng)
    exponent, scale, level_of_floor = _intervals(best, draws, level, groups, x.size)
    status = Status.CONVERGED if converged else Status.MAX_STEPS
    if floor and level_of_floor.low <= SPREAD * float(y.min()):
        status = Status.FLOOR_UNDETERMINED
    logs = np.log(y)
    fitted = np.log(best[1] * x ** -best[0] + best[2])
    return PowerLaw(
        exponent=exponent,
        scale=scale,
        floor=level_of_floor,
        r2=_r2(logs, fitted),
        n_iter=n_iter,
        status=status,
    )


def fit_sigmoid(
    x: Vector,
    y: Vector,
    *,
    rng: np.random.Generator,
    low: float | None = None,
    high: float | None = None,
    groups: Labels | None = None,
    n_resamples: int = 200,
    level: float = 0.95,
) -> Sigmoid:
    """Fit a sigmoid by least squares; a falling one has a negative slope.

    Parameters
    ----------
    x, y
        Finite, shape (n,); at least 5 different x.
    low, high
        Asymptotes where they are known (chance level, perfect score); else they are fitted.
    groups
        Label of each point; whole groups are resampled.

    Raises
    ------
    ValueError
        If a value is not finite, there are too few points, or low >= high.
    """
    _check_points(x, y, 5)
    if low is not None and high is not None and low >= high:
        raise ValueError(f"low ({low}) must lie below high ({high})")

    def fit(x: Vector, y: Vector) -> tuple[Parameters, int, bool]:
        return _fit_sigmoid(x, y, low, high)

    best, n_iter, converged = fit(x, y)
    draws = _resampled(fit, x, y, 5, groups, n_resamples, rng)
    found = _intervals(best, draws, level, groups, x.size)
    return Sigmoid(
        low=found[0],
        high=found[1],
        slope=found[2],
        middle=found[3],
        r2=_r2(y, _sigmoid(best, x)),
        n_iter=n_iter,
        status=Status.CONVERGED if converged else Status.MAX_STEPS,
    )


Fit = Callable[[Vector, Vector], tuple[Parameters, int, bool]]


def _fit_line(x: Vector, y: Vector) -> tuple[Parameters, int, bool]:
    logs = np.log(x)
    centred = logs - logs.mean()
    slope = float(centred @ np.log(y) / (centred @ centred))
    return np.array([-slope, math.exp(np.log(y).mean() - slope * logs.mean()), 0.0]), 0, True


def _fit_floor(x: Vector, y: Vector) -> tuple[Parameters, int, bool]:
    logs, target, least = np.log(x), np.log(y), float(y.min())

    def residual(p: Parameters) -> Vector:
        return np.logaddexp(p[1] - p[0] * logs, np.log(max(p[2], 1e-300))) - target

    runs: list[OptimizeResult] = []
    for share in FLOOR_STARTS:
        start, _, _ = _fit_line(x, y - share * least + 1e-12 * least)
        first = [start[0], math.log(start[1]), max(share * least, 1e-9 * least)]
        bounds = ([-np.inf, -np.inf, 0.0], [np.inf, np.inf, least])
        first[2] = min(first[2], least * (1 - 1e-6))
        runs.append(
            least_squares(
                residual,
                first,
                bounds=bounds,
                x_scale=[1, 1, least],
                xtol=1e-15,
                ftol=1e-15,
                gtol=1e-15,
            )
        )
    best = min(runs, key=lambda run: run.cost)
    exponent, log_scale, level = best.x
    return np.array([exponent, math.exp(log_scale), level]), int(best.nfev), bool(best.status > 0)


def _fit_sigmoid(
    x: Vector, y: Vector, low: float | None, high: float | None
) -> tuple[Parameters, int, bool]:
    span, height = float(np.ptp(x)), float(np.ptp(y)) or 1.0
    ends = (float(y.min()) if low is None else low, float(y.max()) if high is None else high)
    free = [place for place, fixed in enumerate((low, high, None, None)) if fixed is None]

    def whole(p: Float[np.ndarray, " free"]) -> Parameters:
        full = np.array([*ends, 0.0, 0.0])
        full[free] = p
        return full

    runs: list[OptimizeResult] = []
    rising = 1.0 if float(np.corrcoef(x, y)[0, 1] if np.ptp(y) else 1.0) >= 0 else -1.0
    for steepness in SLOPE_STARTS:
        for middle in np.quantile(x, [0.25, 0.5, 0.75]):
            start = np.array([*ends, rising * steepness / span, middle])[free]
            scale = np.array([height, height, 1 / span, span])[free]
            runs.append(least_squares(lambda p: _sigmoid(whole(p), x) - y, start, x_scale=scale))
    best = min(runs, key=lambda run: run.cost)
    return _ordered(whole(best.x)), int(best.nfev), bool(best.status > 0)


def _ordered(p: Parameters) -> Parameters:
    """Swap the ends of a curve that was found upside down: the same curve, low below high."""
    return p if p[0] <= p[1] else np.array([p[1], p[0], -p[2], p[3]])


def _sigmoid(p: Parameters, x: Vector) -> Vector:
    return p[0] + (p[1] - p[0]) * 0.5 * (1 + np.tanh(0.5 * p[2] * (x - p[3])))


def _resampled(
    fit: Fit,
    x: Vector,
    y: Vector,
    needed: int,
    groups: Labels | None,
    n_resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "resamples parameters"]:
    draws: list[Parameters] = []
    tries = 0
    while len(draws) < n_resamples:
        tries += 1
        if tries > 20 * n_resamples:
            raise ValueError("resamples hardly ever have enough different x; give more points")
        rows = resample_indices(x.size, 1, rng=rng, clusters=groups)[0]
        if np.unique(x[rows]).size >= needed:
            draws.append(fit(x[rows], y[rows])[0])
    return np.array(draws)


def _intervals(
    best: Parameters, draws: np.ndarray, level: float, groups: Labels | None, n: int
) -> list[Interval]:
    lows, highs = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    unit = f"{n} points" if groups is None else f"{np.unique(groups).size} groups of points"
    return [
        Interval(
            estimate=float(value),
            low=float(low),
            high=float(high),
            level=level,
            covers=f"sampling of {unit}",
        )
        for value, low, high in zip(best, lows, highs, strict=True)
    ]


def _r2(y: Vector, fitted: Vector) -> float:
    total = float(((y - y.mean()) ** 2).sum())
    return 1.0 - float(((y - fitted) ** 2).sum()) / total if total else 1.0


def _check_points(x: Vector, y: Vector, needed: int) -> None:
    if x.shape != y.shape:
        raise ValueError(f"x ({x.shape}) and y ({y.shape}) must be as long")
    for name, values in (("x", x), ("y", y)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}; drop the point")
    if np.unique(x).size < needed:
        raise ValueError(f"{np.unique(x).size} different x are too few; the fit needs {needed}")
