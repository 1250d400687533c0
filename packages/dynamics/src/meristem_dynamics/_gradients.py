"""Derivatives of long-time averages with respect to parameters, by shadowing directions.

- a bounded solution of zeta_{n+1} = Df zeta_n + d_s f (+ tau_n f(p_{n+1}) for flows) is the
  derivative of a shadow of the orbit; d<J>/ds = <J_z zeta + J_s> (+ <tau (J - <J>)> / h)
- flows: zeta stays orthogonal to the flow direction, and the step time h + tau_n takes the rest,
  tau_n = -f . (Dphi zeta_n + d_s phi) / |f|^2 at p_{n+1}
- "split": stable part forward, unstable part backward. "least_squares": the solution of least
  sum |zeta|^2 (least-squares shadowing, Wang, Hu and Blonigan 2014, with free time). "segments":
  non-intrusive (Ni and Wang 2017): tangent solutions on segments, only the unstable ones combined
- a window sin^2(pi n / N) takes the two ends out
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import solveh_banded
from scipy.sparse import bmat, csr_matrix
from scipy.sparse.linalg import spsolve

from meristem_dynamics._dual import Dual
from meristem_dynamics._refine import right_inverse
from meristem_dynamics._splitting import apply, checked_dimension, frames_along, growth_rates
from meristem_dynamics._systems import Flow, Map, components, jacobians

Objective = Callable[[Sequence[Any], Any], Any]
Method = Literal["split", "least_squares", "segments"]
BATCHES = 20
SEGMENT_GROWTH = 6.0  # nats by which the fastest tangent grows on a segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """The average of the objective and its derivative in each parameter.

    The standard errors are from batch means over the orbit; they do not cover that the shadow of an
    orbit need not be typical for the changed parameter.
    """

    average: float
    value: Mapping[str, float]
    error: Mapping[str, float]


def runge_kutta(flow: Flow, step: float | int) -> Map:
    """Return the classical fourth-order Runge-Kutta step of a flow as a map of its own.

    Works in every arithmetic; its Jacobian is exact for the numerical scheme.
    """
    h = float(step)

    def f(z: Any, p: Any) -> Any:
        a = flow.f(z, p)
        b = flow.f([x + y * (0.5 * h) for x, y in zip(z, a, strict=True)], p)
        c = flow.f([x + y * (0.5 * h) for x, y in zip(z, b, strict=True)], p)
        d = flow.f([x + y * h for x, y in zip(z, c, strict=True)], p)
        slopes = zip(z, a, b, c, d, strict=True)
        return [x + (q + 2 * r + 2 * s + t) * (h / 6) for x, q, r, s, t in slopes]

    return Map(f=f, dim=flow.dim, params=flow.params, name=f"{flow.name} (RK4, h = {h})")


def shadowing_gradient(
    system: Map | Flow,
    orbit: Float[np.ndarray, "n d"],
    objective: Objective,
    params: Sequence[str],
    *,
    step: float | None = None,
    method: Method = "split",
    n_unstable: int | None = None,
    window: bool = True,
) -> Gradient:
    """Return d<J>/ds for several parameters s from one orbit.

    Parameters
    ----------
    system
        A map, or a flow whose orbit was made by `runge_kutta` with `step`.
    orbit
        Points after the transient, shape (N + 1, d).
    objective
        ``J(z, p)``, written like the system's f.
    params
        Names of parameters; all share one splitting of the orbit.
    step
        Time step of a flow's orbit.
    method
        "split", "least_squares" or "segments".
    n_unstable
        Number of expanding directions; by default that of positive exponents.
    window
        Whether steps are weighted by sin^2(pi n / N).

    Raises
    ------
    ValueError
        If a parameter is unknown, or a flow comes without its step.

    Examples
    --------
    >>> shift = Map(f=lambda z, p: (0.5 * z[0] + p.s,), dim=1, params={"s": 1})
    >>> found = shadowing_gradient(shift, np.full((200, 1), 2.0), lambda z, p: z[0], ["s"])
    >>> round(found.value["s"], 3)
    2.0
    """
    for name in params:
        if name not in system.params:
            raise ValueError(f"{system.name} has no parameter {name}; it has {list(system.params)}")
    if isinstance(system, Flow) and step is None:
        raise ValueError(f"{system.name} is a flow; give step, the time step of the orbit")
    scheme = runge_kutta(system, step) if isinstance(system, Flow) and step else system
    assert isinstance(scheme, Map)
    J = jacobians(scheme, orbit[:-1])
    sources = _by_parameters(scheme.f, components(orbit[:-1]), scheme, params)
    frames, reduced, normals = _reduced(system, orbit, J)
    Q = frames_along(reduced)
    rates = growth_rates(reduced, Q)
    k = checked_dimension(n_unstable, rates)
    segment = int(np.clip(SEGMENT_GROWTH / max(float(rates[0]), 1e-6), 1, len(reduced)))
    value, parts_z, parts_s = _objective(objective, scheme, orbit, params)
    weight = 2 * np.sin(np.pi * np.arange(len(orbit)) / (len(orbit) - 1)) ** 2 if window else (
        np.ones(len(orbit))
    )  # fmt: skip
    mean = float((weight * value).sum() / weight.sum())
    slopes, errors = dict[str, float](), dict[str, float]()
    for i, name in enumerate(params):
        g = apply(frames[1:].transpose(0, 2, 1), sources[i])
        y = _solved(method, reduced, Q, k, g, segment)
        zeta = apply(frames, y)
        change = (parts_z * zeta).sum(axis=1) + parts_s[i]
        if normals is not None and step is not None:
            push = apply(J, zeta[:-1]) + sources[i]
            tau = -(normals[1:] * push).sum(axis=1) / (normals[1:] ** 2).sum(axis=1)
            change[1:] += tau * (value[1:] - mean) / step
        slopes[name] = float((weight * change).sum() / weight.sum())
        errors[name] = _batch_error(weight * (change - slopes[name]))
    return Gradient(average=mean, value=slopes, error=errors)


def _by_parameters(
    f: Any, z: list[Any], system: Map, params: Sequence[str]
) -> list[Float[np.ndarray, "m d"]]:
    """Return the derivative of f in each parameter at points."""
    p = _dual_parameters(system, params)
    image = f(z, p)
    out = np.zeros((len(params), len(z[0]), len(z)))
    for j, y in enumerate(image):
        if isinstance(y, Dual):
            for i, part in enumerate(y.parts):
                out[i, :, j] = part
    return list(out)


def _dual_parameters(system: Map, params: Sequence[str]) -> SimpleNamespace:
    p = system.parameters()
    for i, name in enumerate(params):
        unit = [float(i == j) for j in range(len(params))]
        setattr(p, name, Dual(getattr(p, name), unit))
    return p


def _objective(
    objective: Objective, system: Map, orbit: Any, params: Sequence[str]
) -> tuple[Any, Any, Any]:
    """Return J, its gradient in z and its derivatives in the parameters along the orbit."""
    z, d, m = components(orbit), system.dim, len(params)
    p = system.parameters()
    for i, name in enumerate(params):
        unit = [0.0] * d + [float(i == j) for j in range(m)]
        setattr(p, name, Dual(getattr(p, name), unit))
    seeds = [Dual(x, [float(i == j) for j in range(d)] + [0.0] * m) for i, x in enumerate(z)]
    value = objective(seeds, p)
    rows = np.zeros((d + m, len(orbit)))
    if isinstance(value, Dual):
        for i, part in enumerate(value.parts):
            rows[i] = part
        value = value.value
    return np.zeros(len(orbit)) + value, rows[:d].T, rows[d:]


def _reduced(system: Map | Flow, orbit: Any, J: Any) -> tuple[Any, Any, Any]:
    """Return frames of the space across the flow, the Jacobians in it, and the flow direction."""
    d = system.dim
    if isinstance(system, Map):
        frames = np.broadcast_to(np.eye(d), (len(orbit), d, d))
        return frames, J, None
    velocity = np.stack(np.broadcast_arrays(*system.f(components(orbit), system.parameters())), -1)
    unit = velocity / np.linalg.norm(velocity, axis=1, keepdims=True)
    axis = np.zeros((len(orbit), d))
    axis[:, -1] = np.where(unit[:, -1] < 0, 1.0, -1.0)
    v = unit - axis  # the reflection 1 - 2 v v^T / |v|^2 takes the last axis to the flow direction
    reflection = np.eye(d) - 2 * v[:, :, None] * v[:, None, :] / (v * v).sum(axis=1)[:, None, None]
    frames = reflection[:, :, :-1]
    reduced = frames[1:].transpose(0, 2, 1) @ (J @ frames[:-1])
    return frames, reduced, velocity


def _solved(method: Method, T: Any, Q: Any, k: int, g: Any, segment: int) -> Any:
    """Return a bounded y with y_{n+1} = T_n y_n + g_n."""
    if method == "split":
        return right_inverse(T, Q, k, g)
    return _least_squares(T, g) if method == "least_squares" else _segments(T, k, g, segment)


def _least_squares(T: Any, g: Any) -> Any:
    """Return the solution of least sum |y|^2: y = L^T (L L^T)^-1 g, block tridiagonal."""
    n, d = g.shape
    band = np.zeros((2 * d, n * d))
    diagonal = np.eye(d) + T @ T.transpose(0, 2, 1)
    for i in range(d):
        for j in range(i + 1):
            band[i - j, j::d][:n] = diagonal[:, i, j]
        for j in range(d):  # row n + 1, column n: -T_(n+1)
            band[d + i - j, j::d][: n - 1] = -T[1:, i, j]
    x = solveh_banded(band, g.ravel(), lower=True).reshape(n, d)
    y = np.zeros((n + 1, d))
    y[1:] = x
    y[:-1] -= apply(T.transpose(0, 2, 1), x)
    return y


def _segments(T: Any, k: int, g: Any, length: int) -> Any:
    """Return the solution that non-intrusive least-squares shadowing finds."""
    n, d = g.shape
    tangent, v = np.eye(d)[:, :k] + 0.1, np.zeros(d)
    tangent = np.linalg.qr(tangent)[0]
    rows: list[tuple[Any, Any]] = []
    grams, firsts, links, offsets = list[Any](), list[Any](), list[Any](), list[Any]()
    for start in range(0, n, length):
        stop = min(start + length, n)
        Ws, vs = np.empty((stop - start, d, k)), np.empty((stop - start, d))
        for i in range(start, stop):
            Ws[i - start], vs[i - start] = tangent, v
            tangent, v = T[i] @ tangent, T[i] @ v + g[i]
        rows.append((Ws, vs))
        grams.append(np.einsum("nij,nil->jl", Ws, Ws))
        firsts.append(np.einsum("nij,ni->j", Ws, vs))
        tangent, R = np.linalg.qr(tangent)
        links.append(R)
        offsets.append(tangent.T @ v)
        v = v - tangent @ offsets[-1]
    a = _combined(grams, firsts, links, offsets) if k else np.zeros((len(rows), 0))
    parts = [vs + Ws @ c for (Ws, vs), c in zip(rows, a, strict=True)]
    last = parts[-1][-1]
    return np.concatenate([*parts, (T[-1] @ last + g[-1])[None]])


def _combined(grams: list[Any], firsts: list[Any], links: list[Any], offsets: list[Any]) -> Any:
    """Return a_i that minimise the sum of a G a + 2 d a with a_(i+1) = R_i a_i + b_i."""
    m, k = len(grams), len(firsts[0])
    top: list[list[Any]] = [[None] * m for _ in range(m)]
    for i, G in enumerate(grams):
        top[i][i] = csr_matrix(G)
    size = bmat(top)
    link: list[list[Any]] = [[None] * m for _ in range(m - 1)]
    for i in range(m - 1):
        link[i][i], link[i][i + 1] = csr_matrix(-links[i]), csr_matrix(np.eye(k))
    constraint = bmat(link)
    whole = bmat([[size, constraint.T], [constraint, None]]).tocsc()
    right = np.concatenate([-np.concatenate(firsts), np.concatenate(offsets[:-1])])
    return spsolve(whole, right)[: m * k].reshape(m, k)


def _batch_error(terms: Float[np.ndarray, " n"]) -> float:
    parts = [part.mean() for part in np.array_split(terms, BATCHES)]
    return float(np.std(parts, ddof=1) / np.sqrt(BATCHES))
