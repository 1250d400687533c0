"""Many-facet Rasch: the shape on which a dense design takes days (36,000 persons x 11,000 raters).

python packages/rasch/benchmarks/facets.py          # 130,000 ratings
python packages/rasch/benchmarks/facets.py whole    # 1.3 million ratings
"""

import datetime
import resource
import sys
import time

import numpy as np

from meristem_rasch import Facets, Ratings

ITEMS, MARKS, STEPS = 9, 4, np.array([-1.5, -0.5, 0.5, 1.5])


def simulate(persons: int, raters: int, rng: np.random.Generator) -> tuple[Ratings, np.ndarray]:
    """Return ratings 0...4 of every person on 9 items by 4 random raters."""
    theta, severity = 1.2 * rng.normal(size=persons), 0.5 * rng.normal(size=raters)
    b = rng.normal(size=ITEMS)
    person = np.repeat(np.arange(persons), MARKS * ITEMS)
    rater = np.repeat(rng.integers(0, raters, size=persons * MARKS), ITEMS)
    item = np.tile(np.arange(ITEMS), persons * MARKS)
    eta = theta[person] - severity[rater] - b[item]
    z = np.multiply.outer(eta, np.arange(5.0)) - np.concatenate([[0], np.cumsum(STEPS)])
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    score = (rng.random((len(eta), 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return Ratings.from_long(score, {"person": person, "rater": rater, "item": item}), severity


def main() -> None:
    """Print one row: seconds to a largest step below 1e-5, memory, correlation of severities."""
    persons, raters = (36_000, 11_000) if sys.argv[1:] == ["whole"] else (3_600, 1_100)
    data, severity = simulate(persons, raters, np.random.default_rng(0))
    start = time.perf_counter()
    cal = Facets(tol=1e-5).fit(data)
    seconds = time.perf_counter() - start
    table = cal.facets["rater"]
    planted = severity[np.array(table.labels, dtype=int)]
    r = float(np.corrcoef(table.measure, planted)[0, 1])
    assert r > 0.9, "the planted severities are not found"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{datetime.date.today()}, NumPy {np.__version__}\n")
    print("| ratings | persons x raters x items | Newton steps | seconds | peak GiB | r |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {len(data.score):,} | {persons:,} x {raters:,} x {ITEMS} | {cal.n_iter} | "
        f"{seconds:.1f} | {memory:.2f} | {r:.3f} |"
    )


if __name__ == "__main__":
    main()
