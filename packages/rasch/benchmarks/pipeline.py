"""Time the full pipeline (fit, errors, measures, conditional fit) and, where R is present, eRm.

python packages/rasch/benchmarks/pipeline.py [PERSONS ITEMS]
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from meristem_rasch import CML, Responses, item_fit, score_persons

PEER = """
suppressMessages({library(eRm); library(psychotools)})
x <- as.matrix(read.csv(commandArgs(TRUE)[1], header = FALSE))
a <- system.time(m <- RM(x))[3]
b <- system.time({p <- person.parameter(m); f <- itemfit(p)})[3]
c <- system.time(r <- raschmodel(x))[3]
cat(a + b, c, -m$betapar, "\\n")
"""


def main() -> None:
    """Print a Markdown table of seconds and ratios after comparing the estimates."""
    persons, items = map(int, sys.argv[1:] or (1000, 50))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(persons, 1)) - rng.normal(size=items)
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    start = time.perf_counter()
    data = Responses.from_wide(table)
    cal = CML().fit(data)
    score_persons(cal, data)
    item_fit(cal, data)
    ours = time.perf_counter() - start
    print(f"{persons} x {items}\n\n| pipeline | seconds | ratio |\n|---|---|---|")
    print(f"| meristem-rasch | {ours:.3f} | 1 |")
    if shutil.which("Rscript") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        np.savetxt(path, table, fmt="%d", delimiter=",")
        run = ["Rscript", "-e", PEER, str(path)]
        out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    erm, psychotools, *beta = map(float, out)
    assert np.abs(np.array(beta) - cal.threshold).max() < 1e-3, "the estimates differ"
    print(f"| eRm RM + person.parameter + itemfit | {erm:.3f} | {erm / ours:.0f} |")
    print(f"| psychotools raschmodel (fit only) | {psychotools:.3f} | {psychotools / ours:.0f} |")


if __name__ == "__main__":
    main()
