"""Newton's method with conjugate gradients: the maximum of a log-likelihood within a subspace.

- a point knows its gradient and the product with minus its Hessian; no matrix is built
- residuals and directions are projected onto the identified directions; without that, conjugate
  gradients wander off on rounding errors
- where the Hessian is not negative (far from the top of a marginal likelihood) the direction found
  so far is taken
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from meristem_rasch._checkpoint import Checkpoint

Vector = Float[np.ndarray, " P"]
LONGEST = 2.0  # logits in one step
MOST_PRODUCTS = 400


@runtime_checkable
class Point(Protocol):
    """A log-likelihood at some x."""

    @property
    def loglik(self) -> float:
        """Its value."""
        ...

    def gradient(self) -> Vector:
        """Return its gradient."""
        ...

    def product(self) -> Callable[[Vector], Vector]:
        """Return the function that multiplies with minus the Hessian."""
        ...

    def diagonal(self) -> Vector:
        """Return about the diagonal of minus the Hessian; 0 where nothing is known."""
        ...


@runtime_checkable
class Surface(Protocol):
    """A log-likelihood as a function of x."""

    def at(self, x: Vector) -> Point:
        """Return the point at x."""
        ...

    def project(self, x: Vector) -> Vector:
        """Return x projected onto the identified directions."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Top:
    """Where the search ended."""

    x: Vector
    loglik: float
    history: tuple[float, ...]  # log-likelihood before each step
    converged: bool


def ascend(
    surface: Surface,
    x: Vector,
    *,
    tol: float,
    max_steps: int,
    progress: Callable[[int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
    label: str = "",
    check: Callable[[Vector], None] = lambda _: None,
) -> Top:
    """Return the maximum, to a largest step below `tol`.

    `check` is called with each x and raises where the search leaves the sensible range.
    `checkpoint` keeps x and the history, which are all of the search's state; `label` tells the
    searches of one fit apart.
    """
    known = checkpoint.arrays if checkpoint is not None else {}
    x = known.get(f"{label}x", x)
    history: list[float] = known.get(f"{label}history", np.empty(0)).tolist()
    at = surface.at(x)
    if f"{label}change" in known and known[f"{label}change"] < tol:
        return Top(x=x, loglik=at.loglik, history=tuple(history), converged=True)
    for n_iter in range(len(history), max_steps):
        step = _direction(surface, at)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-300))
        scale, slack = 1.0, 1e-11 * abs(at.loglik)
        while True:
            new = surface.at(x + scale * step)
            if new.loglik >= at.loglik - slack or scale < 1e-6:
                break
            scale /= 2
        history.append(at.loglik)
        x, at = x + scale * step, new
        check(x)
        largest = scale * float(np.abs(step).max())
        if checkpoint is not None:
            state = {"x": x, "history": np.array(history), "change": np.array(largest)}
            checkpoint.save(**{f"{label}{name}": value for name, value in state.items()})
        if progress is not None:
            progress(n_iter + 1, largest)
        if largest < tol:
            return Top(x=x, loglik=at.loglik, history=tuple(history), converged=True)
    return Top(x=x, loglik=at.loglik, history=tuple(history), converged=False)


def _direction(surface: Surface, at: Point) -> Vector:
    """Solve H d = slope by preconditioned conjugate gradients within the identified directions."""
    multiply, project, diagonal = at.product(), surface.project, at.diagonal()
    slope = project(at.gradient())
    scale = 1 / np.where(diagonal > 0, diagonal, 1.0)
    out, residual = np.zeros_like(slope), slope.copy()
    z = project(scale * residual)
    direction, energy = z.copy(), float(residual @ z)
    size = np.linalg.norm(np.sqrt(scale) * slope)
    goal = min(0.1, 0.5 * np.sqrt(size)) * size
    for _ in range(MOST_PRODUCTS):
        if np.linalg.norm(np.sqrt(scale) * residual) <= goal or energy <= 0:
            break
        image = project(multiply(direction))
        bend = float(direction @ image)
        if bend <= 0:
            return out if out.any() else direction
        length = energy / bend
        out += length * direction
        residual = project(residual - length * image)
        z = project(scale * residual)
        energy, before = float(residual @ z), energy
        direction = project(z + energy / before * direction)
    return out
