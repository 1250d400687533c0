"""Whether the length of an answer tells how hard the question is.

- z = log(1 + length), standardised within each system
- item mean z against item mean score; partial correlation given subject and log points
- others' length: a system's scores against the mean z of all other systems, which removes "it was
  long because it was lost"
- GAOKAO-Eval (arXiv 2412.10056, Sec. 4) uses the tokens of a reasoning model as difficulty
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.stats import norm

from meristem_rasch._alignment import Alignment, Cells, Weight, check_scores, difficulty_alignment
from meristem_rasch._errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """A correlation with a 95 % interval by Fisher's z."""

    r: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthStudy:
    """Length of the answers beside their scores; negative = longer answers score less."""

    items: Association  # mean z of an item against its mean score
    partial: Association | None  # the same given subject and log points; None without them
    own: tuple[Association, ...]  # per system: its z against its scores
    others: tuple[Association, ...]  # per system: the other systems' mean z against its scores
    systems: tuple[str, ...]
    alignment: Alignment  # the ladder with the item mean of z as the label
    cells: int
    dropped: int  # cells left out as unanswered


def length_as_difficulty(
    scores: ArrayLike,
    length: ArrayLike,
    *,
    weight: Weight | None = None,
    subject: Sequence[object] | None = None,
    points: ArrayLike | None = None,
    answered: ArrayLike | None = None,
    systems: Sequence[str] | None = None,
    seed: int = 0,
) -> LengthStudy:
    """Return how answer lengths predict scores.

    Parameters
    ----------
    scores
        Systems x items in [0, 1], shape (V, I); NaN = not observed.
    length
        Tokens or characters of the same cells, >= 0.
    subject, points
        Subject and largest possible score of each item: what the partial correlation holds fixed.
    answered
        False where the output was cut off or gave no answer: such cells are long and wrong by
        construction and are left out. Run with and without.

    Raises
    ------
    DataError
        If a length is missing, negative or infinite where a score is, a system's lengths are all
        equal, points are not positive, or labels do not fit the table.
    """
    raw = np.array(scores, dtype=float)
    measured = np.asarray(length, dtype=float)
    if measured.shape != raw.shape:
        raise DataError(f"lengths have shape {measured.shape}, scores {raw.shape}; give one each")
    _check_labels(raw.shape, subject=subject, points=points, answered=answered, systems=systems)
    before = int((~np.isnan(raw)).sum())
    if answered is not None:
        raw[~np.asarray(answered, dtype=bool)] = np.nan
    kept: Bool[np.ndarray, " I"] = ~np.asarray(np.isnan(raw).all(axis=0), dtype=bool)
    raw, measured = raw[:, kept], measured[:, kept]
    y, w = check_scores(raw, None if weight is None else _columns(weight, kept))
    names = tuple(systems) if systems is not None else tuple(f"S{v + 1}" for v in range(len(y)))
    z = _standardised(measured, w > 0, names)
    mean_z, mean_y = _item_means(z, w > 0), _item_means(y, w > 0)
    return LengthStudy(
        items=_association(mean_z, mean_y),
        partial=_partial(mean_z, mean_y, subject, points, kept),
        own=tuple(_association(z[v][w[v] > 0], y[v][w[v] > 0]) for v in range(len(y))),
        others=tuple(_others(z, y, w > 0, v) for v in range(len(y))),
        systems=names,
        alignment=difficulty_alignment(raw, mean_z, weight=np.where(w > 0, w, 1.0), seed=seed),
        cells=int((w > 0).sum()),
        dropped=before - int((w > 0).sum()),
    )


def _check_labels(
    shape: tuple[int, ...],
    *,
    subject: Sequence[object] | None,
    points: ArrayLike | None,
    answered: ArrayLike | None,
    systems: Sequence[str] | None,
) -> None:
    wanted = {"subject": shape[1:], "points": shape[1:], "answered": shape, "systems": shape[:1]}
    given = {
        "subject": None if subject is None else (len(subject),),
        "points": None if points is None else np.shape(points),
        "answered": None if answered is None else np.shape(answered),
        "systems": None if systems is None else (len(systems),),
    }
    for name, found in given.items():
        if found is not None and found != wanted[name]:
            raise DataError(
                f"{name} has shape {found}, the scores {shape}; it must be {wanted[name]}"
            )
    if points is not None:
        value = np.asarray(points, dtype=float)
        if not (np.isfinite(value) & (value > 0)).all():
            raise DataError(f"points {value[~(value > 0)].tolist()[:3]} must be finite and above 0")


def _columns(weight: Weight, kept: Bool[np.ndarray, " I"]) -> Weight:
    values = np.asarray(weight, dtype=float)
    return values[..., kept] if values.ndim and values.shape[-1] == len(kept) else values


def _standardised(length: Cells, seen: Bool[np.ndarray, "V I"], names: tuple[str, ...]) -> Cells:
    bad = seen & ~(np.isfinite(length) & (length >= 0))
    if bad.any():
        v, i = np.argwhere(bad)[0]
        raise DataError(
            f"system {names[v]}, item {i}: length {length[v, i]}; lengths are finite and >= 0"
        )
    logs = np.where(seen, np.log1p(np.where(seen, length, 0.0)), 0.0)
    n = seen.sum(axis=1, keepdims=True)
    away = np.where(seen, logs - logs.sum(axis=1, keepdims=True) / n, 0.0)
    sd = np.sqrt((away**2).sum(axis=1, keepdims=True) / n)
    if (sd < 1e-12).any():
        raise DataError(
            f"system {names[int(np.argmin(sd))]}: all its lengths are equal; leave it out"
        )
    return away / sd


def _item_means(x: Cells, seen: Bool[np.ndarray, "V I"]) -> Float[np.ndarray, " I"]:
    return (x * seen).sum(axis=0) / seen.sum(axis=0)


def _others(z: Cells, y: Cells, seen: Bool[np.ndarray, "V I"], v: int) -> Association:
    rest = seen.copy()
    rest[v] = False
    use = seen[v] & rest.any(axis=0)
    return _association(_item_means(z[:, use], rest[:, use]), y[v, use])


def _association(
    a: Float[np.ndarray, " n"], x: Float[np.ndarray, " n"], *, fixed: int = 0
) -> Association:
    if len(a) - fixed < 4 or np.ptp(a) == 0 or np.ptp(x) == 0:
        raise DataError(
            f"{len(a)} items give no correlation; give at least 4 with different scores and lengths"
        )
    r = float(np.corrcoef(a, x)[0, 1])
    half = float(norm.ppf(0.975)) / np.sqrt(len(a) - 3 - fixed)
    middle = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    return Association(
        r=r, low=float(np.tanh(middle - half)), high=float(np.tanh(middle + half)), n=len(a)
    )


def _partial(
    z: Float[np.ndarray, " I"],
    y: Float[np.ndarray, " I"],
    subject: Sequence[object] | None,
    points: ArrayLike | None,
    kept: Bool[np.ndarray, " J"],
) -> Association | None:
    if subject is None and points is None:
        return None
    label = np.zeros(len(kept)) if subject is None else np.asarray(subject, dtype=str)
    columns = [(label[kept] == each).astype(float) for each in np.unique(label[kept])]
    if points is not None:
        columns.append(np.log(np.asarray(points, dtype=float)[kept]))
    x = np.column_stack(columns)
    left = [v - x @ np.linalg.lstsq(x, v, rcond=None)[0] for v in (z, y)]
    return _association(left[0], left[1], fixed=int(np.linalg.matrix_rank(x)) - 1)
