"""What the numbers say, in sentences that need no psychometrics."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from meristem_exam._exam import Exam, RaterStudy


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence, and whether it is good news (True), worth a look (None) or trouble (False)."""

    text: str
    good: bool | None


def find(exam: "Exam") -> list[Finding]:
    """Return the findings, the most general first; sentences without their input are absent."""
    parts = [
        _ranking(exam),
        _items(exam),
        _steps(exam),
        _systems(exam),
        _halves(exam),
        _alignment(exam),
        _dispersion(exam),
        _length(exam),
        _dif(exam),
        _graders(exam),
    ]
    return [part for part in parts if part is not None]


def _ranking(exam: "Exam") -> Finding | None:
    s = exam.scale
    known = np.flatnonzero(~np.isnan(s.ability))
    order = known[np.argsort(-s.ability[known])]
    first = order[0]
    tied = int(s.rank[order, 0].tolist().count(1))
    distinct = _levels(s.ability[order], s.ability_se[order])
    lead = (
        f"{s.systems[first]} is ahead of all others"
        if tied == 1
        else f"{s.systems[first]} scores highest, but {tied - 1} other"
        f"{'s' if tied > 2 else ''} cannot be told apart from it"
    )
    if s.reliability <= 0:
        text = (
            f"{s.systems[first]} scores highest, but the {len(order):,} systems differ no more "
            "than their errors: these answers do not rank them (reliability 0)."
        )
        return Finding(text, False)
    text = (
        f"{lead}; the {len(order):,} systems fall into about {distinct} distinguishable level"
        f"{'s' if distinct != 1 else ''} (reliability {s.reliability:.2f})."
    )
    return Finding(text, True if s.reliability >= 0.8 else None if s.reliability >= 0.5 else False)


def _levels(ability: np.ndarray, se: np.ndarray) -> int:
    """Return how many groups a descending list falls into whose first members surely differ."""
    count, first = 1, 0
    for v in range(len(ability)):
        if ability[first] - ability[v] > 1.96 * np.hypot(se[first], se[v]):
            count, first = count + 1, v
    return count


def _items(exam: "Exam") -> Finding | None:
    s = exam.scale
    wrong = np.flatnonzero(s.reversed)
    noisy = np.flatnonzero(s.item_fit.noisy)
    text = f"{len(s.items):,} items"
    if len(wrong):
        worst = s.items[int(wrong[np.argmin(s.discrimination[wrong])])]
        text += (
            f": on {len(wrong):,} of them ({len(wrong) / len(s.items):.0%}) stronger systems do "
            f"worse than weaker ones; check their keys first, beginning with {worst}"
        )
    else:
        text += ": on none of them do stronger systems surely do worse than weaker ones"
    if len(noisy):
        text += f"; {len(noisy):,} nearly random items (outfit above 1.3) blur the ranking"
    few = len(wrong) + len(noisy) <= 0.05 * len(s.items)
    return Finding(text + ".", None if len(wrong) or not few else True)


def _steps(exam: "Exam") -> Finding | None:
    cal = exam.scale.calibration
    if cal is None or not cal.disordered:
        return None
    first = cal.disordered[0]
    return Finding(
        f"On {len(cal.disordered):,} of {len(cal.items):,} items, {first} first, thresholds are "
        "out of order: some score between the lowest and the highest is nowhere the most likely "
        "one; ask whether it means what it should, or merge it with its neighbour.",
        None,
    )


def _systems(exam: "Exam") -> Finding | None:
    s = exam.scale
    odd = np.flatnonzero(s.system_fit.noisy)
    if not len(odd):
        untested = bool(np.isnan(s.system_fit.p).all())
        return None if untested else Finding("Every system behaves as one ability would.", True)
    worst = s.systems[int(odd[np.argmax(s.system_fit.outfit[odd])])]
    text = (
        f"{len(odd):,} of {len(s.systems):,} systems succeed on hard items and fail on easy ones "
        f"more than one ability explains, {worst} most: their place depends on which items are "
        "asked."
    )
    return Finding(text, None)


