"""The life of features, read from the decoder alone.

- a feature's norm over snapshots says when it emerges, peaks and fades
- the angle between its rows at two snapshots says whether it turned
- how much room it has beside the others is its dimensionality

Shape letters: F features, S snapshots, D width.
"""

# capitals are matrices
# pyright: reportConstantRedefinition=false

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meristem_core import Interval, bootstrap_interval

KINDS = ("initial", "emergent", "transient", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """When features live. Snapshots are numbered from 0; -1 stands for a dead feature."""

    threshold: float
    emergence: Int[Tensor, " F"]  # first snapshot at or above the threshold
    peak: Int[Tensor, " F"]  # snapshot of the largest norm, the first of equals
    lifetime: Float[Tensor, " F"]  # share of snapshots from emergence on at or above; 0 if dead
    kind: Int[Tensor, " F"]  # index into KINDS

    def counts(self) -> dict[str, int]:
        """Return the number of features of each kind."""
        return {name: int((self.kind == i).sum()) for i, name in enumerate(KINDS)}


def lifecycle(
    norms_FS: Float[Tensor, "F S"],
    *,
    alive: Bool[Tensor, " F"] | None = None,
    threshold: float = 0.5,
) -> Lifecycle:
    """Return when each feature emerges, peaks and fades.

    Parameters
    ----------
    norms_FS
        Decoder norms in normalised space, ``crosscoder.norms()``.
    alive
        Features that fire at all; default those with a norm above 0. The others are dead.
    threshold
        Share of its largest norm at which a feature counts as present, in (0, 1]. The paper
        publishes none: compare `threshold_sensitivity`.

    Returns
    -------
    Kinds: "initial", present at the first snapshot; "emergent", present later and at the last;
    "transient", present later but not at the last; "dead".

    Raises
    ------
    ValueError
        If the threshold is out of range or a norm is negative or not finite.

    Examples
    --------
    >>> norms = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.4, 1.0], [0.0, 1.0, 0.1], [0.0, 0.0, 0.0]])
    >>> lifecycle(norms).counts()
    {'initial': 1, 'emergent': 1, 'transient': 1, 'dead': 1}
    >>> lifecycle(norms).emergence.tolist(), lifecycle(norms, threshold=0.3).emergence.tolist()
    ([0, 2, 1, -1], [0, 1, 1, -1])
    """
    _check_norms(norms_FS, threshold)
    largest_F1 = norms_FS.amax(1, keepdim=True)
    dead = largest_F1[:, 0] == 0
    dead = dead if alive is None else dead | ~alive
    present_FS = (norms_FS / largest_F1.clamp_min(torch.finfo(norms_FS.dtype).tiny)) >= threshold
    first = present_FS.int().argmax(1)
    remaining = norms_FS.shape[1] - first
    kind = torch.where(first == 0, 0, torch.where(present_FS[:, -1], 1, 2))
    return Lifecycle(
        threshold=threshold,
        emergence=first.masked_fill(dead, -1),
        peak=norms_FS.argmax(1).masked_fill(dead, -1),
        lifetime=(present_FS.sum(1).to(norms_FS.dtype) / remaining).masked_fill(dead, 0),
        kind=kind.masked_fill(dead, KINDS.index("dead")),
    )


def threshold_sensitivity(
    norms_FS: Float[Tensor, "F S"],
    *,
    alive: Bool[Tensor, " F"] | None = None,
    thresholds: Sequence[float] = (0.3, 0.5, 0.7),
) -> tuple[Lifecycle, ...]:
    """Return the life cycles at several thresholds, to be read side by side."""
    return tuple(lifecycle(norms_FS, alive=alive, threshold=h) for h in thresholds)


def feature_cosines(W_dec_FSD: Float[Tensor, "F S D"]) -> Float[Tensor, "F S S"]:
    """Return the cosine of each feature's rows between all pairs of snapshots.

    Raises
    ------
    ValueError
        If a row is zero, since it has no direction; leave such features out.
    """
    norms_FS = W_dec_FSD.norm(dim=-1)
    zero = (~(norms_FS > 0)).nonzero()
    if zero.numel():
        i, s = zero[0].tolist()
        raise ValueError(
            f"the row of feature {i} at snapshot {s} is zero or NaN and has no direction; "
            "leave such features out"
        )
    unit_FSD = W_dec_FSD / norms_FS[..., None]
    return (unit_FSD @ unit_FSD.mT).clamp(-1, 1)


def rotation(W_dec_FSD: Float[Tensor, "F S D"]) -> Float[Tensor, "S S"]:
    """Return the mean cosine over features between all pairs of snapshots.

    Raises
    ------
    ValueError
        If a row is zero, since it has no direction; leave such features out.
    """
    mean_SS = feature_cosines(W_dec_FSD).mean(0)
    return (mean_SS + mean_SS.mT) / 2  # entries are summed in different orders


@dataclass(frozen=True, slots=True, kw_only=True)
class TurningPoint:
    """The split of the snapshots across which features turn most."""

    split: int  # the first snapshot of the later block, 1 to S - 1
    contrast: float  # mean cosine within the two blocks minus that between them
    interval: Interval  # of the split


def turning_point(
    cosines_FSS: Float[Tensor, "F S S"], *, rng: np.random.Generator, n_resamples: int = 200
) -> TurningPoint:
    """Return where a block structure divides the rotation matrix best.

    Parameters
    ----------
    cosines_FSS
        From `feature_cosines`; S >= 3.
    rng
        Draws the bootstrap over features.
    n_resamples
        Number of bootstrap samples.

    Raises
    ------
    ValueError
        If there are fewer than 3 snapshots.

    Notes
    -----
    Pairs of different snapshots only: a snapshot's cosine with itself is always 1.
    """
    F, S = cosines_FSS.shape[:2]
    if S < 3:
        raise ValueError(f"{S} snapshots have no turning point; give at least 3")
    flat_FP = cosines_FSS.double().flatten(1).cpu().numpy()
    weights_XP = split_weights(S)

    def best_split(rows: Int[np.ndarray, " N"]) -> np.float64:
        counts_F = np.bincount(rows, minlength=F)
        return np.float64(np.argmax(weights_XP @ (counts_F @ flat_FP)) + 1)

    interval = bootstrap_interval(best_split, F, rng=rng, n_resamples=n_resamples)
    split = int(interval.estimate)
    contrast = float(weights_XP[split - 1] @ flat_FP.mean(0))
    return TurningPoint(split=split, contrast=contrast, interval=interval)


def dimensionality(W_FD: Float[Tensor, "F D"]) -> Float[Tensor, " F"]:
    """Return how much of a dimension each feature has to itself, at one snapshot.

    Parameters
    ----------
    W_FD
        Decoder rows of one snapshot, ``crosscoder.W_dec[:, s]``.

    Returns
    -------
    D_i = |w_i|^2 / sum_j <w_i / |w_i|, w_j>^2 in [0, 1], 0 for a zero row; in float64. The sum over
    features is at most the rank of W.

    References
    ----------
    Elhage et al. 2022, "Toy models of superposition"; computed as |w|^4 / (w' G w) with
    G = W' W, in O(F D^2).

    Examples
    --------
    >>> dimensionality(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])).tolist()
    [1.0, 0.5, 0.5, 0.0]
    """
    if not bool(W_FD.isfinite().all()):
        raise ValueError("a decoder row is NaN or infinite; the training diverged")
    W = W_FD.double()
    W = W / W.abs().max().clamp_min(
        torch.finfo(W.dtype).tiny
    )  # squares neither overflow nor vanish
    size_F = W.norm(dim=1)
    unit = torch.where(size_F[:, None] > 0, W / size_F[:, None], 0)
    crowd_F = torch.einsum("fd,de,fe->f", unit, W.mT @ W, unit)
    return torch.where(size_F > 0, size_F.square() / crowd_F, 0)


def split_weights(S: int) -> Float[np.ndarray, "X P"]:
    """Return, for each split, the weights of the S x S cosines in its contrast."""
    i, j = np.indices((S, S))
    pairs = i < j
    rows: list[np.ndarray] = []
    for split in range(1, S):
        between = pairs & (i < split) & (j >= split)
        within = pairs & ~between
        rows.append((within / within.sum() - between / between.sum()).ravel())
    return np.stack(rows)


def _check_norms(norms_FS: Tensor, threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold ({threshold}) must lie in (0, 1]; it is a share of the peak")
    if not bool(((norms_FS >= 0) & norms_FS.isfinite()).all()):
        raise ValueError("norms must be finite and at least 0; give crosscoder.norms()")
