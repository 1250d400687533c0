"""A map and its inverse on a batch of points, one row a variable."""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._systems import Map, jacobians

NEWTON_STEPS = 40
FAR = 1e30  # Newton's method has failed beyond

Columns = Float[np.ndarray, "d n"]
Step = Callable[[Columns], Columns]


def forward(system: Map) -> Step:
    """Return the map of a batch of points, shape (d, n), in the plane also if it is of a torus."""
    return _stepping(system.f, system.parameters())


def _stepping(f: Callable[[Any, Any], Any], p: Any) -> Step:
    def step(z: Columns) -> Columns:
        out = np.empty_like(z)
        for i, part in enumerate(f(list(z), p)):
            out[i] = part
        return out

    return step


def backward(system: Map) -> Step:
    """Return the inverse: in closed form, or by Newton's method from 2 z - f(z).

    That start suits maps near the identity; where Newton's method does not settle, NaN is returned.
    """
    if system.inverse is not None:
        return _stepping(system.inverse, system.parameters())
    image = forward(system)

    def newton(z: Columns) -> Columns:
        w = 2 * z - image(z)
        unsettled = np.ones(z.shape[1], dtype=bool)
        for _ in range(NEWTON_STEPS):
            here = np.flatnonzero(unsettled & (np.abs(w) < FAR).all(axis=0))
            if not here.size:
                break
            J = np.linalg.pinv(jacobians(system, w[:, here].T))
            change = (J @ (image(w[:, here]) - z[:, here]).T[..., None])[..., 0].T
            w[:, here] -= change
            settled = np.abs(change).max(axis=0) <= 2e-15 * (1 + np.abs(w[:, here]).max(axis=0))
            unsettled[here[settled]] = False
        w[:, unsettled] = np.nan
        return w

    return newton
