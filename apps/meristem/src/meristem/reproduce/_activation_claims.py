"""What findings owe to the activation: JumpReLU, BatchTopK and ReLU with an L1 penalty beside.

None of these is a claim of paper 2509.17196; its reviewers asked. Each rule was written before the
runs, and each activation was trained with the seeds of the others.
"""

from collections.abc import Mapping, Sequence
from math import hypot

import numpy as np

from meristem.reproduce._claims import ASKED, Claim, bounds, judge
from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._sensitivity_claims import (
    emergence_claim,
    matching_of,
    shared_claim,
)
from meristem_core import Interval, wilson_interval

ALIKE = 1.25  # ratio of open features up to which explained variances compare
TITLES = {"jumprelu": "JumpReLU", "batchtopk": "BatchTopK", "relu": "ReLU with L1"}


def activations(runs: Mapping[str, Sequence[Trained]], seed: int) -> list[Claim]:
    """Judge whether other activations tell the same story as the first.

    Parameters
    ----------
    runs
        By activation, a crosscoder for each seed; the first is compared with the others.
    """
    (own, first), *others = runs.items()
    claims = [claim for name, each in others for claim in _beside(own, first, name, each, seed)]
    return [*claims, rebuilding(runs["jumprelu"], runs["batchtopk"]),
            _shrinkage(runs["relu"], runs["batchtopk"])]  # fmt: skip


def _beside(
    own: str, first: Sequence[Trained], name: str, others: Sequence[Trained], seed: int
) -> list[Claim]:
    pairs = list(zip(first, others, strict=True))
    matchings = [matching_of(a, b, seed) for a, b in pairs]
    title, same = TITLES[name], f"{TITLES[own]} and {TITLES[name]}"
    return [
        _turning(title, pairs),
        shared_claim(f"{same} find the same features", matchings),
        emergence_claim(f"features of {same} emerge at the same time", pairs, matchings, seed),
    ]


def _turning(title: str, pairs: Sequence[tuple[Trained, Trained]]) -> Claim:
    steps = pairs[0][0].measured.steps
    gaps = [
        steps.index(b.measured.turning.step) - steps.index(a.measured.turning.step)
        for a, b in pairs
    ]
    kinds = "; ".join(
        f"{b.measured.kinds['0.5']['initial']} and {b.measured.kinds['0.5']['emergent']} of "
        f"{b.measured.alive}"
        for _, b in pairs
    )
    return Claim(
        claim=f"{title} shows the same turning point: snapshots by which it is later",
        claimed="-1 to 1",
        found=[bounds(gap) for gap in gaps],
        verdict=judge([abs(gap) <= 1 for gap in gaps]),
        note="steps: " + ", ".join(str(b.measured.turning.step) for _, b in pairs)
        + f"; initial and emergent of the living features: {kinds}",
        source=ASKED,
    )  # fmt: skip


def rebuilding(jumprelu: Sequence[Trained], batchtopk: Sequence[Trained]) -> Claim:
    """Judge whether JumpReLU explains as much as BatchTopK with as many open features."""
    gaps = [100 * (_mean(a, "explained_variance") - _mean(b, "explained_variance"))
            for a, b in zip(jumprelu, batchtopk, strict=True)]  # fmt: skip
    opened = [[_mean(each, "l0") for each in runs] for runs in (jumprelu, batchtopk)]
    alike = all(max(a, b) <= ALIKE * min(a, b) for a, b in zip(*opened, strict=True))
    shown = [", ".join(f"{l0:.1f}" for l0 in each) for each in opened]
    return Claim(
        claim="JumpReLU rebuilds as well as BatchTopK: difference of the mean over snapshots",
        claimed=f">= -1 point of explained variance, at open features alike within {ALIKE}x",
        found=[bounds(gap) for gap in gaps],
        verdict=judge([True if gap >= -1 else None if gap >= -3 else False for gap in gaps])
        if alike
        else "not testable here",
        note=f"open features a token and snapshot: {shown[0]} and {shown[1]}"
        + ("" if alike else "; not judged: they differ by more"),
        source=ASKED,
    )


def _shrinkage(relu: Sequence[Trained], batchtopk: Sequence[Trained]) -> Claim:
    found = [_difference(_shrunk(a), _shrunk(b)) for a, b in zip(relu, batchtopk, strict=True)]
    opened = ", ".join(f"{_mean(each, 'l0'):.1f}" for each in relu)
    explained = ", ".join(f"{_mean(each, 'explained_variance'):.2f}" for each in relu)
    return Claim(
        claim="ReLU with L1 shrinks norms of present features more than BatchTopK: difference of "
        "the largest shares",
        claimed="> 0",
        found=found,
        verdict=judge([True if each.low > 0 else None if each.high > 0 else False
                       for each in found]),
        note="norm below a tenth of its largest, nu > 0.5; intervals of seeds by Newcombe; of "
        f"ReLU with L1 {opened} features are open, which explain {explained}",
        source="arXiv 2504.02922 [not in the paper]",
    )  # fmt: skip


def _shrunk(run: Trained) -> Interval:
    alive = run.measured.alive
    return wilson_interval(round(max(run.measured.shrunk) * alive), alive)


def _difference(a: Interval, b: Interval) -> Interval:
    """Return the difference of two shares, with Newcombe's interval."""
    gap = a.estimate - b.estimate
    low = gap - hypot(a.estimate - a.low, b.high - b.estimate)
    return bounds(gap, low=low, high=gap + hypot(a.high - a.estimate, b.estimate - b.low))


def _mean(run: Trained, name: str) -> float:
    return float(np.mean(getattr(run.measured, name)))
