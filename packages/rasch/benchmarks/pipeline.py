"""Time the full pipeline (fit, errors, measures, item and person fit) against the field.

python packages/rasch/benchmarks/pipeline.py                    # 1,000 x 50, about a minute
python packages/rasch/benchmarks/pipeline.py 10000 100          # eRm alone takes a minute or two
python packages/rasch/benchmarks/pipeline.py 10000 100 --without-r

Peers from R are used where Rscript is present, girth and RaschPy where uv is; the line above the
table says which are absent, and why. Ours and psychotools: median of three; the others once.
"""

import datetime
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
from _environments import python_peers

from meristem_rasch import CML, Responses, item_fit, person_fit, score_persons

R = """
suppressMessages({library(eRm); library(psychotools)})
x <- as.matrix(read.csv(commandArgs(TRUE)[1], header = FALSE))
a <- system.time(m <- RM(x))[3]
b <- system.time({p <- person.parameter(m); f <- itemfit(p)})[3]
c <- median(replicate(3, system.time(r <<- raschmodel(x))[3]))
v <- function(name) as.character(packageVersion(name))
cat(as.character(getRversion()), v("eRm"), v("psychotools"), "\\n")
cat(a + b, c, -m$betapar, unlist(coef(threshpar(r))), "\\n")
"""


def median(work: Callable[[], object], times: int = 3) -> float:
    """Return the median of the seconds that `work` takes."""
    seconds: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def pipeline(table: np.ndarray) -> np.ndarray:
    """Do everything, and return the difficulties."""
    data = Responses.from_wide(table)
    cal = CML().fit(data)
    score_persons(cal, data)
    item_fit(cal, data)
    person_fit(cal, data)
    return cal.threshold


def r_peers(path: Path, items: int) -> tuple[dict[str, tuple[float, np.ndarray]], str]:
    """Return seconds and difficulties of eRm and psychotools, and their versions."""
    if shutil.which("Rscript") is None:
        return {}, "no row of eRm and psychotools, Rscript is not on the path"
    run = ["Rscript", "-e", R, str(path)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    erm, psychotools, *beta = map(float, out[3:])
    found = np.array(beta).reshape(2, items)
    rows = {
        "eRm RM + person.parameter + itemfit": (erm, found[0]),
        "psychotools raschmodel (estimates and errors only)": (psychotools, found[1]),
    }
    return rows, "R {}, eRm {}, psychotools {}".format(*out)


def main() -> None:
    """Print a Markdown table of seconds, ratios and distances from the conditional estimates."""
    persons, items = map(int, [word for word in sys.argv[1:] if word[0] != "-"] or (1000, 50))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(persons, 1)) - rng.normal(size=items)
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    exact = pipeline(table)
    ours = median(lambda: pipeline(table))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        np.savetxt(path, table, fmt="%d", delimiter=",")
        found, note = python_peers(path, "girth")
        rows = {row.name: (row.seconds, row.difficulty) for row in found}
        if "--without-r" not in sys.argv:
            of_r, versions = r_peers(path, items)
            rows |= of_r
            note += "; " + versions
    print(f"{persons:,} x {items}, {datetime.date.today()}, NumPy {np.__version__}, ", end="")
    print(f"SciPy {scipy.__version__}; {note}\n")
    print("| pipeline | seconds | ratio | largest distance from CML, logits |\n|---|---|---|---|")
    print(f"| meristem-rasch: fit, errors, measures, item and person fit | {ours:.3f} | 1 | 0 |")
    for name, (seconds, b) in rows.items():
        far = np.abs(b - b.mean() - exact).max()
        print(f"| {name} | {seconds:.3f} | {seconds / ours:.1f} | {far:.4f} |")


if __name__ == "__main__":
    main()
