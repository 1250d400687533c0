"""The claims of paper 2509.17196 about features; each rule was written before the runs."""

from collections.abc import Callable, Sequence

import numpy as np

from meristem._rows import Verdict
from meristem.reproduce._claims import RESAMPLES, Claim, bounds, explained, judge
from meristem.reproduce._crosscoders import Trained
from meristem_core import Interval, bootstrap_interval, stream, wilson_interval

THRESHOLDS = ("0.3", "0.5", "0.7")


def two_classes(runs: Sequence[Trained]) -> Claim:
    """Judge whether initial and emergent features are both common, and the later ones persist."""
    found: list[Interval] = []
    held: list[bool | None] = []
    for run in runs:
        measured = run.measured
        shares = [
            min(measured.kinds[h]["initial"], measured.kinds[h]["emergent"]) / measured.alive
            for h in THRESHOLDS
        ]
        kinds = measured.kinds["0.5"]
        rarer = min(kinds["initial"], kinds["emergent"])
        found.append(wilson_interval(rarer, measured.alive))
        full = found[-1].low >= 0.05 and measured.median_lifetime >= 0.6
        held.append(True if full else (None if max(shares) >= 0.05 else False))
    lifetimes = ", ".join(f"{run.measured.median_lifetime:.2f}" for run in runs)
    return Claim(
        claim="initial and emergent features both exist: share of the rarer kind",
        claimed=">= 0.05, and later ones persist in >= 0.6 of the snapshots",
        found=found,
        verdict=judge(held),
        note="threshold 0.5 of the largest norm; intervals of seeds by Wilson; median lifetime "
        f"{lifetimes}",
    )


def directions(runs: Sequence[Trained], seed: int) -> list[Claim]:
    """Judge whether directions before and after the turning point are nearly unrelated."""
    between: list[Interval] = []
    late: list[Interval] = []
    steps: list[str] = []
    for run in runs:
        rng = stream(seed, "turning", run.seed)
        cosines = run.arrays["cosines"][run.alive].astype(np.float64)
        turning = run.measured.turning
        split = run.measured.steps.index(turning.step)
        late_mask = np.triu(np.ones(cosines.shape[1:], bool), 1)
        late_mask[:split] = False
        between.append(_mean(cosines[:, :split, split:].mean((1, 2)), rng))
        if late_mask.any():
            late.append(_mean(cosines[:, late_mask].mean(1), rng))
        steps.append(f"{turning.step} [{turning.low}, {turning.high}]")
    return [
        Claim(
            claim="directions before and after the turning point are nearly orthogonal: cosine",
            claimed="< 0.2",
            found=between,
            verdict=judge([each.high < 0.2 for each in between]),
            note=f"turning step [95 %]: {', '.join(steps)}",
        ),
        Claim(
            claim="after the turning point directions move slowly: cosine",
            claimed="> 0.5",
            found=late,
            verdict=judge([each.low > 0.5 for each in late]),
            note=explained(
                "mean over pairs of later snapshots; intervals of seeds over features",
                "the last snapshot alone is after the turning point",
                len(late),
                len(runs),
            ),
        ),
    ]


def complexity(runs: Sequence[Trained]) -> Claim:
    """Judge whether features that come later need more context."""
    known = [run.measured.complexity for run in runs if run.measured.complexity is not None]
    above = sum(each.low > 0 for each in known)
    verdict: Verdict = "reproduced" if above >= 2 else ("partly" if above else "refuted")
    return Claim(
        claim="later features are more complex: rank correlation of emergence and context length",
        claimed="> 0 in at least 2 of 3 seeds (r = 0.309 with a model's grades)",
        found=[bounds(each.estimate, low=each.low, high=each.high) for each in known],
        verdict=verdict if known else "not testable here",
        note=explained(
            "context length: tokens that a feature needs for half of its strength; intervals of "
            "seeds over features",
            "all features emerge at one snapshot or need equal contexts",
            len(known), len(runs),
        ),
    )  # fmt: skip


def norms(runs: Sequence[Trained]) -> list[Claim]:
    """Judge whether decoder norms measure presence."""
    found: list[Interval] = []
    held: list[bool | None] = []
    shrunk: list[Interval] = []
    for run in runs:
        measured = run.measured
        known = [each for each in measured.norm_agreement if each is not None]
        if known:
            middle = sorted(known, key=lambda each: each.estimate)[len(known) // 2]
            share = sum(each.estimate > 0.5 for each in known) / len(known)
            found.append(bounds(middle.estimate, low=middle.low, high=middle.high))
            held.append(True if share > 0.5 else (None if middle.low > 0 else False))
        worst = max(measured.shrunk)
        shrunk.append(wilson_interval(round(worst * measured.alive), measured.alive))
    return [
        Claim(
            claim="the norm measures presence: rank correlation with separability",
            claimed="> 0.5 at most snapshots",
            found=found,
            verdict=judge(held),
            note=explained(
                "the snapshot in the middle; separability: AUC of Fisher's discriminant; "
                "intervals of seeds over features",
                "too few features fire often enough at any snapshot to be separated",
                len(found),
                len(runs),
            ),
        ),
        Claim(
            claim="a small norm is a missing feature: largest share of features whose norm is "
            "small although the activations hold more than half of it",
            claimed="< 0.05 at every snapshot",
            found=shrunk,
            verdict=judge([each.high < 0.05 for each in shrunk]),
            note="latent scaling (arXiv 2504.02922): norm below a tenth of its largest, nu > 0.5; "
            "intervals of seeds by Wilson",
        ),
    ]


def _mean(values: np.ndarray, rng: np.random.Generator) -> Interval:
    statistic: Callable[[np.ndarray], float] = lambda rows: float(values[rows].mean())  # noqa: E731
    return bootstrap_interval(statistic, values.size, rng=rng, n_resamples=RESAMPLES)
