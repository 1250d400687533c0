"""The page and the lines on the terminal: each finding with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import meristem_testtime as tt
from meristem_core.report import (
    Block,
    HorizontalLine,
    LineChart,
    Page,
    Section,
    Series,
    Table,
    Text,
    Tile,
    Tiles,
)
from meristem_deliberate._format import finding, percent, points
from meristem_deliberate._measure import Measured
from meristem_deliberate._revision import revision_blocks

RULES = (
    ("majority", "the answer that most samples give"),
    ("shortest majority", "the largest count / ln(mean tokens of the samples that give it)"),
    ("longest majority", "the largest count * ln(mean tokens)"),
    ("short-3", "majority among the three shortest samples, a tie to the shortest"),
    ("any right (pass@k)", "no vote: whether one of k samples is right, the bound of every rule"),
)
RIVALS = ("shortest majority", "longest majority", "short-3")


def summary(measured: Mapping[str, Measured]) -> str:
    """Return what the numbers are, and one line for each stratum."""
    lines = ["percent and points, with 95 % intervals over questions"]
    for name, each in measured.items():
        k = each.curve.ks[-1]
        smv = each.curve.difference["shortest majority"][-1]
        lines.append(
            f"{name or 'all'}: {each.questions} questions, accuracy {percent(_single(each))}, "
            f"majority@{k} {percent(each.curve.accuracy['majority'][-1])}, "
            f"pass@{k} {percent(each.coverage[-1])}, "
            f"shortest majority minus majority {points(smv)}"
        )
    return "\n".join(lines)


def page(measured: Mapping[str, Measured], facts: Mapping[str, Any]) -> Page:
    """Return the report."""
    sections: list[Section] = []
    if len(measured) > 1:
        sections.append(_overview(measured))
    for name, each in measured.items():
        prefix = f"{name}: " if name else ""
        sections += [
            Section(title=f"{prefix}votes", blocks=_votes(each)),
            Section(title=f"{prefix}length", blocks=_lengths(each)),
        ]
        blocks = revision_blocks(each)
        if blocks:
            sections.append(Section(title=f"{prefix}revision", blocks=blocks))
    notes = [Text(f"{name or 'All'}: {note}.") for name, m in measured.items() for note in m.notes]
    settings = Table(
        columns=["setting", "value"], rows=[[key, str(value)] for key, value in facts.items()]
    )
    rules = Table(columns=["rule", "decides by"], rows=[list(rule) for rule in RULES])
    sections.append(Section(title="How this was made", blocks=[*notes, rules, settings]))
    questions = sum(each.questions for each in measured.values())
    samples = sum(each.samples for each in measured.values())
    strata = f" in {len(measured)} strata" if len(measured) > 1 else ""
    return Page(
        title="Deliberation",
        subtitle=f"{samples:,} samples of {questions:,} questions{strata}. Intervals are 95 % over "
        "questions; expectations over all subsets of the samples, ties shared evenly.",
        sections=sections,
    )


def _overview(measured: Mapping[str, Measured]) -> Section:
    rows = [
        [
            name,
            each.questions,
            percent(_single(each)),
            percent(each.curve.accuracy["majority"][-1]),
            points(each.curve.difference["shortest majority"][-1]),
            "-" if each.profile is None else points(each.profile.contrast),
            f"{100 * each.unanswered:.1f} %",
        ]
        for name, each in measured.items()
    ]
    columns = ["stratum", "questions", "one sample", "majority", "shortest majority minus majority",
               "longest minus shortest sample", "unanswered"]  # fmt: skip
    return Section(
        title="All strata",
        blocks=[Table(columns=columns, rows=rows, caption="Percent; differences in points.")],
    )


def _votes(each: Measured) -> list[Block]:
    found, k = each.curve, each.curve.ks[-1]
    smv = found.difference["shortest majority"][-1]
    tiles = [
        Tile(
            label="one sample",
            value=f"{100 * _single(each).mean:.1f} %",
            note=_range(_single(each)),
        ),
        Tile(
            label=f"majority of {k}",
            value=_mean(found.accuracy["majority"][-1]),
            note=_range(found.accuracy["majority"][-1]),
        ),
        Tile(
            label=f"any of {k}",
            value=_mean(each.coverage[-1]),
            note=_range(each.coverage[-1]),
        ),
        Tile(label="tokens a sample", value=f"{each.tokens:,.0f}"),
        Tile(label="without an answer", value=f"{100 * each.unanswered:.1f} %"),
    ]
    x = [float(value) for value in found.ks]
    chart = LineChart(
        title="Accuracy over the number of samples",
        x_label="samples k",
        y_label="accuracy, %",
        series=[
            _series("any right (pass@k)", x, each.coverage),
            _series("majority", x, found.accuracy["majority"]),
            *(_bare(_series(name, x, found.accuracy[name])) for name in RIVALS),
        ],
        note="Bands are 95 % intervals; differences between rules are paired and much narrower.",
    )
    paired = LineChart(
        title="Rules minus majority, paired by question",
        x_label="samples k",
        y_label="points",
        series=[
            _series("shortest majority", x, found.difference["shortest majority"]),
            *(_bare(_series(name, x, found.difference[name])) for name in RIVALS[1:]),
        ],
        lines=[HorizontalLine(name="majority", y=0)],
        note=finding("The shortest majority vote minus majority", smv, f"at k = {k}"),
    )
    return [
        Tiles(tiles),
        chart,
        paired,
        _rules_table(each),
        *_answered(each),
        Text(_smv_text(each.smv)),
    ]


def _rules_table(each: Measured) -> Table:
    found = each.curve
    rows = [
        [
            name,
            percent(found.accuracy[name][-1]),
            "-" if name == "majority" else points(found.difference[name][-1]),
            None
            if name == "majority"
            else round(100 * found.difference[name][-1].minimal_detectable, 2),
            100 * each.full_vote[name],
            100 * found.mc_se[name],
        ]
        for name in found.accuracy
    ]
    columns = [f"rule, k = {found.ks[-1]}", "accuracy", "minus majority", "detectable",
               "ties by launch order", "Monte-Carlo s.e."]  # fmt: skip
    return Table(
        columns=columns, rows=rows,
        caption="Percent and points; the rules are told at the end. Detectable: the true "
        "difference that a test at 5 % would find with 80 % power.",
    )  # fmt: skip


def _answered(each: Measured) -> list[Block]:
    if not each.answered:
        return []
    rows = [[name, percent(value)] for name, value in each.answered.items()]
    return [Table(columns=["answered samples only", "accuracy"], rows=rows)]


def _smv_text(smv: tt.SmvExplanation) -> str:
    return (
        "With all samples the shortest majority vote agrees with a sole majority on "
        f"{smv.same:.1%} of the questions, breaks a tie of majority on {smv.tie_break:.1%}, and "
        f"overturns a majority on {smv.overturn:.1%}; {smv.unanswered:.1%} have no answer at all."
    )


def _lengths(each: Measured) -> list[Block]:
    blocks: list[Block] = []
    if each.profile is not None:
        tokens = [float(value) for value in each.profile.tokens]
        accuracy = [100 * float(value) for value in each.profile.accuracy]
        blocks.append(
            LineChart(
                title="Accuracy by length within the question",
                x_label="mean tokens of the r-th shortest sample",
                y_label="accuracy, %",
                series=[Series(name="r-th shortest", x=tokens, y=accuracy)],
                first="linear",
                note=finding("The longest minus the shortest sample", each.profile.contrast),
            )
        )
    blocks += _markers(each)
    if each.outcome is not None:
        o = each.outcome
        d = o.difference
        blocks.append(
            Text(
                f"On questions with both, right samples have {o.correct:,.0f} tokens and wrong "
                f"ones {o.incorrect:,.0f}: a difference of {d.mean:,.0f} "
                f"[{d.low:,.0f}, {d.high:,.0f}]. "
                f"A right sample is the shorter with chance {percent(o.shorter)} %."
            )
        )
    if each.trends:
        rows = [
            [name, trend.slope, _number(trend.correlation), _number(trend.excess)]
            for name, trend in each.trends.items()
        ]
        columns = ["marker", "per 1,000 tokens", "correlation with length",
                   "right minus wrong at equal length"]  # fmt: skip
        blocks.append(Table(columns=columns, rows=rows))
    return blocks or [Text("Nothing to compare: see the notes below.")]


def _markers(each: Measured) -> list[Block]:
    if each.profile is None:
        return []
    tokens = [float(value) for value in each.profile.tokens]
    series = [
        Series(name=name, x=tokens, y=[float(value) for value in counts])
        for name, counts in each.profile.markers.items()
        if counts.any()
    ]
    if not series:
        return []
    return [
        LineChart(
            title="Words of doubt by length",
            x_label="mean tokens of the r-th shortest sample",
            y_label="occurrences a sample",
            series=series,
            first="linear",
        )
    ]


def _single(each: Measured) -> tt.MeanInterval:
    return each.curve.accuracy["majority"][0] if each.curve.ks[0] == 1 else each.coverage[0]


def _series(name: str, x: Sequence[float], values: Sequence[tt.MeanInterval]) -> Series:
    return Series(
        name=name,
        x=x,
        y=[100 * value.mean for value in values],
        low=[100 * value.low for value in values],
        high=[100 * value.high for value in values],
    )


def _bare(series: Series) -> Series:
    return Series(name=series.name, x=series.x, y=series.y)


def _mean(found: tt.MeanInterval) -> str:
    return f"{100 * found.mean:.1f} %"


def _range(found: tt.MeanInterval) -> str:
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _number(found: tt.MeanInterval | None) -> str:
    return "-" if found is None else f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"
