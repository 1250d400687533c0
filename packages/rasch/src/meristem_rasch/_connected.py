"""Whether a rating design identifies its measures.

- levels that never meet, directly or through others, form disjoint subsets
- with three and more facets that is not enough (a rater who marks one task only): null directions
  of the design other than the known shifts are found by least squares from a random start
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsmr

from meristem_rasch._errors import IdentificationError
from meristem_rasch._newton_cg import Design, shift_basis

SHOWN = 6
TOLERANCE = 1e-5  # of a null direction's largest entry


def check_connected(design: Design, names: tuple[str, ...]) -> None:
    """Raise IdentificationError where measures cannot be compared, naming the levels.

    `names` labels all levels, facet by facet. A subset with an anchored level is identified.
    """
    count, part = _subsets(design)
    loose = [k for k in range(count) if design.free[part == k].all()]
    if len(loose) > (len(loose) == count):
        sets = [_shown([names[i] for i in np.flatnonzero(part == k)]) for k in range(count)]
        raise IdentificationError(
            f"the ratings fall into {count} subsets that share no level: {' | '.join(sets[:4])}; "
            "add ratings that link them, fit them apart, or anchor levels in each"
        )
    confounded = _confounded(design)
    if len(confounded):
        raise IdentificationError(
            f"the measures of {_shown([names[i] for i in confounded])} can be shifted against the "
            "others without changing any expected rating; add ratings that cross them, or anchor "
            "a level of each subset"
        )


def _subsets(design: Design) -> tuple[int, np.ndarray]:
    first, starts = design.levels[0], design.ends - np.array(design.sizes)
    rows = np.concatenate([first for _ in design.levels[1:]])
    columns = np.concatenate(
        [level + at for level, at in zip(design.levels[1:], starts[1:], strict=True)]
    )
    n = design.n_levels
    graph = csr_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
    count, part = connected_components(graph, directed=False)
    return int(count), part


def _confounded(design: Design) -> np.ndarray:
    matrix = _matrix(design)
    rng = np.random.default_rng(0)  # a fixed probe: the answer does not depend on it
    probe = rng.normal(size=matrix.shape[1])
    nearest = lsmr(matrix, matrix @ probe, atol=1e-12, btol=1e-12, conlim=0, maxiter=2000)[0]
    null = np.zeros(design.n_levels)
    null[design.free] = probe - nearest
    basis = shift_basis(design)
    null -= basis.T @ (basis @ null)
    moved = np.abs(matrix @ null[design.free]).max(initial=0.0)
    largest = float(np.abs(null).max(initial=0.0))
    if largest < TOLERANCE or moved > 1e-3 * largest:
        return np.zeros(0, dtype=int)
    part = null / largest
    return np.flatnonzero(np.abs(part) > 0.5)


def _matrix(design: Design) -> csr_array:
    starts = design.ends - np.array(design.sizes)
    keys = np.column_stack([k + a for k, a in zip(design.levels, starts, strict=True)])
    cells = np.unique(keys, axis=0)
    rows = np.repeat(np.arange(len(cells)), cells.shape[1])
    signs = np.tile(np.array(design.signs), len(cells))
    shape = (len(cells), design.n_levels)
    return csr_array((signs, (rows, cells.ravel())), shape=shape)[:, design.free]


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
