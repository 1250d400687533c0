"""Marginal estimation of the Rasch model from sparse answers: a million persons, 500 items, 10 %.

python packages/rasch/benchmarks/sparse.py            # 100,000 persons
python packages/rasch/benchmarks/sparse.py 1000000    # the whole: 5e7 answers
"""

import datetime
import resource
import sys
import time

import numpy as np

from meristem_rasch import MML, Responses

ITEMS, DENSITY, SD = 500, 0.1, 1.2


def simulate(persons: int, rng: np.random.Generator) -> tuple[Responses, np.ndarray]:
    """Return answers of normal persons, each to a random tenth of the items."""
    b = rng.normal(size=ITEMS)
    scores = np.full((persons, ITEMS), -1, dtype=np.int8)
    for at in range(0, persons, 10_000):
        part = scores[at : at + 10_000]
        logits = (SD * rng.normal(size=(len(part), 1)) - b).astype(np.float32)
        solved = rng.random(part.shape, dtype=np.float32) < 1 / (1 + np.exp(-logits))
        seen = rng.random(part.shape, dtype=np.float32) < DENSITY
        part[seen] = solved[seen]
    data = Responses(
        scores=scores,
        persons=tuple(map(str, range(persons))),
        items=tuple(map(str, range(ITEMS))),
        max_score=np.ones(ITEMS, dtype=np.int64),
        weight=np.ones(persons),
    )
    return data, b


def main() -> None:
    """Print one row: seconds, memory, and how far the estimates are from the planted values."""
    persons = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    data, b = simulate(persons, np.random.default_rng(0))
    start = time.perf_counter()
    cal = MML().fit(data)
    seconds = time.perf_counter() - start
    z = (cal.threshold - b + b.mean()) / cal.threshold_se
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert np.sqrt(np.mean(z**2)) < 1.3, (
        "the estimates are further from the truth than their errors"
    )
    assert abs(cal.latent_sd - SD) < 5 * cal.latent[0].sd_se, "the planted sd is missed"
    far = float(np.sqrt(np.mean(z**2)))
    print(f"{datetime.date.today()}, NumPy {np.__version__}, {ITEMS} items, density {DENSITY}\n")
    print("| persons | steps | seconds | peak GiB | rms z of difficulties |\n|---|---|---|---|---|")
    print(f"| {persons:,} | {cal.n_iter} | {seconds:.1f} | {memory:.2f} | {far:.2f} |")


if __name__ == "__main__":
    main()
