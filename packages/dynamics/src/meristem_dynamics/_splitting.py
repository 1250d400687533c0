"""Frames that follow the expanding directions, and linear recursions in parallel blocks.

- frames Q_n are orthonormal and pushed forward by Df (QR), so that Q_{n+1}^T Df(p_n) Q_n is upper
  triangular up to rounding; the first k columns follow the k most expanding directions
- blocks of steps run side by side; a block starts some steps early from an arbitrary frame, enough
  that it joins the block before it; what is left enters as a small lower-left block
- a recursion x_{n+1} = A_n x_n + s_n is composed over blocks, then filled in
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._systems import System, jacobians

WARM_UP = 100  # at first; longer if the blocks do not join
SEAM = 1e-13  # 1 - cos of the angle at which a block joins the one before it

Matrices = Float[np.ndarray, "n d d"]


def frames_along(
    J: Matrices, start: Float[np.ndarray, "d d"] | None = None
) -> Float[np.ndarray, "m d d"]:
    """Return orthonormal frames at n + 1 points from n Jacobians.

    Parameters
    ----------
    J
        Df(p_0), ..., Df(p_(n-1)).
    start
        The frame at p_0; the identity with a small rotation if missing.
    """
    n, d = J.shape[:2]
    first = _generic_frame(d) if start is None else start
    if n == 0:
        return first[None]
    warm_up = WARM_UP
    while True:
        out, gap = _sweep(J, first, warm_up)
        if gap <= SEAM or warm_up >= n:
            return out
        warm_up *= 4


def _sweep(
    J: Matrices, first: Float[np.ndarray, "d d"], warm_up: int
) -> tuple[Float[np.ndarray, "m d d"], float]:
    """Return frames by blocks that start `warm_up` steps early, and how badly the blocks join."""
    n, d = J.shape[:2]
    length = max(warm_up, int(np.sqrt(n)))
    blocks = -(-n // length)
    out = np.empty((blocks * length + 1, d, d))
    frame: Any = np.broadcast_to(_generic_frame(d), (blocks, d, d)).copy()
    origin: Any = np.arange(blocks) * length
    for t in range(-warm_up if blocks > 1 else 0, length):
        at: Any = origin + t
        frame[at <= 0] = first
        if t >= 0:
            out[at] = frame
        live = (at >= 0) & (at < n)
        pushed: Any = np.where(live[:, None, None], J[np.clip(at, 0, n - 1)] @ frame, frame)
        frame = _orthonormal(pushed)
    out[n] = _orthonormal((J[n - 1] @ out[n - 1])[None])[0]
    seams = origin[1:]
    joined = _orthonormal(J[seams - 1] @ out[seams - 1])
    alike = np.abs(sum(joined[:, i] * out[seams, i] for i in range(d)))
    return out[: n + 1], float((1 - alike).max(initial=0.0))


def _generic_frame(d: int) -> Float[np.ndarray, "d d"]:
    if d == 1:
        return np.ones((1, 1))
    seed = np.eye(d) + 0.37 * np.triu(np.ones((d, d)), 1) - 0.21 * np.tril(np.ones((d, d)), -1)
    return np.linalg.qr(seed)[0]


def _orthonormal(A: Float[np.ndarray, "b d d"]) -> Float[np.ndarray, "b d d"]:
    """Return the Gram-Schmidt frame of each matrix; in the plane the complement is the normal."""
    d = A.shape[-1]
    if d == 1:
        return np.ones_like(A)
    Q = np.empty_like(A)
    for j in range(1 if d == 2 else d):
        column = A[..., j]
        for _ in range(2):  # twice is enough
            for i in range(j):
                column = column - (Q[..., i] * column).sum(-1, keepdims=True) * Q[..., i]
        size = np.sqrt(apply(column[:, None, :], column))
        Q[..., j] = np.divide(column, size, out=np.zeros_like(column), where=size > 1e-290)
    if d == 2:
        Q[:, 0, 1], Q[:, 1, 1] = -Q[:, 1, 0], Q[:, 0, 0]
    return Q


def growth_rates(J: Matrices, frames: Float[np.ndarray, "m d d"]) -> Float[np.ndarray, " d"]:
    """Return the exponents of the orbit: mean log |R_ii| of the forward QR sweep, descending."""
    pushed, after = J @ frames[:-1], frames[1:]
    diagonal = sum(after[:, i] * pushed[:, i] for i in range(J.shape[-1]))
    return np.sort(np.log(np.maximum(np.abs(diagonal), 1e-300)).mean(axis=0))[::-1]


def in_frames(J: Matrices, frames: Float[np.ndarray, "m d d"]) -> Matrices:
    """Return Q_{n+1}^T Df(p_n) Q_n."""
    return frames[1:].transpose(0, 2, 1) @ (J @ frames[:-1])


def apply(A: Float[np.ndarray, "n a b"], x: Float[np.ndarray, "n b"]) -> Float[np.ndarray, "n a"]:
    """Return A_n x_n for each n; loops over the short axis, where NumPy's reductions are slow."""
    if A.shape[2] == 0:
        return np.zeros(A.shape[:2])
    total = A[:, :, 0] * x[:, :1]
    for j in range(1, A.shape[2]):
        total += A[:, :, j] * x[:, j : j + 1]
    return total


