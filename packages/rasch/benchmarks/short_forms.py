"""How well 10 or 20 items of a leaderboard place systems that its whole bank has placed.

Items are calibrated (2PL) on every other system; the rest take an adaptive test, the fixed form of
the items with most information at the mean ability, and a random form. Their recorded answers are
looked up, so that nothing is simulated.

uv run python packages/rasch/benchmarks/short_forms.py [--quick] FOLDER_OF_METABENCH_FILES
"""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import kendalltau

from meristem_rasch import MML, Calibration, Responses, information, replay_cat, score_persons

NAMES = ("arc", "gsm8k", "mmlu", "truthfulqa", "winogrande")
LENGTHS = (10, 20)


def fixed_form(
    bank: Calibration, data: Responses, items: Int[np.ndarray, " k"]
) -> Float[np.ndarray, " n"]:
    """Return the measures of everybody by the answers to these items only."""
    scores = np.full(data.scores.shape, -1, dtype=data.scores.dtype)
    scores[:, items] = data.scores[:, items]
    return score_persons(bank, replace(data, scores=scores), method="eap").theta


def row(name: str, form: str, theta: Float[np.ndarray, " n"], full: Float[np.ndarray, " n"]) -> str:
    """Return a line of the table."""
    place, true = (np.argsort(np.argsort(x, kind="stable")) for x in (theta, full))
    moved = np.mean(np.abs(place - true) > 0.05 * len(full))
    error = np.sqrt(np.mean((theta - full) ** 2))
    tau = kendalltau(theta, full).statistic
    return f"| {name} | {form} | {error:.2f} | {tau:.2f} | {moved:.0%} |"


def main() -> None:
    """Print the table."""
    quick = "--quick" in sys.argv
    folder = Path(sys.argv[-1])
    print(f"{datetime.now(UTC):%Y-%m-%d}, NumPy {np.__version__}, meristem-rasch", end=" ")
    print(version("meristem-rasch"))
    print("\n| leaderboard | form | error, logits | Kendall's tau | moved > 5 % of the places |")
    print("|---|---|---|---|---|")
    for name in NAMES[:1] if quick else NAMES:
        with np.load(folder / f"metabench_{name}.npz", allow_pickle=False) as file:
            table = file["responses"].astype(float)
        table = table[:, table[::2].std(axis=0) > 0]
        bank = MML(model="2pl").fit(Responses.from_wide(table[::2]))
        data = Responses.from_wide(table[1::2], max_score=bank.max_score)
        full = score_persons(bank, data, method="eap").theta
        rng = np.random.default_rng(0)
        label = f"{name}, {len(bank.items)} items, {len(data.persons):,} systems"
        for length in LENGTHS:
            best = np.argsort(-information(bank, np.zeros(1))[0])[:length]
            drawn = rng.permutation(len(bank.items))[:length]
            run = replay_cat(bank, data, max_items=length, seed=0)
            print(row(label, f"adaptive, {length}", run.final, full))
            print(row(label, f"most information, {length}", fixed_form(bank, data, best), full))
            print(row(label, f"random, {length}", fixed_form(bank, data, drawn), full))


if __name__ == "__main__":
    main()
