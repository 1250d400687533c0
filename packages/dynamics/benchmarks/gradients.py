"""Sensitivity d<z>/d rho of the Lorenz flow: ours, and fds where it is installed.

uv pip install --target PEERS --no-deps --prerelease allow fds==0.1.0.dev1 dill
PYTHONPATH=PEERS python packages/dynamics/benchmarks/gradients.py

(fds declares mpi4py as a requirement and runs without it.) Both use the same Runge-Kutta step of
0.01 and several starts. The last table compares the times at equal error: our shortest orbit, of
those tried, whose standard deviation between starts is no larger than fds'.
"""

import contextlib
import importlib.util
import io
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from meristem_dynamics import iterate, runge_kutta, shadowing_gradient, zoo

Task = Callable[[np.ndarray, int], float]
STEP = 0.01
SCHEME = runge_kutta(zoo.lorenz(), STEP)
STARTS = 16
PEER_STARTS = 8
UNITS = (100, 200, 400, 800, 1600)  # tried at equal error


@dataclass(frozen=True)
class Row:
    """What a method does from several starts."""

    seconds: float  # median
    mean: float
    spread: float  # standard deviation between starts


def main() -> None:
    """Print Markdown tables."""
    quick = "--quick" in sys.argv
    starts, peer_starts = (4, 2) if quick else (STARTS, PEER_STARTS)
    print(f"{time.strftime('%Y-%m-%d')}, one thread, NumPy {np.__version__}\n")
    print("| method | time units | seconds | d<z>/d rho | s.d. between starts |")
    print("|---|---|---|---|---|")
    for method in ("split", "least_squares", "segments"):
        row("ours, " + method, 100, lambda z, n, m=method: ours(z, n, m), starts)
    if importlib.util.find_spec("fds") is None:
        print("| fds | | not installed | | |")
        return
    theirs = {
        units: row("fds 0.1.0.dev1", units, peer, peer_starts)
        for units in (10, 30 if quick else 100)
    }
    print("\n| equal error: fds, time units | its s.d. | its seconds | ours, time units "
          "| our s.d. | our seconds | ratio |\n|---|---|---|---|---|---|---|")  # fmt: skip
    found = {10: measured(10, ours, starts)}
    for units, other in theirs.items():
        for more in (10, *UNITS):
            if more not in found:
                found[more] = measured(more, ours, starts)
            if found[more].spread <= other.spread:
                break
        equal = found[more]
        print(
            f"| {units} | {other.spread:.4f} | {other.seconds:.2f} | {more} | {equal.spread:.4f} "
            f"| {equal.seconds:.3f} | {other.seconds / equal.seconds:.0f} |"
        )


def row(name: str, units: int, task: Task, starts: int) -> Row:
    """Measure a task, print its row and return it."""
    found = measured(units, task, starts)
    print(
        f"| {name} | {units} | {found.seconds:.2f} | {found.mean:.4f} | {found.spread:.4f} |",
        flush=True,
    )
    return found


def measured(units: int, task: Task, starts: int) -> Row:
    """Return the time and the values of a task from several starts."""
    rng = np.random.default_rng(0)
    values, seconds = [], []
    for _ in range(starts):
        z = iterate(SCHEME, rng.normal(size=3) + np.array([1.0, 1.0, 25.0]), 2000)[-1]
        start = time.perf_counter()
        values.append(task(z, int(units / STEP)))
        seconds.append(time.perf_counter() - start)
    return Row(float(np.median(seconds)), float(np.mean(values)), float(np.std(values, ddof=1)))


def ours(z: np.ndarray, steps: int, method: str = "split") -> float:
    """Return our gradient; the orbit is part of the time."""
    orbit = iterate(SCHEME, z, steps)
    found = shadowing_gradient(
        zoo.lorenz(), orbit, lambda z, p: z[2], ["rho"], step=STEP, method=method
    )
    return found.value["rho"]


def solve(u: np.ndarray, rho: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Run the same scheme for fds, which starts a process for each call."""
    orbit = iterate(runge_kutta(zoo.lorenz(rho=float(rho)), STEP), u, n)
    return orbit[-1], orbit[1:, 2]


def peer(z: np.ndarray, steps: int) -> float:
    """Return fds' gradient with segments of one time unit."""
    import fds

    with contextlib.redirect_stdout(io.StringIO()):
        _, gradient = fds.shadowing(solve, z, 28.0, 1, steps // 100, 100, 0)
    return float(np.ravel(gradient)[-1])


if __name__ == "__main__":
    main()
