"""Lyapunov exponents with errors, and covariant Lyapunov vectors.

- exponents: means of log |R_ii| of the forward QR sweep; errors from batch means
- covariant vectors (Ginelli et al. 2007): with R_n = Q_{n+1}^T Df Q_n upper triangular, triangular
  C_n = R_n^-1 C_{n+1}, columns normalised, converge backward; V_n = Q_n C_n and Df V_n is parallel
  to V_{n+1}. Blocks of steps run side by side, each from a start further on
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._splitting import SEAM, WARM_UP, frames_along, in_frames
from meristem_dynamics._systems import Map, jacobians

BATCHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Exponents per step, descending, and their standard errors (batch means)."""

    exponents: Float[np.ndarray, " d"]
    errors: Float[np.ndarray, " d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CovariantVectors:
    """Unit vectors V_n, columns by descending exponent, at the points `first`, first + 1, ..."""

    vectors: Float[np.ndarray, "n d d"]
    growth: Float[np.ndarray, "m d"]  # log |Df v| for each step between the points
    first: int

    def angle(self, i: int, j: int) -> Float[np.ndarray, " n"]:
        """Return the angle between vectors i and j at each point, in [0, pi / 2]."""
        cosine = np.abs((self.vectors[:, :, i] * self.vectors[:, :, j]).sum(axis=1))
        return np.arccos(np.minimum(cosine, 1.0))


def _logs(system: Map, orbit: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "m d"]:
    """Return log |R_ii| of each step of the forward sweep."""
    J = jacobians(system, orbit[:-1])
    diagonal = np.einsum("nii->ni", in_frames(J, frames_along(J)))
    return np.log(np.maximum(np.abs(diagonal), 1e-300))


def finite_time_exponents(
    system: Map, orbit: Float[np.ndarray, "n d"], window: int
) -> Float[np.ndarray, "m d"]:
    """Return the exponents over every `window` consecutive steps, in the order of `lyapunov`.

    An exponent whose values lie on both sides of 0 means that the number of expanding directions
    varies along the orbit: no long part of it is shadowable.

    Raises
    ------
    ValueError
        If the window is longer than the orbit, or below 1.

    Examples
    --------
    >>> from meristem_dynamics import iterate, zoo
    >>> henon = zoo.henon()  # det Df = -0.3, so that every window's exponents sum to log 0.3
    >>> found = finite_time_exponents(henon, iterate(henon, [0.0, 0.0], 100), 10)
    >>> found.shape, bool(np.allclose(found.sum(axis=1), np.log(0.3)))
    ((91, 2), True)
    """
    if not 1 <= window < len(orbit):
        raise ValueError(f"window is {window}; it must lie in 1...{len(orbit) - 1}, the steps")
    logs = _logs(system, orbit)
    total = np.concatenate([np.zeros((1, logs.shape[1])), np.cumsum(logs, axis=0)])
    return ((total[window:] - total[:-window]) / window)[:, np.argsort(-logs.mean(axis=0))]


def lyapunov(system: Map, orbit: Float[np.ndarray, "n d"]) -> Spectrum:
    """Return the Lyapunov exponents along an orbit, in nats per step.

    Raises
    ------
    ValueError
        If the orbit has fewer than 40 steps, two for each batch.
    """
    if len(orbit) <= 2 * BATCHES:
        raise ValueError(f"the orbit has {len(orbit) - 1} steps; errors need at least 41")
    logs = _logs(system, orbit)
    batches = np.array([part.mean(axis=0) for part in np.array_split(logs, BATCHES)])
    order = np.argsort(-logs.mean(axis=0))
    return Spectrum(
        exponents=logs.mean(axis=0)[order],
        errors=batches.std(axis=0, ddof=1)[order] / np.sqrt(BATCHES),
    )


def covariant_vectors(
    system: Map, orbit: Float[np.ndarray, "n d"], *, settle: int = WARM_UP
) -> CovariantVectors:
    """Return covariant Lyapunov vectors along an orbit, without its first and last points.

    Parameters
    ----------
    system
        A map.
    orbit
        Points, more than 2 settle of them.
    settle
        Points dropped at both ends while the vectors settle, and first overlap of the blocks.

    Raises
    ------
    ValueError
        If the orbit is too short.
    """
    if len(orbit) <= 2 * settle + 1:
        raise ValueError(f"the orbit has {len(orbit)} points; it needs {2 * settle + 2} to settle")
    J = jacobians(system, orbit[:-1])
    Q = frames_along(J)
    R = np.triu(in_frames(J, Q))
    inner, gap, overlap = *_backward(R, settle), settle
    while gap > SEAM and overlap < len(R):
        overlap *= 4
        inner, gap = _backward(R, overlap)
    kept = slice(settle, len(orbit) - settle)
    V = (Q @ inner)[kept]
    pushed = J[settle : len(orbit) - settle - 1] @ V[:-1]
    return CovariantVectors(vectors=V, growth=np.log(np.linalg.norm(pushed, axis=1)), first=settle)


def _backward(
    R: Float[np.ndarray, "m d d"], overlap: int
) -> tuple[Float[np.ndarray, "n d d"], float]:
    """Return inner by blocks that start `overlap` steps late, and how badly the blocks join."""
    n, d = R.shape[:2]
    length = max(overlap, int(np.sqrt(n)))
    blocks = -(-n // length)
    out = np.empty((blocks * length + 1, d, d))
    inner: Any = np.broadcast_to(np.triu(np.ones((d, d))), (blocks, d, d)).copy()
    inner /= np.linalg.norm(inner, axis=1, keepdims=True)
    origin: Any = np.arange(blocks) * length
    out[n:] = inner[0]
    for t in range(length + overlap - 1, -1, -1):
        at = origin + t
        live = at < n
        solved = np.linalg.solve(R[np.minimum(at, n - 1)], inner)
        solved = solved / np.linalg.norm(solved, axis=1, keepdims=True)
        inner = np.where(live[:, None, None], solved, inner)
        if t < length:
            out[at[live]] = inner[live]
    seams = origin[1:]
    joined = np.linalg.solve(R[seams - 1], out[seams])
    joined = joined / np.linalg.norm(joined, axis=1, keepdims=True)
    alike = np.abs(sum(joined[:, i] * out[seams - 1, i] for i in range(d)))
    return out[: n + 1], float((1 - alike).max(initial=0.0))
