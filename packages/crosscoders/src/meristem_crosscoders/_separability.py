"""Can a snapshot's own activations tell where a feature fires? A check that no decoder enters.

- a token is labelled by whether the feature is open at any snapshot
- Fisher's discriminant of one snapshot's activations scores held-out tokens; AUC says how well
- the within-class covariance differs between features by a rank-one term along the difference of
  the class means, which leaves the discriminant's direction as it is: one solve serves all features

Shape letters: B tokens, F features, S snapshots, D width, C features of a block.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meristem_crosscoders._blocks import code_blocks
from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._model import Crosscoder

BLOCK_SCORES = 2**22  # scores that are ranked at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Separability:
    """How well each snapshot separates the tokens at which a feature fires from the others."""

    steps: tuple[int, ...]
    auc: Float[Tensor, "F S"]  # 0.5 is chance, and stands for features that are not measured
    measured: Bool[Tensor, " F"]  # fires at some, and not all, tokens of both halves
    positives: Int[Tensor, " F"]  # held-out tokens at which the feature fires

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each feature and step."""
        axes = {"feature": range(len(self.measured)), "step": self.steps}
        return long_frame(axes, {"auc": self.auc})


@torch.no_grad()
def separability(
    crosscoder: Crosscoder,
    train_BSD: Float[Tensor, "B S D"],
    held_out_BSD: Float[Tensor, "b S D"],
) -> Separability:
    """Return the AUC of Fisher's discriminant for every feature at every snapshot.

    Parameters
    ----------
    crosscoder
        Gives the labels.
    train_BSD, held_out_BSD
        What it reads: tokens that fit the discriminants, and others that judge them. Many more
        than D each.

    Raises
    ------
    ValueError
        If an activation is not finite or there are fewer than 2 tokens.

    Notes
    -----
    w = C^-1 (m1 - m0) with C the covariance shrunk towards a multiple of the identity as Ledoit
    and Wolf 2004 do; AUC is the share of (firing, silent) pairs in the right order, ties count
    half.
    """
    if len(train_BSD) < 2:
        raise ValueError(
            f"{len(train_BSD)} tokens have no covariance; give many more than the width"
        )
    train_BF, held_out_BF = _labels(crosscoder, train_BSD), _labels(crosscoder, held_out_BSD)
    measured_F = _varies(train_BF) & _varies(held_out_BF)
    auc_FS = torch.full((train_BF.shape[1], train_BSD.shape[1]), 0.5, dtype=torch.float64)
    auc_FS = auc_FS.to(train_BSD.device)
    for s in range(train_BSD.shape[1]):
        w_DF = fisher_directions(train_BSD[:, s].double(), train_BF[:, measured_F])
        auc_FS[measured_F, s] = _auc(held_out_BSD[:, s].double(), w_DF, held_out_BF[:, measured_F])
    return Separability(
        steps=crosscoder.config.steps,
        auc=auc_FS,
        measured=measured_F,
        positives=held_out_BF.sum(0),
    )


def fisher_directions(
    x_BD: Float[Tensor, "B D"], label_BF: Bool[Tensor, "B F"]
) -> Float[Tensor, "D F"]:
    """Return the discriminant direction of each labelling, up to a positive factor."""
    centred_BD = x_BD - x_BD.mean(0)
    covariance_DD = centred_BD.mT @ centred_BD / len(x_BD)
    share = ledoit_wolf(centred_BD, covariance_DD)
    mean_variance = covariance_DD.diagonal().mean()
    shrunk_DD = (1 - share) * covariance_DD
    shrunk_DD.diagonal().add_(share * mean_variance + torch.finfo(x_BD.dtype).tiny)
    positives_F = label_BF.sum(0)
    sums_DF = centred_BD.mT @ label_BF.to(x_BD.dtype)
    # sums over all tokens are 0, so the silent class has the opposite sum
    difference_DF = sums_DF / positives_F + sums_DF / (len(x_BD) - positives_F)
    return torch.linalg.lstsq(shrunk_DD, difference_DF).solution


def ledoit_wolf(
    centred_BD: Float[Tensor, "B D"], covariance_DD: Float[Tensor, "D D"]
) -> Float[Tensor, ""]:
    """Return the share of the identity in the shrunk covariance, in [0, 1].

    References
    ----------
    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices",
    section 3.
    """
    B, D = centred_BD.shape
    spread = covariance_DD - covariance_DD.diagonal().mean() * torch.eye(D).to(covariance_DD)
    distance = spread.square().sum() / D
    fourth = centred_BD.square().sum(1).square().mean()
    noise = (fourth - covariance_DD.square().sum()) / (B * D)
    return torch.where(distance > 0, (noise / distance).clamp(0, 1), torch.ones_like(distance))


def _labels(crosscoder: Crosscoder, x_BSD: Tensor) -> Bool[Tensor, "B F"]:
    F = crosscoder.config.n_features
    return torch.cat([codes.union(F) > 0 for _, codes in code_blocks(crosscoder, [x_BSD])])


def _varies(label_BF: Bool[Tensor, "B F"]) -> Bool[Tensor, " F"]:
    return label_BF.any(0) & ~label_BF.all(0)


def _auc(
    x_BD: Float[Tensor, "B D"], w_DF: Float[Tensor, "D F"], label_BF: Bool[Tensor, "B F"]
) -> Float[Tensor, " F"]:
    """Return the share of (positive, negative) pairs that x w orders rightly."""
    size = max(1, BLOCK_SCORES // len(x_BD))
    parts = [
        _auc_of_scores((x_BD @ w_DC).mT.contiguous(), label_BC.mT)
        for w_DC, label_BC in zip(w_DF.split(size, 1), label_BF.split(size, 1), strict=True)
    ]
    return torch.cat(parts)


def _auc_of_scores(
    score_CB: Float[Tensor, "C B"], label_CB: Bool[Tensor, "C B"]
) -> Float[Tensor, " C"]:
    """Mann and Whitney's statistic: the mean rank of the positives, shifted and scaled."""
    ordered_CB, order_CB = score_CB.sort(1)
    place_CB = torch.arange(1, score_CB.shape[1] + 1, device=score_CB.device).expand_as(order_CB)
    edge_CB = ordered_CB[:, 1:] != ordered_CB[:, :-1]
    first_CB = place_CB.clone()
    first_CB[:, 1:] *= edge_CB
    last_CB = place_CB.clone()
    last_CB[:, :-1] += ~edge_CB * score_CB.shape[1]
    of_ties_CB = first_CB.cummax(1).values + last_CB.flip(1).cummin(1).values.flip(1)
    rank_CB = of_ties_CB.double() / 2
    label_CB = label_CB.gather(1, order_CB)
    positives_C = label_CB.sum(1)
    negatives_C = label_CB.shape[1] - positives_C
    excess_C = (rank_CB * label_CB).sum(1) - positives_C * (positives_C + 1) / 2
    return excess_C / (positives_C * negatives_C)