def _halves(exam: "Exam") -> Finding | None:
    h = exam.halves
    if h is None:
        return None
    same = h.rmsd < 0.3
    text = (
        f"Measured on {h.by} apart, the {h.what} {'keep' if same else 'do not keep'} their "
        f"{'difficulty' if h.what == 'items' else 'ability'}: they differ by {h.rmsd:.2f} logits "
        f"beyond error (correlation {h.correlation:.2f}), so one scale "
        f"{'describes them well' if same else 'is a simplification'}."
    )
    return Finding(text, True if same else None)


def _alignment(exam: "Exam") -> Finding | None:
    a = exam.alignment
    if a is None:
        return None
    label, free = a.rung("system"), a.rung("loo")
    text = (
        f"The difficulty labels explain {max(label.r2, 0):.0%} of the differences between scores, "
        f"difficulty as other systems meet it {max(free.r2, 0):.0%}: "
        f"{_means(label.low, label.slope)}."
    )
    return Finding(text, label.low > 0 and (label.slope or 0) > 0)


def _means(low: float, slope: float | None) -> str:
    if low > 0 and slope is not None and slope > 0:
        return "harder labels do mean lower scores"
    if low > 0:
        return "harder labels go with higher scores"
    return "the labels say nothing certain about these systems"


def _dispersion(exam: "Exam") -> Finding | None:
    d = exam.overdispersion
    if d is None:
        return None
    held = d.held_out
    more = held.ratio > held.chance_high
    text = (
        f"Scores vary {held.ratio:.1f} times as much around the scale as independent points would "
        f"({'chance alone gives at most ' if more else 'within what chance gives, up to '}"
        f"{held.chance_high:.1f}): "
        + (
            "systems have strengths and weaknesses that one number hides."
            if more
            else "one number per system is enough."
        )
    )
    return Finding(text, None if more else True)


def _length(exam: "Exam") -> Finding | None:
    study = exam.length_answered or exam.length
    if study is None:
        return None
    sign = 1 if study.items.r < 0 else -1
    others = sum(sign * (each.high if sign > 0 else each.low) < 0 for each in study.others)
    clean = " (unanswered outputs left out)" if exam.length_answered else ""
    reason = (
        "so it is the question and not the rambling"
        if others > len(study.systems) / 2
        else "so length says little about the question itself"
    )
    text = (
        f"Questions with longer answers score {'lower' if sign > 0 else 'higher'}: correlation "
        f"{study.items.r:.2f} over {study.items.n:,} items{clean}; for {others} of "
        f"{len(study.systems)} systems this holds for the lengths of the other systems' answers, "
        f"{reason}."
    )
    return Finding(text, None)


def _dif(exam: "Exam") -> Finding | None:
    if exam.dif is None:
        return None
    large = [n for n, c in zip(exam.dif.items, exam.dif.classes, strict=True) if c == "C"]
    if not large:
        text = f"No item treats {exam.dif.reference} and {exam.dif.focal} very differently."
        return Finding(text, True)
    text = (
        f"{len(large)} item{'s' if len(large) > 1 else ''} "
        f"({', '.join(large[:3])}{', ...' if len(large) > 3 else ''}) are much harder or easier "
        f"for {exam.dif.focal} than for {exam.dif.reference} of the same ability."
    )
    return Finding(text, False)


def _graders(exam: "Exam") -> Finding | None:
    study = exam.graders
    if study is None:
        return None
    text = f"The graders agree {_grade(study)}."
    if exam.human is not None:
        text += f" The human raters agree {_grade(exam.human)}."
    alpha = study.agreement.alpha
    return Finding(text, True if alpha >= 0.8 else None if alpha >= 0.667 else False)


def _grade(study: "RaterStudy") -> str:
    a = study.agreement
    word = "well" if a.alpha >= 0.8 else "tolerably" if a.alpha >= 0.667 else "poorly"
    apart = float(np.ptp(study.severity))
    return (
        f"{word} (Krippendorff's alpha {a.alpha:.2f} [{a.alpha_low:.2f}, {a.alpha_high:.2f}]); "
        f"the strictest and the most lenient are {apart:.1f} logits apart, and a share of "
        f"{a.isr.rate:.0%} inconsistent scores is {_beside(a.isr.rate, a.isr.gaussian)} the "
        f"{a.isr.gaussian:.0%} that the bell shape alone gives"
    )


def _beside(rate: float, chance: float) -> str:
    if abs(rate - chance) < 0.03:
        return "no more than"
    return "above" if rate > chance else "below"
