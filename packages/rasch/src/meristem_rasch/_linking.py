"""Put two calibrations with common items on one scale: theta_target = slope * theta_source + shift.

- mean_mean: slope from the mean discriminations, shift from the mean difficulties
- mean_sigma: slope from the spreads of difficulty (Marco 1977)
- haebara: least squared distance of the common items' characteristic curves (Haebara 1980)
- stocking_lord: of the common test's characteristic curve (Stocking & Lord 1983)
- curves are compared over both populations, so that linking back is the inverse
- Rasch-family scales have one unit: their slope is 1 and every method finds the shift only
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.stats import norm

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._errors import DataError

LinkMethod = Literal["mean_mean", "mean_sigma", "haebara", "stocking_lord"]
SLOPED = ("2pl", "3pl", "gpcm", "grm")
OUTLIER = 2.7  # median absolute deviations (scaled to the normal) of a residual shift


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """A change of scale and how well the common items agree on it."""

    slope: float
    shift: float
    se: float  # of the shift, SD of the common items' residuals / sqrt(their number)
    items: tuple[str, ...]
    residual: Float[np.ndarray, " k"]  # difficulty in the target minus linked difficulty
    dropped: tuple[str, ...]  # common items left out as outliers
    method: LinkMethod

    def apply(self, cal: Calibration) -> Calibration:
        """Return a calibration of the source scale on the target scale."""
        return replace(
            cal,
            threshold=self.slope * cal.threshold + self.shift,
            vcov=self.slope**2 * cal.vcov,
            slope=cal.slope / self.slope,
            slope_se=cal.slope_se / self.slope,
            latent_mean=self.slope * cal.latent_mean + self.shift,
            latent_sd=self.slope * cal.latent_sd,
            latent=tuple(
                replace(
                    group,
                    mean=self.slope * group.mean + self.shift,
                    sd=self.slope * group.sd,
                    mean_se=self.slope * group.mean_se,
                    sd_se=self.slope * group.sd_se,
                )
                for group in cal.latent
            ),
            latent_cov=None if cal.latent_cov is None else self.slope**2 * cal.latent_cov,
        )

    def measure(self, theta: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return measures of the source scale on the target scale."""
        return self.slope * theta + self.shift


def link(
    source: Calibration,
    target: Calibration,
    *,
    items: Sequence[str] | None = None,
    method: LinkMethod = "haebara",
    robust: bool = False,
) -> Link:
    """Return the link from `source` to `target` over their common items.

    Parameters
    ----------
    items
        Common items to use; default all labels that both calibrations hold.
    robust
        Drop, one by one, the item whose residual is furthest beyond 2.7 MAD.

    Raises
    ------
    DataError
        If fewer than 2 common items remain, or models or largest scores differ.

    References
    ----------
    Kolen & Brennan 2014, "Test Equating, Scaling, and Linking", chapter 6.
    """
    common = _common(source, target, items)
    dropped: tuple[str, ...] = ()
    while True:
        found = _link(source, target, common, method)
        if not robust or len(common) <= 3:
            break
        away = np.abs(found.residual - np.median(found.residual))
        if away.max() <= OUTLIER * max(float(np.median(away)) * 1.4826, 1e-9):
            break
        worst = common[int(np.argmax(away))]
        dropped, common = (*dropped, worst), tuple(name for name in common if name != worst)
    return replace(found, dropped=dropped)


def _common(
    source: Calibration, target: Calibration, items: Sequence[str] | None
) -> tuple[str, ...]:
    shared = tuple(name for name in source.items if name in set(target.items))
    if items is not None:
        unknown = [name for name in items if name not in shared]
        if unknown:
            raise DataError(f"items {unknown} are not in both calibrations; common are {shared}")
        shared = tuple(items)
    if len(shared) < 2:
        raise DataError(f"{len(shared)} common items {shared}; a link needs at least 2")
    if (source.model in SLOPED) != (target.model in SLOPED):
        raise DataError(f"models {source.model!r} and {target.model!r} have different units")
    for name in shared:
        tops = [int(cal.max_score[cal.items.index(name)]) for cal in (source, target)]
        if tops[0] != tops[1]:
            raise DataError(f"item {name} has largest scores {tops[0]} and {tops[1]}; recode it")
    return shared


