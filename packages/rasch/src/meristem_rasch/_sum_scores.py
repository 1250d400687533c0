"""The posterior of the ability given the sum of the scores (Lord and Wingersky 1984).

P(r | theta) over the answered items is the product of their score polynomials, node by node; under
models with slopes it forgets which answers made up the score.
"""

import numpy as np
from jaxtyping import Float, Int

from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves


def sum_score_eap(
    cal: Calibration, rows: Int[np.ndarray, "n I"], mean: float, sd: float, n_nodes: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return posterior mean and standard deviation of each row's raw score; -1 = no answer."""
    z = np.linspace(-6, 6, n_nodes)
    nodes, prior = mean + sd * z, np.exp(-(z**2) / 2)
    p, _, _ = curves(cal, nodes)
    masks, where = np.unique(rows >= 0, axis=0, return_inverse=True)
    where = where.reshape(-1)
    raw = np.maximum(rows, 0).sum(axis=1)
    theta, se = np.empty(len(rows)), np.empty(len(rows))
    for k, mask in enumerate(masks):
        at = where == k
        post = prior * _score_curves(p[:, mask], cal.max_score[mask])[raw[at]]
        post /= post.sum(axis=1, keepdims=True)
        theta[at] = post @ nodes
        se[at] = np.sqrt(np.einsum("nq,nq->n", post, (nodes - theta[at, None]) ** 2))
    return theta, se


def _score_curves(
    p: Float[np.ndarray, "Q I H"], max_score: Int[np.ndarray, " I"]
) -> Float[np.ndarray, "R Q"]:
    """Return P(raw score = r | theta) for every r at every node."""
    out = np.ones((1, len(p)))
    for i, most in enumerate(max_score.tolist()):
        longer = np.zeros((len(out) + most, len(p)))
        for h in range(most + 1):
            longer[h : h + len(out)] += out * p[:, i, h]
        out = longer
    return out
