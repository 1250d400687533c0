"""One test set-up for all Meristem packages; needs the extra `testing`.

A package's `tests/conftest.py` is one import::

    from meristem_core.testing import data_dir, pytest_configure, xp  # noqa: F401
"""

from meristem_core.testing._asserts import assert_close, assert_commutes
from meristem_core.testing._browser import open_page
from meristem_core.testing._fixtures import data_dir, xp
from meristem_core.testing._processes import gloo_threads
from meristem_core.testing._profiles import pytest_configure
from meristem_core.testing._resume import KilledRun, kill_and_resume
from meristem_core.testing._strategies import (
    finite_arrays,
    finite_floats,
    finite_vectors,
    generators,
    logits,
    masks,
    permutations,
    rngs,
    seeds,
    simplices,
    token_ids,
    torch_tensors,
)

__all__ = [
    "KilledRun",
    "assert_close",
    "assert_commutes",
    "data_dir",
    "finite_arrays",
    "finite_floats",
    "finite_vectors",
    "generators",
    "gloo_threads",
    "kill_and_resume",
    "logits",
    "masks",
    "open_page",
    "permutations",
    "pytest_configure",
    "rngs",
    "seeds",
    "simplices",
    "token_ids",
    "torch_tensors",
    "xp",
]
