"""Joint maximum likelihood of additive logits by Newton's method with conjugate gradients.

- P(x_n = h) proportional to exp(h eta_n - sum_{l <= h} kappa_{g(n), l}), eta_n = sum_f s_f lambda
- a product with the Hessian takes one gather and one count per facet: nothing of its size is built
- identified directions: the complement of the shifts that change nothing (facet f + c with
  person + c), interactions with zero margins, group-anchored facets off the open directions
- steps of each group sum to zero, by projection

Legend: n ratings, F facets, G step groups, m steps, P parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from meristem_rasch._ascent import Vector, ascend
from meristem_rasch._checkpoint import Checkpoint
from meristem_rasch._subspaces import Directions, Margins


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
    spaces: tuple[Directions | Margins | None, ...] = ()  # of the facets, where constrained

    @property
    def n_levels(self) -> int:
        """Number of levels of all facets."""
        return sum(self.sizes)

    @property
    def ends(self) -> Int[np.ndarray, " F"]:
        """Position after each facet's levels."""
        return np.cumsum(self.sizes)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Positions of each facet's levels."""
        return tuple(
            slice(end - size, end) for end, size in zip(self.ends, self.sizes, strict=True)
        )

    @property
    def constrained(self) -> tuple[tuple[slice, Directions | Margins], ...]:
        """Positions and constraints of the facets that have one."""
        pairs = zip(self.blocks, self.spaces, strict=False)
        return tuple((block, space) for block, space in pairs if space is not None)

    @property
    def loose(self) -> tuple[int, ...]:
        """Facets that may be shifted as a whole."""
        held = [space is not None for space in self.spaces] or [False] * len(self.sizes)
        return tuple(
            f for f, block in enumerate(self.blocks) if self.free[block].all() and not held[f]
        )


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
    p, log_norm = distribution(design.group, design.top, eta, kappa)
    inside = np.arange(1, kappa.shape[1] + 1) <= design.top[:, None]
    loglik = float(design.weight @ (design.target * eta - log_norm)) - float(
        (design.passed * np.where(inside, kappa, 0)).sum()
    )
    return summed(design.group, len(design.top), design.weight, p, loglik)


def distribution(
    group: Int[np.ndarray, " n"],
    top: Int[np.ndarray, " G"],
    eta: Float[np.ndarray, " n"],
    kappa: Float[np.ndarray, "G m"],
) -> tuple[Float[np.ndarray, "n K"], Float[np.ndarray, " n"]]:
    """Return the probabilities of all scores, and log sum_h exp(h eta - kappa_1 - ... kappa_h)."""
    width = kappa.shape[1]
    beyond = np.arange(1, width + 1) > top[:, None]
    total = np.where(beyond, np.inf, np.cumsum(kappa, axis=1))
    p = np.empty((len(eta), width + 1))
    p[:, 0] = 0.0
    for h in range(1, width + 1):
        np.subtract(h * eta, total[group, h - 1], out=p[:, h])
    largest = p.max(axis=1)
    p -= largest[:, None]
    np.exp(p, out=p)
    norm = p.sum(axis=1)
    p /= norm[:, None]
    return p, largest + np.log(norm)


def summed(
    group: Int[np.ndarray, " n"],
    groups: int,
    weight: Float[np.ndarray, " n"],
    p: Float[np.ndarray, "n K"],
    loglik: float,
) -> Moments:
    """Return the moments of given probabilities."""
    width = p.shape[1] - 1
    above = np.cumsum(p[:, ::-1], axis=1)[:, ::-1][:, 1:]  # P(x >= l)
    mean = above.sum(axis=1)
    h = np.arange(width + 1.0)
    second = p @ h**2
    tail = np.cumsum((p * h)[:, ::-1], axis=1)[:, ::-1][:, 1:]  # E x 1[x >= l]
    blocks = np.zeros((groups, width, width))
    for k in range(width):
        for j in range(k, width):
            joint = above[:, j] - above[:, j] * above[:, k]
            blocks[:, j, k] = np.bincount(group, weight * joint, groups)
            blocks[:, k, j] = blocks[:, j, k]
    return Moments(
        loglik=loglik,
        mean=mean,
        variance=second - mean**2,
        cross=tail - mean[:, None] * above,
        passed=by_group(group, groups, weight[:, None] * above),
        steps=blocks,
    )


def by_group(
    group: Int[np.ndarray, " n"], groups: int, columns: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, "G m"]:
    """Return the sums of columns over the rows of each step group."""
    return np.column_stack(
        [np.bincount(group, columns[:, k], groups) for k in range(columns.shape[1])]
    )


