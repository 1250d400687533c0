"""Hypothesis strategies: small arrays are drawn and shrink, large ones come from a drawn seed."""

from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Shape = int | tuple[int, ...] | st.SearchStrategy[tuple[int, ...]]

MAX_SEED = 2**32 - 1
LOGIT_BOUND = 30.0  # probabilities down to e^-60, far from underflow in float32 log space
GRAIN = 1000  # a simplex point is a vector of counts up to this number, normalised


def seeds() -> st.SearchStrategy[int]:
    """Draw a seed for any generator, 0 to 2^32 - 1."""
    return st.integers(0, MAX_SEED)


def rngs() -> st.SearchStrategy[np.random.Generator]:
    """Draw a seeded NumPy generator."""
    return seeds().map(np.random.default_rng)


def generators() -> st.SearchStrategy[Any]:
    """Draw a seeded torch generator on the CPU; imports torch when called."""
    from meristem_core.testing import _torch  # noqa: PLC0415 imports torch

    return _torch.generators()


def permutations(n: int) -> st.SearchStrategy[np.ndarray]:
    """Draw a permutation of 0 to n - 1 as an integer array, shape (n,)."""
    return st.permutations(range(n)).map(lambda order: np.array(order, dtype=np.int64))


def simplices(n: int) -> st.SearchStrategy[np.ndarray]:
    """Draw probabilities of n >= 1 outcomes, shape (n,), float64, sum 1 within n rounding errors.

    Corners and zeros are drawn, so a logarithm needs care.
    """

    def normalised(counts: np.ndarray, certain: int) -> np.ndarray:
        positive = counts + (np.arange(n) == certain)  # so that the sum is
        return positive / positive.sum()

    counts = hnp.arrays(np.int64, n, elements=st.integers(0, GRAIN))
    return st.builds(normalised, counts, st.integers(0, n - 1))


def token_ids(shape: Shape, *, vocab: int, pad: int | None = None) -> st.SearchStrategy[np.ndarray]:
    """Draw token ids, int64.

    Parameters
    ----------
    shape
        A shape, or a strategy that draws one.
    vocab
        Ids lie in 0 to vocab - 1; at least 1.
    pad
        An id that is drawn in addition, such as -100.
    """
    ids = st.integers(0, vocab - 1)
    return hnp.arrays(np.int64, shape, elements=ids if pad is None else ids | st.just(pad))


def finite_floats(
    *, bound: float = 1e3, width: Literal[16, 32, 64] = 64
) -> st.SearchStrategy[float]:
    """Draw a float in [-bound, bound] that `width` bits can hold; no subnormal, no NaN.

    A bound that `width` bits cannot hold is rounded towards 0.
    """
    dtype = np.dtype(f"float{width}").type
    edge = dtype(bound)
    if float(edge) > bound:
        edge = np.nextafter(edge, dtype(0))
    limit = float(edge)
    return st.floats(-limit, limit, width=width, allow_subnormal=False)


def finite_vectors(
    *, min_size: int = 1, max_size: int = 16, bound: float = 1e3
) -> st.SearchStrategy[np.ndarray]:
    """Draw a float64 vector of min_size to max_size elements in [-bound, bound]."""
    sizes = st.integers(min_size, max_size).map(lambda n: (n,))
    return finite_arrays(sizes, bound=bound)


def finite_arrays(
    shape: Shape, *, dtype: str = "float64", bound: float = 1e3
) -> st.SearchStrategy[np.ndarray]:
    """Draw an array of finite floats in [-bound, bound].

    Parameters
    ----------
    shape
        A shape, or a strategy that draws one.
    dtype
        "float16", "float32" or "float64".
    bound
        Largest absolute value.
    """
    width = np.dtype(dtype).itemsize * 8
    return hnp.arrays(dtype, shape, elements=finite_floats(bound=bound, width=_width(width)))


def masks(shape: Shape, *, at_least_one: bool = True) -> st.SearchStrategy[np.ndarray]:
    """Draw a boolean mask, True = keep.

    Parameters
    ----------
    shape
        A shape, or a strategy that draws one; not empty if `at_least_one`.
    at_least_one
        Whether at least one element of the whole mask is True.
    """

    def kept(mask: np.ndarray, place: int) -> np.ndarray:
        if mask.any():
            return mask
        return (np.arange(mask.size) == place % mask.size).reshape(mask.shape)

    drawn = hnp.arrays(np.bool_, shape)
    return st.builds(kept, drawn, st.integers(0, MAX_SEED)) if at_least_one else drawn


def logits(shape: Shape) -> st.SearchStrategy[np.ndarray]:
    """Draw float64 scores in [-30, 30]; ties and constant rows are drawn."""
    return finite_arrays(shape, bound=LOGIT_BOUND)


def torch_tensors(
    shape: Shape, *, dtype: str = "float32", bound: float = 1e3
) -> st.SearchStrategy[Any]:
    """Draw a CPU tensor of finite floats in [-bound, bound]; imports torch when called.

    Parameters
    ----------
    shape
        A shape, or a strategy that draws one.
    dtype
        "float16", "bfloat16", "float32" or "float64".
    bound
        Largest absolute value.
    """
    from meristem_core.testing import _torch  # noqa: PLC0415 imports torch

    drawn = finite_arrays(shape, dtype="float32" if dtype == "bfloat16" else dtype, bound=bound)
    return drawn.map(lambda array: _torch.tensor_of(array, dtype))


def _width(bits: int) -> Literal[16, 32, 64]:
    match bits:
        case 16 | 32 | 64:
            return bits
        case _:
            raise ValueError(f"dtype has {bits} bits; give float16, float32 or float64")
