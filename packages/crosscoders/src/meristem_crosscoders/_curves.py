"""Do the attributed features really carry the behaviour? Ablate them, restore them, count.

- ablate: the first k features get their codes of the patch prompt, all others stay
- restore: the first k keep their codes of the clean prompt, all others get the patch prompt's
- controls: the same with random features that fire as often as the attributed ones

Shape letters: N pairs, F features, K numbers of features, C controls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meristem_core import Interval, bootstrap_interval
from meristem_crosscoders._attribution import Attribution
from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._splice import Splice, Written, written_in_features
from meristem_crosscoders._tasks import Pairs

MATCHED = 32  # features of similar firing count that stand for each other in a control


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The metric of every pair after changing k features, for several k."""

    task: str
    step: int
    mode: Literal["ablate", "restore"]
    ks: tuple[int, ...]
    metric: Float[Tensor, "K N"]  # logits
    control: Float[Tensor, "C K N"]  # of random features
    full: Float[Tensor, " N"]  # all features as on the clean prompt
    empty: Float[Tensor, " N"]  # all features as on the patch prompt

    def gap(self) -> float:
        """Return the mean metric that all features together carry, in logits."""
        return float((self.full - self.empty).double().mean())

    def faithfulness(self) -> Float[Tensor, " K"]:
        """Return (m_k - m_empty) / (m_full - m_empty), of means over pairs.

        Restoring goes from 0 at k = 0 to 1 at all features, ablating from 1 to 0; in between it
        may leave [0, 1], as features may also work against the answer.

        Raises
        ------
        ValueError
            If the features carry nothing of the metric.
        """
        return self._share(self.metric)

    def control_faithfulness(self) -> Float[Tensor, "C K"]:
        """Return the same for each control."""
        return self._share(self.control)

    def band(self, level: float = 0.95) -> Float[Tensor, "two K"]:
        """Return the quantiles between which that share of the controls lies."""
        share_CK = self.control_faithfulness()
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=share_CK.dtype)
        return share_CK.quantile(ends.to(share_CK.device), dim=0)

    def intervals(self, rng: np.random.Generator, n_resamples: int = 500) -> tuple[Interval, ...]:
        """Return the faithfulness at each k with its bootstrap interval over pairs.

        Raises
        ------
        ValueError
            If the features carry nothing of the metric in a resample.
        """
        full, empty = (x.detach().cpu().double().numpy() for x in (self.full, self.empty))

        def interval(metric: Float[np.ndarray, " N"]) -> Interval:
            def share(rows: Int[np.ndarray, " m"]) -> float:
                gap = full[rows].mean() - empty[rows].mean()
                return float((metric[rows].mean() - empty[rows].mean()) / gap) if gap else np.nan

            return bootstrap_interval(share, full.size, rng=rng, n_resamples=n_resamples)

        return tuple(interval(row) for row in self.metric.detach().cpu().double().numpy())

    def area(self) -> float:
        """Return the mean faithfulness over log k, from the first k >= 1 to the last.

        Raises
        ------
        ValueError
            If there are not two different k >= 1.
        """
        ks = np.array(self.ks, dtype=float)
        some = ks >= 1
        if some.sum() < 2:
            raise ValueError(f"ks {self.ks} has no two numbers of at least 1; an area needs them")
        y, x = self.faithfulness().cpu().numpy()[some], np.log(ks[some])
        return float(np.trapezoid(y, x) / (x[-1] - x[0]))

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each k: faithfulness and the ends of the 95 % band."""
        low, high = self.band()
        values = {"faithfulness": self.faithfulness(), "control_low": low, "control_high": high}
        return long_frame({"k": self.ks}, values)

    def _share(self, metric: Float[Tensor, "*C K N"]) -> Float[Tensor, "*C K"]:
        gap = self.gap()
        if gap == 0:
            raise ValueError(
                f"changing all features of step {self.step} moves the {self.task} metric by 0; "
                "there is no share to give, so look at .metric"
            )
        return (metric.double().mean(-1) - self.empty.double().mean()) / gap


def ablate_curve(
    splice: Splice,
    pairs: Pairs,
    attribution: Attribution,
    *,
    rng: np.random.Generator,
    ks: Sequence[int] | None = None,
    controls: int = 20,
) -> Curve:
    """Return the metric as the features with the largest effects are patched, one after another.

    Parameters
    ----------
    splice
        The model and its features.
    pairs
        The task; other pairs than those of the attribution make the test sharper.
    attribution
        Gives the order, by absolute mean effect.
    rng
        Draws the controls.
    ks
        Increasing numbers of features, 0 to F; default 0, 1, 2, 4, ... and F.
    controls
        Random orders. Each feature of the attributed order is exchanged for one of the 32 that
        fire most nearly as often on the prompts.

    Raises
    ------
    ValueError
        If ks are out of range or do not increase, or an activation is not finite.
    """
    return _curve(splice, pairs, attribution, rng, ks, controls, restore=False)


def restore_curve(
    splice: Splice,
    pairs: Pairs,
    attribution: Attribution,
    *,
    rng: np.random.Generator,
    ks: Sequence[int] | None = None,
    controls: int = 20,
) -> Curve:
    """Return the metric as only the features with the largest effects keep their clean codes.

    Parameters and errors as for `ablate_curve`.
    """
    return _curve(splice, pairs, attribution, rng, ks, controls, restore=True)


def matched_orders(
    ranking_F: Int[Tensor, " F"],
    firings_F: Int[Tensor, " F"],
    *,
    n: int,
    rng: np.random.Generator,
) -> tuple[Int[Tensor, " F"], ...]:
    """Return random orders of the features whose every prefix fires like the ranking's prefix.

    Features are sorted by firing count and cut into groups of MATCHED; within a group they change
    places at random.
    """
    ranking = ranking_F.cpu().numpy()
    group_of = np.empty(ranking.size, dtype=np.int64)
    group_of[np.argsort(firings_F.cpu().numpy(), kind="stable")] = (
        np.arange(ranking.size) // MATCHED
    )
    group = group_of[ranking]
    orders: list[Tensor] = []
    for _ in range(n):
        order = ranking.copy()
        for each in range(int(group.max()) + 1):
            order[group == each] = rng.permutation(ranking[group == each])
        orders.append(torch.from_numpy(order).to(ranking_F.device))
    return tuple(orders)


def _curve(
    splice: Splice,
    pairs: Pairs,
    attribution: Attribution,
    rng: np.random.Generator,
    ks: Sequence[int] | None,
    controls: int,
    *,
    restore: bool,
) -> Curve:
    F = splice.crosscoder.config.n_features
    ks = _checked(ks, F)
    parts = list(written_in_features(splice, pairs))
    firings_F = sum((_firings(part) for part in parts), torch.zeros(F, dtype=torch.int64))
    ranking_F = attribution.ranking().cpu()
    orders = (ranking_F, *matched_orders(ranking_F, firings_F, n=controls, rng=rng))
    chosen_XKF = torch.stack([_prefixes(order, ks) for order in orders])
    patched_XKF = ~chosen_XKF if restore else chosen_XKF
    ends_2F = torch.stack([torch.zeros(F, dtype=torch.bool), torch.ones(F, dtype=torch.bool)])
    all_MF = torch.cat([ends_2F, patched_XKF.flatten(0, 1)])
    metric_MN = torch.cat([_metrics(splice, part, all_MF) for part in parts], dim=1)
    curves_XKN = metric_MN[2:].unflatten(0, (len(orders), len(ks)))
    return Curve(
        task=pairs.task,
        step=splice.step,
        mode="restore" if restore else "ablate",
        ks=ks,
        metric=curves_XKN[0],
        control=curves_XKN[1:],
        full=metric_MN[0],
        empty=metric_MN[1],
    )


@torch.no_grad()
def _metrics(
    splice: Splice, written: Written, patched_MF: Bool[Tensor, "M F"]
) -> Float[Tensor, "M N"]:
    """Return the metric of each pair for each set of patched features."""
    change_NTF = written.patch_NTF - written.clean_NTF
    moving = (change_NTF != 0).any(0).any(0).nonzero()[:, 0]
    change_NTU, rows_UD = change_NTF[..., moving], splice.rows[moving]
    sets_MU, inverse_M = patched_MF.to(moving.device)[:, moving].unique(dim=0, return_inverse=True)

    def metric(patched_U: Bool[Tensor, " U"]) -> Float[Tensor, " N"]:
        active_NTD = written.active_NTD + (change_NTU * patched_U) @ rows_UD
        return splice.logit_difference(written.pairs, active_NTD)

    return torch.stack([metric(patched_U) for patched_U in sets_MU])[inverse_M]


def _prefixes(order_F: Int[Tensor, " F"], ks: tuple[int, ...]) -> Bool[Tensor, "K F"]:
    place_F = torch.empty_like(order_F).scatter_(0, order_F, torch.arange(len(order_F)))
    return place_F < torch.tensor(ks)[:, None]


def _firings(written: Written) -> Int[Tensor, " F"]:
    both = ((codes != 0).sum((0, 1)) for codes in (written.clean_NTF, written.patch_NTF))
    return sum(both, torch.zeros_like(written.clean_NTF[0, 0], dtype=torch.int64)).cpu()


def _checked(ks: Sequence[int] | None, F: int) -> tuple[int, ...]:
    if ks is None:
        return (0, *(2**i for i in range(F.bit_length()) if 2**i < F), F)
    if not ks or any(a >= b for a, b in pairwise(ks)) or ks[0] < 0 or ks[-1] > F:
        raise ValueError(f"ks {tuple(ks)} must increase and lie between 0 and {F} features")
    return tuple(ks)
