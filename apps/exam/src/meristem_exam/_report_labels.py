"""Sections of the report about what labels, chance and answer lengths explain."""

from collections.abc import Sequence

import numpy as np

from meristem_core.report import Block, Cell, Drawing, Table, Text
from meristem_exam._exam import Exam
from meristem_exam._figures import intervals, scatter
from meristem_exam._report_words import RANKED, fixed
from meristem_rasch import Alignment, LengthStudy, Overdispersion

RUNGS = {
    "fixed": "the label as it stands, one curve, ability 0",
    "pooled": "one fitted curve for all systems",
    "system": "one fitted curve, systems of different ability",
    "rasch": "free difficulty of every item, in sample",
    "loo": "difficulty met by the other systems only",
}


def alignment_section(exam: Exam) -> list[Block]:
    """Return how far difficulty labels explain the scores; empty without labels."""
    a = exam.alignment
    if a is None or exam.evidence.difficulty is None:
        return []
    label = exam.evidence.difficulty
    kept = np.flatnonzero(~np.isnan(label))
    names = exam.evidence.difficulty_names
    s = exam.scale
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(kept)) if names else 0.0
    met = Drawing(
        title="Label against the difficulty that systems meet",
        svg=scatter(
            (label[kept] + jitter).tolist(),
            a.difficulty.tolist(),
            [s.items[i] for i in kept],
            ["c0"] * len(kept),
            x_label="difficulty label",
            y_label="difficulty met, logits",
            x_ticks=[(k + 1.0, name) for k, name in enumerate(names) if k + 1 in label] or None,
            lines=[_means_by_label(label[kept], a.difficulty)],
        ),
        legend=[("c0", "an item"), ("c1", "mean of the label")],
    )
    ladder = Drawing(
        title="How much of the scores each reading explains",
        svg=intervals(
            [rung.name for rung in a.rungs],
            [max(rung.r2, -1.0) for rung in a.rungs],
            [max(rung.low, -1.0) for rung in a.rungs],
            [max(rung.high, -1.0) for rung in a.rungs],
            axis="R²",
        ),
        note="fixed, pooled and system use the labels; rasch and loo do not. Values below −1 are "
        "drawn there.",
    )
    rows: list[Sequence[Cell]] = [
        [
            rung.name,
            RUNGS[rung.name],
            fixed(rung.r2),
            f"{fixed(rung.low)} to {fixed(rung.high)}",
            None if rung.r2_held_out is None else fixed(rung.r2_held_out),
        ]
        for rung in a.rungs
    ]
    return [
        Text(
            "If a label is right, systems solve fewer of the items that it calls hard. The rows "
            "climb from the literal reading of the label to difficulty as the other systems meet "
            "it, which is the most that any label could explain for a single scale."
        ),
        met,
        ladder,
        Table(
            columns=["reading", "what it assumes", "R²", "95 % over items", "on new items"],
            rows=rows,
            caption=f"{a.items:,} labelled items"
            + (f", {a.unlabelled:,} without a label left out" if a.unlabelled else ""),
        ),
        *_correlations(a),
    ]


def _means_by_label(
    label: np.ndarray, difficulty: np.ndarray
) -> tuple[list[float], list[float], str]:
    edges = np.unique(label)
    if len(edges) > 12:
        order = np.argsort(label, kind="stable")
        parts = np.array_split(order, 8)
    else:
        parts = [np.flatnonzero(label == edge) for edge in edges]
    return (
        [float(label[part].mean()) for part in parts],
        [float(difficulty[part].mean()) for part in parts],
        "c1",
    )


def _correlations(a: Alignment) -> list[Block]:
    if not a.correlations:
        return []
    groups = list(dict.fromkeys(each.group for each in a.correlations))
    rows: list[Sequence[Cell]] = []
    for group in groups:
        found = [each for each in a.correlations if each.group == group]
        rows.append(
            [
                group,
                found[0].n,
                fixed(float(np.mean([each.pearson for each in found]))),
                f"{sum(each.high < 0 for each in found)} of {len(found)}",
                f"{sum(each.low > 0 for each in found)} of {len(found)}",
            ]
        )
    return [
        Table(
            columns=["items", "n", "mean correlation", "surely negative", "surely positive"],
            rows=rows,
            caption="Label and score of one system: for how many systems the 95 % interval "
            "excludes 0; negative = harder labels score less",
        )
    ]


