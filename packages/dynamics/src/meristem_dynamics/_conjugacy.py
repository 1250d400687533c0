"""Conjugacy of a planar saddle, hyperbolic or degenerate, to a decoupled one by exit times.

- x contracts and y expands; T_u(z) = n - theta, n the first step with |y(F^n z)| >= y1 and
  theta = a / (a + b), a = |y(F^n z)| - y1, b = y1 - |y(F^(n-1) z)|; T_s likewise with F^-1 and x
- T_u o F = T_u - 1 and T_s o F = T_s + 1 exactly, so h = (l_s(T_s), l_u(T_u)) satisfies h F = G h
  when l_s, l_u run along orbits of the decoupled target G
- under the cone conditions two points differ by a vector of a cone along which one of the times is
  strictly monotone, so h is injective: a homeomorphism onto its image
- near a degenerate point F^s is taken in one jump (see `_lie`), so that points near the manifolds,
  whose times are like 1 / y^2k, cost a logarithm of them
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from meristem_dynamics._fixed_points import fixed_point
from meristem_dynamics._forms import at_slope, check_degenerate_saddle, normal_form
from meristem_dynamics._lie import Jumps, jumps
from meristem_dynamics._systems import Map, components, jacobians

DEGREE = 21
STEP = 0.02  # a jump of s steps from z has s |z|^(2 kappa) <= STEP
NEAR = 0.06  # jumps start within this sup norm of the fixed point
MOST_ROUNDS = 100_000
MOST_STEPS = 1e15
REACHES = 0.5 * 0.9 ** np.arange(60)
GRID = 25

Points = Float[np.ndarray, "n 2"]
Times = Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class _Rate:
    """How one factor of the target moves: x' = -+ a x^(2k+1), or x -> multiplier x."""

    k: int  # 0: linear
    a: float  # coefficient, or |multiplier| of the expanding direction of time
    flips: bool

    def place(self, time: Times, sign: Times, edge: float) -> Times:
        if self.k == 0:
            return sign * edge * self.a**-time
        power = 2 * self.k
        return sign * (power * self.a * time + edge**-power) ** (-1 / power)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conjugacy:
    """h with h(F z) = G(h z) on the square |w| <= edge in the saddle's coordinates w."""

    system: Map
    edge: float
    target_kind: Literal["matched", "linear"]
    _base: Any
    _frame: Any
    _rates: tuple[_Rate, _Rate]
    _jumps: Jumps | None

    def coordinates(self, z: Points) -> Points:
        """Return the saddle's coordinates w: fixed point at 0, contracting axis first."""
        return np.linalg.solve(self._frame, (np.asarray(z, dtype=float) - self._base).T).T

    def exit_times(self, z: Points) -> tuple[Times, Times]:
        """Return (T_s, T_u) of points in the square; infinite on W^u and W^s.

        Raises
        ------
        ValueError
            If a point lies outside of the square.
        """
        (backward, _), (forward, _) = self._both(z)
        return backward, forward

    def __call__(self, z: Points) -> Points:
        """Return h(z), in the target's coordinates."""
        columns = [
            rate.place(time, sign, self.edge)
            for rate, (time, sign) in zip(self._rates, self._both(z), strict=True)
        ]
        return np.stack(columns, axis=1)

    def target(self, w: Points) -> Points:
        """Return G(w), the decoupled saddle."""
        w = np.asarray(w, dtype=float)
        out = []
        for i, rate in enumerate(self._rates):
            x, sense = w[:, i], 1 - 2 * i
            if rate.k == 0:
                out.append(x * rate.a**-sense * (-1 if rate.flips else 1))
            else:
                power = 2 * rate.k
                out.append(x * (1 + sense * power * rate.a * x**power) ** (-1 / power))
        return np.stack(out, axis=1)

    def residual(self, z: Points) -> float:
        """Return max |h(F z) - G(h z)| over the points whose image is in the square."""
        image = np.asarray(self.system(z))
        inside = np.abs(self.coordinates(image)).max(axis=1) <= self.edge
        gap = self(image[inside]) - self.target(self(np.asarray(z)[inside]))
        return float(np.abs(gap).max(initial=0.0))

    def _both(self, z: Points) -> list[tuple[Times, Times]]:
        w = self.coordinates(z)
        outside = np.abs(w).max(axis=1) > self.edge
        if outside.any():
            raise ValueError(
                f"point {int(np.argmax(outside))} has coordinates "
                f"{w[np.argmax(outside)].tolist()}; the conjugacy is for sup norms "
                f"up to {self.edge}"
            )
        forward, backward = _steps(self.system, self._base, self._frame)
        return [
            _exit(w, backward, self._jumps, -1, self.edge, self._rates[0].flips),
            _exit(w, forward, self._jumps, 1, self.edge, self._rates[1].flips),
        ]


