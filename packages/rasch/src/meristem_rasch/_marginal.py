"""Expectation steps: responses against equally spaced nodes of theta.

- the gradient of log L is the expected gradient of the complete data (Fisher's identity)
- Rasch family: log L_v(theta) = r_v theta - sum_i log sum_k exp(k theta + c_ik) + const, so that
  complete data collapse to raw scores, and missing data need one product with the answer mask
- other models: one product per category; equal rows are merged

Legend: n rows, I items, Q nodes, K categories, p parameters an item.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from meristem_rasch._models import Nodes, Raw, Theta
from meristem_rasch._patterns import distinct_rows
from meristem_rasch._responses import Responses

CELLS = 4_000_000  # of an array of persons x items or persons x nodes held at once
SPARSE = 0.15  # share of answers below which products skip the missing ones
SAMPLE = 4096  # rows looked at to see whether equal rows are worth merging

Matrix = csr_array | Float[np.ndarray, "c I"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expected:
    """The log-likelihood and what the complete-data gradient and information need."""

    loglik: float
    answers: Float[np.ndarray, "I Q"]  # expected answers to each item at each node
    d_raw: Float[np.ndarray, "I p"]
    d_theta: Float[np.ndarray, " Q"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Persons under a model with slopes 1: raw scores and the items answered."""

    raw: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    masks: tuple[csr_array | Bool[np.ndarray, "c I"], ...]  # by chunks; empty: complete data
    observed: Float[np.ndarray, "I m"]  # weighted answers in categories 1, 2, ...

    def expect(self, nodes: Nodes, raw: Raw, theta: Theta, log_prior: Theta) -> Expected:
        """Return the expectation step."""
        log_sum = -nodes.log_p[:, :, 0]
        c, k = raw[:, :-1], np.arange(float(nodes.p.shape[2]))
        loglik = float((self.observed * c).sum())
        answers, scores, at = np.zeros(log_sum.shape), np.zeros(len(theta)), 0
        for mask in self.masks or (None,):
            size = len(self.raw) if mask is None else mask.shape[0]
            part, at = slice(at, at + size), at + size
            dense = mask if mask is None or isinstance(mask, csr_array) else mask.astype(float)
            lost = log_sum.sum(axis=0) if dense is None else dense @ log_sum
            joint = np.multiply.outer(self.raw[part], theta) - lost + log_prior
            gain, posterior = normalised(joint, self.weight[part])
            loglik += gain
            scores += self.raw[part] @ posterior
            answers += posterior.sum(axis=0) if dense is None else dense.T @ posterior
        d_raw = np.zeros((len(c), nodes.d_raw.shape[3]))
        d_raw[:, : c.shape[1]] = self.observed - np.einsum("iq,iqk->ik", answers, nodes.p[:, :, 1:])
        d_theta = scores - np.einsum("iq,iq->q", answers, nodes.p @ k)
        return Expected(loglik=loglik, answers=answers, d_raw=d_raw, d_theta=d_theta)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patterns:
    """Persons under any model: distinct rows of scores with their weights."""

    rows: Int[np.ndarray, "n I"]
    weight: Float[np.ndarray, " n"]
    complete: bool

    def expect(self, nodes: Nodes, raw: Raw, theta: Theta, log_prior: Theta) -> Expected:
        """Return the expectation step."""
        log_p, loglik = nodes.log_p, 0.0
        counts = np.zeros(log_p.shape)
        base = log_p[:, :, 0] if self.complete else np.zeros(log_p.shape[:2])
        first = int(self.complete)  # complete rows need no product for category 0
        size = max(1, CELLS // max(log_p.shape[:2]))
        for at in range(0, len(self.rows), size):
            rows = self.rows[at : at + size]
            hot = [(rows == k).astype(float) for k in range(first, log_p.shape[2])]
            joint = np.tile(log_prior + base.sum(axis=0), (len(rows), 1))
            for k, matrix in enumerate(hot, start=first):
                joint += matrix @ (log_p[:, :, k] - base)
            gain, posterior = normalised(joint, self.weight[at : at + size])
            loglik += gain
            for k, matrix in enumerate(hot, start=first):
                counts[:, :, k] += matrix.T @ posterior
            if self.complete:
                counts[:, :, 0] += posterior.sum(axis=0)
        if self.complete:
            counts[:, :, 0] -= counts[:, :, 1:].sum(axis=2)
        return Expected(
            loglik=loglik,
            answers=counts.sum(axis=2),
            d_raw=np.einsum("iqk,iqkp->ip", counts, nodes.d_raw),
            d_theta=np.einsum("iqk,iqk->q", counts, nodes.d_theta),
        )


def normalised(
    joint: Float[np.ndarray, "c Q"], weight: Float[np.ndarray, " c"]
) -> tuple[float, Float[np.ndarray, "c Q"]]:
    """Return the weighted log-likelihood and the posteriors times the weights."""
    top = joint.max(axis=1, keepdims=True)
    posterior = np.exp(joint - top)
    total = posterior.sum(axis=1, keepdims=True)
    loglik = float(weight @ (top + np.log(total))[:, 0])
    posterior *= weight[:, None] / total
    return loglik, posterior


def collapse(data: Responses, *, rasch: bool) -> Scores | Patterns:
    """Return the sufficient form of the responses."""
    keep = data.weight > 0
    if not keep.all():
        data = data.select(persons=keep)
    return _scores(data) if rasch else _patterns(data)


def _patterns(data: Responses) -> Patterns:
    rows, weight = data.scores, data.weight
    complete = bool((rows >= 0).all())
    if _repeats(rows):
        first, kind = distinct_rows(rows)
        rows, weight = rows[first], np.bincount(kind, weights=weight)
    return Patterns(rows=rows, weight=weight, complete=complete)


def _scores(data: Responses) -> Scores:
    weight, raw, observed = data.weight, data.raw, data.category_counts[:, 1:]
    answers = int(data.answered.sum())
    if answers == data.scores.size:
        values, kind = np.unique(raw, return_inverse=True)
        summed = np.bincount(kind, weights=weight)
        return Scores(raw=values.astype(float), weight=summed, masks=(), observed=observed)
    sparse = answers < SPARSE * data.scores.size
    masks = data.scores >= 0
    keys = np.hstack([np.packbits(masks, axis=1), raw[:, None].view(np.uint8)])
    if _repeats(keys):
        first, kind = distinct_rows(keys)
        masks, raw, weight = masks[first], raw[first], np.bincount(kind, weights=weight)
    size = max(1, CELLS // masks.shape[1])
    parts = (masks[at : at + size] for at in range(0, len(masks), size))
    chunks = tuple(_as_csr(part) if sparse else part for part in parts)
    return Scores(raw=raw.astype(float), weight=weight, masks=chunks, observed=observed)


def _as_csr(mask: Bool[np.ndarray, "c I"]) -> csr_array:
    row, column = np.nonzero(mask)
    ends = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32)
    return csr_array((np.ones(len(row)), column.astype(np.int32), ends), shape=mask.shape)


def _repeats(rows: np.ndarray) -> bool:
    """Return whether merging equal rows will save more than it costs."""
    head = rows[:SAMPLE]
    return len(distinct_rows(head)[0]) < 0.95 * len(head)
