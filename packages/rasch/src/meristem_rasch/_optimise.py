"""Newton steps with a Hessian that is kept, corrected from the gradients seen since (L-BFGS).

- far from the optimum the Hessian (or a positive definite stand-in) is renewed at each step; once a
  step is short it is kept, and the pairs (change of x, change of gradient) correct it
- two-loop recursion of Nocedal (1980), the kept Hessian's inverse in the middle
- a step is halved until the value does not rise
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Vector = Float[np.ndarray, " P"]
Solve = Callable[[Vector], Vector]

SHORT = 0.1  # logits; a Hessian renewed after a longer step pays for itself
LONGEST = 3.0  # logits; the largest change of a parameter in one step
ROUNDING = 1e-12  # of the value: a rise below this is not a rise
PAIRS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """Where the search ended."""

    x: Vector
    value: float
    n_iter: int
    converged: bool
    history: tuple[float, ...]  # value after each step


def minimise(
    evaluate: Callable[[Vector], tuple[float, Vector]],
    curvature: Callable[[Vector], Solve],
    x: Vector,
    *,
    tol: float,
    max_steps: int,
    check: Callable[[Vector], None] = lambda _: None,
    measure: Callable[[Vector], float] = lambda step: float(np.abs(step).max()),
    progress: Callable[[int, float], None] | None = None,
) -> Optimum:
    """Return the minimum of a smooth function, reached when a step's `measure` falls below `tol`.

    Parameters
    ----------
    evaluate
        Value and gradient.
    curvature
        Function that solves (approximate Hessian at x) s = g; positive definite.
    check
        Called with each x; raises where the search leaves the sensible range.
    progress
        Called after each step with its number and its measure.
    """
    value, gradient = evaluate(x)
    solve, pairs = curvature(x), list[tuple[Vector, Vector]]()
    history: list[float] = []
    for n_iter in range(1, max_steps + 1):
        step = -_two_loop(gradient, pairs, solve)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-300))
        new_x, value, new_gradient = _search(evaluate, x, step, value)
        moved, change = new_x - x, new_gradient - gradient
        x, gradient = new_x, new_gradient
        history.append(value)
        check(x)
        if progress is not None:
            progress(n_iter, measure(moved))
        if measure(moved) < tol:
            return Optimum(x=x, value=value, n_iter=n_iter, converged=True, history=tuple(history))
        if measure(moved) > SHORT:
            solve, pairs = curvature(x), []
        elif moved @ change > 1e-12 * np.linalg.norm(moved) * np.linalg.norm(change):
            pairs = [*pairs[1 - PAIRS :], (moved, change)]
    return Optimum(x=x, value=value, n_iter=max_steps, converged=False, history=tuple(history))


def _two_loop(gradient: Vector, pairs: list[tuple[Vector, Vector]], solve: Solve) -> Vector:
    q, alphas = gradient, list[float]()
    for moved, change in reversed(pairs):
        alphas.append(float(moved @ q) / float(moved @ change))
        q = q - alphas[-1] * change
    r = solve(q)
    for (moved, change), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + (alpha - float(change @ r) / float(moved @ change)) * moved
    return r


def _search(
    evaluate: Callable[[Vector], tuple[float, Vector]], x: Vector, step: Vector, value: float
) -> tuple[Vector, float, Vector]:
    scale, slack = 1.0, ROUNDING * abs(value)
    while True:
        new, gradient = evaluate(x + scale * step)
        if new <= value + slack or scale < 1e-10:
            return x + scale * step, new, gradient
        scale /= 2
