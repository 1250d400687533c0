"""A shuffled order that needs no memory: every position can be asked for at any time.

- epochs follow each other; each is a fresh permutation of range(n)
- a permutation is a Feistel network on the smallest 4**h >= n; a value that falls outside range(n)
  is sent through again until it falls inside (cycle walking), which keeps it one to one
- so a data loader's whole state is one number, and a resumed run sees the same order
"""

import numpy as np
from jaxtyping import Int

from meristem_core._random import derive_seed

ROUNDS = 8  # four make a Feistel network of good round functions pseudo-random; twice that
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # SplitMix64's multipliers


def shuffled_indices(n: int, start: int, stop: int, *, seed: int) -> Int[np.ndarray, " count"]:
    """Return entries start, ..., stop - 1 of an endless series of shuffled epochs of range(n).

    Parameters
    ----------
    n
        Number of items, 1 <= n < 2**62.
    start, stop
        Positions, 0 <= start <= stop; position p belongs to epoch p // n.
    seed
        Chooses the permutations.

    Returns
    -------
        Shape (stop - start,), int64. Work and memory are proportional to stop - start, not to n.

    Raises
    ------
    ValueError
        If n or the positions are out of range.

    References
    ----------
    Luby and Rackoff 1988 (Feistel networks as permutations); Black and Rogaway 2002 (cycle
    walking).

    Examples
    --------
    >>> sorted(shuffled_indices(4, 0, 4, seed=1).tolist())
    [0, 1, 2, 3]
    >>> shuffled_indices(1, 0, 3, seed=1)
    array([0, 0, 0])
    """
    if not 1 <= n < 2**62:
        raise ValueError(f"n ({n}) must lie in [1, 2**62); an order needs at least one item")
    if not 0 <= start <= stop:
        raise ValueError(f"positions start ({start}) and stop ({stop}) must be 0 <= start <= stop")
    parts = [np.zeros(0, dtype=np.int64)]
    for epoch in range(start // n, -(-stop // n)):
        first, last = max(start, epoch * n), min(stop, (epoch + 1) * n)
        positions = np.arange(first - epoch * n, last - epoch * n, dtype=np.uint64)
        parts.append(_permuted(positions, n, derive_seed(seed, "order", n, epoch)))
    return np.concatenate(parts)


def _permuted(positions: np.ndarray, n: int, seed: int) -> Int[np.ndarray, " count"]:
    half = max(1, (int(n - 1).bit_length() + 1) // 2)
    keys = [np.uint64(derive_seed(seed, "round", number)) for number in range(ROUNDS)]
    values = _feistel(positions, half, keys)
    outside = np.flatnonzero(values >= n)
    while outside.size:
        values[outside] = _feistel(values[outside], half, keys)
        outside = outside[values[outside] >= n]
    return values.astype(np.int64)


def _feistel(values: np.ndarray, half: int, keys: list[np.uint64]) -> np.ndarray:
    bits, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << bits) | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return SplitMix64's finaliser: a bijection of 64-bit words that spreads every bit."""
    values = (values ^ (values >> np.uint64(30))) * MIX[0]
    values = (values ^ (values >> np.uint64(27))) * MIX[1]
    return values ^ (values >> np.uint64(31))
