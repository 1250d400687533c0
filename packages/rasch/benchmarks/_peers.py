"""Run in the peers' own environment: print times and difficulties of girth and RaschPy as JSON."""

import importlib.metadata
import json
import sys
import time

import girth
import numpy as np
import pandas as pd
from raschpy import SLM


def timed(work):
    start = time.perf_counter()
    out = work()
    return time.perf_counter() - start, out


def rasch_py(table):
    model = SLM(pd.DataFrame(table))
    model.calibrate()
    model.fit_statistics()
    return np.asarray(model.items, dtype=float)


def main():
    table = np.loadtxt(sys.argv[1], delimiter=",", dtype=int)
    twopl = sys.argv[2] == "2pl"
    work = {"girth twopl_mml": lambda: girth.twopl_mml(table.T)["Difficulty"]}
    if not twopl:
        work = {
            "RaschPy calibrate + fit_statistics (pairwise)": lambda: rasch_py(table),
            "girth rasch_mml (estimates only)": lambda: girth.rasch_mml(table.T)["Difficulty"],
            "girth rasch_jml (estimates only)": lambda: girth.rasch_jml(table.T)["Difficulty"],
        }
    rows = {}
    for name, run in work.items():
        seconds, found = timed(run)
        rows[name] = [seconds, (np.asarray(found) - np.mean(found)).tolist()]
    versions = {name: importlib.metadata.version(name) for name in ("girth", "raschpy", "numpy")}
    print(json.dumps({"rows": rows, "versions": versions}))


if __name__ == "__main__":
    main()
