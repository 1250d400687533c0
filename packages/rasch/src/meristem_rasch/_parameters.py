"""From a vector of free parameters to item parameters and latent distributions, and back.

- psi = (free item parameters, free latent parameters); a row of `raw` holds an item's category
  parameters, its slope and, for 3PL, the logit of the lower asymptote (see `_models`)
- raw = A psi + offset; A selects, except for the rating scale
- latent parameters are mean and log sd of each group; fixed ones keep 0
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit, logit

from meristem_rasch._calibration import Calibration
from meristem_rasch._design import Anchor, Linear, rating_scale
from meristem_rasch._errors import DataError
from meristem_rasch._models import intercepts
from meristem_rasch._responses import Responses

Vector = Float[np.ndarray, " P"]
START_GUESS = 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Which numbers are free and where they go."""

    model: str
    max_score: Int[np.ndarray, " I"]
    width: int  # parameters in a row of `raw`
    map: Linear  # from the item part of psi to the flattened `raw`
    free_latent: Bool[np.ndarray, "G 2"]
    slopes_free: bool

    @property
    def n_item(self) -> int:
        """Number of free item parameters."""
        return int(self.map.free.sum()) if self.map.matrix is None else self.map.matrix.shape[1]

    @property
    def categories(self) -> int:
        """Number of category parameters in a row of `raw`."""
        return int(self.max_score.max())

    def raw(self, psi: Vector) -> Float[np.ndarray, "I p"]:
        """Return the item parameters, one row an item."""
        return self.map.thresholds(psi[: self.n_item]).reshape(-1, self.width)

    def latent(self, psi: Vector) -> Float[np.ndarray, "G 2"]:
        """Return mean and sd of every group."""
        out = np.zeros(self.free_latent.shape)
        out[self.free_latent] = psi[self.n_item :]
        return np.column_stack([out[:, 0], np.exp(out[:, 1])])

    def latent_se(self, psi: Vector, spread: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "G 2"]:
        """Return the standard errors of mean and sd; 0 where fixed."""
        out = np.zeros(self.free_latent.shape)
        out[self.free_latent] = np.sqrt(np.diag(spread)[self.n_item :].clip(min=0))
        return out * np.column_stack([np.ones(len(out)), self.latent(psi)[:, 1]])

    def mean_rows(self, spread: Float[np.ndarray, "P P"]) -> Float[np.ndarray, "G P"]:
        """Return the covariances of the groups' means with psi; 0 where fixed."""
        out = np.zeros((*self.free_latent.shape, len(spread)))
        out[self.free_latent] = spread[self.n_item :]
        return out[:, 0]

    def gradient(
        self, d_raw: Float[np.ndarray, "I p"], d_latent: Float[np.ndarray, "G 2"]
    ) -> Vector:
        """Return the gradient in psi."""
        return np.concatenate([self.map.gradient(d_raw.ravel()), d_latent[self.free_latent]])

    def start(self, data: Responses) -> Vector:
        """Return log-odds of adjacent (or, graded, split) categories, slopes and sd 1."""
        m = self.categories
        n = data.category_counts.clip(min=0.5)
        inside = np.arange(1, m + 1) <= self.max_score[:, None]
        raw = np.zeros((len(n), self.width))
        if self.model == "grm":
            above = np.cumsum((n * np.column_stack([inside[:, :1], inside]))[:, ::-1], axis=1)
            share = (above[:, ::-1][:, 1:] / above[:, -1:]).clip(1e-6, 1 - 1e-6)
            c = np.where(inside, 1.2 * logit(share), 0.0)
            raw[:, 0] = c[:, 0]
            raw[:, 1:m] = np.log((c[:, :-1] - c[:, 1:]).clip(min=0.05))
        else:
            raw[:, :m] = 1.2 * np.cumsum(np.log(n[:, 1:] / n[:, :-1]), axis=1)
        raw[:, m] = 1.0
        if self.model == "3pl":
            raw[:, m + 1] = logit(START_GUESS)
        return np.concatenate([self.map.start(raw.ravel()), np.zeros(self.free_latent.sum())])

    def start_from(self, cal: Calibration) -> Vector:
        """Return the parameters of a 2PL calibration with low lower asymptotes."""
        raw = np.column_stack(
            [-cal.slope * cal.threshold, cal.slope, np.full(len(cal.items), logit(START_GUESS))]
        )
        latent = np.array([[group.mean, np.log(group.sd)] for group in cal.latent])
        return np.concatenate([self.map.start(raw.ravel()), latent[self.free_latent]])


def layout(
    model: str,
    data: Responses,
    n_groups: int,
    anchors: Mapping[str, Anchor] | Calibration,
) -> Layout:
    """Return the layout of a model.

    Raises
    ------
    DataError
        If anchors do not fit the model or the items.
    """
    m = data.max_score
    top, slopes = int(m.max()), model in ("2pl", "3pl", "gpcm", "grm")
    width = top + 1 + (model == "3pl")
    offset = np.zeros((len(m), width))
    free = np.zeros(offset.shape, dtype=bool)
    free[:, :top] = np.arange(1, top + 1) <= m[:, None]
    free[:, top:] = slopes
    if not slopes:
        offset[:, top] = 1.0
    held = _anchors(model, data, anchors)
    for i, row in held.items():
        offset[i], free[i] = row, False
    latent = np.ones((n_groups, 2), dtype=bool)
    if not held:
        latent[0] = [False, not slopes]
    size = int(free.sum())
    select = Linear(matrix=None, free=free.ravel(), offset=offset.ravel(), null=np.zeros(size))
    if model == "rsm":
        if held:
            raise DataError("anchors need a model without common steps; use 'pcm'")
        select = _common_steps(data, offset)
    return Layout(
        model=model, max_score=m, width=width, map=select, free_latent=latent, slopes_free=slopes
    )


