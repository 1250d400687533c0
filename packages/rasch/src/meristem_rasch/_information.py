"""Covariance of marginal estimates.

- "oakes": the inverse observed information. By Oakes (1999) it is the total derivative of the
  expected complete-data score in both of its arguments; here by central differences of that score
- "opg": the inverse of sum_v w_v s_v s_v', s_v a person's score (Berndt et al. 1974)
- "sandwich": H^-1 (sum_v w_v^2 s_v s_v') H^-1, valid where the model is wrong and for sampling
  weights (Huber 1967; White 1982)
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve

from meristem_rasch._errors import ExistenceError
from meristem_rasch._marginal import CELLS, Patterns, normalised
from meristem_rasch._models import Nodes
from meristem_rasch._parameters import Vector
from meristem_rasch._posterior import Marginal

DIFFERENCE = 1e-4  # step of the central differences: error 1e-8 against rounding of 1e-11
MOST_WORK = 2e10  # multiplications of all expectation steps that "auto" spends on "oakes"


def covariance(marginal: Marginal, psi: Vector, kind: str) -> Float[np.ndarray, "P P"]:
    """Return the covariance of psi.

    Raises
    ------
    ExistenceError
        If the information matrix is singular.
    """
    if kind == "auto":
        kind = "oakes" if 2 * len(psi) * _work(marginal) <= MOST_WORK else "opg"
    if kind == "opg":
        return _inverse(_squares(marginal, psi, power=1) + _prior(marginal, psi))
    inverse = _inverse(observed_information(marginal, psi))
    if kind == "oakes":
        return inverse
    return inverse @ _squares(marginal, psi, power=2) @ inverse


def observed_information(marginal: Marginal, psi: Vector) -> Float[np.ndarray, "P P"]:
    """Return the Hessian of minus the log-posterior."""
    half = np.zeros((len(psi), len(psi)))
    for k in range(len(psi)):
        up, down = psi.copy(), psi.copy()
        up[k] += DIFFERENCE
        down[k] -= DIFFERENCE
        rise = marginal.value_and_gradient(up)[1] - marginal.value_and_gradient(down)[1]
        half[k] = rise / (2 * DIFFERENCE)
    return (half + half.T) / 2


def person_scores(
    marginal: Marginal, psi: Vector
) -> Iterator[tuple[Float[np.ndarray, " c"], Float[np.ndarray, "c P"]]]:
    """Yield weights and gradients of log L_v of all persons, by chunks."""
    for group, part in enumerate(marginal.parts):
        theta, nodes = marginal.nodes(psi, group)
        sd = float(marginal.plan.latent(psi)[group, 1])
        size = max(1, CELLS // max(nodes.d_raw.shape[0] * nodes.d_raw.shape[3], len(theta)))
        for at in range(0, len(part.scores), size):
            piece = part.scores[at : at + size]
            joint = np.tile(marginal.log_weights, (len(piece), 1))
            hot = [(piece == k).astype(float) for k in range(nodes.p.shape[2])]
            for k, matrix in enumerate(hot):
                joint += matrix @ np.ascontiguousarray(nodes.log_p[:, :, k])
            _, post = normalised(joint, np.ones(len(piece)))
            step = _steps(marginal, nodes, hot, post)
            latent = np.zeros((len(piece), *marginal.plan.free_latent.shape))
            # the complete-data score of the normal distribution, free of quadrature error
            latent[:, group, 0] = post @ marginal.z / sd
            latent[:, group, 1] = post @ marginal.z**2 - 1
            flat = step.reshape(len(piece), -1)
            plan = marginal.plan
            mapped = flat[:, plan.map.free] if plan.map.matrix is None else flat @ plan.map.matrix
            yield (
                part.weight[at : at + size],
                np.hstack([mapped, latent[:, plan.free_latent]]),
            )


def _steps(
    marginal: Marginal,
    nodes: Nodes,
    hot: list[Float[np.ndarray, "c I"]],
    post: Float[np.ndarray, "c Q"],
) -> Float[np.ndarray, "c I p"]:
    """Return the expected gradients in the items' parameters, hot[k] = 1 where a score is k."""
    step = np.zeros((*hot[0].shape, nodes.d_raw.shape[3]))
    if marginal.plan.slopes_free:
        for k, matrix in enumerate(hot):
            for p in np.flatnonzero(_used(marginal)):
                step[:, :, p] += matrix * (post @ np.ascontiguousarray(nodes.d_raw[:, :, k, p].T))
        return step
    answered = sum(hot[1:], hot[0])
    for k, matrix in enumerate(hot[1:], start=1):
        step[:, :, k - 1] = matrix - answered * (post @ np.ascontiguousarray(nodes.p[:, :, k].T))
    return step


def _used(marginal: Marginal) -> np.ndarray:
    plan = marginal.plan
    whole = plan.map.free if plan.map.matrix is None else plan.map.matrix.any(axis=1)
    return np.asarray(whole.reshape(-1, plan.width).any(axis=0))


def _squares(marginal: Marginal, psi: Vector, *, power: int) -> Float[np.ndarray, "P P"]:
    out = np.zeros((len(psi), len(psi)))
    for weight, score in person_scores(marginal, psi):
        scaled = score * weight[:, None] ** (power / 2)
        out += scaled.T @ scaled
    return out


def _prior(marginal: Marginal, psi: Vector) -> Float[np.ndarray, "P P"]:
    out = np.zeros((len(psi), len(psi)))
    if marginal.guess_prior is not None:
        a, b = marginal.guess_prior
        g = 1 / (1 + np.exp(-marginal.plan.raw(psi)[:, -1]))
        diagonal = np.zeros((len(g), marginal.plan.width))
        diagonal[:, -1] = (a + b - 2) * g * (1 - g)
        size = marginal.plan.n_item
        out[np.arange(size), np.arange(size)] = diagonal.ravel()[marginal.plan.map.free]
    return out


def _inverse(information: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "P P"]:
    if not len(information):
        return information
    try:
        return cho_solve(cho_factor(information), np.eye(len(information)))
    except np.linalg.LinAlgError as error:
        raise ExistenceError(
            "the information matrix is singular at the estimate, so a slope, threshold or lower "
            "asymptote runs to its limit or is undetermined; drop the item, use a prior, or a "
            "model without slopes"
        ) from error


def _work(marginal: Marginal) -> float:
    total = 0.0
    for data in marginal.data:
        if isinstance(data, Patterns):
            total += 2 * data.rows.size * marginal.n_nodes * marginal.plan.categories
        else:
            cells = sum(float(getattr(m, "nnz", m.size)) for m in data.masks)
            total += 2 * (cells + len(data.raw)) * marginal.n_nodes
    return total
