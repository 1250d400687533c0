"""Results as columns: what a data frame, a CSV writer or a plot takes."""

from dataclasses import fields
from typing import Any

import numpy as np


class Tabular:
    """A frozen result whose fields of one length are the columns of a table."""

    __slots__ = ()

    def to_frame(self) -> dict[str, Any]:
        """Return the columns by name, all of one length: `pandas.DataFrame(x.to_frame())`.

        The first column holds the labels; single numbers and matrices are left out.
        """
        every = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        length = len(next(iter(every.values())))
        return {name: value for name, value in every.items() if _is_column(value, length)}


def _is_column(value: Any, length: int) -> bool:
    if isinstance(value, np.ndarray):
        return value.shape == (length,)
    return isinstance(value, tuple) and len(value) == length  # type: ignore[arg-type]
