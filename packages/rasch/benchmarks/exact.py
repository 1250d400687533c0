"""Distance of conditional estimates from 40-digit arithmetic, and the time of very wide tests.

python packages/rasch/benchmarks/exact.py            # up to 200 items, a minute
python packages/rasch/benchmarks/exact.py 1000       # up to 1,000 items and 20,000 persons

The error of the estimates is the Newton step that the 40-digit gradient asks for at them.
"""

import datetime
import resource
import sys
import time

import mpmath
import numpy as np
from mpmath import mpf

from meristem_rasch import CML, Responses, conditional_probabilities, log_esf

SIZES = {20: (2000, 1.0), 100: (5000, 2.0), 200: (5000, 3.0), 500: (10_000, 3.0)}
LARGEST = {1000: (20_000, 3.0)}


def times(polynomial: list[mpf], weight: mpf) -> list[mpf]:
    """Return the polynomial times (1 + weight z); sums of positive numbers only."""
    out = [*polynomial, mpf(0)]
    for r in range(len(polynomial), 0, -1):
        out[r] += weight * out[r - 1]
    return out


def expected(b: np.ndarray, counts: np.ndarray) -> tuple[list[mpf], list[mpf]]:
    """Return gamma, and the expected number of persons who solve each item given the scores."""
    weights = [mpmath.exp(-mpf(float(x))) for x in b]
    prefixes = [[mpf(1)]]
    for weight in weights:
        prefixes.append(times(prefixes[-1], weight))
    gamma, out = prefixes.pop(), [mpf(0)] * len(b)
    # rest[s]: sum over scores r of n_r / gamma_r times what the later items add to s
    rest = [mpf(int(n)) / value for n, value in zip(counts, gamma, strict=True)]
    for j in range(len(b) - 1, -1, -1):
        before, weight = prefixes[j], weights[j]
        out[j] = weight * mpmath.fdot(before, rest[1:])
        rest = [rest[s] + weight * rest[s + 1] for s in range(len(before))]
    return gamma, out


def measure(items: int, persons: int, spread: float) -> str:
    """Return a row of the table."""
    rng = np.random.default_rng(items)
    b = spread * rng.normal(size=items)
    chance = 1 / (1 + np.exp(b - rng.normal(size=(persons, 1))))
    table = (rng.random(chance.shape) < chance).astype(np.int8)
    table[0], table[1] = 1, 0  # an item is solved by somebody, and missed by somebody
    solved = table.sum(axis=0)
    table = table[:, (solved > 5) & (solved < persons - 5)]
    data = Responses.from_wide(table)
    start = time.perf_counter()
    cal = CML().fit(data)
    seconds = time.perf_counter() - start
    raw = table.sum(axis=1)
    size = table.shape[1]
    counts = np.bincount(raw, minlength=size + 1)
    counts[0] = counts[-1] = 0
    observed = table[(raw > 0) & (raw < size)].sum(axis=0)
    with mpmath.workdps(40):
        gamma, wanted = expected(cal.threshold, counts)
        gradient = np.array([float(mpf(int(o)) - e) for o, e in zip(observed, wanted, strict=True)])
        logs = np.array([float(mpmath.log(value)) for value in gamma])
        middle = np.where(np.arange(size + 1) == size // 2, 1, 0)
        shares = np.array([float(share) for share in expected(cal.threshold, middle)[1]])
    thresholds = [[x] for x in cal.threshold]
    log_error = np.abs(log_esf(thresholds) - logs).max()
    pi = conditional_probabilities(thresholds, np.array([size // 2]))[0, :, 1]
    pi_error = np.abs(pi - shares).max()
    step = np.abs(cal.vcov @ gradient).max()
    return (
        f"| {size:,} | {persons:,} | {spread:g} | {seconds:.2f} | {log_error:.1e} | "
        f"{pi_error:.1e} | {step:.1e} |"
    )


def main() -> None:
    """Print one row for each size."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{datetime.date.today()}, NumPy {np.__version__}, mpmath {mpmath.__version__}\n")
    print("| items | persons | sd | CML, seconds | log gamma | P given score | estimates, logits |")
    print("|---|---|---|---|---|---|---|")
    for items, (persons, spread) in (SIZES | LARGEST).items():
        if items <= most:
            print(measure(items, persons, spread), flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory {memory:.2f} GiB")


if __name__ == "__main__":
    main()
