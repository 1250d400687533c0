"""The exam as one page: what was read, findings, and a section for everything that was measured."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from meristem_core.report import (
    Block,
    Cell,
    Check,
    Checks,
    Details,
    Page,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
    render,
)
from meristem_exam._exam import Exam
from meristem_exam._report_groups import graders_section, groups_section
from meristem_exam._report_labels import alignment_section, dispersion_section, length_section
from meristem_exam._report_scale import (
    items_section,
    ranking_section,
    ruler_section,
    systems_section,
)
from meristem_exam._result import VERSIONS

MOODS = {True: "fine", None: "worth a look", False: "trouble"}


CAVEATS = (
    "Intervals are 95 %. Those of abilities cover the sampling of items, not another prompt.",
    "A logit is the natural logarithm of odds: one logit more turns an even chance into 73 %.",
    "Mean squares near 1 mean that answers scatter as the scale expects; judge them by size.",
    "R² over all systems mixes ability and difficulty; that of one system does not.",
    "Labels and graders may share biases with the systems they judge.",
)


def render_exam(exam: Exam) -> str:
    """Return the report as one HTML file."""
    parts = [
        ("In short", [_tiles(exam), _findings(exam)]),
        ("One ruler for systems and items", ruler_section(exam)),
        ("Ranking", ranking_section(exam)),
        ("Items", items_section(exam)),
        ("How systems fit the scale", systems_section(exam)),
        ("Do the difficulty labels mean anything?", alignment_section(exam)),
        ("Is one number per system enough?", dispersion_section(exam)),
        ("Length of the answers", length_section(exam)),
        ("Do items work alike in both groups?", groups_section(exam)),
        ("Do the graders agree?", graders_section(exam)),
        ("What was read, and how it was measured", _method(exam)),
    ]
    names = ", ".join(name.rsplit("/", 1)[-1] for name in exam.evidence.source[:3])
    return render(
        Page(
            title="Exam report",
            subtitle=f"{names}: {len(exam.scale.systems):,} systems, "
            f"{len(exam.scale.items):,} items",
            sections=[Section(title=title, blocks=blocks) for title, blocks in parts if blocks],
        )
    )


def _tiles(exam: Exam) -> Tiles:
    s, values = exam.scale, exam.evidence.matrix.values
    missing = float(np.isnan(values).mean())
    flagged = int((s.item_fit.noisy | s.reversed).sum())
    return Tiles(
        [
            Tile(label="systems", value=f"{len(s.systems):,}", note="or persons"),
            Tile(label="items", value=f"{len(s.items):,}", note=f"{flagged:,} worth a look"),
            Tile(
                label="answers",
                value=f"{int((~np.isnan(values)).sum()):,}",
                note="none missing" if not missing else f"{missing:.1%} missing",
            ),
            Tile(
                label="reliability",
                value=f"{s.reliability:.3f}",
                note="share of the spread that is not error",
            ),
            Tile(
                label="mean score",
                value=f"{float(np.nanmean(s.rate)):.1%}",
                note="of the possible points",
            ),
        ]
    )


def _findings(exam: Exam) -> Checks:
    checks = [
        Check(claim=each.text, verdict=MOODS[each.good], holds=each.good) for each in exam.findings
    ]
    checks += [Check(claim=words, verdict="note", holds=None) for words in exam.warnings]
    return Checks(checks)


def _method(exam: Exam) -> list[Block]:
    s, values = exam.scale, exam.evidence.matrix.values
    seen = ~np.isnan(values)
    patterns = len(np.unique(np.packbits(seen, axis=1), axis=0))
    extreme = int(((s.rate <= 0) | (s.rate >= 1)).sum())
    rows: list[Sequence[Cell]] = [
        ["source", ", ".join(exam.evidence.source)],
        ["scores", f"{int(seen.sum()):,} of {values.size:,}, in {patterns:,} patterns of answers"],
        ["systems with no or all points", f"{extreme:,}"],
        [
            "items solved by none or all",
            f"{int(((s.item_rate <= 0) | (s.item_rate >= 1)).sum()):,}",
        ],
        ["model", s.choice.model],
        ["why this estimator", s.choice.reason],
        *([] if s.loglik is None else [["log-likelihood", f"{s.loglik:,.2f}"]]),
        *([] if s.dispersion is None else [["dispersion", f"{s.dispersion:.3f}"]]),
        ["seed", str(exam.seed)],
        ["versions", ", ".join(f"{name} {version(name)}" for name in VERSIONS)],
    ]
    return [
        Table(columns=["what", "value"], rows=rows),
        Details(summary="What to keep in mind", blocks=[Text(words) for words in CAVEATS]),
    ]
