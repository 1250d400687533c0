"""Pointwise hyperbolicity: rates that tend to 1 at the boundary of the hyperbolic region.

With w(x) the distance to the boundary set, m_u = m(Df|E^u), m_s the same for f^-1 and E^s:

- U(i): the products of m_u along forward and backward orbits diverge
- U(ii): m_u - 1 >= C max(w^beta, (w(fx) / w(x))^gamma - 1) near the boundary; S likewise
- R, a relation of alpha (f is C^(1+alpha)), beta and gamma. The reported form alpha > beta gamma
  excludes the local model (x - x^p, y + y^p) with alpha = 1, beta = p - 1, gamma = p, and would
  make gamma > beta / alpha idle; alpha > beta / gamma admits it. All readings are reported

This is numerical evidence along sampled orbits, not proof; `cone_check` proves, box by box.

References
----------
The conditions are those reported for arXiv 2502.16497.
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from meristem_dynamics._ball import Ball
from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._splitting import apply, frames_along
from meristem_dynamics._systems import Map, ball_parameters, jacobians

QUANTILE = 0.01
SHELLS = 6
RESAMPLES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Rates at points of one orbit after settling."""

    points: Float[np.ndarray, "n d"]
    unstable: Float[np.ndarray, " n"]  # m(Df|E^u)
    stable: Float[np.ndarray, " n"]  # m(Df^-1|E^s) at the image
    distance: Float[np.ndarray, " n"]  # w
    ratio: Float[np.ndarray, " n"]  # w(fx) / w(x)
    angle: Float[np.ndarray, " n"]  # between E^u and E^s, radians


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponents:
    """beta and gamma of one direction; intervals from a bootstrap over orbits, 95 %."""

    beta: float
    beta_interval: tuple[float, float]
    constant: float  # smallest (m - 1) / w^beta over the shells
    gamma: float  # smallest log m / log ratio where the distance grows
    sums_grow: float  # slope of the sum of log m against log n on the longest orbit


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseReport:
    """What sampled orbits say about the conditions U, S and R."""

    unstable: Exponents
    stable: Exponents
    as_reported: bool  # alpha > beta gamma, with the larger beta and the smaller gamma
    ratio: bool  # alpha > beta / gamma
    separate: bool  # the same for each direction by itself
    smallest_angle: float
    worst: Float[np.ndarray, " d"]  # the point with the smallest rate


def pointwise_rates(system: Map, orbit: Float[np.ndarray, "n d"], *, settle: int = 200) -> Rates:
    """Return the rates along an orbit of a planar map.

    Parameters
    ----------
    system
        A map with `boundary_distance`.
    orbit
        At least 2 settle + 2 points.
    settle
        Steps dropped at both ends, while the directions settle; near the boundary that takes about
        w^-beta steps.

    Raises
    ------
    ValueError
        If the map has no boundary distance, is not planar, or the orbit is too short.
    """
    if system.boundary_distance is None or system.dim != 2:
        raise ValueError(f"{system.name} must be planar and have a boundary_distance")
    if len(orbit) < 2 * settle + 2:
        raise ValueError(f"the orbit has {len(orbit)} points; it needs {2 * settle + 2} to settle")
    J = jacobians(system, orbit[:-1])
    expanding = frames_along(J)[:-1, :, 0]
    backward = np.linalg.inv(J[::-1])
    contracting = frames_along(backward)[::-1][:-1, :, 0]
    unstable = np.linalg.norm(apply(J, expanding), axis=1)
    stable = 1 / np.linalg.norm(apply(J, contracting), axis=1)
    w = np.asarray(system.boundary_distance(orbit))
    cosine = np.abs((expanding * contracting).sum(axis=1))
    kept = slice(settle, len(J) - settle)
    return Rates(
        points=orbit[:-1][kept],
        unstable=unstable[kept],
        stable=stable[kept],
        distance=w[:-1][kept],
        ratio=(w[1:] / w[:-1])[kept],
        angle=np.arccos(np.minimum(cosine, 1.0))[kept],
    )


def check_pointwise(
    rates: list[Rates], *, alpha: float | int, below: float, rng: np.random.Generator | int = 0
) -> PointwiseReport:
    """Return exponents beta, gamma of both directions and the three readings of R.

    Parameters
    ----------
    rates
        Of several orbits through the region.
    alpha
        Hölder exponent of Df.
    below
        Only points with w < below count: the zone of the power law.
    rng
        For the bootstrap over orbits.

    Raises
    ------
    ValueError
        If the points below fill fewer than six dyadic shells of w.
    """
    u = _exponents(rates, "unstable", below, np.random.default_rng(rng))
    s = _exponents(rates, "stable", below, np.random.default_rng(rng))
    beta, gamma = max(u.beta, s.beta), min(u.gamma, s.gamma)
    slowest = min(rates, key=lambda r: float(np.minimum(r.unstable, r.stable).min()))
    return PointwiseReport(
        unstable=u,
        stable=s,
        as_reported=alpha > beta * gamma,
        ratio=alpha > beta / gamma,
        separate=u.gamma > u.beta / alpha and s.gamma > s.beta / alpha,
        smallest_angle=min(float(r.angle.min()) for r in rates),
        worst=slowest.points[int(np.argmin(np.minimum(slowest.unstable, slowest.stable)))],
    )


