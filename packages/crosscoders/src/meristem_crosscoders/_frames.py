"""Results as columns of equal length, which any data frame takes."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

Column = Tensor | np.ndarray | Sequence[int] | Sequence[float] | Sequence[str]


def long_frame(
    axes: Mapping[str, Column], values: Mapping[str, Tensor | np.ndarray]
) -> dict[str, Shaped[np.ndarray, " rows"]]:
    """Return one row for each cell of the values: the labels of its axes, then the values.

    Parameters
    ----------
    axes
        Labels along each axis, in the order of the values' axes.
    values
        Arrays of one shape: the lengths of the axes.
    """
    labels = [_array(column) for column in axes.values()]
    grid = np.meshgrid(*labels, indexing="ij")
    columns = {name: column.ravel() for name, column in zip(axes, grid, strict=True)}
    return columns | {name: _array(value).ravel() for name, value in values.items()}


def _array(column: Column) -> np.ndarray:
    return column.detach().cpu().numpy() if isinstance(column, Tensor) else np.asarray(column)