def conjugacy(
    system: Map,
    point: Any = (0.0, 0.0),
    *,
    target: Literal["matched", "linear"] = "matched",
    edge: float | None = None,
) -> Conjugacy:
    """Return the conjugacy of a planar saddle to a decoupled one.

    Parameters
    ----------
    system
        A planar map; at a degenerate saddle (the origin, the class of `check_degenerate_saddle`)
        a polynomial one.
    point
        A guess of the fixed point.
    target
        "matched": the same rates along the axes as F has along its manifolds. "linear": (x/2, 2y),
        to which every planar saddle is conjugate.
    edge
        y1: half the side of the square. By default the largest on which the cone conditions hold on
        a grid, at most 0.5.

    Raises
    ------
    ValueError
        If the point is no saddle of either kind, with the form that fails.
    """
    if system.dim != 2:
        raise ValueError(f"{system.name} has dimension {system.dim}; conjugacies are planar")
    base = fixed_point(system, point)
    degenerate = base.kind == "degenerate"
    if degenerate:
        frame, rates, jump = _degenerate(system)
    elif base.kind == "saddle":
        frame, rates, jump = *_hyperbolic(system, base.point), None
    else:
        raise ValueError(f"the point is a {base.kind}; exit times need a saddle")
    if target == "linear":
        rates = (_Rate(0, 2.0, False), _Rate(0, 2.0, False)) if degenerate else (
            _Rate(0, 2.0, rates[0].flips), _Rate(0, 2.0, rates[1].flips)
        )  # fmt: skip
    return Conjugacy(
        system=system,
        edge=_edge(system, base.point, frame) if edge is None else edge,
        target_kind=target,
        _base=base.point,
        _frame=frame,
        _rates=rates,
        _jumps=jump,
    )


def _degenerate(system: Map) -> tuple[Any, tuple[_Rate, _Rate], Jumps]:
    report, normal = check_degenerate_saddle(system), normal_form(system)
    if not report.ok:
        failing = [name for name, form in report.forms.items() if not form.definite]
        raise ValueError(
            f"the forms {', '.join(failing)} are not positive definite; a conjugacy needs all six"
        )
    a_s = float(at_slope([float(c) for c in normal.p], report.slope_stable))
    a_u = float(at_slope([float(c) for c in normal.q[::-1]], report.slope_unstable))
    frame = np.eye(2)[::-1] if report.swapped else np.eye(2)
    rates = (_Rate(report.k, a_s, False), _Rate(report.k2, a_u, False))
    conjugate = system if not report.swapped else Map(
        f=lambda z, p: system.f(z[::-1], p)[::-1], dim=2, params=system.params
    )  # fmt: skip
    return frame, rates, jumps(conjugate, degree=DEGREE)


def _hyperbolic(system: Map, point: Any) -> tuple[Any, tuple[_Rate, _Rate]]:
    pair: Any = np.linalg.eig(jacobians(system, point[None])[0])
    eigenvalues, vectors = pair
    order = np.argsort(np.abs(eigenvalues))
    small, large = (float(x) for x in eigenvalues[order].real)
    rates = (_Rate(0, 1 / abs(small), small < 0), _Rate(0, abs(large), large < 0))
    return vectors[:, order].real, rates


