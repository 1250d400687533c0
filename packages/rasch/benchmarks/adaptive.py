"""Time adaptive tests of many examinees, and catsim on 50 of them where it is installed.

uv run --with catsim --with numexpr python packages/rasch/benchmarks/adaptive.py [EXAMINEES]
"""

import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from meristem_rasch import CML, Calibration, Responses, simulate_cat

BANK, LENGTH, SAMPLE = 1000, 50, 50


def bank(rng: np.random.Generator) -> Calibration:
    """Return 1,000 Rasch items with normal difficulties."""
    small = CML().fit(Responses.from_wide([[0, 1], [1, 0]]))
    return replace(
        small,
        items=tuple(f"I{k}" for k in range(BANK)),
        max_score=np.ones(BANK, dtype=np.int64),
        threshold=rng.normal(size=BANK),
        vcov=np.eye(BANK),
        slope=np.ones(BANK),
        slope_se=np.zeros(BANK),
        guess=np.zeros(BANK),
    )


def catsim_seconds(items: Calibration, theta: np.ndarray) -> float | None:
    """Return the time of catsim for these examinees, None where it is absent."""
    try:
        from catsim.estimation import NumericalSearchEstimator
        from catsim.initialization import FixedPointInitializer
        from catsim.selection import MaxInfoSelector
        from catsim.simulation import Simulator
        from catsim.stopping import MinErrorStopper, TestLengthStopper  # noqa: F401
    except ImportError as error:
        print(f"catsim is not compared: {error}", file=sys.stderr)
        return None
    parameters = np.column_stack(
        [items.slope, items.threshold, items.guess, np.ones(len(items.items))]
    )
    start = time.perf_counter()
    Simulator(parameters, theta).simulate(
        FixedPointInitializer(0),
        MaxInfoSelector(),
        NumericalSearchEstimator(),
        TestLengthStopper(max_items=LENGTH),
    )
    return time.perf_counter() - start


def main() -> None:
    """Print a Markdown table of seconds per 10,000 examinees."""
    n = int(sys.argv[1]) if sys.argv[1:] else 10_000
    rng = np.random.default_rng(0)
    items, theta = bank(rng), rng.normal(size=n)
    start = time.perf_counter()
    run = simulate_cat(items, theta, max_items=LENGTH, seed=0)
    ours = time.perf_counter() - start
    error = float(np.sqrt(np.mean((run.final - theta) ** 2)))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {n:,} examinees x {LENGTH} of {BANK:,} items, "
        f"meristem-rasch {version('meristem-rasch')}, NumPy {version('numpy')}; RMSE {error:.3f}\n"
    )
    print("| what | seconds | ratio |\n|---|---|---|")
    print(f"| simulate_cat | {ours:.2f} | 1 |")
    peer = catsim_seconds(items, theta[:SAMPLE])
    if peer is not None:
        scaled = peer * n / SAMPLE
        name = f"catsim {version('catsim')}, {SAMPLE} examinees, scaled"
        print(f"| {name} | {scaled:.1f} | {scaled / ours:.0f} |")


if __name__ == "__main__":
    main()