def dispersion_section(exam: Exam) -> list[Block]:
    """Return the variance around the scale; empty where it was not measured."""
    d = exam.overdispersion
    if d is None:
        return []
    return [
        Text(
            "With independent points, scores of one expectation would scatter only by chance. What "
            "exceeds it are strengths and weaknesses of systems on particular items, or points "
            "that depend on each other within an item."
        ),
        _dispersion_drawing(d),
        Table(
            columns=["", "times the chance variance", "95 % over items", "chance gives"],
            rows=[
                [
                    name,
                    fixed(x.ratio),
                    f"{fixed(x.low)} to {fixed(x.high)}",
                    f"{fixed(x.chance_low)} to {fixed(x.chance_high)}",
                ]
                for name, x in (
                    ("difficulty from all systems", d.in_sample),
                    ("difficulty from the other systems", d.held_out),
                )
            ],
        ),
    ]


def _dispersion_drawing(d: Overdispersion) -> Drawing:
    x = [row.expected for row in d.bins]
    return Drawing(
        title="Variance around the scale",
        svg=scatter(
            x,
            [row.variance for row in d.bins],
            [f"{row.cells} scores" for row in d.bins],
            ["c0"] * len(d.bins),
            x_label="expected score",
            y_label="variance",
            lines=[
                (x, [row.binomial for row in d.bins], "c1"),
                (x, [row.variance for row in d.bins], "c0"),
            ],
        ),
        legend=[("c0", "observed"), ("c1", "if points were independent")],
    )


def length_section(exam: Exam) -> list[Block]:
    """Return what lengths of answers tell; empty without lengths."""
    if exam.length is None:
        return []
    rows: list[Sequence[Cell]] = []
    for name, study in (("all outputs", exam.length), ("answered only", exam.length_answered)):
        if study is not None:
            rows += _length_rows(name, study)
    study = exam.length_answered or exam.length
    order = np.argsort([each.r for each in study.others])
    shown = order[:RANKED]
    return [
        Text(
            "Long answers may mark hard questions, or systems that are lost. The lengths of the "
            "other systems' answers cannot know that this system is lost: where they predict its "
            "score, length measures the question."
        ),
        Drawing(
            title="Other systems' length against a system's score",
            svg=intervals(
                [study.systems[v] for v in shown],
                [study.others[v].r for v in shown],
                [study.others[v].low for v in shown],
                [study.others[v].high for v in shown],
                axis="correlation over items; negative = longer is harder",
            ),
        ),
        Table(
            columns=["outputs", "what", "correlation or R²", "95 %", "n"],
            rows=rows,
            caption="Lengths are logarithms, standardised within each system"
            + (
                f"; {exam.length_answered.dropped:,} outputs without an answer left out below"
                if exam.length_answered
                else ""
            ),
        ),
    ]


def _length_rows(name: str, study: LengthStudy) -> list[Sequence[Cell]]:
    def row(what: str, r: float, low: float, high: float, n: int) -> list[Cell]:
        return [name, what, fixed(r), f"{fixed(low)} to {fixed(high)}", n]

    item, partial = study.items, study.partial
    rows: list[Sequence[Cell]] = [
        row("mean length, mean score of items", item.r, item.low, item.high, item.n)
    ]
    if partial is not None:
        rows.append(
            row("the same within subjects", partial.r, partial.low, partial.high, partial.n)
        )
    rung, free = study.alignment.rung("system"), study.alignment.rung("loo")
    rows.append(row("R² of length as difficulty", rung.r2, rung.low, rung.high, item.n))
    rows.append(row("R² of difficulty from other systems", free.r2, free.low, free.high, item.n))
    return rows