def _link(
    source: Calibration, target: Calibration, common: tuple[str, ...], method: LinkMethod
) -> Link:
    x, y = _select(source, common), _select(target, common)
    slope, shift = METHODS[method](x, y)
    residual = y.difficulty - (slope * x.difficulty + shift)
    return Link(
        slope=slope,
        shift=shift,
        se=float(np.std(residual, ddof=1) / np.sqrt(len(common))),
        items=common,
        residual=residual,
        dropped=(),
        method=method,
    )


def _select(cal: Calibration, common: tuple[str, ...]) -> Calibration:
    chosen = np.array([cal.items.index(name) for name in common])
    rows = np.concatenate([np.flatnonzero(cal.item_of == i) for i in chosen])
    return replace(
        cal,
        items=common,
        max_score=cal.max_score[chosen],
        threshold=cal.threshold[rows],
        vcov=cal.vcov[np.ix_(rows, rows)],
        slope=cal.slope[chosen],
        slope_se=cal.slope_se[chosen],
        guess=cal.guess[chosen],
    )


def _mean_mean(x: Calibration, y: Calibration) -> tuple[float, float]:
    slope = float(x.slope.mean() / y.slope.mean()) if x.model in SLOPED else 1.0
    return slope, float(y.difficulty.mean() - slope * x.difficulty.mean())


def _mean_sigma(x: Calibration, y: Calibration) -> tuple[float, float]:
    if x.model not in SLOPED:
        return _mean_mean(x, y)
    if np.ptp(x.difficulty) == 0 or np.ptp(y.difficulty) == 0:
        raise DataError("the common items are equally difficult; use method 'mean_mean'")
    slope = float(y.difficulty.std() / x.difficulty.std())
    return slope, float(y.difficulty.mean() - slope * x.difficulty.mean())


def _haebara(x: Calibration, y: Calibration) -> tuple[float, float]:
    return _by_curves(x, y, lambda a, b: ((a - b) ** 2).sum(axis=(1, 2)))


def _stocking_lord(x: Calibration, y: Calibration) -> tuple[float, float]:
    h = np.arange(int(x.max_score.max()) + 1.0)
    return _by_curves(x, y, lambda a, b: ((a - b) @ h).sum(axis=1) ** 2)


def _by_curves(
    x: Calibration, y: Calibration, distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[float, float]:
    z = np.linspace(-4, 4, 41)
    weight = norm.pdf(z) / norm.pdf(z).sum()
    nodes = [_population(cal, z) for cal in (x, y)]
    here, there = curves(x, nodes[0])[0], curves(y, nodes[1])[0]

    def loss(parameters: Float[np.ndarray, " p"]) -> float:
        slope, shift = _unpacked(parameters)
        forth = distance(here, curves(y, slope * nodes[0] + shift)[0])
        back = distance(there, curves(x, (nodes[1] - shift) / slope)[0])
        return float(weight @ (forth + back))

    start = _mean_mean(x, y)
    first = np.array([start[1], np.log(start[0])])[: 2 if x.model in SLOPED else 1]
    done = minimize(
        loss, first, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 2000}
    )
    return _unpacked(np.asarray(done.x, dtype=float))


def _unpacked(parameters: Float[np.ndarray, " p"]) -> tuple[float, float]:
    return float(np.exp(parameters[1])) if len(parameters) > 1 else 1.0, float(parameters[0])


def _population(cal: Calibration, z: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
    """Return nodes over the persons of a calibration, or around its items where none are known."""
    known = np.isfinite(cal.latent_mean) and np.isfinite(cal.latent_sd)
    mean = cal.latent_mean if known else float(cal.threshold.mean())
    return mean + (cal.latent_sd if known else 1.0) * z


METHODS: dict[str, Callable[[Calibration, Calibration], tuple[float, float]]] = {
    "mean_mean": _mean_mean,
    "mean_sigma": _mean_sigma,
    "haebara": _haebara,
    "stocking_lord": _stocking_lord,
}
