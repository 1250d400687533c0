"""What GAOKAO-Eval published, human essays beside it, and the form of a row."""

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meristem._rows import Row, Verdict
from meristem_core import bootstrap_interval, stream
from meristem_rasch import isr

SCORES = "irt/gaokao_eval_2024_scores.csv"
ESSAYS = "irt/classical/immer01a_ratings.csv.gz"
CODE = "livecodebench/lcb_performances_repair.parquet"
TRACES = "reasoning_traces/traces.csv.gz"
LEADERBOARD = "irt/metabench_truthfulqa.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaokao:
    """Score rates of systems on sub-questions without a gap."""

    rates: np.ndarray  # systems x items
    points: np.ndarray  # largest score of each item
    position: np.ndarray  # share of the paper that comes before the item
    subject: tuple[str, ...]  # paper and subject
    systems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every measurement needs."""

    data: Path
    quick: bool
    seed: int

    @property
    def draws(self) -> int:
        """Resamples."""
        return 40 if self.quick else 400


def read_gaokao(path: Path) -> Gaokao:
    """Return the published scores; a run on images is used where a system has no plain one."""
    cells: dict[tuple[str, str, str, int], dict[str, tuple[float, float]]] = {}
    count: dict[tuple[str, str, str, str], int] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            item = (row["paper"], row["subject"], row["item"])
            number = count[(*item, row["model"])] = count.get((*item, row["model"]), -1) + 1
            system = row["model"].split("+")[0]
            scores = cells.setdefault((*item, number), {})
            if system not in scores or "+" not in row["model"]:
                scores[system] = float(row["score"]), float(row["max_score"])
    systems = tuple(sorted({name for scores in cells.values() for name in scores}))
    keys = [key for key, scores in cells.items() if len(scores) == len(systems)]
    points = np.array([next(iter(cells[key].values()))[1] for key in keys])
    rates = np.array([[cells[key][name][0] for key in keys] for name in systems]) / points
    subject = tuple(f"{key[0]} {key[1]}" for key in keys)
    return Gaokao(
        rates=np.clip(rates, 0, 1),
        points=points,
        position=_positions(subject),
        subject=subject,
        systems=systems,
    )


def partly_solved(gaokao: Gaokao) -> np.ndarray:
    """Return which items were ever given part of their points.

    A choice item scores all or nothing: its points are one trial, and counting them as many makes
    any scores look overdispersed.
    """
    return np.asarray(((gaokao.rates > 0) & (gaokao.rates < 1)).any(axis=0), dtype=bool)


def _positions(subject: tuple[str, ...]) -> np.ndarray:
    label = np.array(subject)
    out = np.zeros(len(label))
    for name in dict.fromkeys(subject):
        rows = np.flatnonzero(label == name)
        out[rows] = np.arange(len(rows)) / max(len(rows) - 1, 1)
    return out


def row_of(
    claim: str,
    source: str,
    claimed: float | str,
    found: tuple[float, float | None, float | None],
    n: int,
    verdict: Verdict,
    note: str,
) -> Row:
    measured, low, high = found
    return Row(
        claim=claim,
        source=source,
        claimed=claimed,
        measured=measured,
        low=low,
        high=high,
        n=n,
        verdict=verdict,
        note=note,
        seconds=0.0,
        seed=0,
    )


def read_essays(path: Path) -> list[tuple[str, str, str, tuple[int, ...]]]:
    """Return student, type, rater and grades of criteria of human-rated essays."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [
            (r["idstud"], r["type"], r["rater"], tuple(int(r[f"k{k}"]) for k in range(1, 6)))
            for r in csv.DictReader(file)
        ]


def isr_of(
    scores: np.ndarray, label: np.ndarray, settings: Settings
) -> tuple[float, float, float, float]:
    """Return the inconsistent score rate with its interval over groups, and the bell's."""
    group = np.unique(label, return_inverse=True)[1].ravel()
    found = isr(
        scores,
        group,
        grid=np.unique(scores),
        rng=stream(settings.seed, "isr"),
        draws=500 if settings.quick else 5000,
    )
    count = np.bincount(group)
    mean = np.bincount(group, scores) / count
    sd = np.sqrt(np.maximum(np.bincount(group, scores**2) / count - mean**2, 0))
    outside = np.abs(scores - mean[group]) > sd[group] * (1 + 1e-9) + 1e-12
    share = np.bincount(group, outside)
    interval = bootstrap_interval(
        lambda rows: float(share[rows].sum() / count[rows].sum()),
        len(count),
        rng=stream(settings.seed, "groups"),
        n_resamples=max(settings.draws, 200),
    )
    return found.rate, interval.low, interval.high, found.gaussian
