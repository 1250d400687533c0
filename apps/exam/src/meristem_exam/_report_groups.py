"""Sections of the report that compare groups of systems, and graders."""

from collections.abc import Sequence

import numpy as np

from meristem_core.report import Block, Cell, Details, Drawing, Table, Text
from meristem_exam._exam import Exam, RaterStudy
from meristem_exam._figures import intervals
from meristem_exam._report_words import RANKED, SHOWN, fixed


def groups_section(exam: Exam) -> list[Block]:
    """Return the items that work differently in two groups; empty without groups."""
    d = exam.dif
    if d is None:
        return []
    tested = np.flatnonzero(~np.isnan(d.effect))
    order = tested[np.argsort(-np.abs(d.effect[tested]))][:RANKED]
    half = 1.96 * d.se
    colour = {"A": "c0", "B": "c3", "C": "c1", "-": "c5"}
    return [
        Text(
            f"Items right of 0 are harder for {d.focal} than for {d.reference} of the same "
            f"ability. The scales are aligned on {', '.join(d.anchors[:3])}."
        ),
        Drawing(
            title=f"Difference of difficulty, {d.focal} minus {d.reference}",
            svg=intervals(
                [d.items[i] for i in order],
                d.effect[order].tolist(),
                (d.effect - half)[order].tolist(),
                (d.effect + half)[order].tolist(),
                axis="logits",
                kinds=[colour[d.classes[i]] for i in order],
            ),
            legend=[("c0", "A negligible"), ("c3", "B moderate"), ("c1", "C large")],
        ),
    ]


def graders_section(exam: Exam) -> list[Block]:
    """Return agreement and severity of the graders; empty without grades."""
    studies = [(n, x) for n, x in (("graders", exam.graders), ("humans", exam.human)) if x]
    if not studies:
        return []
    blocks: list[Block] = [
        Text(
            "Severity and noise are different diseases: a strict grader can be corrected, a noisy "
            "one cannot. The inconsistent score rate (share of scores further than one standard "
            "deviation from the mean of their unit) says little about either: bell-shaped grades "
            "alone give about 32 %."
        ),
        Table(
            columns=["", *(name for name, _ in studies)],
            rows=_agreement_rows([study for _, study in studies]),
        ),
    ]
    for name, study in studies:
        blocks += [_severity(name, study), *_rater_table(study)]
    return blocks


def _rater_table(study: RaterStudy) -> list[Block]:
    if study.infit is None or study.fair is None:
        return []
    order = np.argsort(-study.severity)[:SHOWN]
    rows: list[Sequence[Cell]] = [
        [
            study.raters[r],
            fixed(float(study.severity[r])),
            fixed(1.96 * float(study.severity_se[r])),
            fixed(float(study.infit[r])),
            fixed(float(study.fair[r])),
        ]
        for r in order
    ]
    table = Table(
        columns=["rater", "severity, logits", "±", "infit", "fair mean"],
        rows=rows,
        caption="infit: 1 = as consistent as expected, above = erratic; fair mean: the grade that "
        "an average unit would get from this rater",
    )
    return [Details(summary="All raters", blocks=[table])]


def _agreement_rows(studies: Sequence[RaterStudy]) -> list[list[Cell]]:
    found = [study.agreement for study in studies]
    return [
        ["units rated at least twice", *(f"{a.units:,}" for a in found)],
        [
            "Krippendorff's alpha (1 = agreement, 0 = chance)",
            *(f"{a.alpha:.3f} [{a.alpha_low:.3f}, {a.alpha_high:.3f}]" for a in found),
        ],
        ["intraclass correlation of one grade", *(f"{a.icc:.3f}" for a in found)],
        ["equal grades", *(f"{a.exact:.1%}" for a in found)],
        ["at most one step apart", *(f"{a.within_one:.1%}" for a in found)],
        ["inconsistent score rate", *(f"{a.isr.rate:.1%}" for a in found)],
        ["the same from a bell on this grade scale", *(f"{a.isr.gaussian:.1%}" for a in found)],
        ["spread of severity / its error", *(f"{study.separation:.1f}" for study in studies)],
    ]


def _severity(name: str, study: RaterStudy) -> Drawing:
    order = np.argsort(-study.severity)
    shown = order if len(order) <= RANKED else np.r_[order[:20], order[-20:]]
    half = 1.96 * study.severity_se
    return Drawing(
        title=f"Severity of the {name}",
        svg=intervals(
            [study.raters[r] for r in shown],
            study.severity[shown].tolist(),
            (study.severity - half)[shown].tolist(),
            (study.severity + half)[shown].tolist(),
            axis="logits; right = stricter",
        ),
        note="" if len(shown) == len(order) else f"The 20 strictest and mildest of {len(order)}.",
    )