def _exponents(rates: list[Rates], side: str, below: float, rng: np.random.Generator) -> Exponents:
    clouds = [(r.distance, getattr(r, side) - 1) for r in rates]
    beta = _envelope(clouds, below)
    if not np.isfinite(beta):
        raise ValueError(
            f"the points with w < {below} fill fewer than {SHELLS} dyadic shells; take orbits that "
            "come nearer to the boundary"
        )
    draws = [
        _envelope([clouds[i] for i in rng.integers(len(clouds), size=len(clouds))], below)
        for _ in range(RESAMPLES)
    ]
    w, excess = (np.concatenate(part) for part in zip(*clouds, strict=True))
    near = (w < below) & (excess > 0)
    ratio = np.concatenate([r.ratio for r in rates])
    log_ratio = np.log(ratio if side == "unstable" else 1 / ratio)
    growing = near & (log_ratio > 0)
    log_rate = np.log1p(excess[growing])
    longest = max(rates, key=lambda r: len(r.distance))
    sums = np.cumsum(np.log(getattr(longest, side)))
    n = np.arange(1, len(sums) + 1)
    last = n > len(n) // 10
    low, high = np.quantile([x for x in draws if np.isfinite(x)], [0.025, 0.975])
    return Exponents(
        beta=beta,
        beta_interval=(float(low), float(high)),
        constant=float((excess[near] / w[near] ** beta).min()),
        gamma=float(np.quantile(log_rate / log_ratio[growing], QUANTILE))
        if growing.any()
        else float("inf"),
        sums_grow=float(np.polyfit(np.log(n[last]), sums[last], 1)[0]),
    )


def _envelope(clouds: list[tuple[np.ndarray, np.ndarray]], below: float) -> float:
    """Return the slope of the lower envelope of log(m - 1) on log w; NaN with too few shells."""
    w, excess = (np.concatenate(part) for part in zip(*clouds, strict=True))
    near = (w < below) & (excess > 0)
    shell = np.floor(np.log2(w[near] / below)).astype(int)
    rows: list[tuple[float, float]] = []
    for index in np.unique(shell):
        inside = shell == index
        if inside.sum() >= 3:
            level = np.quantile(excess[near][inside], QUANTILE)
            at = w[near][inside][np.argmin(np.abs(excess[near][inside] - level))]
            rows.append((float(np.log(at)), float(np.log(level))))
    if len(rows) < SHELLS:
        return float("nan")
    x, y = np.array(rows).T
    return float(np.polyfit(x, y, 1)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ConeReport:
    """For each box, whether Df maps the cone |s| <= |u| strictly inside and expands u: proved."""

    ok: bool
    inside: Bool[np.ndarray, " n"]
    expansion: Float[np.ndarray, " n"]  # lower bound of |u'| / |u| on the cone
    worst: int


def cone_check(
    system: Map,
    centres: Float[np.ndarray, "n 2"],
    half_widths: float | int,
    frame: Float[np.ndarray, "2 2"],
) -> ConeReport:
    """Prove that a constant cone field is invariant and expanding over boxes, in ball arithmetic.

    Parameters
    ----------
    system
        A planar map that balls can enter.
    centres, half_widths
        The boxes, in sup norm.
    frame
        Columns u and s; the cone is |s| <= |u| in these coordinates.
    """
    p = ball_parameters(system)
    z = [Ball(centres[:, i], float(half_widths)) for i in range(2)]
    J = value_and_jacobian(system.f, z, p)[1]
    det = Ball(frame[0, 0]) * frame[1, 1] - Ball(frame[0, 1]) * frame[1, 0]
    inverse = [[Ball(frame[1, 1]) / det, Ball(-frame[0, 1]) / det],
               [Ball(-frame[1, 0]) / det, Ball(frame[0, 0]) / det]]  # fmt: skip
    columns = [[Ball(1.0) * J[i][0] * frame[0, j] + Ball(1.0) * J[i][1] * frame[1, j]
                for j in range(2)] for i in range(2)]  # fmt: skip
    C = [[inverse[i][0] * columns[0][j] + inverse[i][1] * columns[1][j] for j in range(2)]
         for i in range(2)]  # fmt: skip
    full = np.zeros(len(centres))
    expansion = (C[0][0].mig() - C[0][1].mag() * (1 + 1e-15)) * (1 - 1e-15) + full
    inside = (C[1][0].mag() + C[1][1].mag()) * (1 + 1e-15) < expansion
    return ConeReport(
        ok=bool((inside & (expansion > 1)).all()),
        inside=inside,
        expansion=expansion,
        worst=int(np.argmin(expansion)),
    )
