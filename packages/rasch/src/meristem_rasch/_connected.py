"""Whether a rating design identifies its measures.

- levels that never meet, directly or through others, form disjoint subsets
- with three and more facets that is not enough (a rater who marks one task only): null directions
  of the design other than the known shifts are found by least squares from a random start
"""

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, lsmr

from meristem_rasch._errors import IdentificationError
from meristem_rasch._newton_cg import Design, level_projector
from meristem_rasch._subspaces import SMALL, Directions

SHOWN = 6
TOLERANCE = 1e-5  # of a null direction's largest entry


def check_connected(design: Design, names: tuple[str, ...]) -> None:
    """Raise IdentificationError where measures cannot be compared, naming the levels.

    `names` labels all levels, facet by facet. A subset with an anchored level is identified.
    """
    count, part = _subsets(design)
    loose = [k for k in range(count) if design.free[part == k].all()]
    if len(loose) > (len(loose) == count) and not _grouped(design):
        sets = [_shown([names[i] for i in np.flatnonzero(part == k)]) for k in range(count)]
        raise IdentificationError(
            f"the ratings fall into {count} subsets that share no level: {' | '.join(sets[:4])}; "
            "add ratings that link them, fit them apart, or anchor levels in each (of facets: "
            "anchors, or group_anchor for equal means)"
        )
    confounded = _confounded(design)
    if len(confounded):
        raise IdentificationError(
            f"the measures of {_shown([names[i] for i in confounded])} can be shifted against the "
            "others without changing any expected rating; add ratings that cross them, or anchor "
            "a level of each subset (of facets: anchors, or group_anchor of one facet more)"
        )


def _grouped(design: Design) -> bool:
    return any(isinstance(space, Directions) for space in design.spaces)


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
    matrix, project = design_matrix(design), level_projector(design)
    operator = LinearOperator(
        matrix.shape,  # pyright: ignore[reportArgumentType]
        matvec=lambda v: matrix @ project(v.ravel()),
        rmatvec=lambda u: project(matrix.T @ u.ravel()),
        dtype=np.float64,
    )
    rng = np.random.default_rng(0)  # a fixed probe: the answer does not depend on it
    probe = rng.normal(size=matrix.shape[1])
    image = operator.matvec(probe)
    nearest = lsmr(operator, image, atol=1e-12, btol=1e-12, conlim=0, maxiter=2000)[0]
    null = project(probe - nearest)
    moved = np.abs(matrix @ null).max(initial=0.0)
    largest = float(np.abs(null).max(initial=0.0))
    if largest < TOLERANCE or moved > 1e-3 * largest:
        return np.zeros(0, dtype=int)
    part = null / largest
    return np.flatnonzero(np.abs(part) > 0.5)


def null_basis(design: Design, mains: int, person: int) -> Float[np.ndarray, "L d"]:
    """Return directions of the first `mains` facets that change no logit; other levels are 0.

    The persons are eliminated, so that only a matrix of the other facets' levels is decomposed.
    """
    matrix, block = design_matrix(design), design.blocks[person]
    others = np.arange(design.ends[mains - 1])
    others = others[(others < block.start) | (others >= block.stop)]
    others = others[design.free[others]]
    own, rest = matrix[:, block] * design.free[block], matrix[:, others]
    count = np.maximum(own.power(2).sum(axis=0), 1)
    crossed = own.T @ rest
    gram = (rest.T @ rest - crossed.T @ (crossed.T / count).T).toarray()
    size, direction = np.linalg.eigh(gram)
    null = direction[:, size < SMALL * max(size.max(initial=0.0), 1.0)]
    out = np.zeros((design.n_levels, null.shape[1]))
    out[others] = null
    out[block] = -(crossed @ null) / count[:, None]
    return out


def design_matrix(design: Design) -> csr_array:
    """Return one signed row of levels for each combination of levels that occurs."""
    starts = design.ends - np.array(design.sizes)
    keys = np.column_stack([k + a for k, a in zip(design.levels, starts, strict=True)])
    cells = np.unique(keys, axis=0)
    rows = np.repeat(np.arange(len(cells)), cells.shape[1])
    signs = np.tile(np.array(design.signs), len(cells))
    return csr_array((signs, (rows, cells.ravel())), shape=(len(cells), design.n_levels))


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
