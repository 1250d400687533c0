"""Time the 2PL by marginal likelihood against girth, py-irt and irtorch, and judge the estimates.

python packages/rasch/benchmarks/slopes.py                     # 1,000 x 50, a minute or two
python packages/rasch/benchmarks/slopes.py 10000 100 --epochs 20

Who is right is decided by neither: the log-likelihood at everybody's estimates is summed here, on
a grid ten times as fine as ours and by code that shares nothing with the package.
"""

import argparse
import datetime
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy
from _environments import Row, python_peers

from meristem_rasch import MML, Responses

DEFAULT_EPOCHS = 2000  # of py-irt


def log_likelihood(table: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return sum_v log integral of prod_i P(x_vi) over a standard normal, by the trapezoid rule."""
    theta = np.linspace(-8, 8, 1601)
    eta = a[:, None] * (theta - b[:, None])
    # log P(x) = x eta - log(1 + e^eta)
    base = -np.logaddexp(0, eta).sum(axis=0) - theta**2 / 2 - np.log(2 * np.pi) / 2
    base += np.log(theta[1] - theta[0])
    total = 0.0
    for at in range(0, len(table), 500):
        joint = table[at : at + 500].astype(float) @ eta + base
        top = joint.max(axis=1, keepdims=True)
        total += float((top[:, 0] + np.log(np.exp(joint - top).sum(axis=1))).sum())
    return total


def simulate(persons: int, items: int) -> np.ndarray:
    """Return 0/1 answers of normal persons to items with slopes around 1."""
    rng = np.random.default_rng(0)
    slope = np.exp(0.25 * rng.normal(size=items))
    logits = slope * (rng.normal(size=(persons, 1)) - rng.normal(size=items))
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)


def ours(table: np.ndarray) -> Row:
    """Return our estimates with their errors, timed once after a small fit."""
    MML(model="2pl", se="opg").fit(Responses.from_wide(table[:200]))
    start = time.perf_counter()
    cal = MML(model="2pl", se="opg").fit(Responses.from_wide(table))
    seconds = time.perf_counter() - start
    return Row(
        name="meristem-rasch MML (estimates and errors)",
        seconds=seconds,
        difficulty=cal.threshold,
        slope=cal.slope,
    )


def main() -> None:
    """Print seconds, ratios and how much log-likelihood each solution lacks."""
    parse = argparse.ArgumentParser()
    parse.add_argument("persons", type=int, nargs="?", default=1000)
    parse.add_argument("items", type=int, nargs="?", default=50)
    parse.add_argument("--epochs", type=int, default=DEFAULT_EPOCHS, help="of py-irt")
    parse.add_argument("--peers", nargs="*", default=["girth-2pl", "irtorch", "py-irt"])
    options = parse.parse_args()
    table = simulate(options.persons, options.items)
    rows, notes = [ours(table)], list[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        np.savetxt(path, table, fmt="%d", delimiter=",")
        for peer in options.peers:
            found, note = python_peers(path, peer, str(options.epochs))
            rows += found
            notes.append(note)
    print(f"{table.shape[0]:,} x {table.shape[1]}, {datetime.date.today()}, ", end="")
    print(f"NumPy {np.__version__}, SciPy {scipy.__version__}; {'; '.join(notes)}\n")
    print("| 2PL | seconds | ratio | log-likelihood below ours |\n|---|---|---|---|")
    best = log_likelihood(table, rows[0].slope, rows[0].difficulty)
    for row in rows:
        scale, name = 1.0, row.name
        short = name.startswith("py-irt") and options.epochs < DEFAULT_EPOCHS
        if short:
            scale = DEFAULT_EPOCHS / options.epochs
            name += f", scaled to its {DEFAULT_EPOCHS}"
        seconds = row.seconds * scale
        lack = best - log_likelihood(table, row.slope, row.difficulty)
        lacking = "not trained to its end" if short else f"{lack:.2f}"
        print(f"| {name} | {seconds:.2f} | {seconds / rows[0].seconds:.1f} | {lacking} |")
    print(f"\nLog-likelihood at our estimates {best:.3f}")


if __name__ == "__main__":
    main()
