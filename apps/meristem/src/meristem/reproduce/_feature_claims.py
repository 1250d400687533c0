"""The claims of paper 2509.17196 about features; each rule was written before the runs.

A claim is judged on every seed of the crosscoder. Of several seeds the row shows the one in the
middle, with its own 95 % interval over features, and the note gives all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from meristem._rows import Row, Verdict
from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._pythia import Trajectory
from meristem_core import Interval, bootstrap_interval, stream, wilson_interval

THRESHOLDS = ("0.3", "0.5", "0.7")
RESAMPLES = 300
TASK_ACCURACY = 0.7  # below it the model does not do the task, and no feature can carry it
PAPER = "arXiv 2509.17196"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim with the measurement of every seed and the verdict on all of them."""

    claim: str
    claimed: str
    found: Sequence[Interval]
    verdict: Verdict
    note: str
    source: str = PAPER
    over_seeds: bool = False  # whether the bounds are the seeds, for lack of an interval of each

    def row(self, *, n: int, seconds: float, seed: int) -> Row:
        """Return the row with the middle seed; nothing was measured if there is none."""
        ordered = sorted(self.found, key=lambda each: each.estimate)
        middle = ordered[len(ordered) // 2] if ordered else None
        low, high = (middle.low, middle.high) if middle else (None, None)
        note = self.note
        if ordered and self.over_seeds:
            low, high = ordered[0].estimate, ordered[-1].estimate
            note += "; the bounds are the seeds"
        if len(ordered) > 1:
            note += "; seeds: " + ", ".join(f"{each.estimate:.3g}" for each in self.found)
        return Row(
            claim=self.claim, source=self.source, claimed=self.claimed,
            measured=middle.estimate if middle else None, low=low, high=high, n=n,
            verdict=self.verdict, note=note, seconds=seconds, seed=seed,
        )  # fmt: skip


def bounds(
    estimate: float | int, low: float | int | None = None, high: float | int | None = None
) -> Interval:
    """Return a measurement with bounds whose meaning the note of its claim says; default: none."""
    ends = (float(estimate if end is None else end) for end in (low, high))
    return Interval(estimate=float(estimate), low=next(ends), high=next(ends), level=0.95,
                    covers="see note")  # fmt: skip


def judge(held: Sequence[bool | None]) -> Verdict:
    """Return the verdict on seeds: all hold, some or some partly, none."""
    if all(held):
        return "reproduced"
    return "partly" if any(each is not False for each in held) else "refuted"


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
        note=f"threshold 0.5 of the largest norm; interval by Wilson; median lifetime {lifetimes}",
    )


def directions(runs: Sequence[Trained], seed: int) -> list[Claim]:
    """Judge whether directions before and after the turning point are nearly unrelated."""
    between: list[Interval] = []
    late: list[Interval] = []
    steps: list[Interval] = []
    for run in runs:
        rng = stream(seed, "turning", run.seed)
        cosines = run.arrays["cosines"][run.alive].astype(np.float64)
        split = run.measured.steps.index(run.measured.turning.step)
        late_mask = np.triu(np.ones(cosines.shape[1:], bool), 1)
        late_mask[:split] = False
        between.append(_mean(cosines[:, :split, split:].mean((1, 2)), rng))
        if late_mask.any():
            late.append(_mean(cosines[:, late_mask].mean(1), rng))
        turning = run.measured.turning
        steps.append(bounds(turning.step, low=turning.low, high=turning.high))  # fmt: skip
    note = "turning step [95 %]: " + ", ".join(
        f"{each.estimate:g} [{each.low:g}, {each.high:g}]" for each in steps
    )
    return [
        Claim(
            claim="directions before and after the turning point are nearly orthogonal: cosine",
            claimed="< 0.2",
            found=between,
            verdict=judge([each.high < 0.2 for each in between]),
            note=note,
        ),
        Claim(
            claim="after the turning point directions move slowly: cosine",
            claimed="> 0.5",
            found=late or between,
            verdict=judge([each.low > 0.5 for each in late]) if late else "not testable here",
            note="mean over pairs of later snapshots, resampled over features",
        ),
    ]


