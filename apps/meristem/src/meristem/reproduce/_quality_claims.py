"""How well one crosscoder rebuilds, beside other ways; each rule was written before the runs."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from meristem.reproduce._claims import ASKED, Claim, bounds, judge
from meristem.reproduce._crosscoders import Trained
from meristem_core import Interval

KEPT = 0.9  # share of explained variance that counts as all of it
Qualities = Mapping[int, float]
"""Explained variance by step."""


def separate(runs: Sequence[Trained], own: Sequence[Qualities]) -> Claim:
    """Judge whether one crosscoder rebuilds as well as a dictionary for each snapshot.

    Parameters
    ----------
    own
        Of the dictionaries of single snapshots, for each seed.
    """
    gaps = [
        np.array([100 * (_explained(run)[step] - value) for step, value in values.items()])
        for run, values in zip(runs, own, strict=True)
    ]
    means = [float(gap.mean()) for gap in gaps]
    values = "; ".join(
        f"step {step}: {np.mean([_explained(run)[step] for run in runs]):.3f} and "
        f"{np.mean([each[step] for each in own]):.3f}"
        for step in own[0]
    )
    return Claim(
        claim="one crosscoder rebuilds as well as a dictionary for each snapshot: difference",
        claimed=">= -1 point of explained variance on average, at equal open features",
        found=[bounds(mean) for mean in means],
        verdict=judge([True if mean >= -1 else None if mean >= -3 else False for mean in means]),
        note="by snapshot the difference is "
        + ", ".join(f"{gap.min():.1f} to {gap.max():.1f}" for gap in gaps)
        + f"; means of crosscoders and own dictionaries: {values}",
    )


def components(runs: Sequence[Trained], explained: Mapping[int, Sequence[float]]) -> Claim:
    """Judge whether a crosscoder rebuilds better than as many principal components.

    Parameters
    ----------
    explained
        Variance of each snapshot by number of components; each crosscoder is compared with as many
        as it has features open at any snapshot, in the mean.
    """
    counts = [max(1, round(run.measured.l0_union)) for run in runs]
    gaps = [
        100 * np.subtract(run.measured.explained_variance, explained[k])
        for run, k in zip(runs, counts, strict=True)
    ]
    means = [float(gap.mean()) for gap in gaps]
    return Claim(
        claim="a crosscoder rebuilds better than principal components of all snapshots side by "
        "side: difference of explained variance in points",
        claimed="> 0 on average, at equal numbers a token",
        found=[bounds(mean) for mean in means],
        verdict=judge([mean > 0 for mean in means]),
        note=f"{', '.join(map(str, counts))} components; by snapshot the difference is "
        + ", ".join(f"{gap.min():.1f} to {gap.max():.1f}" for gap in gaps),
    )


def held_out(runs: Sequence[Trained], untrained: Sequence[Qualities]) -> Claim:
    """Judge whether rows between two snapshots rebuild one that was not trained on.

    Parameters
    ----------
    untrained
        Of crosscoders that do not know these snapshots, for each seed.
    """
    shares = [
        {step: value / _explained(run)[step] for step, value in values.items()}
        for run, values in zip(runs, untrained, strict=True)
    ]
    found: list[Interval] = []
    held: list[bool | None] = []
    for each in shares:
        least, middle = min(each.values()), median(each.values())
        found.append(bounds(middle))
        held.append(True if least >= KEPT else None if middle >= KEPT else False)
    return Claim(
        claim="a snapshot that was left out is rebuilt by rows between its neighbours': share of "
        "the variance explained with it, at the snapshot in the middle",
        claimed=f">= {KEPT} at every one (partly: at most of them)",
        found=found,
        verdict=judge(held),
        note="by step, of each seed: "
        + "; ".join(f"{step}: {', '.join(f'{each[step]:.2f}' for each in shares)}"
                    for step in untrained[0]),
        source=ASKED,
    )  # fmt: skip


def _explained(run: Trained) -> dict[int, float]:
    return dict(zip(run.measured.steps, run.measured.explained_variance, strict=True))
