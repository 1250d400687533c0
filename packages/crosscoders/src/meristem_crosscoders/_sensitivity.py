"""What findings owe to the choice of snapshots, the seed, and the learning-rate warm-up.

- thin the snapshots of one crosscoder and read it again
- compare emergence of features that two crosscoders share: other seeds, fewer snapshots
- see whether the turning point moves with the warm-up of the underlying runs

Shape letters: F features, S snapshots, R runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meristem_core import Interval, resample_indices, wilson_interval
from meristem_crosscoders._correlation import rank_correlation
from meristem_crosscoders._evolution import (
    KINDS,
    Lifecycle,
    TurningPoint,
    lifecycle,
    split_weights,
    turning_point,
)
from meristem_crosscoders._matching import Matching


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinned:
    """One choice of snapshots, read from the same crosscoder."""

    steps: tuple[int, ...]  # those kept
    turning: TurningPoint  # among them; `turning_step` says at which step
    counts: dict[str, int]  # features of each kind
    same_emergence: Interval  # share of features that emerge at the first kept step they could

    @property
    def turning_step(self) -> int:
        """Return the step of the first snapshot after the turning point."""
        return self.steps[self.turning.split]


def spacing_sensitivity(
    norms_FS: Float[Tensor, "F S"],
    cosines_FSS: Float[Tensor, "F S S"],
    steps: Sequence[int],
    choices: Sequence[Sequence[int]],
    *,
    alive: Bool[Tensor, " F"],
    rng: np.random.Generator,
    threshold: float = 0.5,
) -> tuple[Thinned, ...]:
    """Return what is read from fewer snapshots of one crosscoder.

    Parameters
    ----------
    norms_FS, cosines_FSS
        ``crosscoder.norms()`` and ``feature_cosines(crosscoder.W_dec)``.
    steps
        Of the S snapshots.
    choices
        Steps to keep, at least 3 each: ``[steps, every_second(steps)]``, say.
    alive
        Features that count.
    rng
        Draws the bootstraps of the turning points.
    threshold
        Of `lifecycle`.

    Raises
    ------
    ValueError
        If a choice has fewer than 3 steps or one that is no snapshot, or nothing is alive.

    Notes
    -----
    The crosscoder is not trained again. Whether training on fewer snapshots finds the same features
    is a question for `match_features` and `compare_emergence`.
    """
    whole = lifecycle(norms_FS, alive=alive, threshold=threshold)
    return tuple(
        _thinned(norms_FS, cosines_FSS, tuple(steps), tuple(choice), alive, whole, rng)
        for choice in choices
    )


def every_second(steps: Sequence[int]) -> tuple[int, ...]:
    """Return every second step, from the last backwards, and the first."""
    return tuple(sorted({steps[0], *steps[::-1][::2]}))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergenceAgreement:
    """How far features that two crosscoders share emerge at the same time in both."""

    features: int  # matched and alive in both
    correlation: Interval  # Spearman's, of emergence steps
    same: Interval  # share that emerges in b at the first step of b at or after that in a


def compare_emergence(
    a: Lifecycle,
    b: Lifecycle,
    matching: Matching,
    *,
    steps_a: Sequence[int],
    steps_b: Sequence[int],
    rng: np.random.Generator,
) -> EmergenceAgreement:
    """Return how far the emergence of matched features agrees.

    Parameters
    ----------
    a, b
        Life cycles in two crosscoders.
    matching
        From a to b: `match_features` or `assign_features`.
    steps_a, steps_b
        Their snapshots; where b has fewer, a feature cannot emerge in it before its next one.
    rng
        Draws the bootstrap over features.

    Raises
    ------
    ValueError
        If fewer than 3 features are matched and alive in both.
    """
    rows = (matching.matched() & (a.emergence.cpu() >= 0)).nonzero()[:, 0]
    rows = rows[b.emergence.cpu()[matching.partner[rows]] >= 0]
    if rows.numel() < 3:
        raise ValueError(
            f"{rows.numel()} features are matched and alive in both; at least 3 are needed, so "
            "lower the matching's threshold or train longer"
        )
    step_a = torch.tensor(steps_a)[a.emergence.cpu()[rows]]
    step_b = torch.tensor(steps_b)[b.emergence.cpu()[matching.partner[rows]]]
    expected = _at_or_after(step_a, tuple(steps_b))
    return EmergenceAgreement(
        features=rows.numel(),
        correlation=rank_correlation(step_a.double(), step_b.double(), rng=rng),
        same=wilson_interval(int((expected == step_b).sum()), rows.numel()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupEffect:
    """Turning points of runs that differ in their learning-rate warm-up."""

    warmups: tuple[int, ...]
    turning_steps: tuple[int, ...]  # of the first snapshot after each turning point
    elasticity: Interval  # of log turning step against log warm-up: 1 follows it, 0 ignores it

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each run."""
        return {
            "warmup": np.array(self.warmups),
            "turning_step": np.array(self.turning_steps),
        }