def _edge(system: Map, point: Any, frame: Any) -> float:
    """Return a half-side on which the cone conditions hold, with image and preimage, on a grid."""
    unit = np.linspace(-1, 1, GRID)
    grid = np.stack(np.meshgrid(unit, unit), axis=-1).reshape(-1, 2)
    grid = grid[np.abs(grid).max(axis=1) > 0]
    for reach in REACHES:
        J = jacobians(system, point + reach * grid @ frame.T)
        C = np.abs(np.linalg.solve(frame, J @ frame))
        if ((C[:, 0, 0] + C[:, 0, 1] < 1) & (C[:, 1, 1] - C[:, 1, 0] > 1)).all():
            return _inner_edge(system, point, frame, float(reach))
    raise ValueError("the cone conditions hold on no square; give edge, or another point")


def _inner_edge(system: Map, point: Any, frame: Any, reach: float) -> float:
    """Return a half-side whose square and its image and preimage lie within `reach`."""
    forward, _ = _steps(system, point, frame)
    across = np.linspace(-reach, reach, GRID)
    sides = np.concatenate([np.stack([np.full(GRID, e * reach), across], axis=1) for e in (1, -1)])
    edge = 0.95 * min(reach, float(np.abs(forward(sides)[:, 0]).min()))
    while np.abs(forward(sides[:, ::-1] * (edge / reach))[:, 1]).max() > reach:
        edge *= 0.9
    return edge


def _steps(system: Map, base: Any, frame: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    p, back = system.parameters(), np.linalg.inv(frame)

    def forward(w: Any) -> Any:
        z = base + w @ frame.T
        image = np.stack(np.broadcast_arrays(*system.f(components(z), p)), axis=-1)
        return (image - base) @ back.T

    def backward(w: Any) -> Any:
        v = 2 * w - forward(w)
        if np.abs(forward(v) - w).max(initial=0.0) > 0.5 * np.abs(w).max(initial=1e-300):
            v = w @ np.linalg.inv(back @ jacobians(system, base[None])[0] @ frame).T
        for _ in range(30):
            gap = forward(v) - w
            J = back @ jacobians(system, base + v @ frame.T) @ frame
            det = J[:, 0, 0] * J[:, 1, 1] - J[:, 0, 1] * J[:, 1, 0]
            step = np.stack(
                [J[:, 1, 1] * gap[:, 0] - J[:, 0, 1] * gap[:, 1],
                 J[:, 0, 0] * gap[:, 1] - J[:, 1, 0] * gap[:, 0]], axis=1
            ) / det[:, None]  # fmt: skip
            v = v - step
            if np.abs(step).max(initial=0.0) <= 4e-16 * max(np.abs(v).max(initial=0.0), 1e-3):
                break
        return v

    return forward, backward


def _exit(
    w: Points, step: Callable[[Any], Any], jump: Jumps | None, sense: int, edge: float, flips: bool
) -> tuple[Times, Times]:
    """Return the exit times of points in one direction of time, and the signs at time 0."""
    axis = 1 if sense > 0 else 0
    time, sign = np.full(len(w), np.inf), np.zeros(len(w))
    at, z, n = np.arange(len(w)), np.array(w, dtype=float), np.zeros(len(w))
    for _ in range(MOST_ROUNDS):
        if not at.size:
            break
        size = np.abs(z).max(axis=1)
        near = size <= NEAR if jump is not None else np.zeros(len(z), dtype=bool)
        new, taken = np.empty_like(z), np.ones(len(z))
        if jump is not None and near.any():
            safe = np.maximum(size[near], 1e-9)
            taken[near] = np.maximum(1.0, np.floor(STEP / safe**jump.kappa2))
            new[near] = jump(z[near], sense * taken[near])
        if not near.all():
            new[~near] = step(z[~near])
        n = n + taken
        out = np.abs(new[:, axis]) >= edge
        if out.any():
            a, b = np.abs(new[out, axis]) - edge, edge - np.abs(z[out, axis])
            time[at[out]] = n[out] - a / (a + b)
            turn = np.where(n[out] % 2 == 1, -1.0, 1.0) if flips else 1.0
            sign[at[out]] = np.sign(new[out, axis]) * turn
        keep = ~out & (n < MOST_STEPS) & (np.abs(new).max(axis=1) > 0)
        if jump is None:
            keep &= n < 4000
        at, z, n = at[keep], new[keep], n[keep]
    return time, sign
