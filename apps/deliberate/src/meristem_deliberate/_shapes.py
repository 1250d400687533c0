"""Chains times rounds: how the answers of a question are best split."""

from collections.abc import Sequence

import meristem_testtime as tt
from meristem_core.report import Block, LineChart, Series, Table
from meristem_deliberate._format import percent, points

NAMES = {0: "no revision", 1: "1 round each"}


def shape_blocks(cells: Sequence[tt.Cell]) -> list[Block]:
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
