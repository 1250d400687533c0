"""Many-facet results as plain lists, numbers and names, and back."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from meristem_rasch._calibration import LatentGroup, plain
from meristem_rasch._facet_tables import FacetTable
from meristem_rasch._ratings import Ratings

WHOLE = ("score", "codes", "group")  # integers
WORDS = ("labels", "step_groups", "facets")


def stored(value: Any) -> Any:
    """Return a field's value as JSON takes it."""
    if isinstance(value, FacetTable | Ratings | LatentGroup):
        return {field.name: stored(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: stored(each) for name, each in value.items()}
    return plain(value)


def restored(name: str, value: Any) -> Any:
    """Return the value of a field of a calibration."""
    match name:
        case "facets" | "interactions":
            return {key: FacetTable(**_fields(table)) for key, table in value.items()}
        case "ratings":
            return Ratings(**_fields(value))
        case "latent":
            return None if value is None else LatentGroup(**_fields(value))
        case "history":
            return tuple(map(float, value))
        case _:
            return _field(name, value)


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _field(name, value) for name, value in values.items()}


def _field(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _field(name, each) for key, each in value.items()}
    if name in WORDS:
        return tuple(value)
    if isinstance(value, list):
        return np.array(value, dtype=np.int64 if name in WHOLE else float)
    return float(value) if value in ("nan", "inf", "-inf") else value
