"""Shadowing certificates: boxes along a pseudo-orbit that a true orbit cannot leave.

- box B_n = p_n + Q_n {|eta_u| <= u_n, |eta_s| <= v_n}; C_n encloses Q_{n+1}^-1 Df Q_n over B_n
- if |C_uu^-1| (u_{n+1} + |C_us| v_n + |e_u|) <= u_n  and
     |C_su| u_n + |C_ss| v_n + |e_s| <= v_{n+1}  for all n, componentwise, then the map
  eta_s(n+1) = (C eta - e)_s, eta_u(n) = C_uu^-1 (eta_u(n+1) - C_us eta_s(n) + e_u) sends the
  product of boxes into itself; a Brouwer fixed point is a true orbit inside all boxes
- C here is the mean value matrix, the integral of Df over the segment from p_n, which C_n encloses
- the widths are found and checked in `_widths`
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from meristem_core import write_atomic
from meristem_dynamics._archive import packed, unpacked
from meristem_dynamics._bounds import Bounds, coupling, residuals
from meristem_dynamics._splitting import apply, checked_dimension, frames_along, growth_rates
from meristem_dynamics._systems import Map, System, check_finite, jacobians
from meristem_dynamics._widths import SLACK, UNDERFLOW, fits, widths_of, worst

LARGEST_DIMENSION = 12
REACH = 2e7  # first box: this many typical errors, at most REACH_SIZE of the orbit's size
REACH_SIZE = 1e-4
ROUNDS = 8
ATTEMPTS = 200
PATIENCE = 3
NEARLY = 0.9

Points = Float[np.ndarray, "n d"]
Steps = Float[np.ndarray, "m d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A proof that a true orbit stays near a pseudo-orbit, as data; or where that fails.

    A certificate covers the steps `first`, ..., `first + n_steps` of the orbit it was asked for.
    It is `ok` if that is the whole orbit; otherwise it proves the longest segment that closed.
    """

    ok: bool
    system: str
    params: Mapping[str, str]  # exact fractions
    n_unstable: int
    first: int
    n_steps: int
    radius: Float[np.ndarray, " n"]  # sup-norm distance of the true orbit to p_n is at most this
    radius_max: float
    residual_max: float  # bound of |p_{n+1} - f(p_n)| in frame coordinates
    failed_at: int | None
    reason: str
    points: Points
    low: Points | None = None  # the orbit is points + low after `refine`
    frames: Float[np.ndarray, "n d m"]  # m = d; of a flow m = d - 1 columns span the section
    widths: Float[np.ndarray, "n m"]  # u_n and v_n in frame coordinates
    step: float | None = None  # of a flow: time between points
    time_shift: float | None = None  # of a flow: |t_n - n step| of the true orbit is at most this

    def save(self, path: Path | str) -> None:
        """Write the certificate to one file that `verify` and `load_certificate` read."""
        write_atomic(path, packed(_header(self), _arrays(self)))


def load_certificate(path: Path | str) -> Certificate:
    """Return a saved certificate; it is data, believed only after `verify`.

    Raises
    ------
    ValueError
        If the file is no certificate.
    """
    header, arrays = unpacked(path)
    radius = _radius(arrays["frames"], arrays["widths"])
    fields: dict[str, Any] = {**header, **arrays, "radius": radius}
    return Certificate(**fields)


def certify(
    system: Map,
    orbit: Points,
    *,
    low: Points | None = None,
    n_unstable: int | None = None,
) -> Certificate:
    """Return a certificate that a true orbit of the map shadows `orbit`.

    Parameters
    ----------
    system
        A map that ball arithmetic can enter; the theorem is about its exact parameters.
    orbit
        p_0, ..., p_N, shape (N + 1, d), N >= 1.
    low
        The orbit is `orbit` + `low`, for one that `refine` returned; needs the extra `rigorous`.
    n_unstable
        Number of expanding directions; by default that of positive exponents of this orbit.

    Returns
    -------
    Certificate
        Of the whole orbit, or of its longest segment found that closes, with the step and the
        reason of the failure.

    Raises
    ------
    ValueError
        If the orbit is no finite (N + 1, d) array, or the system no map for balls.

    Examples
    --------
    >>> from meristem_dynamics import iterate, zoo
    >>> henon = zoo.henon()
    >>> certificate = certify(henon, iterate(henon, [0.0, 0.0], 1000))
    >>> certificate.ok, certificate.radius_max < 1e-12
    (True, True)
    """
    checked_orbit(system, orbit, low)
    J = jacobians(system, orbit[:-1])
    Q = frames_along(J)
    k = checked_dimension(n_unstable, growth_rates(J, Q))
    errors = residuals(system, orbit, Q, low)

    def bound(a: int, b: int, box: Steps) -> tuple[Bounds, Steps]:
        here = slice(a, b + 1)
        rest = None if low is None else low[here]
        return coupling(system, orbit[here], Q[here], box, k, rest), errors[a:b]

    work = Work(orbit, Q, errors, k, bound)
    segment = work.longest()
    rest = None if low is None else low[segment.first : segment.last + 1]
    return certificate_of(system, work, segment, low=rest)


