"""Marginal likelihood of a many-facet design: persons are normal, their abilities integrated out.

- log L_v(q) = r_v theta_q - (C log_norm)_vq + const at nodes theta_q = mean + sd z_q: ratings by
  the same levels are one cell, C counts a person's ratings in each cell
- gradient by Fisher's identity; minus the Hessian is the complete-data information less the
  posterior covariance of the complete-data score (Louis 1982), both as products with a direction
- x holds the measures (persons are one level, their mean), the steps, and log sd

Legend: N persons, c cells, Q nodes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from meristem_rasch._ascent import Vector
from meristem_rasch._errors import ExistenceError
from meristem_rasch._marginal import normalised
from meristem_rasch._newton_cg import (
    Design,
    Moments,
    by_group,
    by_level,
    distribution,
    eta_of,
    projector,
    steps_of,
    summed,
)
from meristem_rasch._posterior import REACH
from meristem_rasch._ratings import joint_codes

Table = Float[np.ndarray, "c Q"]


class Marginal:
    """The marginal log-likelihood as a function of x.

    Parameters
    ----------
    design
        One row a rating, the persons as one level.
    person
        Person of each rating.
    """

    def __init__(self, design: Design, person: Int[np.ndarray, " n"], *, n_nodes: int) -> None:
        cell = joint_codes([*design.levels, design.group])
        first = np.unique(cell, return_index=True)[1]
        one = (design.weight, (person, cell))
        shape = (int(person.max()) + 1, len(first))
        self.cell, self.counts = cell, csr_array(one, shape=shape)
        self.transposed = csr_array(self.counts.T)
        self.raw = np.bincount(person, design.weight * design.target)
        self.cells = replace(
            design,
            levels=tuple(level[first] for level in design.levels),
            group=design.group[first],
            weight=np.bincount(cell, design.weight),
            target=np.bincount(cell, design.weight * design.target),
        )
        self.z = np.linspace(-REACH, REACH, n_nodes)
        self._project = projector(self.cells)

    def project(self, x: Vector) -> Vector:
        """Return x projected onto the identified directions."""
        return np.append(self._project(x[:-1]), x[-1])

    def at(self, x: Vector) -> "MarginalPoint":
        """Return the point at x."""
        return MarginalPoint(self, x)

    def covariance(self, x: Vector) -> Float[np.ndarray, "P P"]:
        """Return the inverse observed information, within the identified directions.

        Raises
        ------
        ExistenceError
            If the information is singular there.
        """
        multiply, eye = self.at(x).product(), np.eye(len(x))
        inside = np.column_stack([self.project(e) for e in eye])
        information = np.column_stack([self.project(multiply(e)) for e in inside.T])
        outside = eye - inside
        scale = float(np.trace(information)) / len(x)  # keeps the two parts of one size
        try:
            whole = cho_factor((information + information.T) / 2 + scale * outside)
        except np.linalg.LinAlgError as error:
            raise ExistenceError(
                "the information matrix is singular at the estimate, so that a measure runs to "
                "infinity; use method 'jml', or leave interactions out"
            ) from error
        return cho_solve(whole, eye) - outside / scale


class MarginalPoint:
    """The marginal log-likelihood at some x, with the posteriors of the persons."""

    def __init__(self, surface: Marginal, x: Vector) -> None:
        cells, z = surface.cells, surface.z
        self.surface, self.cells, self.sd = surface, cells, float(np.exp(x[-1]))
        kappa, eta = steps_of(cells, x[:-1]), eta_of(cells, x)
        self.spread = self.sd * z
        self.shape = len(eta), len(z)
        self.group = np.repeat(cells.group, len(z))
        logits = (eta[:, None] + self.spread).ravel()
        self.p, log_norm = distribution(self.group, cells.top, logits, kappa)
        log_weight = -(z**2) / 2
        log_weight -= np.log(np.exp(log_weight).sum())
        joint = np.multiply.outer(surface.raw, self.spread) + log_weight
        joint -= surface.counts @ log_norm.reshape(self.shape)
        gain, self.posterior = normalised(joint, np.ones(len(joint)))
        fixed = float(cells.target @ eta) - float((cells.passed * kappa).sum())
        self.loglik = fixed + gain

    @cached_property
    def expected(self) -> Table:
        """Expected ratings in each cell at each node."""
        return np.asarray(self.surface.transposed @ self.posterior)

    @cached_property
    def moments(self) -> Moments:
        """Moments of the cells at the nodes, flattened, weighted with the expected ratings."""
        groups = len(self.cells.top)
        return summed(self.group, groups, self.expected.ravel(), self.p, self.loglik)

    @cached_property
    def above(self) -> Float[np.ndarray, "r m"]:
        """P(x >= l) of the cells at the nodes, flattened."""
        return np.cumsum(self.p[:, ::-1], axis=1)[:, ::-1][:, 1:]

    @property
    def mean(self) -> Table:
        """Expected scores."""
        return self.moments.mean.reshape(self.shape)

    @property
    def variance(self) -> Table:
        """Variances of scores."""
        return self.moments.variance.reshape(self.shape)

    def gradient(self) -> Vector:
        """Return the gradient."""
        scores = self.expected * self.mean
        levels = by_level(self.cells, self.cells.target - scores.sum(axis=1))
        steps = self.moments.passed - self.cells.passed
        spread = (self.surface.raw @ self.posterior - scores.sum(axis=0)) @ self.spread
        return np.concatenate([levels, steps.ravel(), [spread]])

    def product(self) -> Callable[[Vector], Vector]:
        """Return the function that multiplies with minus the Hessian."""
        cells, at, surface = self.cells, self.moments, self.surface
        mean, variance, spread = self.mean, self.variance, self.spread
        groups, slope = len(cells.top), float(self.gradient()[-1])

        def multiply(d: Vector) -> Vector:
            eta = eta_of(cells, d)[:, None] + spread * d[-1]
            kappa = steps_of(cells, d[:-1])
            by_row = kappa[self.group]
            u = variance * eta - (at.cross * by_row).sum(axis=1).reshape(self.shape)
            # the complete-data score along d, of every person at every node
            lost = mean * eta - (self.above * by_row).sum(axis=1).reshape(self.shape)
            along = np.multiply.outer(surface.raw, spread * d[-1]) - surface.counts @ lost
            along -= (self.posterior * along).sum(axis=1, keepdims=True)
            along *= self.posterior
            t = np.asarray(surface.transposed @ along)
            scores = self.expected * u + t * mean
            steps = np.einsum("gkj,gj->gk", at.steps, kappa) - by_group(
                self.group,
                groups,
                (self.expected * eta).ravel()[:, None] * at.cross + t.ravel()[:, None] * self.above,
            )
            last = (scores.sum(axis=0) - surface.raw @ along) @ spread - slope * d[-1]
            return np.concatenate([by_level(cells, scores.sum(axis=1)), steps.ravel(), [last]])

        return multiply

    def diagonal(self) -> Vector:
        """Return the diagonal of the complete-data information."""
        information = self.expected * self.variance
        return np.concatenate(
            [
                by_level(self.cells, information.sum(axis=1), signed=False),
                np.einsum("gkk->gk", self.moments.steps).ravel(),
                [float(information.sum(axis=0) @ self.spread**2)],
            ]
        )

    def enough(self) -> int:
        """Return the number of nodes, doubled until neighbours are within a posterior's sd."""
        information = self.surface.counts @ self.variance
        narrowest = (float(information.max()) + self.sd**-2) ** -0.5
        n_nodes = len(self.spread)
        while self.sd * 2 * REACH / (n_nodes - 1) > narrowest:
            n_nodes = 2 * n_nodes - 1
        return n_nodes


