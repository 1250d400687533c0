"""Sensitivity d<z>/d rho of the Lorenz flow: ours, and fds where it is installed.

uv pip install --target PEERS --no-deps --prerelease allow fds==0.1.0.dev1 dill
PYTHONPATH=PEERS python packages/dynamics/benchmarks/gradients.py

(fds declares mpi4py as a requirement and runs without it.) Both use the same Runge-Kutta step of
0.01 and several starts; compare the times at equal standard deviation between starts.
"""

import contextlib
import importlib.util
import io
import time

import numpy as np

from meristem_dynamics import iterate, runge_kutta, shadowing_gradient, zoo

STEP = 0.01
SCHEME = runge_kutta(zoo.lorenz(), STEP)
STARTS = 6


def main() -> None:
    """Print a Markdown table."""
    print(f"{time.strftime('%Y-%m-%d')}, one thread, NumPy {np.__version__}\n")
    print("| method | time units | seconds | d<z>/d rho | s.d. between starts |")
    print("|---|---|---|---|---|")
    for method in ("split", "least_squares", "segments"):
        for units in (100, 1000) if method == "split" else (100,):
            run(f"meristem-dynamics, {method}", units, lambda z, n, m=method: ours(z, n, m))
    if importlib.util.find_spec("fds") is None:
        print("| fds | | not installed | | |")
    else:
        run("fds 0.1.0.dev1", 100, peer)


def run(name: str, units: int, task: object) -> None:
    """Time a task from several starts and print its row."""
    rng = np.random.default_rng(0)
    values, seconds = [], []
    for _ in range(STARTS if units < 1000 else 3):
        z = iterate(SCHEME, rng.normal(size=3) + np.array([1.0, 1.0, 25.0]), 2000)[-1]
        start = time.perf_counter()
        values.append(task(z, int(units / STEP)))
        seconds.append(time.perf_counter() - start)
    spread = np.std(values, ddof=1)
    print(f"| {name} | {units} | {np.median(seconds):.2f} | {np.mean(values):.4f} | {spread:.4f} |")


def ours(z: np.ndarray, steps: int, method: str) -> float:
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