class Segment(NamedTuple):
    """Steps first, ..., last whose inequalities the widths fulfil, and the step that broke more."""

    first: int
    last: int
    widths: Points
    failed_at: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """What all attempts on one orbit share."""

    points: Points
    frames: Float[np.ndarray, "n d m"]
    errors: Float[np.ndarray, "t m"]  # about |e_n| in frame coordinates: chooses boxes, ranks steps
    k: int
    bound: Callable[[int, int, Steps], tuple[Bounds, Steps]]  # of steps a, ..., b over a box

    def longest(self) -> Segment:
        """Return the whole orbit if its inequalities close, else the longest part found."""
        queue = [(-len(self.errors), 0, len(self.errors), PATIENCE)]
        failed_at: int | None = None
        for _ in range(ATTEMPTS):
            if not queue:
                break
            _, a, b, patience = heapq.heappop(queue)
            widths, bad = self.attempt(a, b)
            if widths is not None:
                return Segment(a, b, widths, failed_at)
            failed_at = bad if failed_at is None else failed_at
            for part in _parts(a, bad, b, patience):
                heapq.heappush(queue, part)
        return Segment(0, 0, np.zeros((1, self.errors.shape[1])), failed_at)

    def attempt(self, a: int, b: int) -> tuple[Points | None, int]:
        """Return widths for the steps a, ..., b that fulfil the inequalities, or a failing step."""
        errors = self.errors[a:b]
        extent = float(np.ptp(self.points[a : b + 1], axis=0).max()) or 1.0
        reach = min(REACH * float(np.median(errors.max(axis=1))), REACH_SIZE * extent)
        box = np.full(errors.shape, reach)
        widths = self.solve(a, b, box)
        if fits(widths, box):
            return widths, -1
        box = np.zeros(errors.shape)
        linear = widths = self.solve(a, b, box)
        for _ in range(ROUNDS):
            if not np.isfinite(widths).all() or float(widths.max()) > extent:
                break
            if fits(widths, box):
                return widths, -1
            box = np.maximum(box, 1.5 * widths[:-1])
            widths = self.solve(a, b, box)
        return None, a + worst(linear, errors, self.k)

    def solve(self, a: int, b: int, box: Steps) -> Points:
        """Return widths that fulfil the inequalities with bounds over `box`; infinite if none."""
        try:
            bounds, errors = self.bound(a, b, box)
        except (ArithmeticError, ValueError) as error:
            if box.any():  # f need not be defined so far from the orbit
                return np.full((len(box) + 1, box.shape[1]), np.inf)
            raise ValueError(
                f"f cannot be bounded along steps {a} to {b} of the orbit: {error}"
            ) from error
        return widths_of(bounds, errors, self.k)


def _parts(a: int, bad: int, b: int, patience: int) -> list[tuple[int, int, int, int]]:
    """Return what is left of the steps a, ..., b around one that fails, for the queue.

    A part that is nearly the whole is tried as it is `patience` times in a row, then in halves.
    """
    out: list[tuple[int, int, int, int]] = []
    for left, right in ((a, bad), (bad + 1, b)):
        large = right - left > NEARLY * (b - a)
        if large and not patience:
            middle = (left + right) // 2
            out += [(m - n, m, n, PATIENCE) for m, n in ((left, middle), (middle, right)) if n > m]
        elif right > left:
            out.append((left - right, left, right, patience - 1 if large else PATIENCE))
    return out


def certificate_of(system: System, work: Work, segment: Segment, **more: Any) -> Certificate:
    """Return the certificate of a segment."""
    a, b, widths, failed_at = segment
    frames = work.frames[a : b + 1]
    radius = _radius(frames, widths)
    whole = failed_at is None
    return Certificate(
        ok=whole,
        system=system.name,
        params=system.exact_parameters(),
        n_unstable=work.k,
        first=a,
        n_steps=b - a,
        radius=radius,
        radius_max=float(radius.max()),
        residual_max=float(work.errors[a:b].max(initial=0.0)),
        failed_at=failed_at,
        reason="a true orbit stays within the radius of every point"
        if whole
        else f"the inequalities do not close at step {failed_at}: the expanding direction is "
        "not expanded enough there; the longest segment found is certified",
        points=work.points[a : b + 1],
        frames=frames,
        widths=widths,
        **more,
    )


def _radius(
    frames: Float[np.ndarray, "n d m"], widths: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, " n"]:
    return np.asarray(apply(np.abs(frames), widths).max(axis=1) * SLACK + UNDERFLOW)


def checked_orbit(system: Map, orbit: Points, low: Points | None) -> None:
    """Raise a ValueError if the orbit cannot be certified, with the reason."""
    if len(orbit) < 2 or orbit.shape[1] != system.dim:
        raise ValueError(
            f"orbit has shape {orbit.shape}; {system.name} needs (N + 1, {system.dim}), N >= 1"
        )
    if system.dim > LARGEST_DIMENSION:
        raise ValueError(f"dim is {system.dim}; certificates go to {LARGEST_DIMENSION}")
    if system.jacobian is not None:
        raise ValueError(
            f"{system.name} gives its own jacobian, which balls cannot check; write f with "
            "+ - * / ** and meristem_dynamics.ops alone"
        )
    if low is not None and low.shape != orbit.shape:
        raise ValueError(f"low has shape {low.shape}, the orbit {orbit.shape}; they are added")
    check_finite(orbit, system.name)


def _header(c: Certificate) -> dict[str, Any]:
    names = [
        "ok",
        "system",
        "params",
        "n_unstable",
        "first",
        "n_steps",
        "radius_max",
        "residual_max",
        "failed_at",
        "reason",
        "step",
        "time_shift",
    ]
    return {name: getattr(c, name) for name in names}


def _arrays(c: Certificate) -> dict[str, Any]:
    arrays = {"points": c.points, "frames": c.frames, "widths": c.widths}
    return arrays if c.low is None else {**arrays, "low": c.low}
