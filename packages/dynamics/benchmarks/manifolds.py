"""Manifolds and conjugacies: ours, and pynamicalsys' manifold where it is installed.

uv run --with pynamicalsys==1.7.0 python packages/dynamics/benchmarks/manifolds.py

Both grow both branches of the unstable manifold of the Hénon fixed point, to the same arc length
and the same largest gap of neighbours. The peer returns every iterate of a linear seed, unsorted:
it gets the fewest seeds and iterates whose points, sorted along the curve, have no larger gap.
Errors are those of returned points, spread over all of them, against the true curve at 50 digits:
distance to its nearest point, and to its point of the same parameter.
"""

import functools
import importlib.util
import math
import time
from importlib.metadata import version

import mpmath as mp
import numpy as np

from meristem_dynamics import (
    Curve,
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
REPEATS = 7
LENGTHS = (5, 20, 50, 69)
GAP = 0.01
DELTA = 1e-4  # the peer's default: length of its linear seed
SAMPLES = 400


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
    compare()


def compare() -> None:
    """Print times and errors of growth beside the peer's, both branches to a length and a gap."""
    print("\n| arc length | points, ours / peer | largest gap | ours, ms | peer, ms | ratio "
          "| ours with turns up to 0.3, ms |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    peer = importlib.util.find_spec("pynamicalsys") is not None
    true = TrueCurve()
    errors = []
    compiling = time.perf_counter()
    if peer:
        peer_manifold(10, 10)
    compiling = time.perf_counter() - compiling
    for length in LENGTHS:
        seconds, curves = best(lambda length=length: ours(length))
        turning, _ = best(lambda length=length: ours(length, angle=0.3))
        points = sum(len(curve.points) for curve in curves)
        gap = max(float(np.diff(curve.arc).max()) for curve in curves)
        row = f"| {length} | {points:,} / "
        if not peer:
            print(f"{row}not installed | {gap:.4f} | {1e3 * seconds:.1f} | | | |")
            continue
        steps, seeds, peer_gap = peer_request(true, curves)
        other, _ = best(lambda steps=steps, seeds=seeds: peer_manifold(steps, seeds))
        print(
            f"{row}{2 * steps * seeds:,} | {gap:.4f} / {peer_gap:.4f} "
            f"| {1e3 * seconds:.1f} | {1e3 * other:.1f} | {other / seconds:.1f} "
            f"| {1e3 * turning:.1f} |"
        )
        errors.append((length, our_errors(true, curves), peer_errors(true, steps, seeds)))
    if peer:
        print("\n| arc length | largest distance to the true curve, ours / peer | ratio "
              "| to the point of the same parameter, ours / peer | ratio |")  # fmt: skip
        print("|---|---|---|---|---|")
        for length, (a, c), (b, d) in errors:
            away, apart = f"{a:.1e} / {b:.1e} | {b / a:.0e}", f"{c:.1e} / {d:.1e} | {d / c:.0e}"
            print(f"| {length} | {away} | {apart} |")
        print(
            f"\npynamicalsys {version('pynamicalsys')}, without its {compiling:.0f} s of compiling"
        )


def ours(length: float, angle: float = math.pi) -> list[Curve]:
    """Return both branches, from the map alone; by default without a limit of turns."""
    curve = invariant_manifold(HENON, FIXED)
    return [grow(curve, length=length, max_gap=GAP, max_angle=angle, side=side) for side in (1, -1)]


class TrueCurve:
    """The unstable manifold at 50 digits; its parameter is the length along the eigenvector."""

    def __init__(self, order: int = 40) -> None:
        mp.mp.dps = 50
        self.a, self.b = mp.mpf("1.4"), mp.mpf("0.3")
        x = (self.b - 1 + mp.sqrt((1 - self.b) ** 2 + 4 * self.a)) / (2 * self.a)
        self.rate = -self.a * x - mp.sqrt((self.a * x) ** 2 + self.b)
        first = 1 / mp.sqrt(1 + (self.b / self.rate) ** 2)
        X, Y = [x, first], [self.b * x, self.b * first / self.rate]
        for m in range(2, order + 1):
            power = self.rate**m
            mixed = -self.a * sum(X[i] * X[m - i] for i in range(1, m))
            X.append(mixed / (power + 2 * self.a * x - self.b / power))
            Y.append(self.b * X[m] / power)
        self.rows = X[::-1], Y[::-1]

    def __call__(self, t: object) -> tuple[object, object]:
        """Return the point of parameter t: the series below 0.05, its images beyond."""
        n = max(0, int(mp.ceil(mp.log(abs(t) / 0.05) / mp.log(-self.rate)))) if t else 0
        x, y = (mp.polyval(row, t / self.rate**n) for row in self.rows)
        for _ in range(n):
            x, y = 1 - self.a * x * x + y, self.b * x
        return x, y

    def errors(self, t: np.ndarray, points: np.ndarray) -> tuple[float, float]:
        """Return the largest distances to the curve and to the points of parameters t."""
        away, apart = 0.0, 0.0
        for s, z in zip(t, points, strict=True):
            foot, z = mp.mpf(s), [mp.mpf(float(v)) for v in z]
            gap = [u - v for u, v in zip(z, self(foot), strict=True)]
            apart = max(apart, float(mp.hypot(*gap)))
            small = abs(foot) * mp.mpf(10) ** -20 or mp.mpf(10) ** -20
            for _ in range(4):
                slope = [
                    (u - v) / (2 * small)
                    for u, v in zip(self(foot + small), self(foot - small), strict=True)
                ]
                foot += sum(u * v for u, v in zip(slope, gap, strict=True)) / sum(
                    u * u for u in slope
                )
                gap = [u - v for u, v in zip(z, self(foot), strict=True)]
            away = max(away, float(mp.hypot(*gap)))
        return away, apart


def our_errors(true: TrueCurve, curves: list[Curve]) -> tuple[float, float]:
    """Return the largest errors of points spread over both branches."""
    local = invariant_manifold(HENON, FIXED)
    scale = float(np.linalg.norm(local.coefficients[1])) * np.sign(local.coefficients[1][0])
    points = np.concatenate([curve.points for curve in curves])
    t = [
        mp.mpf(float(s)) * scale * true.rate ** int(n)
        for curve in curves
        for s, n in zip(curve.parameter, curve.steps, strict=True)
    ]
    some = spread(len(points))
    return true.errors(np.array(t, dtype=object)[some], points[some])


def peer_parameters(true: TrueCurve, steps: int, seeds: int) -> np.ndarray:
    """Return the parameters of the peer's first array: iterates 1, 2, ... of seed by seed."""
    rate = float(true.rate)
    start = np.linspace(0.0, DELTA, seeds)
    return (start[:, None] * rate ** np.arange(1, steps + 1)).ravel()


def peer_errors(true: TrueCurve, steps: int, seeds: int) -> tuple[float, float]:
    """Return the largest errors of points spread over the peer's first array."""
    points = peer_manifold(steps, seeds)[0]
    some = np.union1d(spread(len(points)), np.arange(len(points) - steps, len(points)))
    start = [mp.mpf(float(s)) for s in np.linspace(0.0, DELTA, seeds)]
    t = [start[i // steps] * true.rate ** (i % steps + 1) for i in some.tolist()]
    return true.errors(np.array(t, dtype=object), points[some])


def peer_request(true: TrueCurve, curves: list[Curve]) -> tuple[int, int, float]:
    """Return the least iterates and seeds, to 5 %, with which the peer covers our curves.

    Its points are sorted along each branch by parameter; no two neighbours may be further apart
    than `GAP` up to the length of ours.
    """
    local = invariant_manifold(HENON, FIXED)
    scale = float(np.linalg.norm(local.coefficients[1]))
    ends = [
        abs(float(curve.parameter[-1])) * scale * abs(float(true.rate)) ** int(curve.steps[-1])
        for curve in curves
    ]
    steps = int(np.ceil(np.log(max(ends) / DELTA) / np.log(-float(true.rate))))
    low, high = 2, 64
    while largest_gap(true, steps, high, ends) > GAP:
        low, high = high, 2 * high
    while high - low > 0.05 * low:
        middle = (low + high) // 2
        fine = largest_gap(true, steps, middle, ends) <= GAP
        low, high = (low, middle) if fine else (middle, high)
    return steps, high, largest_gap(true, steps, high, ends)


def largest_gap(true: TrueCurve, steps: int, seeds: int, ends: list[float]) -> float:
    """Return the largest gap of the peer's points along both branches."""
    t = peer_parameters(true, steps, seeds)
    both = np.concatenate(peer_manifold(steps, seeds))
    t, worst = np.concatenate([t, -t]), 0.0
    for side, end in zip((1, -1), ends, strict=True):
        here = (side * t >= 0) & (side * t <= end * 1.001)
        ordered = both[here][np.argsort(side * t[here], kind="stable")]
        worst = max(worst, float(np.linalg.norm(np.diff(ordered, axis=0), axis=1).max()))
    return worst


def spread(n: int) -> np.ndarray:
    """Return at most `SAMPLES` indices spread over n, the first and last among them."""
    return np.unique(np.linspace(0, n - 1, min(SAMPLES, n)).astype(int))


@functools.cache
def peer_system() -> object:
    """Return the peer's Hénon map, compiled once."""
    from pynamicalsys import DiscreteDynamicalSystem

    return DiscreteDynamicalSystem(
        mapping=_mapping(), jacobian=_jacobian(), backwards_mapping=_backwards(),
        system_dimension=2, number_of_parameters=2,
    )  # fmt: skip


def peer_manifold(steps: int, seeds: int) -> list[np.ndarray]:
    """Return the two arrays that pynamicalsys finds, each seed by seed; both mix the branches."""
    return [
        np.asarray(branch)
        for branch in peer_system().manifold(
            FIXED, 1, parameters=[1.4, 0.3], delta=DELTA, n_points=seeds, iter_time=steps,
            stability="unstable",
        )
    ]  # fmt: skip


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
