"""Does a longer chain help? Accuracy by rank of length, and lengths of right and wrong samples.

- every question contributes its r-th shortest sample to group r, so groups share the questions
- samples at the token cap are long because they are wrong or unfinished: compare with and without
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from meristem_testtime._estimates import MeanInterval, interval
from meristem_testtime._traces import Traces, blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthProfile:
    """Samples of each question sorted by length; entry r is the mean over the r-th shortest.

    Attributes
    ----------
    tokens, accuracy
        Means of the groups, shortest first.
    markers
        Mean counts of the groups by marker.
    contrast
        Accuracy of the longest minus the shortest group, paired by question.
    """

    tokens: Float[np.ndarray, " n"]
    accuracy: Float[np.ndarray, " n"]
    markers: dict[str, Float[np.ndarray, " n"]]
    contrast: MeanInterval


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthByOutcome:
    """Lengths on questions that have both right and wrong samples.

    Attributes
    ----------
    correct, incorrect
        Mean over questions of the mean length.
    difference
        Correct minus incorrect, paired by question.
    shorter
        Chance that a random right sample is shorter than a random wrong one, ties one half.
    """

    correct: float
    incorrect: float
    difference: MeanInterval
    shorter: MeanInterval


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerTrend:
    """How a marker such as "wait" grows with length, within questions.

    Attributes
    ----------
    slope
        Markers per 1,000 tokens: one least-squares slope for all questions, each centred.
    correlation
        Mean over questions of the correlation between markers and tokens.
    excess
        Markers of right minus wrong samples beyond what their lengths explain, mean over questions
        that have both; None if fewer than two have.
    """

    slope: float
    correlation: MeanInterval
    excess: MeanInterval | None


def marker_trend(traces: Traces, marker: str, *, seed: int = 0) -> MarkerTrend:
    """Return how the count of `marker` goes with length, and with being right at equal length.

    Raises
    ------
    ValueError
        If the traces lack the marker, or neither lengths nor counts vary in two questions.

    References
    ----------
    arXiv 2502.12215, on self-revision and length; the comparison at equal length is ours.
    """
    if marker not in traces.markers:
        raise ValueError(f"there is no marker {marker!r}; there are {list(traces.markers)}")
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for block in blocks(traces):
        counts = traces.markers[marker][block.rows].astype(np.float64)
        x = block.tokens - block.tokens.mean(1, keepdims=True)
        y = counts - counts.mean(1, keepdims=True)
        rows += list(zip(x, y, traces.correct[block.rows], strict=True))
    correlations = [
        float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))
        for x, y, _ in rows
        if x.any() and y.any()
    ]
    if len(correlations) < 2:
        raise ValueError(f"lengths and {marker!r} vary in {len(correlations)} questions, not in 2")
    slope = sum(float((x * y).sum()) for x, y, _ in rows) / sum(
        float((x**2).sum()) for x, _, _ in rows
    )
    excess = [
        float((y - slope * x)[right].mean() - (y - slope * x)[~right].mean())
        for x, y, right in rows
        if right.any() and not right.all()
    ]
    return MarkerTrend(
        slope=1000 * slope,
        correlation=interval(np.array(correlations), seed=seed),
        excess=interval(np.array(excess), seed=seed) if len(excess) > 1 else None,
    )


def length_profile(traces: Traces, *, seed: int = 0) -> LengthProfile:
    """Return accuracy and length by rank of length within the question.

    Equal lengths share their mean, so the order of samples is irrelevant.

    Raises
    ------
    ValueError
        If questions differ in their number of samples, or there is one question.

    References
    ----------
    arXiv 2502.12215.
    """
    found = list(blocks(traces))
    if len(found) > 1:
        sizes = traces.sizes()
        raise ValueError(
            f"questions have {sizes.min()} to {sizes.max()} samples; ranks need equal numbers, so "
            "drop samples"
        )
    rows, tokens = found[0].rows, found[0].tokens
    order = np.argsort(tokens, axis=1, kind="stable")
    right = _shared(tokens, order, traces.correct[rows])
    return LengthProfile(
        tokens=np.sort(tokens, 1).mean(0),
        accuracy=right.mean(0),
        markers={
            name: _shared(tokens, order, column[rows]).mean(0)
            for name, column in traces.markers.items()
        },
        contrast=interval(right[:, -1], minus=right[:, 0], seed=seed),
    )


def length_by_outcome(traces: Traces, *, seed: int = 0) -> LengthByOutcome:
    """Return how long right and wrong samples of the same questions are.

    Raises
    ------
    ValueError
        If fewer than two questions have both right and wrong samples.

    References
    ----------
    arXiv 2502.12215.
    """
    rows: list[tuple[float, float, float]] = []
    for block in blocks(traces):
        for tokens, right in zip(block.tokens, traces.correct[block.rows], strict=True):
            if right.any() and not right.all():
                a, b = tokens[right], tokens[~right]
                gap = np.sign(np.subtract.outer(b, a))
                shorter = float((gap.mean() + 1) / 2)
                rows.append((float(a.mean()), float(b.mean()), shorter))
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} questions have both right and wrong samples; two are needed")
    correct, incorrect, shorter = np.array(rows).T
    return LengthByOutcome(
        correct=float(correct.mean()),
        incorrect=float(incorrect.mean()),
        difference=interval(correct, minus=incorrect, seed=seed),
        shorter=interval(shorter, seed=seed),
    )


def _shared(tokens: np.ndarray, order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return `values` in the order of length, averaged over samples of equal length."""
    ranked = np.take_along_axis(tokens, order, 1)
    sorted_values = np.take_along_axis(values, order, 1).astype(np.float64)
    starts = np.concatenate([np.ones((len(ranked), 1), bool), ranked[:, 1:] != ranked[:, :-1]], 1)
    group = np.cumsum(starts.ravel()) - 1
    mean = np.bincount(group, weights=sorted_values.ravel()) / np.bincount(group)
    return mean[group].reshape(ranked.shape)