def warmup_effect(
    runs: Mapping[int, tuple[Sequence[int], Float[Tensor, "F S S"]]],
    *,
    rng: np.random.Generator,
    n_resamples: int = 500,
) -> WarmupEffect:
    """Return whether the turning point follows the warm-up.

    Parameters
    ----------
    runs
        For each warm-up, in steps and at least 1, the snapshots' steps and the `feature_cosines` of
        a crosscoder over them. Two or more.
    rng
        Draws the features of each resample, of each run on its own.
    n_resamples
        Number of resamples.

    Returns
    -------
    The elasticity is the least-squares slope of the logarithms; its interval covers the sampling of
    features, not that of runs. A turning point is known to one snapshot only: give the runs the
    same steps.

    Raises
    ------
    ValueError
        If there are fewer than two warm-ups, one is below 1, or a run has fewer than 3 snapshots.
    """
    warmups = tuple(sorted(runs))
    if len(warmups) < 2 or warmups[0] < 1:
        raise ValueError(f"warm-ups {warmups} must be two or more, of at least 1 step")
    turning_NR = np.stack([_turning_steps(*runs[w], rng, n_resamples) for w in warmups], axis=1)
    slopes_N = _slopes(warmups, turning_NR)
    low, high = np.quantile(slopes_N[1:], [0.025, 0.975])
    return WarmupEffect(
        warmups=warmups,
        turning_steps=tuple(turning_NR[0].tolist()),
        elasticity=Interval(
            estimate=float(slopes_N[0]),
            low=float(low),
            high=float(high),
            level=0.95,
            covers="sampling of features, not of runs",
        ),
    )


def _thinned(
    norms_FS: Tensor,
    cosines_FSS: Tensor,
    steps: tuple[int, ...],
    choice: tuple[int, ...],
    alive: Tensor,
    whole: Lifecycle,
    rng: np.random.Generator,
) -> Thinned:
    unknown = set(choice) - set(steps)
    if unknown or len(set(choice)) < 3:
        raise ValueError(f"choice {choice} must be 3 or more of the snapshots {steps}")
    kept = [steps.index(step) for step in sorted(choice)]
    kept_steps = tuple(steps[s] for s in kept)
    found = lifecycle(norms_FS[:, kept], alive=alive, threshold=whole.threshold)
    rows = (alive & (whole.kind != KINDS.index("dead"))).nonzero()[:, 0]
    before = torch.tensor(steps, device=rows.device)[whole.emergence[rows]]
    after = torch.tensor(kept_steps, device=rows.device)[found.emergence[rows]]
    same = int((after == _at_or_after(before, kept_steps)).sum())
    return Thinned(
        steps=kept_steps,
        turning=turning_point(cosines_FSS[alive][:, kept][:, :, kept], rng=rng),
        counts=found.counts(),
        same_emergence=wilson_interval(same, rows.numel()),
    )


def _at_or_after(step: Shaped[Tensor, " n"], grid: tuple[int, ...]) -> Shaped[Tensor, " n"]:
    """Return the first step of the grid at or after each step, the last where there is none."""
    steps = torch.tensor(grid, device=step.device)
    return steps[torch.searchsorted(steps, step).clamp_max(len(grid) - 1)]


def _turning_steps(
    steps: Sequence[int], cosines_FSS: Tensor, rng: np.random.Generator, n_resamples: int
) -> Int[np.ndarray, " N"]:
    """Return the turning step of all features, then of each resample of them."""
    F, S = cosines_FSS.shape[:2]
    if S < 3 or len(steps) != S:
        raise ValueError(f"{len(steps)} steps and {S} snapshots: give the same 3 or more")
    resamples = [np.arange(F), *resample_indices(F, n_resamples, rng=rng)]
    counts_NF = np.stack([np.bincount(rows, minlength=F) for rows in resamples])
    means_NP = counts_NF @ cosines_FSS.double().flatten(1).cpu().numpy()
    splits_N = np.argmax(split_weights(S) @ means_NP.T, axis=0) + 1
    return np.array(steps)[splits_N]


def _slopes(warmups: Sequence[int], turning_NR: Int[np.ndarray, "N R"]) -> Float[np.ndarray, " N"]:
    x = np.log(np.array(warmups, dtype=float))
    x = x - x.mean()
    return np.log(turning_NR) @ x / (x @ x)  # x sums to 0, so the mean of the steps drops out
