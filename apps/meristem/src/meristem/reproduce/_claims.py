"""A claim of paper 2509.17196, measured with crosscoders of several seeds.

Its row has the mean of the seeds, with Student's 95 % interval over them: whatever a seed decides
(initial weights, order of data, held-out text) is in it. The note has every seed, with the interval
over features, tokens or pairs that it has of itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from meristem._rows import Row, Verdict
from meristem_core import Interval

RESAMPLES = 300
PAPER = "arXiv 2509.17196"
ASKED = "[not in the paper]"
LEVEL = 0.95
SHARED = 2.0  # three pairs of three seeds are dependent: the jackknife over seeds doubles the error


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim with the measurement of every seed and the verdict on all of them."""

    claim: str
    claimed: str
    found: Sequence[Interval]  # none if nothing could be measured; the note says why
    verdict: Verdict
    note: str
    source: str = PAPER
    pairs: bool = False  # whether each measurement is one of all pairs of seeds

    def row(self, *, seconds: float, seed: int) -> Row:
        """Return the row with the mean of the seeds."""
        whole = over_seeds(self.found, pairs=self.pairs) if self.found else None
        note = self.note
        if len(self.found) > 1:
            kind = "pairs of seeds" if self.pairs else "seeds"
            note += f"; {kind}: " + ", ".join(_text(each) for each in self.found)
        if whole is not None and whole.covers:
            note += f"; {whole.covers}"
        return Row(
            claim=self.claim, source=self.source, claimed=self.claimed,
            measured=whole.estimate if whole else None, low=whole.low if whole else None,
            high=whole.high if whole else None, n=len(self.found), verdict=self.verdict,
            note=note, seconds=seconds, seed=seed,
        )  # fmt: skip


def over_seeds(found: Sequence[Interval], *, pairs: bool = False) -> Interval:
    """Return the mean of measurements, one or more, with Student's interval over them.

    Parameters
    ----------
    pairs
        Whether these are the three pairs of three seeds, which share seeds.

    Notes
    -----
    Where all agree exactly, as counts of snapshots do, the spread says nothing: the bounds are then
    the outermost of theirs.
    """
    values = np.array([each.estimate for each in found])
    if np.ptp(values) == 0:
        return Interval(
            estimate=found[0].estimate,
            low=min(each.low for each in found),
            high=max(each.high for each in found),
            level=LEVEL,
            covers="all agree, the bounds are the outermost of theirs" if len(found) > 1 else "",
        )
    error = values.std(ddof=1) / np.sqrt(values.size) * (SHARED if pairs else 1.0)
    half = float(t.ppf((1 + LEVEL) / 2, values.size - 1) * error)
    mean = float(values.mean())
    return Interval(estimate=mean, low=mean - half, high=mean + half, level=LEVEL,
                    covers="mean and Student's interval over these")  # fmt: skip


def bounds(
    estimate: float | int, low: float | int | None = None, high: float | int | None = None
) -> Interval:
    """Return a measurement with bounds whose meaning the note of its claim says; default: none."""
    ends = (float(estimate if end is None else end) for end in (low, high))
    return Interval(estimate=float(estimate), low=next(ends), high=next(ends), level=LEVEL,
                    covers="see note")  # fmt: skip


def judge(held: Sequence[bool | None]) -> Verdict:
    """Return the verdict on seeds: all hold, some or some partly, none; not testable if empty."""
    if not held:
        return "not testable here"
    if all(held):
        return "reproduced"
    return "partly" if any(each is not False for each in held) else "refuted"


def explained(note: str, why: str, known: int, seeds: int) -> str:
    """Return the note of a claim that `known` of the seeds have a value for, and why not all."""
    if not known:
        return f"no value: in every seed {why}"
    return (
        note if known == seeds else f"{note}; without {seeds - known} of {seeds} seeds, where {why}"
    )


def _text(found: Interval) -> str:
    own = "" if found.low == found.high else f" [{found.low:.3g}, {found.high:.3g}]"
    return f"{found.estimate:.3g}{own}"
