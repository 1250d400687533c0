"""Minus the marginal log-posterior of psi, its gradient, and its complete-data information.

- theta = mean_g + sd_g z with z on equally spaced nodes; 2e-9 of the mass lies beyond `REACH`
- the complete-data information is block-diagonal: one block an item, N / sd^2 and 2 N for mean and
  log sd of each group
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import expit, log_expit

from meristem_rasch._marginal import Expected, collapse
from meristem_rasch._models import Nodes, at_nodes
from meristem_rasch._optimise import Solve
from meristem_rasch._parameters import Layout, Vector
from meristem_rasch._responses import Responses

REACH = 6.0


class Marginal:
    """The function that marginal maximum likelihood minimises; `n_nodes` may change."""

    def __init__(
        self,
        plan: Layout,
        parts: Sequence[Responses],
        guess_prior: tuple[float, float] | None = None,
        n_nodes: int = 61,
    ) -> None:
        self.plan, self.parts, self.guess_prior, self.n_nodes = plan, parts, guess_prior, n_nodes
        self.data = [collapse(part, rasch=not plan.slopes_free) for part in parts]
        self.total = np.array([float(part.weight.sum()) for part in parts])
        self.longest = [int(part.answered.max()) for part in parts]

    @property
    def z(self) -> Float[np.ndarray, " Q"]:
        """Standardised nodes."""
        return np.linspace(-REACH, REACH, self.n_nodes)

    @property
    def log_weights(self) -> Float[np.ndarray, " Q"]:
        """Logarithms of the standard normal weights, which sum to 1."""
        log_w = -(self.z**2) / 2
        return log_w - np.log(np.exp(log_w).sum())

    def nodes(self, psi: Vector, group: int) -> tuple[Float[np.ndarray, " Q"], Nodes]:
        """Return a group's abilities and the items' curves there."""
        mean, sd = self.plan.latent(psi)[group]
        theta = mean + sd * self.z
        return theta, at_nodes(self.plan.model, self.plan.raw(psi), theta, self.plan.max_score)

    def expect(self, psi: Vector, group: int) -> tuple[Nodes, Expected]:
        """Return a group's curves and expectation step."""
        theta, nodes = self.nodes(psi, group)
        raw = self.plan.raw(psi)
        return nodes, self.data[group].expect(nodes, raw, theta, self.log_weights)

    def value_and_gradient(self, psi: Vector) -> tuple[float, Vector]:
        """Return the function and its gradient."""
        value, raw = -self.log_prior(psi), self.plan.raw(psi)
        d_raw, d_latent = np.zeros(raw.shape), np.zeros(self.plan.free_latent.shape)
        for group, (_, sd) in enumerate(self.plan.latent(psi)):
            _, step = self.expect(psi, group)
            value -= step.loglik
            d_raw -= step.d_raw
            d_latent[group] = -step.d_theta.sum(), -sd * (step.d_theta @ self.z)
        if self.guess_prior is not None:
            a, b = self.guess_prior
            g = expit(raw[:, -1])
            d_raw[:, -1] -= (a - 1) * (1 - g) - (b - 1) * g
        return value, self.plan.gradient(d_raw, d_latent)

    def log_prior(self, psi: Vector) -> float:
        """Return the log density of the priors, up to a constant."""
        if self.guess_prior is None:
            return 0.0
        a, b = self.guess_prior
        logits = self.plan.raw(psi)[:, -1]
        return float(((a - 1) * log_expit(logits) + (b - 1) * log_expit(-logits)).sum())

    def curvature(self, psi: Vector) -> Solve:
        """Return the solver of the complete-data information at psi."""
        raw = self.plan.raw(psi)
        blocks = np.zeros((len(raw), raw.shape[1], raw.shape[1]))
        for group in range(len(self.parts)):
            nodes, step = self.expect(psi, group)
            d = nodes.d_raw.reshape(len(raw), -1, raw.shape[1])
            weight = (step.answers[:, :, None] * nodes.p).reshape(len(raw), -1, 1)
            blocks += (d * weight).transpose(0, 2, 1) @ d
        if self.guess_prior is not None:
            a, b = self.guess_prior
            g = expit(raw[:, -1])
            blocks[:, -1, -1] += (a + b - 2) * g * (1 - g)
        latent = np.column_stack([self.total / self.plan.latent(psi)[:, 1] ** 2, 2 * self.total])
        return _solver(self.plan, blocks, latent[self.plan.free_latent])

    def spacing(self, psi: Vector) -> float:
        """Return the largest distance between neighbouring nodes."""
        return float(self.plan.latent(psi)[:, 1].max()) * 2 * REACH / (self.n_nodes - 1)

    def smallest_sd(self, psi: Vector) -> float:
        """Return a lower bound of the posteriors' standard deviations, from the information.

        Nobody has more information than the longest set of answers on the most informative items.
        """
        most = 0.0
        for group, (_, sd) in enumerate(self.plan.latent(psi)):
            _, nodes = self.nodes(psi, group)
            info = np.sort((nodes.p * nodes.d_theta**2).sum(axis=2), axis=0)
            longest = self.longest[group]
            most = max(most, float(info[len(info) - longest :].sum(axis=0).max()) + sd**-2)
        return most**-0.5


def _solver(
    plan: Layout, blocks: Float[np.ndarray, "I p p"], latent: Float[np.ndarray, " L"]
) -> Solve:
    count, width = blocks.shape[:2]
    # parameters of categories that an item lacks, and nearly empty ones, must not blow up
    scale = np.einsum("ipp->i", blocks) / width
    blocks = blocks + (1e-6 * scale + 1e-12)[:, None, None] * np.eye(width)
    if plan.map.matrix is not None:
        full = np.zeros((count, width, count, width))
        full[np.arange(count), :, np.arange(count), :] = blocks
        size = count * width
        dense = plan.map.hessian(full.reshape(size, size))
        return lambda g: np.concatenate(
            [np.linalg.solve(dense, g[: len(dense)]), g[len(dense) :] / latent]
        )
    free = plan.map.free.reshape(count, width)
    both = free[:, :, None] & free[:, None, :]
    inverse = np.linalg.inv(np.where(both, blocks, np.eye(width)))

    def solve(g: Vector) -> Vector:
        raw = np.zeros((count, width))
        raw[free] = g[: plan.n_item]
        step = (inverse @ raw[:, :, None])[:, :, 0]
        return np.concatenate([step[free], g[plan.n_item :] / latent])

    return solve
