"""What a grown model must show; each rule was written before the run that it judges.

- intervals are 95 % percentile intervals over held-out rows, resampled together for all curves
- a check holds when its whole interval does; it holds partly when only the estimate does
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from meristem._rows import Row, Verdict
from meristem.grow._phases import (
    DIVERGENCES,
    Phases,
    load_divergences,
    load_losses,
    load_ngram_losses,
)
from meristem_core import bootstrap_interval, stream

RESAMPLES = 1000
PAPER = "arXiv 2509.17196, statistical phase"


def check_learning(folder: Path, phases: Phases, *, seed: int, seconds: float) -> list[Row]:
    """Return the verdicts on what the model learned, and when.

    Parameters
    ----------
    folder
        Of the phase stage.
    seconds
        What the run took until now.
    """
    losses, ngrams, divergences = _pooled(folder, phases)
    unigram, bigram = ngrams - losses[-1]
    kl = dict(zip(DIVERGENCES, divergences.transpose(1, 0, 2), strict=True))

    def lowest(rows: np.ndarray) -> float:
        return float(phases.steps[int(np.argmin(kl_of(rows)))])

    def kl_of(rows: np.ndarray) -> np.ndarray:
        return kl["kl_of_bigram"][:, rows].mean(1)

    checks = [
        ("the loss falls below that of unigrams", "> 0 nats", lambda rows: unigram[rows].mean()),
        ("the loss falls below that of bigrams", "> 0 nats", lambda rows: bigram[rows].mean()),
        (
            "unigrams are learned before bigrams: steps from min KL(q||p1) to min KL(p2||q)",
            "> 0 steps",
            lambda rows: (
                lowest(rows) - phases.steps[int(np.argmin(kl["kl_from_unigram"][:, rows].mean(1)))]
            ),
        ),
        (
            "the model then leaves the bigrams: rise of KL(p2||q) after its minimum",
            "> 0 nats",
            lambda rows: kl_of(rows)[-1] - kl_of(rows).min(),
        ),
    ]
    return [
        _row(claim, claimed, measure, losses.shape[1], seed=seed, seconds=seconds)
        for claim, claimed, measure in checks
    ]


def _row(
    claim: str,
    claimed: str,
    measure: Callable[[np.ndarray], float],
    n: int,
    *,
    seed: int,
    seconds: float,
) -> Row:
    found = bootstrap_interval(measure, n, rng=stream(seed, "checks"), n_resamples=RESAMPLES)
    return Row(
        claim=claim,
        source=PAPER,
        claimed=claimed,
        measured=found.estimate,
        low=found.low,
        high=found.high,
        n=n,
        verdict=_verdict(found.estimate, found.low),
        note=f"95 % over {n} held-out rows of all domains",
        seconds=seconds,
        seed=seed,
    )


def _verdict(estimate: float, low: float) -> Verdict:
    if low > 0:
        return "reproduced"
    return "partly" if estimate > 0 else "refuted"


def _pooled(folder: Path, phases: Phases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row means over all domains: losses [T, rows], n-grams [2, rows], KL [T, 3, rows]."""
    names: Sequence[str] = list(phases.domains)
    losses = [load_losses(folder, name, phases.steps).mean(2, dtype=np.float64) for name in names]
    ngrams = [load_ngram_losses(folder, name).mean(2) for name in names]
    divergences = [load_divergences(folder, name, phases.steps) for name in names]
    return (
        np.concatenate(losses, axis=1),
        np.concatenate(ngrams, axis=1),
        np.concatenate(divergences, axis=2),
    )
