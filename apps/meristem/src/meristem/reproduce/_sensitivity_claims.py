"""What paper 2509.17196 owes to the seed, the choice of snapshots, and the warm-up of the model.

Most of these are not claims of the paper: its reviewers asked for them. Each rule was written
before the runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch

from meristem.reproduce._claims import ASKED, Claim, bounds, judge
from meristem.reproduce._crosscoders import Trained
from meristem_core import Interval, stream
from meristem_crosscoders import (
    Matching,
    compare_emergence,
    lifecycle,
    match_features,
    warmup_effect,
)

MATCH = 0.7  # cosine from which features of two crosscoders are the same
LEAST_MATCHED = 10  # features without which a rank correlation says nothing
FOLLOWS = 0.2  # elasticity from which the turning point follows the warm-up


def seeds(runs: Sequence[Trained], seed: int) -> list[Claim]:
    """Judge whether other seeds find the same features, emerging at the same time."""
    pairs = list(combinations(runs, 2))
    matchings = [matching_of(first, other, seed) for first, other in pairs]
    found = [
        shared_claim("another seed finds the same features", matchings),
        emergence_claim("features of two seeds emerge at the same time", pairs, matchings, seed),
    ]
    return [replace(claim, pairs=True) for claim in found]


def spacing(wholes: Sequence[Trained], halves: Sequence[Trained], seed: int) -> list[Claim]:
    """Judge whether crosscoders over every second snapshot tell the same story."""
    pairs = list(zip(wholes, halves, strict=True))
    steps = wholes[0].measured.steps
    places = [[sum(step < run.measured.turning.step for step in steps) for run in pair]
              for pair in pairs]  # fmt: skip
    gaps = [half - whole for whole, half in places]
    turnings = "; ".join(f"{run.measured.turning.step} and {half.measured.turning.step}"
                         for run, half in pairs)  # fmt: skip
    return [
        Claim(
            claim="half of the snapshots show the same turning point: snapshots by which it is "
            "later",
            claimed="-2 to 2, the spacing of those that are left",
            found=[bounds(gap) for gap in gaps],
            verdict=judge([abs(gap) <= 2 for gap in gaps]),
            note=f"turning steps over {len(steps)} and {len(halves[0].measured.steps)} snapshots, "
            f"of each seed: {turnings}",
            source=ASKED,
        ),
        emergence_claim(
            "features emerge at the same time over half of the snapshots",
            pairs, [matching_of(run, half, seed) for run, half in pairs], seed,
        ),
    ]  # fmt: skip


def warmup(runs: Sequence[Mapping[int, Trained]], seed: int) -> Claim:
    """Judge whether the turning point follows the learning-rate warm-up of the model.

    Parameters
    ----------
    runs
        For each seed of model and crosscoder, by steps of the warm-up.
    """
    effects = [
        warmup_effect(
            {
                steps: (run.measured.steps, torch.from_numpy(run.arrays["cosines"][run.alive]))
                for steps, run in each.items()
            },
            rng=stream(seed, "warm-up", number),
        )
        for number, each in enumerate(runs)
    ]
    found = [each.elasticity for each in effects]
    turnings = "; ".join(
        ", ".join(f"{turning} by {steps}"
                  for steps, turning in zip(each.warmups, each.turning_steps, strict=True))
        for each in effects
    )  # fmt: skip
    return Claim(
        claim="the turning point does not follow the warm-up of the learning rate: elasticity",
        claimed=f"< {FOLLOWS} (0: ignores it, 1: follows it)",
        found=found,
        verdict=judge([True if each.high < FOLLOWS else False if each.low > FOLLOWS else None
                       for each in found]),
        note="models of the smallest scale, a seed each; turning step by warm-up: "
        f"{turnings}; intervals of seeds over features",
        source=ASKED,
    )  # fmt: skip


def shared_claim(claim: str, matchings: Sequence[Matching]) -> Claim:
    """Judge whether two crosscoders share as many features as autoencoders of two seeds do."""
    shares = [matching.shared() for matching in matchings]
    return Claim(
        claim=f"{claim}: share with cosine >= {MATCH}",
        claimed=">= 0.3 (0.30 to 0.42 for autoencoders of two seeds)",
        found=shares,
        verdict=judge([True if each.low >= 0.3 else None if each.high >= 0.3 else False
                       for each in shares]),
        note="mutual nearest neighbours among living features; intervals by Wilson",
        source="arXiv 2501.16615 [not in the paper]",
    )  # fmt: skip


def matching_of(a: Trained, b: Trained, seed: int) -> Matching:
    """Return which living features of two crosscoders are the same."""
    return match_features(
        a.crosscoder, b.crosscoder, rng=stream(seed, "seeds", b.seed), threshold=MATCH,
        alive_a=torch.from_numpy(a.alive), alive_b=torch.from_numpy(b.alive),
    )  # fmt: skip


def emergence_claim(
    claim: str,
    pairs: Sequence[tuple[Trained, Trained]],
    matchings: Sequence[Matching],
    seed: int,
) -> Claim:
    """Judge whether matched features emerge at the same time."""
    found = [
        _order(first, other, matching, seed)
        for (first, other), matching in zip(pairs, matchings, strict=True)
    ]
    known = [each for each in found if each is not None]
    if not known:
        counts = ", ".join(str(int(each.matched().sum())) for each in matchings)
        return Claim(
            claim=f"{claim}: rank correlation",
            claimed="> 0.5",
            found=[],
            verdict="not testable here",
            note=f"no value: {counts} features are matched, {LEAST_MATCHED} are needed, or all "
            "of them emerge at one snapshot",
            source=ASKED,
        )
    return Claim(
        claim=f"{claim}: rank correlation",
        claimed="> 0.5",
        found=known,
        verdict=judge([True if each.low > 0.5 else None if each.high > 0.5 else False
                       for each in known]),
        note="emergence of matched features; refuted where an interval lies below; intervals over "
        f"features{_missing(len(found) - len(known))}",
        source=ASKED,
    )  # fmt: skip


def _missing(pairs: int) -> str:
    return f"; without {pairs} pairs, which match too few" if pairs else ""


def _order(first: Trained, other: Trained, matching: Matching, seed: int) -> Interval | None:
    """Return how emergence agrees, None where too few features or snapshots can tell."""
    a, b = (
        lifecycle(run.crosscoder.norms().detach(), alive=torch.from_numpy(run.alive))
        for run in (first, other)
    )
    matched = matching.matched()
    emerged = a.emergence[matched], b.emergence[matching.partner[matched]]
    if int(matched.sum()) < LEAST_MATCHED or any(len(each.unique()) < 2 for each in emerged):
        return None
    return compare_emergence(
        a,
        b,
        matching,
        steps_a=first.measured.steps,
        steps_b=other.measured.steps,
        rng=stream(seed, "emergence", other.seed),
    ).correlation