def _common_steps(data: Responses, offset: Float[np.ndarray, "I p"]) -> Linear:
    steps = rating_scale(data.max_score)
    top, count = int(data.max_score[0]), len(data.items)
    below = np.kron(np.eye(count), np.tril(np.ones((top, top))))
    matrix = np.zeros((offset.size, steps.shape[1]))
    rows = np.arange(offset.size).reshape(offset.shape)[:, :top].ravel()
    matrix[rows] = -below @ steps
    return Linear(
        matrix=matrix,
        free=np.ones(offset.size, dtype=bool),
        offset=offset.ravel(),
        null=np.zeros(steps.shape[1]),
    )


def _anchors(
    model: str, data: Responses, anchors: Mapping[str, Anchor] | Calibration
) -> dict[int, Float[np.ndarray, " p"]]:
    top = int(data.max_score.max())
    if isinstance(anchors, Calibration):
        if anchors.model != model:
            raise DataError(f"the anchors are {anchors.model!r}, the model is {model!r}; use one")
        shared = [label for label in anchors.items if label in data.items]
        found: dict[str, tuple[Anchor, float, float]] = {}
        for label in shared:
            i = anchors.items.index(label)
            tau = anchors.threshold[anchors.item_of == i]
            found[label] = tau, float(anchors.slope[i]), float(anchors.guess[i])
    else:
        if anchors and model in ("2pl", "3pl", "gpcm", "grm"):
            raise DataError(f"anchors of {model!r} need slopes: give a calibration")
        found = {label: (value, 1.0, 0.0) for label, value in anchors.items()}
    out: dict[int, Float[np.ndarray, " p"]] = {}
    for label, (value, slope, guess) in found.items():
        if label not in data.items:
            raise DataError(f"anchor {label!r} is not an item; the items are {data.items}")
        i = data.items.index(label)
        tau = np.atleast_1d(np.asarray(value, dtype=float))
        if tau.shape != (data.max_score[i],) or not np.isfinite(tau).all():
            count = data.max_score[i]
            raise DataError(f"anchor {label!r} is {value}; give {count} finite thresholds")
        out[i] = _raw_row(model, tau, slope, guess, top)
    if isinstance(anchors, Calibration) and not out:
        raise DataError(f"no item of the anchors {anchors.items} is among {data.items}")
    return out


def _raw_row(
    model: str, tau: Float[np.ndarray, " m"], slope: float, guess: float, top: int
) -> Float[np.ndarray, " p"]:
    row = np.zeros(top + 1 + (model == "3pl"))
    if model == "grm":
        c = -slope * tau
        row[0], row[1 : len(tau)] = c[0], np.log(c[:-1] - c[1:])
    else:
        row[: len(tau)] = -slope * np.cumsum(tau)
    row[top] = slope
    if model == "3pl":
        row[top + 1] = logit(min(max(guess, 1e-12), 1 - 1e-12))
    return row


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemParameters:
    """Thresholds, slopes and lower asymptotes with their Jacobian in psi, in that order."""

    threshold: Float[np.ndarray, " H"]
    slope: Float[np.ndarray, " I"]
    guess: Float[np.ndarray, " I"]
    jacobian: Float[np.ndarray, "J P"]


def item_parameters(plan: Layout, psi: Vector) -> ItemParameters:
    """Return the item parameters in the reported metric, for the delta method."""
    raw, top, m = plan.raw(psi), plan.categories, plan.max_score
    inside = np.arange(top) < m[:, None]
    slope = raw[:, top]
    d_tau = np.zeros((len(raw), top, plan.width))
    if plan.model == "grm":
        c = np.where(inside, intercepts(raw, m), 0.0)
        tau = -c / slope[:, None]
        fall = np.exp(raw[:, 1:top])
        below = np.tril(np.ones((top, top)))[:, 1:]
        d_tau[:, :, 0] = -1 / slope[:, None]
        d_tau[:, :, 1:top] = below * (fall / slope[:, None])[:, None, :]
    else:
        tau = -np.diff(raw[:, :top], axis=1, prepend=0.0) / slope[:, None]
        d_tau[:, :, :top] = -(np.eye(top) - np.eye(top, k=-1)) / slope[:, None, None]
    d_tau[:, :, top] = -tau / slope[:, None]
    guess = expit(raw[:, top + 1]) if plan.model == "3pl" else np.zeros(len(raw))
    count, at = len(raw), np.arange(len(raw))
    size = int(m.sum())
    raw_jacobian = np.zeros((size + 2 * count, count, plan.width))
    raw_jacobian[np.arange(size), np.repeat(at, m)] = d_tau[inside]
    raw_jacobian[size + at, at, top] = 1.0
    if plan.model == "3pl":
        raw_jacobian[size + count + at, at, top + 1] = guess * (1 - guess)
    flat = raw_jacobian.reshape(len(raw_jacobian), -1)
    mapped = flat[:, plan.map.free] if plan.map.matrix is None else flat @ plan.map.matrix
    jacobian = np.column_stack([mapped, np.zeros((len(flat), len(psi) - mapped.shape[1]))])
    return ItemParameters(threshold=tau[inside], slope=slope, guess=guess, jacobian=jacobian)
