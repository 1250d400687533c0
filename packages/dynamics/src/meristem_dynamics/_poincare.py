"""Enclosed Poincaré maps of a flow from each section of an orbit to the next, in balls.

A section is p_n + F_n eta, F_n with d - 1 columns across f(p_n). Write (a, b) for the coordinates
of a vector in [F_{n+1} | g], g along f(p_{n+1}). For x = p_n + F_n eta, eta in the box
|eta| <= w_n, and Z = coordinates of D phi_h F_n,

- let all phi_{h+t}(x), |t| <= theta, lie in the box W about p_{n+1}, and b(f) >= beta > 0 on W.
  b(phi_{h+t}(x) - p_{n+1}) grows in t with at least slope beta, so it vanishes for exactly one
  |t| <= theta if |b(phi_h(p_n) - p_{n+1})| + |Z_b| w_n <= beta theta; by the implicit function
  theorem that t is a C^1 function of eta, and so is eta' = P_n(eta) = a(phi_{h+t}(x) - p_{n+1})
- P_n(0) = a(e) - a(v) b(e) / b(v), e = phi_h(p_n) - p_{n+1}, v the mean of f along the way from
  phi_h(p_n) to the section, in the convex hull of f(W)
- D P_n = Z_a' - a(f) Z_b' / b(f), Z' the coordinates of D phi_{h+t} F_n = D phi_t D phi_h F_n, and
  |D phi_t - 1| <= exp(theta L) - 1 <= 2 theta L if theta L <= 1, L = sup |Df| on W, sup norm
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from meristem_dynamics._ball import Ball
from meristem_dynamics._bounds import FLOOR, dot, inverse_frames
from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._splitting import apply
from meristem_dynamics._systems import Flow, ball_parameters, components
from meristem_dynamics._tape import Tape
from meristem_dynamics._taylor import ORDER, TANGENT_ORDER, step_box, tube, with_tangents
from meristem_dynamics._widths import SLACK

ROUNDS = 4
FAR = 1e50
SPARE = 1.5  # theta and W are this much larger than their first estimate

Points = Float[np.ndarray, "n d"]
Steps = Float[np.ndarray, "t m"]
Sections = Float[np.ndarray, "n d m"]


@dataclass(frozen=True, slots=True)
class Crossing:
    """When solutions reach the next section: |t| <= shift + sum slopes w <= theta."""

    theta: Any
    lipschitz: Any
    along: list[Ball]  # a(f) / b(f) over W
    shift: Any
    slopes: list[Any]
    missed: Any  # steps where no crossing is proved


class _Trial(NamedTuple):
    flow: list[Ball]  # coordinates of f on W
    beta: Any
    lipschitz: Any
    speed: list[Any]  # |f| on W by component
    proved: Any


class SectionMaps:
    """The Poincaré maps of a flow, in balls; see the head of the module for the names."""

    def __init__(self, flow: Flow, h: float) -> None:
        self.flow, self.h, self.p = flow, h, ball_parameters(flow)
        self.d, self.m = flow.dim, flow.dim - 1
        self.field = with_tangents(flow, self.m)
        self.point = Tape(flow.f, self.d, self.p)
        self.extended = Tape(self.field, self.d * self.d, self.p)

    def poincare(
        self, points: Points, frames: Sections, box: Steps
    ) -> tuple[list[list[Ball]], list[Ball], Any]:
        """Return D P_n over the boxes, P_n(0) and the `Crossing`."""
        d, m, after = self.d, self.m, points[1:]
        image, tangents = self._step(points[:-1], frames[:-1], box)
        gap = [x - after[:, i] for i, x in enumerate(image)]
        speed = np.stack([np.zeros(len(after)) + y for y in self._velocity(after)], axis=1)
        unit = speed / np.sqrt((speed * speed).sum(axis=1, keepdims=True))
        A = inverse_frames(np.concatenate([frames[1:], unit[:, :, None]], axis=2))
        e = [dot(row, gap) for row in A]
        Z = [[dot(row, [t[j] for t in tangents]) for j in range(m)] for row in A]
        moved = [_total(x, row, box) for x, row in zip(gap, tangents, strict=True)]
        with np.errstate(over="ignore", invalid="ignore"):
            crossing: Crossing = self._crossing(after, A, moved, e[m], Z[m], box)
        # D phi_t adds at most |A| 2 theta L times the largest entry of the column of D phi_h F_n
        spread = 2 * crossing.theta * crossing.lipschitz * SLACK
        for i in range(d):
            size = sum(x.mag() for x in A[i]) * spread
            for j in range(m):
                top = np.max([t[j].mag() for t in tangents], axis=0) * size * SLACK
                Z[i][j] = Z[i][j] + Ball(np.zeros(len(after)), top)
        over = crossing.along
        C = [[Z[i][j] - over[i] * Z[m][j] for j in range(m)] for i in range(m)]
        return C, [e[i] - over[i] * e[m] for i in range(m)], crossing

    def _velocity(self, points: Points) -> Any:
        return self.flow.f(components(points), self.flow.parameters())

    def _step(self, points: Points, F: Sections, box: Steps) -> tuple[list[Ball], list[list[Ball]]]:
        """Return phi_h(p_n), and D phi_h F_n over the boxes."""
        d, m, h = self.d, self.m, self.h
        width = apply(np.abs(F), box) * SLACK
        z = [Ball(points[:, i], width[:, i]) for i in range(d)]
        seeds = [Ball(F[:, i, j]) for i in range(d) for j in range(m)]
        around = tube(self.field, [*z, *seeds], self.p, h)
        image = step_box(self.point, [Ball(x.mid) for x in z], around[:d], h, ORDER)
        pushed = step_box(self.extended, [*z, *seeds], around, h, TANGENT_ORDER)[d:]
        return image, [pushed[i * m : (i + 1) * m] for i in range(d)]

    def _crossing(
        self, after: Points, A: Any, moved: list[Any], e: Ball, Z: list[Ball], box: Steps
    ) -> Crossing:
        """Prove that the solutions cross the next section, with theta and W found by trial."""
        late = _total(e, Z, box)
        theta, rho = np.zeros(len(after)), [_moderate(SPARE * x) for x in moved]
        trial = self._trial(after, A, moved, late, theta, rho)
        for _ in range(ROUNDS):
            if trial.proved.all():
                break
            theta = _moderate(SPARE * late / np.where(trial.beta > 0, trial.beta, 1.0))
            rho = [
                _moderate(SPARE * (x + theta * size))
                for x, size in zip(moved, trial.speed, strict=True)
            ]
            trial = self._trial(after, A, moved, late, theta, rho)
        proved = trial.proved
        rate = Ball(
            np.where(proved, trial.flow[-1].mid, 1.0), np.where(proved, trial.flow[-1].rad, 0.0)
        )
        low = np.where(proved, trial.beta, 1.0)
        return Crossing(
            theta=np.where(proved, theta, 0.0),
            lipschitz=np.where(proved, trial.lipschitz, 0.0),
            along=[a / rate for a in trial.flow[:-1]],
            shift=(e.mag() / low + FLOOR) * SLACK,
            slopes=[z.mag() / low * SLACK for z in Z],
            missed=~proved,
        )

    def _trial(
        self, after: Points, A: Any, moved: list[Any], late: Any, theta: Any, rho: list[Any]
    ) -> _Trial:
        """Return what holds for theta and the half-widths rho of W."""
        zero = np.zeros(len(after))
        W = [Ball(after[:, i], r) for i, r in enumerate(rho)]
        values, J = value_and_jacobian(self.flow.f, W, self.p)
        v = [Ball(1.0) * y for y in values]
        V = [dot(row, v) for row in A]
        beta = np.where(V[-1].mid > 0, V[-1].mig(), 0.0)
        rows = [sum(((Ball(1.0) * x).mag() for x in row), zero) for row in J]
        lipschitz = np.max(rows, axis=0) * SLACK
        reach = [y.mag() + zero for y in v]
        near = (theta * lipschitz * SLACK <= 1) & (theta <= self.h / 2)
        stays = [(x + theta * y) * SLACK <= r for x, y, r in zip(moved, reach, rho, strict=True)]
        proved = (late * SLACK <= beta * theta) & near & np.all(stays, axis=0)
        return _Trial(V, beta, lipschitz, reach, proved)


def _moderate(x: Any) -> Any:
    """Return x, and 0, with which nothing is proved, where it is too large to compute with."""
    return np.where(x < FAR, x, 0.0)


def _total(x: Ball, row: list[Ball], box: Steps) -> Any:
    """Return an upper bound of |x| + sum |row_j| w_j."""
    return (x.mag() + sum(r.mag() * box[:, j] for j, r in enumerate(row)) + FLOOR) * SLACK
