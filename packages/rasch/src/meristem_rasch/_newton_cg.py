"""Joint maximum likelihood of additive logits by Newton's method with conjugate gradients.

- P(x_n = h) proportional to exp(h eta_n - sum_{l <= h} kappa_{g(n), l}), eta_n = sum_f s_f lambda
- a product with the Hessian takes one gather and one count per facet: nothing of its size is built
- residuals and directions are projected onto the complement of the shifts that change nothing
  (facet f + c with person + c); without that, conjugate gradients wander off on rounding errors
- steps of each group sum to zero, by projection

Legend: n ratings, F facets, G step groups, m steps, P parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_rasch._checkpoint import Checkpoint

Vector = Float[np.ndarray, " P"]
LONGEST = 2.0  # logits in one step
MOST_PRODUCTS = 400


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Design:
    """Ratings as the engine sees them; targets may be adjusted so that no estimate is infinite."""

    levels: tuple[Int[np.ndarray, " n"], ...]  # of each facet
    sizes: tuple[int, ...]
    signs: tuple[float, ...]
    group: Int[np.ndarray, " n"]  # whose steps apply
    top: Int[np.ndarray, " G"]  # largest score of each group
    weight: Float[np.ndarray, " n"]
    target: Float[np.ndarray, " n"]  # (adjusted) score
    passed: Float[np.ndarray, "G m"]  # weighted sum of (adjusted) indicators x >= l
    free: Bool[np.ndarray, " P"]  # levels, facet by facet; anchored ones are not free

    @property
    def n_levels(self) -> int:
        """Number of levels of all facets."""
        return sum(self.sizes)

    @property
    def ends(self) -> Int[np.ndarray, " F"]:
        """Position after each facet's levels."""
        return np.cumsum(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Category distribution of every rating, summarised."""

    loglik: float
    mean: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    cross: Float[np.ndarray, "n m"]  # Cov(x, 1[x >= l])
    passed: Float[np.ndarray, "G m"]  # weighted sum of P(x >= l)
    steps: Float[np.ndarray, "G m m"]  # weighted sum of Cov(1[x >= l], 1[x >= k])


def eta_of(design: Design, x: Vector) -> Float[np.ndarray, " n"]:
    """Return the sum of the levels' signed measures for every rating."""
    out = np.zeros(len(design.target))
    at = 0
    for level, size, sign in zip(design.levels, design.sizes, design.signs, strict=True):
        out += sign * x[at : at + size][level]
        at += size
    return out


def moments(design: Design, x: Vector) -> Moments:
    """Return the moments at x, the levels' measures followed by the steps."""
    return moments_at(design, eta_of(design, x), steps_of(design, x))


def moments_at(
    design: Design, eta: Float[np.ndarray, " n"], kappa: Float[np.ndarray, "G m"]
) -> Moments:
    """Return the moments at given logits and steps."""
    width = kappa.shape[1]
    beyond = np.arange(1, width + 1) > design.top[:, None]
    total = np.where(beyond, np.inf, np.cumsum(kappa, axis=1))
    p = np.empty((len(eta), width + 1))
    p[:, 0] = 0.0
    for h in range(1, width + 1):
        np.subtract(h * eta, total[design.group, h - 1], out=p[:, h])
    top = p.max(axis=1)
    p -= top[:, None]
    np.exp(p, out=p)
    norm = p.sum(axis=1)
    p /= norm[:, None]
    above = np.cumsum(p[:, ::-1], axis=1)[:, ::-1][:, 1:]  # P(x >= l)
    mean = above.sum(axis=1)
    h = np.arange(width + 1.0)
    second = p @ h**2
    tail = np.cumsum((p * h)[:, ::-1], axis=1)[:, ::-1][:, 1:]  # E x 1[x >= l]
    w = design.weight
    loglik = float(w @ (design.target * eta - top - np.log(norm))) - float(
        (design.passed * np.where(beyond, 0, kappa)).sum()
    )
    blocks = np.zeros((len(total), width, width))
    for k in range(width):
        for j in range(k, width):
            joint = above[:, j] - above[:, j] * above[:, k]
            blocks[:, j, k] = np.bincount(design.group, w * joint, len(total))
            blocks[:, k, j] = blocks[:, j, k]
    return Moments(
        loglik=loglik,
        mean=mean,
        variance=second - mean**2,
        cross=tail - mean[:, None] * above,
        passed=np.column_stack(
            [np.bincount(design.group, w * above[:, k], len(total)) for k in range(width)]
        ),
        steps=blocks,
    )


def steps_of(design: Design, x: Vector) -> Float[np.ndarray, "G m"]:
    """Return the steps of every group, 0 beyond its last."""
    return x[design.n_levels :].reshape(len(design.top), -1)


def gradient(design: Design, at: Moments) -> Vector:
    """Return the gradient of the log-likelihood."""
    residual = design.weight * (design.target - at.mean)
    parts = [
        sign * np.bincount(level, residual, size)
        for level, size, sign in zip(design.levels, design.sizes, design.signs, strict=True)
    ]
    return np.concatenate([*parts, (at.passed - design.passed).ravel()])


def product(design: Design, at: Moments) -> Callable[[Vector], Vector]:
    """Return the function that multiplies with minus the Hessian."""
    variance = design.weight * at.variance
    cross = design.weight[:, None] * at.cross
    alone = len(design.top) == 1
    stepless = at.cross.shape[1] == 1  # dichotomous: steps are identically 0

    def multiply(d: Vector) -> Vector:
        eta, kappa = eta_of(design, d), steps_of(design, d)
        u = variance * eta
        if stepless:
            steps = np.zeros(kappa.shape)
        elif alone:
            u -= cross @ kappa[0]
            steps = at.steps[0] @ kappa[0] - eta @ cross
        else:
            u -= (cross * kappa[design.group]).sum(axis=1)
            counted = [
                np.bincount(design.group, eta * cross[:, k], len(kappa))
                for k in range(cross.shape[1])
            ]
            steps = np.einsum("gkj,gj->gk", at.steps, kappa) - np.column_stack(counted)
        parts = [
            sign * np.bincount(level, u, size)
            for level, size, sign in zip(design.levels, design.sizes, design.signs, strict=True)
        ]
        return np.concatenate([*parts, steps.ravel()])

    return multiply


def projector(design: Design) -> Callable[[Vector], Vector]:
    """Return the projection onto identified directions: free levels, no shifts, steps of sum 0."""
    shifts = shift_basis(design)
    inside = np.arange(1, int(design.top.max()) + 1) <= design.top[:, None]
    width = inside.sum(axis=1, keepdims=True)
    n = design.n_levels

    def project(x: Vector) -> Vector:
        out = x.copy()
        out[:n] *= design.free
        steps = x[n:].reshape(inside.shape)
        centred = steps - (steps * inside).sum(axis=1, keepdims=True) / width
        out[n:] = (centred * inside).ravel()
        out[:n] -= shifts.T @ (shifts @ out[:n])
        return out

    return project


def shift_basis(design: Design) -> Float[np.ndarray, "s L"]:
    """Return orthonormal directions in the levels that leave every logit unchanged."""
    loose = [f for f in range(len(design.sizes)) if _part(design, f).all()]
    rows = np.zeros((len(loose), design.n_levels))
    for row, f in enumerate(loose):
        rows[row, design.ends[f] - design.sizes[f] : design.ends[f]] = design.signs[f]
    if len(loose) < 2:
        return np.zeros((0, design.n_levels))
    # coefficients c with sum_f c_f = 0: shift facet f by s_f c_f
    contrast = np.eye(len(loose))[1:] - np.eye(len(loose))[:1]
    basis = np.linalg.qr((contrast @ rows).T)[0]
    return basis.T


def _part(design: Design, f: int) -> Bool[np.ndarray, " k"]:
    return design.free[design.ends[f] - design.sizes[f] : design.ends[f]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """Where the search ended."""

    x: Vector
    moments: Moments
    history: tuple[float, ...]
    converged: bool


def maximise(
    design: Design,
    x: Vector,
    *,
    tol: float,
    max_steps: int,
    progress: Callable[[int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Solution:
    """Return the maximum of the log-likelihood, to a largest step below `tol`.

    `checkpoint` keeps x and the history, which are all of the search's state.
    """
    known = checkpoint.arrays if checkpoint is not None else {}
    x, history = known.get("x", x), known.get("history", np.empty(0)).tolist()
    project, at = projector(design), moments(design, x)
    if known and known["change"] < tol:
        return Solution(x=x, moments=at, history=tuple(history), converged=True)
    for n_iter in range(len(history), max_steps):
        slope = project(gradient(design, at))
        step = _direction(design, at, slope, project)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-300))
        scale, slack = 1.0, 1e-11 * abs(at.loglik)
        while True:
            new = moments(design, x + scale * step)
            if new.loglik >= at.loglik - slack or scale < 1e-6:
                break
            scale /= 2
        x, at = x + scale * step, new
        history.append(at.loglik)
        largest = scale * float(np.abs(step).max())
        if checkpoint is not None:
            checkpoint.save(x=x, history=np.array(history), change=np.array(largest))
        if progress is not None:
            progress(n_iter + 1, largest)
        if largest < tol:
            return Solution(x=x, moments=at, history=tuple(history), converged=True)
    return Solution(x=x, moments=at, history=tuple(history), converged=False)


def _direction(
    design: Design, at: Moments, slope: Vector, project: Callable[[Vector], Vector]
) -> Vector:
    """Solve H d = slope by preconditioned conjugate gradients within the identified directions."""
    multiply = product(design, at)
    variance = design.weight * at.variance
    diagonal = np.concatenate(
        [
            *(
                np.bincount(k, variance, s)
                for k, s in zip(design.levels, design.sizes, strict=True)
            ),
            np.einsum("gkk->gk", at.steps).ravel(),
        ]
    )
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
        length = energy / float(direction @ image)
        out += length * direction
        residual = project(residual - length * image)
        z = project(scale * residual)
        energy, before = float(residual @ z), energy
        direction = project(z + energy / before * direction)
    return out