@dataclass(frozen=True, slots=True, eq=False)
class Averages:
    """What the posteriors say of every rating."""

    mean: Float[np.ndarray, " n"]  # expected score
    variance: Float[np.ndarray, " n"]
    squares: Float[np.ndarray, " n"]  # of the residual
    outfit: Float[np.ndarray, " n"]  # of the standardised residual
    kurtosis: Float[np.ndarray, " n"]  # E (x - E)^4 / V^2
    spread: Float[np.ndarray, " n"]  # E (x - E)^4 - V^2


def averages(
    point: MarginalPoint, score: Int[np.ndarray, " n"], person: Int[np.ndarray, " n"]
) -> Averages:
    """Return posterior means of residuals; under the model squares average the variance exactly.

    Ability and ratings are then drawn together, so that (x - E)^2 / V has mean 1 (as TAM's fit).
    """
    mean, variance, cell = point.mean, point.variance, point.surface.cell
    fourth = fourth_moment(point.p, point.moments.mean).reshape(mean.shape)
    rows = [np.empty(len(score)) for _ in range(6)]
    size = max(1, 4_000_000 // mean.shape[1])
    for at in range(0, len(score), size):
        part = slice(at, at + size)
        post, e, v = point.posterior[person[part]], mean[cell[part]], variance[cell[part]]
        squares, c = (score[part, None] - e) ** 2, fourth[cell[part]]
        every = (e, v, squares, squares / v, c / v**2, c - v**2)
        for row, values in zip(rows, every, strict=True):
            row[part] = (post * values).sum(axis=1)
    return Averages(*rows)


def fourth_moment(
    p: Float[np.ndarray, "r K"], mean: Float[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    """Return E (x - E x)^4."""
    out = np.zeros(len(mean))
    for h in range(p.shape[1]):
        square = (h - mean) ** 2
        out += p[:, h] * square * square
    return out
