"""Constraints on the measures of a facet that make them identified.

- `Margins`: an interaction, whose cells sum to zero within every level of both of its facets
- `Directions`: a group-anchored facet, orthogonal to whatever the ratings leave open

Legend: c cells that occur, a and b levels of the two facets, k directions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

SMALL = 1e-10  # of the largest eigenvalue: zero

Values = Float[np.ndarray, " k"] | Float[np.ndarray, "k d"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions:
    """The complement of some directions."""

    basis: Float[np.ndarray, "k d"]  # orthonormal columns

    @property
    def lost(self) -> int:
        """Number of directions taken away."""
        return self.basis.shape[1]

    def project(self, v: Values) -> Values:
        """Return v without its part in these directions."""
        return v - self.basis @ (self.basis.T @ v)


@dataclass(frozen=True, kw_only=True, eq=False)
class Margins:
    """Cells of two facets with zero sums within every level of both."""

    first: Int[np.ndarray, " c"]
    second: Int[np.ndarray, " c"]
    shape: tuple[int, int]

    @property
    def lost(self) -> int:
        """Number of independent margins."""
        a, b = self.shape
        edges = (np.ones(len(self.first)), (self.first, a + self.second))
        parts = connected_components(csr_array(edges, shape=(a + b, a + b)), directed=False)[0]
        return a + b - int(parts)

    def project(self, v: Values) -> Values:
        """Return v without its margins (least squares)."""
        rows, columns = self._incidence
        share, inverse = self._eliminated
        r, c = rows.T @ v, columns.T @ v
        w = inverse @ (c - share.T @ r)
        count = np.maximum(rows.sum(axis=0), 1)
        u = (r.T / count).T - share @ w
        return v - rows @ u - columns @ w

    def variance(self, information: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
        """Return the variances of the cells, of the given independent information, within margins.

        The diagonal of Z (Z' D Z)^-1 Z', Z a basis of the cells with zero margins.
        """
        d = 1 / information
        share, inverse = _eliminate(self.first, self.second, self.shape, d)
        through = share @ inverse
        row = np.bincount(self.first, d, self.shape[0])
        both = (
            1 / row[self.first]
            + (through * share).sum(axis=1)[self.first]
            - 2 * through[self.first, self.second]
            + np.diag(inverse)[self.second]
        )
        return (d - d**2 * both).clip(min=0)

    @cached_property
    def _incidence(self) -> tuple[csr_array, csr_array]:
        cells = len(self.first)
        one, at = np.ones(cells), np.arange(cells)
        a, b = self.shape
        return (
            csr_array((one, (at, self.first)), shape=(cells, a)),
            csr_array((one, (at, self.second)), shape=(cells, b)),
        )

    @cached_property
    def _eliminated(self) -> tuple[Float[np.ndarray, "a b"], Float[np.ndarray, "b b"]]:
        return _eliminate(self.first, self.second, self.shape, np.ones(len(self.first)))


def _eliminate(
    first: Int[np.ndarray, " c"],
    second: Int[np.ndarray, " c"],
    shape: tuple[int, int],
    d: Float[np.ndarray, " c"],
) -> tuple[Float[np.ndarray, "a b"], Float[np.ndarray, "b b"]]:
    """Return the table of d over its row sums, and the inverse of what is left for columns."""
    a, b = shape
    table = np.bincount(first * b + second, d, a * b).reshape(a, b)
    total = table.sum(axis=1, keepdims=True)
    share = table / np.where(total > 0, total, 1.0)
    rest = np.diag(table.sum(axis=0)) - table.T @ share
    return share, np.linalg.pinv(rest, rcond=SMALL, hermitian=True)