def by_level(
    design: Design, u: Float[np.ndarray, " n"], *, signed: bool = True
) -> Float[np.ndarray, " L"]:
    """Return the sums of u over the rows of each level, with the facet's sign."""
    return np.concatenate(
        [
            (sign if signed else 1.0) * np.bincount(level, u, size)
            for level, size, sign in zip(design.levels, design.sizes, design.signs, strict=True)
        ]
    )


def steps_of(design: Design, x: Vector) -> Float[np.ndarray, "G m"]:
    """Return the steps of every group, 0 beyond its last."""
    return x[design.n_levels :].reshape(len(design.top), -1)


def gradient(design: Design, at: Moments) -> Vector:
    """Return the gradient of the log-likelihood."""
    residual = design.weight * (design.target - at.mean)
    return np.concatenate([by_level(design, residual), (at.passed - design.passed).ravel()])


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
            counted = by_group(design.group, len(kappa), eta[:, None] * cross)
            steps = np.einsum("gkj,gj->gk", at.steps, kappa) - counted
        return np.concatenate([by_level(design, u), steps.ravel()])

    return multiply


def projector(design: Design) -> Callable[[Vector], Vector]:
    """Return the projection onto identified directions: of the levels, and steps of sum 0."""
    levels = level_projector(design)
    inside = np.arange(1, int(design.top.max()) + 1) <= design.top[:, None]
    width = inside.sum(axis=1, keepdims=True)
    n = design.n_levels

    def project(x: Vector) -> Vector:
        steps = x[n:].reshape(inside.shape)
        centred = steps - (steps * inside).sum(axis=1, keepdims=True) / width
        return np.concatenate([levels(x[:n]), (centred * inside).ravel()])

    return project


def level_projector(design: Design) -> Callable[[Vector], Vector]:
    """Return the projection of measures: free levels, no shifts, facets within their spaces."""
    shifts, constrained = shift_basis(design), design.constrained

    def project(x: Vector) -> Vector:
        out = x * design.free
        for block, space in constrained:
            out[block] = space.project(out[block])
        out -= shifts.T @ (shifts @ out)
        return out

    return project


def shift_basis(design: Design) -> Float[np.ndarray, "s L"]:
    """Return orthonormal directions in the levels that leave every logit unchanged."""
    loose = design.loose
    rows = np.zeros((len(loose), design.n_levels))
    for row, f in enumerate(loose):
        rows[row, design.blocks[f]] = design.signs[f]
    if len(loose) < 2:
        return np.zeros((0, design.n_levels))
    # coefficients c with sum_f c_f = 0: shift facet f by s_f c_f
    contrast = np.eye(len(loose))[1:] - np.eye(len(loose))[:1]
    basis = np.linalg.qr((contrast @ rows).T)[0]
    return basis.T


@dataclass(frozen=True, slots=True, eq=False)
class JointPoint:
    """The joint log-likelihood at some x."""

    design: Design
    moments: Moments

    @property
    def loglik(self) -> float:
        """Its value."""
        return self.moments.loglik

    def gradient(self) -> Vector:
        """Return its gradient."""
        return gradient(self.design, self.moments)

    def product(self) -> Callable[[Vector], Vector]:
        """Return the function that multiplies with minus the Hessian."""
        return product(self.design, self.moments)

    def diagonal(self) -> Vector:
        """Return the diagonal of minus the Hessian."""
        variance = by_level(self.design, self.design.weight * self.moments.variance, signed=False)
        return np.concatenate([variance, np.einsum("gkk->gk", self.moments.steps).ravel()])


class Joint:
    """The joint log-likelihood of a design as a function of measures and steps."""

    def __init__(self, design: Design) -> None:
        self.design, self._project = design, projector(design)

    def project(self, x: Vector) -> Vector:
        """Return x projected onto the identified directions."""
        return self._project(x)

    def at(self, x: Vector) -> JointPoint:
        """Return the point at x."""
        return JointPoint(self.design, moments(self.design, x))


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
    label: str = "",
) -> Solution:
    """Return the maximum of the joint log-likelihood, to a largest step below `tol`."""
    top = ascend(
        Joint(design),
        x,
        tol=tol,
        max_steps=max_steps,
        progress=progress,
        checkpoint=checkpoint,
        label=label,
    )
    return Solution(
        x=top.x, moments=moments(design, top.x), history=top.history, converged=top.converged
    )