def complexity(runs: Sequence[Trained]) -> Claim | None:
    """Judge whether features that come later need more context."""
    found = [run.measured.complexity for run in runs]
    known = [each for each in found if each is not None]
    if not known:
        return None
    above = sum(each.low > 0 for each in known)
    verdict: Verdict = "reproduced" if above >= 2 else ("partly" if above else "refuted")
    return Claim(
        claim="later features are more complex: rank correlation of emergence and context length",
        claimed="> 0 in at least 2 of 3 seeds (r = 0.309 with a model's grades)",
        found=[bounds(each.estimate, low=each.low, high=each.high) for each in known],
        verdict=verdict,
        note="context length: tokens that a feature needs for half of its strength",
    )  # fmt: skip


def tasks(runs: Sequence[Trained]) -> list[Claim]:
    """Judge whether tens of features restore a behaviour, and random ones do not."""
    names = {task.name for run in runs for task in run.attributed.tasks}
    return [_task(name, runs) for name in sorted(names)]


def _task(name: str, runs: Sequence[Trained]) -> Claim:
    found: list[Interval] = []
    held: list[bool | None] = []
    counts: list[str] = []
    accuracies: list[float] = []
    for run in runs:
        task = next(each for each in run.attributed.tasks if each.name == name)
        accuracies.append(task.accuracy[-1])
        shares = task.restore
        if shares is None:
            continue
        few = [place for place, k in enumerate(shares.features) if 1 <= k <= 64]
        best = max(few, key=shares.faithfulness.__getitem__)
        value = shares.faithfulness[best]
        low, high = shares.low[best], shares.high[best]
        found.append(bounds(value))
        held.append(True if value >= 0.8 and high < 0.2 else (None if value > high else False))
        counts.append(f"{shares.features[best]} (random ones {low:.2f} to {high:.2f})")
    able = median(accuracies) >= TASK_ACCURACY
    verdict: Verdict = judge(held) if able and held else "not testable here"
    accuracy = ", ".join(f"{each:.2f}" for each in accuracies)
    return Claim(
        claim=f"tens of features restore {name}: faithfulness",
        claimed=">= 0.8 with at most 64 features, random ones below 0.2",
        found=found,
        over_seeds=True,
        verdict=verdict,
        note=f"features: {', '.join(counts)}; accuracy of the model: {accuracy}",
    )


def phases(runs: Sequence[Trained]) -> list[Claim]:
    """Judge whether turning point, end of the bigrams and least dimensionality fall together."""
    held: list[bool | None] = []
    gaps: list[Interval] = []
    notes: list[str] = []
    for run in runs:
        measured = run.measured
        turn = measured.steps.index(measured.turning.step)
        end = measured.steps.index(measured.learning.statistical_end)
        least = int(np.argmin(measured.dimensionality))
        places = (turn, end, least)
        near = [abs(a - b) <= 1 for a, b in ((turn, end), (turn, least), (end, least))]
        held.append(True if near[0] and near[1] else (None if any(near) else False))
        gap = max(places) - min(places)
        gaps.append(bounds(gap))
        notes.append(f"{measured.turning.step}/{measured.learning.statistical_end}/"
                     f"{measured.steps[least]}")  # fmt: skip
    return [
        Claim(
            claim="a statistical phase comes before the features: snapshots from the turning point "
            "to the end of the bigrams and the least dimensionality",
            claimed="both within one snapshot of the turning point",
            found=gaps,
            over_seeds=True,
            verdict=judge(held),
            note=f"steps of the three: {'; '.join(notes)}",
        ),
        dimensions(runs),
    ]


