"""The order of the training data: batch `step` is a function of (seed, step) alone.

- each domain's tokens are cut into rows of context + 1 tokens, which overlap by one token
- every step holds its domains in the exact proportion of their weights, errors carried over
- the rows of a domain come in a fresh random order in each pass; nothing is stored, so a resumed
  run and any number of processes see the same batches
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from meristem_core import derive_seed, shuffled_indices
from meristem_core.command import UsageError


@dataclass(frozen=True, slots=True)
class Batches:
    """Random access to the training batches; make one with `plan_batches`."""

    tokens: list[np.ndarray]  # one array of ids per domain
    used: Integer[np.ndarray, "steps_and_one domains"]  # rows of each domain before each step
    context: int
    seed: int

    def at(self, step: int) -> Integer[np.ndarray, "batch context_and_one"]:
        """Return the rows of a step, shape (batch, context + 1), int64."""
        rows: list[np.ndarray] = []
        for domain, tokens in enumerate(self.tokens):
            first, last = (int(each) for each in self.used[step : step + 2, domain])
            available = _rows_of(tokens, self.context)
            order = derive_seed(self.seed, "rows", domain)
            for row in shuffled_indices(available, first, last, seed=order):
                start = int(row) * self.context
                rows.append(tokens[start : start + self.context + 1])
        return np.stack(rows).astype(np.int64)

    def passes(self, step: int) -> list[float]:
        """Return how often each domain has been read when `step` steps are done."""
        return [
            float(self.used[step, domain]) / _rows_of(tokens, self.context)
            for domain, tokens in enumerate(self.tokens)
        ]


def plan_batches(
    tokens: Mapping[str, Integer[np.ndarray, " _"]],
    weights: Mapping[str, float],
    *,
    steps: int,
    batch: int,
    context: int,
    seed: int,
) -> Batches:
    """Plan `steps` batches of `batch` rows of `context` + 1 tokens.

    Parameters
    ----------
    tokens
        Token ids of each domain, shape (n,).
    weights
        Share of the rows that each domain gives; they sum to 1.
    seed
        Chooses the order of the rows.

    Raises
    ------
    UsageError
        If a domain is shorter than one row, or all together than one batch.
    """
    for name, ids in tokens.items():
        if _rows_of(ids, context) < 1:
            raise UsageError(
                f"--corpus: domain {name} has {ids.size} training tokens, fewer than one row of "
                f"{context + 1}; give more text"
            )
    rows = sum(_rows_of(ids, context) for ids in tokens.values())
    if rows < batch:
        raise UsageError(
            f"--corpus: {rows} rows of {context + 1} training tokens are fewer than one batch of "
            f"{batch}; give at least {batch * context} tokens of text"
        )
    used = np.zeros((steps + 1, len(tokens)), dtype=np.int64)
    share = np.asarray([weights[name] for name in tokens])
    for step in range(steps):
        wanted = share * batch * (step + 1) - used[step]
        used[step + 1] = used[step] + _whole(wanted, batch)
    return Batches(list(tokens.values()), used, context, seed)


def _rows_of(tokens: np.ndarray, context: int) -> int:
    return (tokens.size - 1) // context


def _whole(wanted: np.ndarray, total: int) -> np.ndarray:
    """Round to non-negative whole numbers that sum to `total`, by largest remainder."""
    floor = np.floor(np.maximum(wanted, 0)).astype(np.int64)
    order = np.argsort(floor - wanted, kind="stable")
    missing = total - int(floor.sum())
    if missing < 0:  # a domain ahead of its share pushes the others' sum above the batch
        floor[np.argmax(floor)] += missing
        return floor
    floor[order[:missing]] += 1
    return floor
