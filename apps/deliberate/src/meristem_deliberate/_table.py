"""Traces as the table that `replay` reads."""

import csv
import io

import meristem_testtime as tt


def traces_csv(traces: tt.Traces) -> str:
    """Return the samples as CSV, one row each, in launch order."""
    text = io.StringIO()
    names = [*traces.markers, "capped", *(f"score:{name}" for name in traces.scores)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question", "sample", "tokens", "answer", "correct", *names])
    place: dict[int, int] = {}
    capped = traces.capped
    for row, number in enumerate(traces.question.tolist()):
        place[number] = place.get(number, -1) + 1
        writer.writerow(
            [
                traces.questions[number], place[number], traces.tokens[row], traces.answer[row],
                int(traces.correct[row]), *(column[row] for column in traces.markers.values()),
                int(capped is not None and bool(capped[row])),
                *(repr(float(column[row])) for column in traces.scores.values()),
            ]
        )  # fmt: skip
    return text.getvalue()
