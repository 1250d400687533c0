"""Results as columns of equal length, which any data frame takes."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

Frame = dict[str, Shaped[np.ndarray, " rows"]]


def frame(result: Any, *names: str) -> Frame:
    """Return the named fields of a result as columns."""
    return {name: np.asarray(getattr(result, name)) for name in names}