def scan(
    A: Float[np.ndarray, "n k k"], s: Float[np.ndarray, "n k"], x0: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "m k"]:
    """Return x_0, ..., x_n of x_{n+1} = A_n x_n + s_n, in floats, blocks side by side."""
    n, k = s.shape
    if k == 0:
        return np.zeros((n + 1, 0))
    length = max(1, int(np.sqrt(n)))
    blocks = -(-n // length) if n else 0
    spare = blocks * length - n
    step = np.concatenate([A, np.zeros((spare, k, k))]).reshape(blocks, length, k, k)
    s = np.concatenate([s, np.zeros((spare, k))]).reshape(blocks, length, k)
    out = np.empty((blocks, length, k))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        product, offset = np.broadcast_to(np.eye(k), (blocks, k, k)), np.zeros((blocks, k))
        for t in range(length):
            offset = apply(step[:, t], offset) + s[:, t]
            product = step[:, t] * product if k == 1 else step[:, t] @ product
        starts = np.empty((blocks, k))
        x: Any = x0
        for b in range(blocks):
            starts[b] = x
            x = product[b] @ x + offset[b]
        x = starts
        for t in range(length):
            x = apply(step[:, t], x) + s[:, t]
            out[:, t] = x
    return np.concatenate([x0[None], out.reshape(-1, k)[:n]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """Gains of the right inverse A of an orbit: K_n = |A| applied to errors of size 1, at n."""

    gain: Float[np.ndarray, " n"]
    frames: Float[np.ndarray, "n d d"]
    n_unstable: int
    exponents: Float[np.ndarray, " d"]

    def quantiles(self, levels: tuple[float, ...] = (0.5, 0.9, 0.99, 1.0)) -> list[float]:
        """Return quantiles of the gains."""
        return [float(q) for q in np.quantile(self.gain, levels)]


def gains(
    system: System, orbit: Float[np.ndarray, "n d"], *, n_unstable: int | None = None
) -> Gains:
    """Return how much an orbit amplifies errors on the way to its shadow.

    Parameters
    ----------
    system
        The map.
    orbit
        Points p_0, ..., p_N, shape (N + 1, d).
    n_unstable
        Number of expanding directions; by default that of positive exponents of this orbit.

    Raises
    ------
    ValueError
        If `n_unstable` contradicts the dimension.

    Notes
    -----
    With C_n = Q_{n+1}^T Df(p_n) Q_n = [[uu, us], [0, ss]] a step error g enters
    v_{n+1} = ss v_n + g_s from v_0 = 0 and u_n = uu^-1 (u_{n+1} - us v_n - g_u) from u_N = 0;
    here absolute values are taken throughout.
    """
    J = jacobians(system, orbit[:-1])
    Q = frames_along(J)
    exponents = growth_rates(J, Q)
    k = checked_dimension(n_unstable, exponents)
    C = in_frames(J, Q)
    size = np.abs(Q[1:]).sum(axis=1)
    stable = scan(np.abs(C[:, k:, k:]), size[:, k:], np.zeros(system.dim - k))
    with np.errstate(divide="ignore"):
        inverse: Any = np.abs(np.linalg.inv(C[:, :k, :k])) if k > 1 else 1 / np.abs(C[:, :k, :k])
    source = apply(np.abs(C[:, :k, k:]), stable[:-1]) + size[:, :k]
    unstable = backward_scan(inverse, source)
    eta = np.concatenate([unstable, stable], axis=1)
    return Gains(
        gain=apply(np.abs(Q), eta).max(axis=1),
        frames=Q,
        n_unstable=k,
        exponents=exponents,
    )


def backward_scan(
    inverse: Float[np.ndarray, "n k k"],
    source: Float[np.ndarray, "n k"],
    end: Float[np.ndarray, " k"] | None = None,
) -> Float[np.ndarray, "m k"]:
    """Return u_0, ..., u_N of u_n = inverse_n (u_{n+1} + source_n), from u_N = `end` (0)."""
    k = source.shape[1]
    A = inverse[::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        s = apply(A, source[::-1])
    return scan(A, s, np.zeros(k) if end is None else end)[::-1]


def checked_dimension(n_unstable: int | None, exponents: Float[np.ndarray, " d"]) -> int:
    """Return the number of expanding directions, from the exponents unless it is given."""
    d = len(exponents)
    if n_unstable is None:
        return int((exponents > 0).sum())
    if not 0 <= n_unstable <= d:
        raise ValueError(f"n_unstable is {n_unstable}; it must lie in 0...{d}, the dimension")
    return n_unstable
