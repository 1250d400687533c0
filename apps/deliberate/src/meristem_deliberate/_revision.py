"""What the report says of revising: its rounds, its price, and chains times rounds."""

from collections.abc import Sequence
from typing import Any

import meristem_testtime as tt
from meristem_core.report import Block, LineChart, Series, Table, Text
from meristem_deliberate._format import finding, percent, points
from meristem_deliberate._measure import Measured

NAMES = {0: "no revision", 1: "1 round each"}


def revision_blocks(each: Measured) -> list[Block]:
    """Return what revising did: round by round, at equal tokens, and in how many chains."""
    if each.revision is None or each.budget is None or each.shapes is None:
        return []
    return [
        Text(_size(each.revision, each.shapes, each.questions)),
        *_revision(each.revision, each.budget),
        *_shapes(each.shapes),
    ]


def _size(found: tt.RevisionReport, cells: Sequence[tt.Cell], questions: int) -> str:
    chains, least = int(found.alive[0]), max(cell.chains for cell in cells)
    share = "" if chains == least * questions else "at least "
    rounds = found.alive.size - 1
    return (
        f"{chains:,} chains of {questions:,} questions, {share}{least} of each, revised "
        f"{rounds} {'time' if rounds == 1 else 'times'} or until their context was full. What is "
        "shown of one chain is the mean over all; chains times rounds lets them vote."
    )


def _revision(found: tt.RevisionReport, budget: tt.BudgetComparison) -> list[Block]:
    rounds = [float(i) for i in range(found.accuracy.size)]
    chart = LineChart(
        title="Accuracy over rounds of revision",
        x_label="revisions",
        y_label="accuracy, %",
        series=[
            Series(name="last answer", x=rounds, y=_hundred(found.accuracy)),
            Series(name="any answer so far", x=rounds, y=_hundred(found.coverage)),
        ],
        first="linear",
        note=_rates(found),
    )
    x = [float(value) for value in budget.budgets]
    equal = LineChart(
        title="Revising against sampling at equal tokens",
        x_label="new tokens a question",
        y_label="accuracy, %",
        series=[
            Series(name="revise one chain", x=x, y=_hundred(budget.sequential.mean(0))),
            Series(name="vote over samples", x=x, y=_hundred(budget.parallel.mean(0))),
        ],
        note=finding(
            "Sampling minus revising", budget.difference[-1], f"at {budget.budgets[-1]:,} tokens"
        ),
    )
    mended, broken = (None, *found.mended), (None, *found.broken)
    rows = [
        [
            r,
            round(100 * float(found.accuracy[r]), 1),
            int(found.alive[r]),
            round(float(found.tokens[r])),
            *(None if rate is None else round(100 * rate, 1) for rate in (mended[r], broken[r])),
        ]
        for r in range(found.accuracy.size)
    ]
    columns = ["round", "accuracy, %", "chains", "tokens so far", "wrong to right, %",
               "right to wrong, %"]  # fmt: skip
    return [chart, equal, Table(columns=columns, rows=rows)]


def _rates(found: tt.RevisionReport) -> str:
    def text(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.1%}"

    return (
        f"A round mends {text(found.mended_rate)} of the wrong answers and breaks "
        f"{text(found.broken_rate)} of the right ones; at these rates accuracy tends to "
        f"{text(found.stationary)}. {text(found.stick)} of the later answers of chains that began "
        "wrong repeat the first."
    )


def _shapes(cells: Sequence[tt.Cell]) -> list[Block]:
    """Return a table with one row a split, and a curve a number of rounds if chains vary."""
    rows = [
        [
            cell.answers,
            cell.chains,
            cell.rounds,
            round(cell.tokens),
            percent(cell.accuracy),
            "-" if cell.minus_sampling is None else points(cell.minus_sampling),
        ]
        for cell in cells
    ]
    table = Table(
        columns=["answers", "chains", "rounds each", "tokens", "accuracy",
                 "minus as many samples"],
        rows=rows,
        caption="Chains times rounds: a vote over the last answers of some chains; answers are "
        "chains * (rounds + 1). Percent and points, paired by question; - without revision, or "
        "where a question has fewer samples.",
    )  # fmt: skip
    return [_chart(cells), table] if len({cell.chains for cell in cells}) > 1 else [table]


def _chart(cells: Sequence[tt.Cell]) -> LineChart:
    series: list[Series] = []
    for rounds in sorted({cell.rounds for cell in cells}):
        line = [cell for cell in cells if cell.rounds == rounds]
        series.append(
            Series(
                name=NAMES.get(rounds, f"{rounds} rounds each"),
                x=[float(cell.answers) for cell in line],
                y=[100 * cell.accuracy.mean for cell in line],
            )
        )
    return LineChart(
        title="Chains times rounds",
        x_label="answers a question: chains * (rounds + 1)",
        y_label="accuracy of the vote over last answers, %",
        series=series,
        note="At one x all lines have asked for as many answers; the table has their tokens.",
    )


def _hundred(values: Any) -> list[float]:
    return [100 * float(value) for value in values]
