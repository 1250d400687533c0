"""Where revising helps: three chances of noticing a wrong answer by three of repairing it.

- the exact process predicts: a wrong answer ends right with chance R = q r / (1 - q (1 - r)), where
  q notices and r repairs; what begins with a W, as a revision does, is right with chance
  r + (1 - r) R, what begins without with 1 - e + e R at an error of e
- samples begin with a W half of the time, as the training texts do
- revising helps exactly where a W does, whatever the answer before
"""

import time
from itertools import product

import numpy as np

import meristem_testtime as tt
from meristem._rows import Row
from meristem.reproduce._data import judge
from meristem.reproduce._revision import ERROR, Chances, drawn, revised, train

CELLS: Chances = dict(zip("ABCDEFGHI", product((0.1, 0.3, 0.6), (0.3, 0.6, 0.9)), strict=True))
SOURCE = "ours: test-time-scaling-eval issue 1"


def grid_rows(steps: int, count: int, seed: int) -> list[Row]:
    """Return a row for each cell: what revising changes, beside what the process predicts."""
    engine = train(steps=steps, seed=seed, chances=CELLS)
    rows: list[Row] = []
    for letter, (notice, repair) in CELLS.items():
        start = time.perf_counter()
        parallel = drawn(engine, letter, count, seed)
        chains = revised(engine, letter, count, seed)
        first, later = _means(parallel), chains.correct[:, 1:].mean(1)
        change = tt.interval(later, minus=first, seed=seed)
        budget = int(chains.tokens.sum(1).mean())
        (gap,) = tt.equal_budget(chains, parallel, [budget], seed=seed).difference
        expected = predicted(notice, repair)
        rows.append(
            Row(
                claim=f"revising {'helps' if expected > 0 else 'fails'}: notices {notice}, repairs "
                f"{repair}",
                source=SOURCE, claimed=round(expected, 3), measured=change.mean, low=change.low,
                high=change.high, n=change.n_questions,
                verdict=judge(change, 1 if expected > 0 else -1),
                note="revisions minus samples, reproduced on the side predicted; sampling minus "
                f"revising at {budget} tokens {gap.mean:+.3f} [{gap.low:.3f}, {gap.high:.3f}]",
                seconds=time.perf_counter() - start, seed=seed,
            )
        )  # fmt: skip
    return rows


def predicted(notice: float, repair: float, error: float = ERROR) -> float:
    """Return the accuracy of a revision minus that of a sample.

    Examples
    --------
    >>> round(predicted(0.3, 0.9), 3), round(predicted(0.3, 0.3), 3)
    (0.09, -0.155)
    """
    mended = notice * repair / (1 - notice * (1 - repair))
    return (repair + (1 - repair) * mended - (1 - error + error * mended)) / 2


def _means(traces: tt.Traces) -> np.ndarray:
    return np.bincount(traces.question, traces.correct) / traces.sizes()
