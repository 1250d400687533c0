"""Rigorous bounds of one step in frame coordinates, by ball arithmetic, vectorised over steps.

With p_n + Q_n eta and eta in the box |eta| <= w_n,

- C_n encloses Q_{n+1}^-1 Df(p_n + Q_n eta) Q_n over the whole box, not at its centre
- e_n encloses Q_{n+1}^-1 (p_{n+1} - f(p_n))
- Q^-1 = (1 - E)^-1 Q^T with E = 1 - Q^T Q: each entry differs from Q^T by at most
  |E| / (1 - |E|) times a column sum
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._ball import INFLATE, Ball, U
from meristem_dynamics._dual import value_and_jacobian
from meristem_dynamics._splitting import apply
from meristem_dynamics._systems import Map, arb_parameters, ball_parameters, require_flint

CHUNK = 8192  # steps at once: the arrays of a chunk stay in the cache
FLOOR = 1e-290  # added to every error bound: far from underflow
BITS = 160  # of the residual of a refined orbit

Points = Float[np.ndarray, "n d"]
Steps = Float[np.ndarray, "m d"]
Frames = Float[np.ndarray, "n d d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Upper bounds of absolute values for the steps n -> n + 1; k expanding directions, m others.

    `inverse` bounds |C_uu^-1|; it is infinite where C_uu may be singular in the box.
    """

    inverse: Float[np.ndarray, "n k k"]
    us: Float[np.ndarray, "n k m"]
    su: Float[np.ndarray, "n m k"]
    ss: Float[np.ndarray, "n m m"]


def blank(n: int, m: int, k: int) -> Bounds:
    """Return bounds of n steps in m coordinates, to be filled."""
    return Bounds(
        inverse=np.empty((n, k, k)),
        us=np.empty((n, k, m - k)),
        su=np.empty((n, m - k, k)),
        ss=np.empty((n, m - k, m - k)),
    )


def coupling(
    system: Map, points: Points, frames: Frames, box: Steps, k: int, low: Points | None = None
) -> Bounds:
    """Return bounds of C_n for steps between consecutive points.

    Parameters
    ----------
    system
        A map that balls can enter.
    points, frames
        p_0...p_N and Q_0...Q_N.
    box
        Half-widths w_0...w_(N-1) in frame coordinates.
    k
        Number of expanding directions.
    low
        The box is about points + low.
    """
    n, d = len(points) - 1, system.dim
    out = blank(n, d, k)
    p = ball_parameters(system)
    for a in range(0, n, CHUNK):
        part = slice(a, min(a + CHUNK, n))
        Q, after = frames[part], frames[part.start + 1 : part.stop + 1]
        width = apply(np.abs(Q), box[part]) * INFLATE
        if low is not None:
            width = (width + np.abs(low[part])) * INFLATE
        z = [Ball(points[part][:, i], width[:, i]) for i in range(d)]
        J = value_and_jacobian(system.f, z, p)[1]
        columns = [[dot(J[i], [Q[:, l, j] for l in range(d)]) for j in range(d)] for i in range(d)]
        V = inverse_frames(after)
        C = [[dot(V[i], [columns[l][j] for l in range(d)]) for j in range(d)] for i in range(d)]
        fill(out, part, C, k)
    return out


def fill(out: Bounds, part: slice, C: list[list[Ball]], k: int) -> None:
    """Write the bounds of a ball matrix C, by blocks, into the steps `part`."""
    d = len(C)
    for i in range(d):
        for j in range(d):
            if i < k and j < k:
                continue
            block = (out.us if i < k else out.su if j < k else out.ss)[part]
            block[:, i - k if i >= k else i, j - k if j >= k else j] = C[i][j].mag()
    if k == 1:
        with np.errstate(divide="ignore"):
            out.inverse[part, 0, 0] = INFLATE / C[0][0].mig()
    elif k > 1:
        out.inverse[part] = _inverse_bound([row[:k] for row in C[:k]])