def dimensions(runs: Sequence[Trained]) -> Claim:
    """Judge whether the dimensionality of features falls, and rises to most of the width."""
    found: list[Interval] = []
    held: list[bool | None] = []
    courses: list[str] = []
    for run in runs:
        curve = run.measured.dimensionality
        least = min(curve)
        inside = 0 < int(np.argmin(curve)) < len(curve) - 1
        bends = inside and curve[0] - least > 0.1 and curve[-1] - least > 0.1
        held.append(True if bends and curve[-1] >= 0.6 else (None if bends else False))
        found.append(bounds(curve[-1]))
        courses.append(f"{curve[0]:.2f} to {least:.2f} to {curve[-1]:.2f}")
    return Claim(
        claim="total dimensionality falls, then rises to most of the width: share at the end",
        claimed="about 0.7 (rule: a fall and a rise by 0.1, an end of at least 0.6)",
        found=found,
        verdict=judge(held),
        over_seeds=True,
        note="; ".join(courses),
    )


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
            found.append(bounds(middle.estimate, low=middle.low, high=middle.high))  # fmt: skip
            held.append(True if share > 0.5 else (None if middle.low > 0 else False))
        worst = max(measured.shrunk)
        shrunk.append(wilson_interval(round(worst * measured.alive), measured.alive))
    claims = [
        Claim(
            claim="a small norm is a missing feature: largest share of features whose norm is "
            "small although the activations hold more than half of it",
            claimed="< 0.05 at every snapshot",
            found=shrunk,
            verdict=judge([each.high < 0.05 for each in shrunk]),
            note="latent scaling (arXiv 2504.02922): norm below a tenth of its largest, nu > 0.5",
        )
    ]
    if found:
        claims.insert(
            0,
            Claim(
                claim="the norm measures presence: rank correlation with separability",
                claimed="> 0.5 at most snapshots",
                found=found,
                verdict=judge(held),
                note="the snapshot in the middle; separability: AUC of Fisher's discriminant",
            ),
        )
    return claims


def quality(run: Trained, separate: Mapping[int, float]) -> Claim:
    """Judge whether one crosscoder rebuilds as well as a dictionary for each snapshot."""
    measured = run.measured
    together = dict(zip(measured.steps, measured.explained_variance, strict=True))
    gaps = [100 * (together[step] - separate[step]) for step in separate]
    mean = float(np.mean(gaps))
    verdict: Verdict = "reproduced" if mean >= -1 else ("partly" if mean >= -3 else "refuted")
    values = "; ".join(f"step {step}: {together[step]:.3f} and {value:.3f}"
                       for step, value in separate.items())  # fmt: skip
    return Claim(
        claim="one crosscoder rebuilds as well as a dictionary for each snapshot: difference",
        claimed=">= -1 point of explained variance on average, at equal open features",
        found=[bounds(mean, low=min(gaps), high=max(gaps))],
        verdict=verdict,
        note=f"the bounds are the least and largest difference; crosscoder and own: {values}",
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
        over_seeds=True,
    )


def pythia(trajectories: Sequence[Trajectory]) -> Claim:
    """Judge whether Pythia leaves chance where the paper sees its directions turn."""
    found = {each.task: each.leaves(0.1) for each in trajectories}
    steps = sorted(found.values())
    held = [True if 512 <= step <= 3000 else None for step in found.values()]
    return Claim(
        claim="Pythia-160M leaves chance where its features turn (about step 1000): step of a "
        "tenth of the gain in accuracy",
        claimed="512 to 3000, the evaluated steps beside 1000",
        found=[bounds(steps[len(steps) // 2], low=steps[0], high=steps[-1])],
        verdict=judge(held),
        note="public evaluations, the bounds are the tasks: "
        + ", ".join(f"{task} {step}" for task, step in found.items()),
    )  # fmt: skip


def _mean(values: np.ndarray, rng: np.random.Generator) -> Interval:
    statistic: Callable[[np.ndarray], float] = lambda rows: float(values[rows].mean())  # noqa: E731
    return bootstrap_interval(statistic, values.size, rng=rng, n_resamples=RESAMPLES)
