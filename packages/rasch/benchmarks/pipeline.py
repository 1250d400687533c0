"""Time the full pipeline (fit, errors, measures, item and person fit) against the field.

python packages/rasch/benchmarks/pipeline.py                    # 1,000 x 50, about a minute
python packages/rasch/benchmarks/pipeline.py 10000 100          # eRm alone takes a minute or two

Peers from R are used where Rscript is present, girth and RaschPy where uv is (in an environment
of their own, made in the temporary folder). An absent peer is a row that says so. Repeated three
times, medians; eRm once.
"""

import datetime
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy

from meristem_rasch import CML, MML, Responses, item_fit, person_fit, score_persons

PEERS = ["girth==0.8.0", "raschpy==1.4.0"]
R = """
suppressMessages({library(eRm); library(psychotools)})
x <- as.matrix(read.csv(commandArgs(TRUE)[1], header = FALSE))
a <- system.time(m <- RM(x))[3]
b <- system.time({p <- person.parameter(m); f <- itemfit(p)})[3]
c <- median(replicate(3, system.time(r <<- raschmodel(x))[3]))
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


def python_peers(path: Path, task: str) -> dict[str, tuple[float, np.ndarray]]:
    """Return seconds and difficulties of girth and RaschPy; empty without uv."""
    uv = shutil.which("uv")
    if uv is None:
        return {}
    folder = Path(tempfile.gettempdir(), "meristem-rasch-peers")
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", "--python", "3.11", str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *PEERS], check=True)
    script = Path(__file__).with_name("_peers.py")
    run = [str(python), str(script), str(path), task]
    out = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    return {name: (seconds, np.array(b)) for name, (seconds, b) in out["rows"].items()}


def r_peers(path: Path, items: int) -> dict[str, tuple[float, np.ndarray]]:
    """Return seconds and difficulties of eRm and psychotools; empty without R."""
    if shutil.which("Rscript") is None:
        return {}
    run = ["Rscript", "-e", R, str(path)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    erm, psychotools, *beta = map(float, out)
    found = np.array(beta).reshape(2, items)
    return {
        "eRm RM + person.parameter + itemfit": (erm, found[0]),
        "psychotools raschmodel (estimates and errors only)": (psychotools, found[1]),
    }


def main() -> None:
    """Print Markdown tables of seconds, ratios and distances from the conditional estimates."""
    persons, items = map(int, sys.argv[1:] or (1000, 50))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(persons, 1)) - rng.normal(size=items)
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    exact = pipeline(table)
    ours = median(lambda: pipeline(table))
    data = Responses.from_wide(table)
    twopl = median(lambda: MML(model="2pl", se="opg").fit(data), 1)
    free = MML(model="2pl", se="opg").fit(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        np.savetxt(path, table, fmt="%d", delimiter=",")
        rows = r_peers(path, items) | python_peers(path, "rasch")
        slopes = python_peers(path, "2pl")
    print(f"{persons} x {items}, {datetime.date.today()}, NumPy {np.__version__}, ", end="")
    print(f"SciPy {scipy.__version__}; peers {', '.join(PEERS)}, eRm and psychotools of R\n")
    print("| pipeline | seconds | ratio | largest distance from CML, logits |\n|---|---|---|---|")
    print(f"| meristem-rasch: fit, errors, measures, item and person fit | {ours:.3f} | 1 | 0 |")
    for name, (seconds, b) in rows.items():
        print(f"| {name} | {seconds:.3f} | {seconds / ours:.1f} | {np.abs(b - exact).max():.4f} |")
    centred = free.threshold - free.threshold.mean()
    print("\n| 2PL | seconds | ratio | largest distance, logits |\n|---|---|---|---|")
    print(f"| meristem-rasch MML: estimates and errors | {twopl:.3f} | 1 | 0 |")
    for name, (seconds, b) in slopes.items():
        far = float(np.abs(b - centred).max())
        print(f"| {name} (estimates only) | {seconds:.3f} | {seconds / twopl:.1f} | {far:.4f} |")
    if not rows:
        print("| no peer: neither Rscript nor uv is on the path | | | |")


if __name__ == "__main__":
    main()
