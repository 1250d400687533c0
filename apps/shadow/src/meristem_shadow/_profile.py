"""Radii along an orbit, thinned for a figure: how they change and how they are spread."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meristem_core import read_json

BINS = 160
TAIL = 60  # points of the curve of exceedances


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Of each bin of steps the largest and the median radius, and the share of larger radii."""

    step: tuple[float, ...]  # middle of each bin
    largest: tuple[float, ...]
    median: tuple[float, ...]
    radius: tuple[float, ...]  # ascending; empty if only bins are known
    exceeding: tuple[float, ...]  # share of points whose radius is larger


def profile_of(radius: Float[np.ndarray, " n"], first: int) -> Profile:
    """Return the profile of the radii of the steps `first`, `first` + 1, ..."""
    parts = np.array_split(np.arange(len(radius)), min(BINS, len(radius)))
    ordered = np.sort(radius)
    ranks = np.unique(np.round(np.geomspace(1, len(radius), TAIL)).astype(int))[::-1]
    return Profile(
        step=tuple(float(first + part.mean()) for part in parts),
        largest=tuple(float(radius[part].max()) for part in parts),
        median=tuple(float(np.median(radius[part])) for part in parts),
        radius=tuple(float(ordered[-rank]) for rank in ranks),
        exceeding=tuple(float(rank / len(radius)) for rank in ranks),
    )


def profile_of_blocks(folder: Path, block: int) -> Profile:
    """Return the profile of a certificate in blocks: one bin a block."""
    summaries = [read_json(path) for path in sorted(folder.glob("summary-*.json"))]
    return Profile(
        step=tuple((i + 0.5) * block for i in range(len(summaries))),
        largest=tuple(float(each["radius_max"]) for each in summaries),
        median=tuple(float(each["radius_median"]) for each in summaries),
        radius=(),
        exceeding=(),
    )
