"""Shadowing certificates of flows: boxes on cross-sections, carried by enclosed Poincaré maps.

An error along the flow is never corrected, so a certificate of the map phi_h dies early. Here each
point has a section across the flow, the time between sections is free, and P_n, the Poincaré map
from one to the next in the coordinates of `_poincare`, is a C^1 map of the box |eta| <= w_n. So the
inequalities of `certify` for C_n around D P_n and e_n = -P_n(0) prove a sequence of eta_n in the
boxes with eta_{n+1} = P_n(eta_n): one solution of the flow that crosses every section within its
box, and |t_n - n h| <= sum |t|.

References
----------
The free step times are those of Coomes, Kocak and Palmer (1995); the argument above is
self-contained.
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._bounds import FLOOR, Bounds, blank, fill
from meristem_dynamics._certificate import Certificate, Segment, Work, certificate_of
from meristem_dynamics._poincare import SectionMaps
from meristem_dynamics._splitting import apply, checked_dimension, frames_along, growth_rates
from meristem_dynamics._systems import Flow, check_finite, components
from meristem_dynamics._tape import Tape
from meristem_dynamics._taylor import (
    ORDER,
    TANGENT_ORDER,
    coefficients,
    polynomial,
    with_tangents,
)
from meristem_dynamics._widths import SLACK

CHUNK = 4096  # steps at once: the series of a chunk stay near the cache
LARGEST_DIMENSION = 12

Points = Float[np.ndarray, "n d"]
Steps = Float[np.ndarray, "t m"]
Sections = Float[np.ndarray, "n d m"]


@dataclass(frozen=True, slots=True)
class _Enclosed:
    """Poincaré maps over boxes: coupling, errors and |t| <= shift + slopes w."""

    bounds: Bounds
    errors: Steps
    shift: Float[np.ndarray, " t"]
    slopes: Steps


def certify_flow(
    flow: Flow, orbit: Points, *, step: float, n_unstable: int | None = None
) -> Certificate:
    """Return a certificate that a true solution of the flow shadows `orbit`.

    Parameters
    ----------
    flow
        A flow that ball arithmetic can enter; the theorem is about its exact parameters.
    orbit
        p_0, ..., p_N, shape (N + 1, d), N >= 1, d >= 2, such as `integrate` makes.
    step
        Time between points, exactly this float64.
    n_unstable
        Number of expanding directions across the flow; by default that of positive exponents.

    Returns
    -------
    Certificate
        A solution passes within `radius[n]` of p_n at a time t_n, with |t_n - n step| at most
        `time_shift`. If it does not close, of the longest segment found that does.

    Raises
    ------
    ValueError
        If the orbit is no finite (N + 1, d) array, or the step too large for its series.

    Examples
    --------
    >>> from meristem_dynamics import integrate, zoo
    >>> lorenz = zoo.lorenz()
    >>> orbit = integrate(lorenz, [1.0, 1.0, 20.0], 320, step=1 / 64)
    >>> certificate = certify_flow(lorenz, orbit, step=1 / 64)
    >>> certificate.ok, certificate.radius_max < 1e-10
    (True, True)
    """
    h = float(step)
    _check(flow, orbit, h)
    frames, errors, rates = _sections(flow, orbit, h)
    k = checked_dimension(n_unstable, rates)
    shifts: list[tuple[Any, Any]] = []

    def bound(a: int, b: int, box: Steps) -> tuple[Bounds, Steps]:
        found = _enclose(flow, orbit[a : b + 1], frames[a : b + 1], box, h, k)
        shifts[:] = [(found.shift, found.slopes)]  # the last bounds are those that close
        return found.bounds, found.errors

    work = Work(orbit, frames, errors, k, bound)
    segment = work.longest()
    return certificate_of(flow, work, segment, step=h, time_shift=_time_shift(segment, shifts))


def _time_shift(segment: Segment, shifts: list[tuple[Any, Any]]) -> float:
    if segment.first == segment.last:
        return 0.0
    base, slopes = shifts[0]
    each = (base + (slopes * segment.widths[:-1]).sum(axis=1)) * SLACK
    return float(each.sum()) * (1 + 2.0**-52 * len(each))  # n roundings of a sum of n terms >= 0


def _check(flow: Flow, orbit: Points, h: float) -> None:
    if len(orbit) < 2 or orbit.shape[1] != flow.dim:
        raise ValueError(
            f"orbit has shape {orbit.shape}; {flow.name} needs (N + 1, {flow.dim}), N >= 1"
        )
    if not 2 <= flow.dim <= LARGEST_DIMENSION:
        raise ValueError(
            f"dim is {flow.dim}; sections need 2 variables, certificates go to {LARGEST_DIMENSION}"
        )
    if not 0 < h < np.inf:
        raise ValueError(f"step is {h}; it is the time between points and must be > 0")
    check_finite(orbit, flow.name)


def _sections(flow: Flow, orbit: Points, h: float) -> tuple[Sections, Steps, Any]:
    """Return frames of the sections, about |P_n(0)| in them, and the exponents of a step."""
    d = flow.dim
    base = across(flow, orbit)
    p = flow.parameters()
    point, extended = Tape(flow.f, d, p), Tape(with_tangents(flow, d - 1), d * d, p)
    J = np.empty((len(orbit) - 1, d - 1, d - 1))
    gap = np.empty((len(orbit) - 1, d))
    for a in range(0, len(J), CHUNK):
        part = slice(a, min(a + CHUNK, len(J)))
        z, S = components(orbit[part]), base[part]
        seeds = [S[:, i, j] for i in range(d) for j in range(d - 1)]
        image = polynomial(coefficients(point, z, ORDER), h)
        tangents = polynomial(coefficients(extended, [*z, *seeds], TANGENT_ORDER), h)[d:]
        pushed = np.stack(tangents, axis=1).reshape(-1, d, d - 1)
        J[part] = base[a + 1 : part.stop + 1].transpose(0, 2, 1) @ pushed
        gap[part] = np.stack(image, axis=1) - orbit[a + 1 : part.stop + 1]
    Q = frames_along(J)
    frames = base @ Q
    errors = np.abs(apply(frames[1:].transpose(0, 2, 1), gap)) + 2.0**-50 * np.abs(orbit).max()
    return frames, errors, growth_rates(J, Q)


def across(flow: Flow, orbit: Points) -> Sections:
    """Return orthonormal columns across f at each point, by a reflection, shape (n, d, d - 1).

    Raises
    ------
    ValueError
        If f vanishes at a point: an equilibrium has no section.
    """
    p, d = flow.parameters(), flow.dim
    f = np.stack([np.zeros(len(orbit)) + y for y in flow.f(components(orbit), p)], axis=1)
    size = np.sqrt((f * f).sum(axis=1, keepdims=True))
    if not (size > 0).all():
        n = int(np.argmin(np.nan_to_num(size)))
        raise ValueError(
            f"f is {f[n].tolist()} at point {n} of {flow.name}; it must be finite and not 0 there"
        )
    unit = f / size
    last = np.where(unit[:, -1] < 0, -1.0, 1.0)
    normal = unit.copy()
    normal[:, -1] += last  # H = 1 - 2 n n^T / |n|^2 sends `unit` to -last times the last axis
    twice = 2 / (normal * normal).sum(axis=1)
    outer = normal[:, :, None] * normal[:, None, : d - 1]
    return np.eye(d)[:, : d - 1] - twice[:, None, None] * outer


def _enclose(
    flow: Flow, points: Points, frames: Sections, box: Steps, h: float, k: int
) -> _Enclosed:
    """Return the bounds of the steps between consecutive points over boxes, chunk by chunk."""
    n, m = box.shape
    out = _Enclosed(blank(n, m, k), np.empty((n, m)), np.empty(n), np.empty((n, m)))
    maps = SectionMaps(flow, h)
    for a in range(0, n, CHUNK):
        part, both = slice(a, min(a + CHUNK, n)), slice(a, min(a + CHUNK, n) + 1)
        C, e, crossing = maps.poincare(points[both], frames[both], box[part])
        fill(out.bounds, part, C, k)
        (out.bounds.inverse if k else out.bounds.ss)[part][crossing.missed] = np.inf
        for i in range(m):
            out.errors[part, i] = e[i].mag() + FLOOR
            out.slopes[part, i] = crossing.slopes[i]
        out.shift[part] = crossing.shift
    return out