def _inverse_bound(C: list[list[Ball]]) -> Float[np.ndarray, "n k k"]:
    """Return bounds of |C^-1| for ball matrices, by an approximate inverse W and 1 - W C."""
    k = len(C)
    mid = np.stack([np.stack([c.mid for c in row], axis=-1) for row in C], axis=-2)
    regular = np.abs(np.linalg.det(mid)) > 1e-200
    W = np.linalg.inv(np.where(regular[:, None, None], mid, np.eye(k)))
    rest = np.zeros(mid.shape[:1])
    for i in range(k):
        row = np.zeros_like(rest)
        for j in range(k):
            entry = dot([W[:, i, l] for l in range(k)], [C[l][j] for l in range(k)])
            row += (entry - float(i == j)).mag()
        rest = np.maximum(rest, row * (1 + 2 * k * U))
    small = regular & (rest < 0.5)
    spread = np.where(small, rest / (1 - np.minimum(rest, 0.5)), np.inf)
    size = np.abs(W)
    return (size + spread[:, None, None] * size.max(axis=1, keepdims=True)) * (1 + 16 * U)


def inverse_frames(Q: Frames) -> list[list[Ball]]:
    """Return ball enclosures of the inverse of nearly orthonormal frames.

    Raises
    ------
    ValueError
        If a frame is far from orthonormal: its columns have become dependent.
    """
    d = Q.shape[-1]
    size = np.abs(Q)
    error = np.zeros(len(Q))
    for i in range(d):
        row = np.zeros(len(Q))
        for j in range(d):
            gram = sum(Q[:, l, i] * Q[:, l, j] for l in range(d)) - float(i == j)
            terms = sum(size[:, l, i] * size[:, l, j] for l in range(d))
            # rounding of a scalar product of length d and of 1 - x: (d + 1) u (sum |a b| + 1)
            row += np.abs(gram) + (d + 2) * U * (terms + 1)
        error = np.maximum(error, row * (1 + 4 * d * U))
    if not (error < 0.25).all():
        raise ValueError(
            f"the frame at step {int(np.argmax(~(error < 0.25)))} is degenerate; the Jacobian is "
            "singular there, so certify the orbit on either side of it"
        )
    spread = error / (1 - error) * (1 + 16 * U)
    columns = apply(size, np.ones_like(size[:, 0])) * (1 + 4 * d * U) * spread[:, None]
    return [[Ball(Q[:, j, i], columns[:, j]) for j in range(d)] for i in range(d)]


def residuals(system: Map, points: Points, frames: Frames, low: Points | None) -> Steps:
    """Return upper bounds of |Q_{n+1}^-1 (p_{n+1} - f(p_n))| in each coordinate, shape (N, d).

    With `low` the points are p + low, and f is evaluated in Arb.
    """
    n, d = len(points) - 1, system.dim
    out = np.empty((n, d))
    p = ball_parameters(system) if low is None else None
    for a in range(0, n, CHUNK):
        part, after = slice(a, min(a + CHUNK, n)), slice(a + 1, min(a + CHUNK, n) + 1)
        if low is None:
            image = system.f([Ball(points[part][:, i]) for i in range(d)], p)
            gap = [points[after][:, i] - image[i] for i in range(d)]
            if system.torus:
                gap = [g - np.rint(g.mid) for g in gap]
        else:
            both = slice(part.start, after.stop)
            gap = arb_gap(system, points[both], low[both])
        V = inverse_frames(frames[after])
        for i in range(d):
            out[part, i] = dot(V[i], gap).mag() + FLOOR
    return out


def arb_gap(system: Map, points: Points, low: Points) -> list[Ball]:
    """Return balls around p_{n+1} - f(p_n) for the points p = points + low, by Arb."""
    flint = require_flint()
    before, flint.ctx.prec = flint.ctx.prec, BITS
    try:
        p, arb = arb_parameters(system), flint.arb
        rows = [
            [arb(a) + arb(b) for a, b in zip(*pair, strict=True)]
            for pair in zip(points.tolist(), low.tolist(), strict=True)
        ]
        mid, rad = np.empty((2, len(rows) - 1, system.dim))
        for n, (z, target) in enumerate(pairwise(rows)):
            for i, (x, y) in enumerate(zip(target, system.f(z, p), strict=True)):
                gap = x - y
                if system.torus:
                    gap = gap - round(float(gap.mid()))
                mid[n, i] = float(gap.mid())
                rad[n, i] = float((gap - mid[n, i]).abs_upper())
    finally:
        flint.ctx.prec = before
    rad = (rad + 2.0**-1070) * INFLATE
    return [Ball(mid[:, i], rad[:, i]) for i in range(system.dim)]


def dot(a: list[Any], b: list[Any]) -> Ball:
    """Return the scalar product; factors that are the float 0 are left out."""
    total = Ball(0.0)
    for x, y in zip(a, b, strict=True):
        if not (isinstance(x, float) and x == 0.0):
            total = (y if isinstance(y, Ball) else Ball(y)) * x + total
    return total
