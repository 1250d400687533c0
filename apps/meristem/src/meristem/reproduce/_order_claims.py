"""In which order kinds of features appear: of the token before, of repetition, of long contexts.

Kinds are told by controlled inputs (`feature_triggers`); the rules were written before the runs.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from meristem.reproduce._claims import RESAMPLES, Claim, judge
from meristem.reproduce._crosscoders import Trained
from meristem_core import Interval, stream, wilson_interval
from meristem_crosscoders import TRIGGERS

LEAST = 5  # features of a kind without which its place says nothing
NO_ORDER = f"no value and no interval: no seed has {LEAST} features of both kinds"
NAMES = {"previous": "previous-token", "induction": "induction", "context": "context"}
PAIRS = (("previous", "induction"), ("previous", "context"), ("induction", "context"))
Kinds = Int[np.ndarray, " F"]
Snapshots = Int[np.ndarray, " _"]  # of some features


def order(runs: Sequence[Trained], kinds: Sequence[Kinds], seed: int) -> list[Claim]:
    """Judge whether each kind of feature emerges before the next, by seed of the crosscoder."""
    return [_pair(first, second, runs, kinds, seed) for first, second in PAIRS]


def _pair(
    first: str, second: str, runs: Sequence[Trained], kinds: Sequence[Kinds], seed: int
) -> Claim:
    found: list[Interval] = []
    notes: list[str] = []
    for run, kind in zip(runs, kinds, strict=True):
        early, late = (_emergence(run, kind, name) for name in (first, second))
        if min(early.size, late.size) >= LEAST:
            found.append(_before(early, late, stream(seed, "order", first, second, run.seed)))
        notes.append(f"{_share(early, run)} and {_share(late, run)}{_medians(run, early, late)}")
    return Claim(
        claim=f"{NAMES[first]} features emerge before {NAMES[second]} features: probability",
        claimed="> 0.5 in every seed (partly: not told apart; refuted: below 0.5)",
        found=found,
        verdict=judge([True if each.low > 0.5 else False if each.high < 0.5 else None
                       for each in found]),
        note=f"{'ties count half' if found else NO_ORDER}; features of each kind in each seed with "
        f"their share of the living ones, by Wilson, and steps of median emergence: "
        f"{'; '.join(notes)}",
    )  # fmt: skip


def _emergence(run: Trained, kind: Kinds, name: str) -> Snapshots:
    """Return the snapshots at which living features of a kind emerge."""
    emergence = run.arrays["emergence"]
    return emergence[run.alive & (emergence >= 0) & (kind == TRIGGERS.index(name))]


def _share(features: Snapshots, run: Trained) -> str:
    found = wilson_interval(features.size, int(run.alive.sum()))
    return f"{features.size} [{found.low:.3f}, {found.high:.3f}]"


def _medians(run: Trained, early: Snapshots, late: Snapshots) -> str:
    if not early.size or not late.size:
        return ""
    steps = [run.measured.steps[int(np.median(each))] for each in (early, late)]
    return f" (steps {steps[0]} and {steps[1]})"


def _before(early: Snapshots, late: Snapshots, rng: np.random.Generator) -> Interval:
    """Return the probability that the first of a pair is earlier, with a bootstrap interval."""

    def share(a: Snapshots, b: Snapshots) -> float:
        gap = b[None, :] - a[:, None]
        return float(((gap > 0) + 0.5 * (gap == 0)).mean())

    drawn = [
        share(rng.choice(early, early.size), rng.choice(late, late.size)) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(estimate=share(early, late), low=float(low), high=float(high), level=0.95,
                    covers="sampling of features")  # fmt: skip
