"""Manifolds and conjugacies: ours, and pynamicalsys' manifold where it is installed.

uv run --with pynamicalsys==1.7.0 python packages/dynamics/benchmarks/manifolds.py

Both grow the unstable manifold of the Hénon fixed point. The peer returns every iterate of a linear
seed, unsorted; so it gets enough seeds that, sorted along the curve, its largest gap is ours. The
error of a point is its distance to the true local curve after it is mapped back.
"""

import functools
import importlib.util
import time
from importlib.metadata import version

import numpy as np

from meristem_dynamics import (
    certify_manifold,
    check_degenerate_saddle,
    conjugacy,
    degenerate_graph,
    grow,
    invariant_manifold,
    zoo,
)

HENON = zoo.henon()
FIXED = np.array(HENON.exact["fixed_point"])
REPEATS = 5


def main() -> None:
    """Print Markdown tables."""
    print(f"{time.strftime('%Y-%m-%d')}, one thread, NumPy {np.__version__}\n")
    print("| task | milliseconds | |\n|---|---|---|")
    seconds, curve = best(lambda: invariant_manifold(HENON, FIXED))
    print(f"| Hénon W^u, order 40, warm | {1e3 * seconds:.2f} | residual {curve.residual:.1e} |")
    seconds, proof = best(lambda: certify_manifold(curve))
    print(f"| its proof in Arb | {1e3 * seconds:.2f} | radius {proof.radius:.1e} |")
    demo = zoo.demo_saddle()
    seconds, _ = best(lambda: check_degenerate_saddle(demo))
    print(f"| six forms of the demo saddle | {1e3 * seconds:.2f} | exact |")
    seconds, graph = best(lambda: degenerate_graph(demo))
    worst = graph.residual_at(np.array([0.1]))[0]
    print(f"| its W^s, order 40 | {1e3 * seconds:.2f} | residual {worst:.1e} at 0.1 |")
    z = np.random.default_rng(0).uniform(-0.15, 0.15, (4000, 2))
    start = time.perf_counter()
    h = conjugacy(demo)
    h(z)
    seconds = time.perf_counter() - start
    print(f"| its conjugacy, 4,000 points with set-up | {1e3 * seconds:.0f} | |")
    print(f"| residual of h F = G h on them | | {h.residual(z):.1e} |")
    compare(curve)


def compare(curve: object) -> None:
    """Print times and errors of growth beside the peer's."""
    print("\n| arc length | ours, ms | pynamicalsys, ms | ratio | our error | its error |")
    print("|---|---|---|---|---|---|")
    peer = importlib.util.find_spec("pynamicalsys") is not None
    for length in (5, 20, 69):
        seconds, grown = best(lambda length=length: grow(curve, length=length))
        own = local_error(curve, grown.points[grown.steps == 0])
        if not peer:
            print(f"| {length} | {1e3 * seconds:.1f} | not installed | | {own:.1e} | |")
            continue
        steps, seeds = int(grown.steps[-1]) + 14, len(grown.points)
        other, _ = best(lambda steps=steps, seeds=seeds: peer_manifold(steps, seeds))
        near = peer_manifold(10, seeds)  # still on the local curve
        print(
            f"| {length} | {1e3 * seconds:.1f} | {1e3 * other:.1f} | {other / seconds:.1f} "
            f"| {own:.1e} | {local_error(curve, near):.1e} |"
        )
    if peer:
        print(f"\npynamicalsys {version('pynamicalsys')}, compiled before the clock starts")


@functools.cache
def peer_system() -> object:
    """Return the peer's Hénon map, compiled once."""
    from pynamicalsys import DiscreteDynamicalSystem

    return DiscreteDynamicalSystem(
        mapping=_mapping(), jacobian=_jacobian(), backwards_mapping=_backwards(),
        system_dimension=2, number_of_parameters=2,
    )  # fmt: skip


def peer_manifold(steps: int, seeds: int) -> np.ndarray:
    """Return the unstable manifold that pynamicalsys finds."""
    branches = peer_system().manifold(
        FIXED, 1, parameters=[1.4, 0.3], n_points=seeds, iter_time=steps, stability="unstable"
    )
    points = np.concatenate([np.asarray(branch) for branch in branches])
    return points[np.isfinite(points).all(axis=1)]


def _mapping() -> object:
    from numba import njit

    @njit
    def f(u: np.ndarray, p: np.ndarray) -> np.ndarray:
        return np.array([1 - p[0] * u[0] ** 2 + u[1], p[1] * u[0]])

    return f


def _backwards() -> object:
    from numba import njit

    @njit
    def f(u: np.ndarray, p: np.ndarray) -> np.ndarray:
        x = u[1] / p[1]
        return np.array([x, u[0] - 1 + p[0] * x**2])

    return f


def _jacobian() -> object:
    from numba import njit

    @njit
    def f(u: np.ndarray, p: np.ndarray, *args: object) -> np.ndarray:
        return np.array([[-2 * p[0] * u[0], 1.0], [p[1], 0.0]])

    return f


def local_error(curve: object, points: np.ndarray) -> float:
    """Return the largest distance of points near the fixed point to the local curve."""
    t, small = np.linspace(-1.0, 1.0, 20001), 1e-5
    z = curve(t)
    worst = 0.0
    for point in points[:: max(1, len(points) // 200)]:
        foot = float(t[np.argmin(((z - point) ** 2).sum(axis=1))])
        for _ in range(4):
            before, at, after = curve(np.array([foot - small, foot, foot + small]))
            slope = (after - before) / (2 * small)
            foot += float(slope @ (point - at) / (slope @ slope))
        gap = point - curve(np.array([foot]))[0]
        worst = max(worst, float(np.linalg.norm(gap)))
    return worst


def best(task: object) -> tuple[float, object]:
    """Return the median time of a task after one warm run, and its result."""
    result = task()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = task()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


if __name__ == "__main__":
    main()
