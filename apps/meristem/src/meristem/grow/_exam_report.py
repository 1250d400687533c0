"""The section of the report on the exam."""

import numpy as np

from meristem.grow._exam import Examined
from meristem_core.report import Block, Drawing, HorizontalLine, LineChart, Series, Text
from meristem_exam import ruler


def exam_blocks(exam: Examined) -> list[Block]:
    """Return what the report shows of the exam."""
    placed = [
        (step, middle, low, high)
        for step, middle, low, high in zip(
            exam.steps, exam.ability, exam.low, exam.high, strict=True
        )
        if middle is not None and low is not None and high is not None
    ]
    text = (
        f"Every snapshot answered the same {len(exam.items)} generated items with four choices: "
        "which text goes on (continue), which order of its tokens is real (order), what follows "
        "when random tokens begin again (repeat). Snapshots and items stand on one scale: at an "
        "item's place half of the answers are right."
    )
    if len(placed) < 2:
        return [Text(text), Text("Too few snapshots have a finite place.")]
    steps, middle, low, high = (list(column) for column in zip(*placed, strict=True))
    return [
        Text(text),
        LineChart(
            title="Ability of the snapshots",
            x_label="step",
            y_label="logits",
            series=[Series(name="ability", x=steps, y=middle, low=low, high=high)],
            note=f"The band is 95 %; reliability {exam.reliability:.2f}.",
        ),
        LineChart(
            title="Share solved",
            x_label="step",
            y_label="share",
            series=[Series(name=kind, x=exam.steps, y=y) for kind, y in exam.rate.items()],
            lines=[HorizontalLine(name="chance", y=0.25)],
        ),
        Drawing(
            title="Snapshots and items on one ruler",
            svg=ruler(
                np.array(middle),
                [f"step {step:,}" for step in steps],
                np.array(exam.difficulty),
                exam.items,
            ),
            legend=[("c0", "snapshots"), ("c1", "items")],
        ),
    ]
