"""What paper 2509.17196 owes to the seed, the choice of snapshots, and the warm-up of the model.

Most of these are not claims of the paper: its reviewers asked for them. Each rule was written
before the runs.
"""

from collections.abc import Mapping, Sequence
from statistics import median

import torch

from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._feature_claims import Claim, bounds, judge
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
KEPT = 0.9  # share of explained variance that counts as all of it
FOLLOWS = 0.2  # elasticity from which the turning point follows the warm-up
ASKED = "[not in the paper]"


def seeds(runs: Sequence[Trained], seed: int) -> list[Claim]:
    """Judge whether other seeds find the same features, emerging at the same time."""
    first, *others = runs
    matchings = [matching_of(first, other, seed) for other in others]
    return [
        shared_claim("another seed finds the same features", matchings),
        emergence_claim(
            "features of two seeds emerge at the same time",
            [(first, other) for other in others], matchings, seed,
        ),
    ]  # fmt: skip


def spacing(whole: Trained, half: Trained, seed: int) -> list[Claim]:
    """Judge whether a crosscoder over every second snapshot tells the same story."""
    all_steps, kept = whole.measured.steps, half.measured.steps
    turnings = [run.measured.turning for run in (whole, half)]
    places = [sum(step < turning.step for step in all_steps) for turning in turnings]
    gap = abs(places[0] - places[1])
    matching = matching_of(whole, half, seed)
    return [
        Claim(
            claim="half of the snapshots show the same turning point: snapshots between the two",
            claimed="<= 2, the spacing of those that are left",
            found=[bounds(gap)],
            verdict="reproduced" if gap <= 2 else "refuted",
            note=f"turning step {turnings[0].step} over {len(all_steps)} snapshots, "
            f"{turnings[1].step} [{turnings[1].low}, {turnings[1].high}] over {len(kept)}",
            source=ASKED,
        ),
        emergence_claim(
            "features emerge at the same time over half of the snapshots",
            [(whole, half)], [matching], seed,
        ),
    ]  # fmt: skip


def held_out(trained: Mapping[int, float], untrained: Mapping[int, float]) -> Claim:
    """Judge whether rows between two snapshots rebuild one that was not trained on.

    Parameters
    ----------
    trained, untrained
        Explained variance by step, of a crosscoder that knows the snapshot and one that does not.
    """
    shares = {step: value / trained[step] for step, value in untrained.items()}
    values = sorted(shares.values())
    middle = median(values)
    return Claim(
        claim="a snapshot that was left out is rebuilt by rows between its neighbours': share of "
        "the variance explained with it",
        claimed=f">= {KEPT} at every one (partly: at most of them)",
        found=[bounds(middle, low=values[0], high=values[-1])],
        verdict="reproduced" if values[0] >= KEPT else "partly" if middle >= KEPT else "refuted",
        note="the bounds are the least and largest share; by step: "
        + ", ".join(f"{step}: {share:.2f}" for step, share in shares.items()),
        source=ASKED,
    )


def warmup(runs: Mapping[int, Trained], seed: int) -> Claim:
    """Judge whether the turning point follows the learning-rate warm-up of the model.

    Parameters
    ----------
    runs
        By steps of the warm-up.
    """
    cosines = {
        steps: (run.measured.steps, torch.from_numpy(run.arrays["cosines"][run.alive]))
        for steps, run in runs.items()
    }
    effect = warmup_effect(cosines, rng=stream(seed, "warm-up"))
    found = effect.elasticity
    free = found.high < FOLLOWS
    pairs = zip(effect.warmups, effect.turning_steps, strict=True)
    return Claim(
        claim="the turning point does not follow the warm-up of the learning rate: elasticity",
        claimed=f"< {FOLLOWS} (0: ignores it, 1: follows it)",
        found=[found],
        verdict="reproduced" if free else "refuted" if found.low > FOLLOWS else "partly",
        note="models of the smallest scale; turning step by warm-up: "
        + ", ".join(f"{turning} by {steps}" for steps, turning in pairs)
        + "; the interval is over features",
        source=ASKED,
    )


def shared_claim(claim: str, matchings: Sequence[Matching]) -> Claim:
    """Judge whether two crosscoders share as many features as autoencoders of two seeds do."""
    shares = [matching.shared() for matching in matchings]
    return Claim(
        claim=f"{claim}: share with cosine >= {MATCH}",
        claimed=">= 0.3 (0.30 to 0.42 for autoencoders of two seeds)",
        found=shares,
        verdict=judge([True if each.low >= 0.3 else None if each.high >= 0.3 else False
                       for each in shares]),
        note="mutual nearest neighbours among living features; interval by Wilson",
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
            note=f"{counts} features are matched, or all of them emerge at one snapshot",
            source=ASKED,
        )
    return Claim(
        claim=f"{claim}: rank correlation",
        claimed="> 0.5",
        found=known,
        verdict=judge([True if each.low > 0.5 else None if each.high > 0.5 else False
                       for each in known]),
        note="emergence of matched features; refuted where the interval lies below",
        source=ASKED,
    )  # fmt: skip


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
