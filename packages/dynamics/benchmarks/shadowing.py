"""Certificates of the Hénon map: times, radii and the independent check; no peer does this work.

python packages/dynamics/benchmarks/shadowing.py [--check STEPS] [--long STEPS] [--units TIME]
    [--flow-check STEPS]

There is no maintained library that certifies long orbits, so the rows compare with the published
distance of Hammel, Yorke and Grebogi (1988): N = 10^6, 10^-8, from memory of the literature.
"""

import argparse
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from meristem_dynamics import (
    certify,
    certify_flow,
    certify_long,
    certify_uniform,
    integrate,
    iterate,
    zoo,
)
from meristem_dynamics.verifier import verify

HENON = zoo.henon()


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", type=int, default=100_000, help="steps that Arb re-checks")
    parser.add_argument("--long", type=int, default=10_000_000, help="steps of the blocked run")
    parser.add_argument("--units", type=int, default=10_000, help="time units of the Lorenz flow")
    parser.add_argument("--flow-check", type=int, default=200, help="of its steps that Arb checks")
    words = parser.parse_args()
    flint = version("python-flint")
    print(
        f"{time.strftime('%Y-%m-%d')}, one thread, NumPy {np.__version__}, python-flint {flint}\n"
    )
    print(
        "| Hénon, a = 7/5, b = 3/10; Lorenz, steps of 1/64 | seconds | worst radius "
        "| median radius |\n|---|---|---|---|"
    )
    for steps in (10_000, 100_000, 1_000_000):
        orbit = iterate(HENON, [0.0, 0.0], steps)
        certify(HENON, orbit[:1000])
        start = time.perf_counter()
        c = certify(HENON, orbit)
        seconds = time.perf_counter() - start
        assert c.ok
        row(f"pointwise certificate, {steps:,} steps", seconds, c.radius_max, np.median(c.radius))
    start = time.perf_counter()
    uniform = certify_uniform(HENON, orbit)
    row("uniform certificate, 1,000,000 steps", time.perf_counter() - start, uniform.radius, None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "c.npz")
        certify(HENON, orbit[: words.check + 1]).save(file)
        start = time.perf_counter()
        verdict = verify(HENON, file)
        assert verdict.ok
        seconds = time.perf_counter() - start
        row(f"Arb verifier, {words.check:,} steps", seconds, verdict.radius_max, None)
        start = time.perf_counter()
        run = Path(folder, "long")
        long = certify_long(HENON, [0.0, 0.0], words.long, run, n_unstable=1)
        seconds = time.perf_counter() - start
        row(f"blocked, {words.long:,} steps", seconds, long.radius_max, long.radius_median)
        assert long.ok, long
    lorenz_rows(words.units, words.flow_check)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the whole script {peak:.0f} MiB")


def lorenz_rows(units: int, checked: int) -> None:
    """Print the rows of the Lorenz flow: its orbit, the certificate, and a check in Arb."""
    lorenz, step = zoo.lorenz(), 1 / 64
    start = time.perf_counter()
    z0 = integrate(lorenz, [1.0, 1.0, 20.0], 640, step=step)[-1]
    orbit = integrate(lorenz, z0, units * 64, step=step)
    print(f"| Lorenz orbit, {units:,} time units | {time.perf_counter() - start:.2f} | | |")
    start = time.perf_counter()
    c = certify_flow(lorenz, orbit, step=step)
    seconds = time.perf_counter() - start
    assert c.ok
    row(f"its certificate, {c.n_steps:,} steps", seconds, c.radius_max, np.median(c.radius))
    print(f"| its drift in time, at most {c.time_shift:.2g} | | | |")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "c.npz")
        part = certify_flow(lorenz, orbit[: checked + 1], step=step, n_unstable=1)
        part.save(file)
        start = time.perf_counter()
        verdict = verify(lorenz, file)
        assert verdict.ok
        seconds = time.perf_counter() - start
        row(f"Arb verifier, {part.n_steps:,} steps", seconds, verdict.radius_max, None)


def row(name: str, seconds: float, worst: float, median: float | None) -> None:
    """Print one line of the table."""
    shown = "" if median is None else f"{median:.2g}"
    print(f"| {name} | {seconds:.2f} | {worst:.2g} | {shown} |")


if __name__ == "__main__":
    main()
