"""DeepConf on the model of `_revision`: what its threshold drops, saves and gains.

The samples have at most 12 tokens and the vocabulary 11, so windows are WIDTH tokens wide, not
2,048, and confidence is that of the TOP likeliest tokens, not 20: mechanics, not its headline.
"""

import time
from collections.abc import Sequence

import numpy as np

import meristem_testtime as tt
from meristem._rows import Row
from meristem.reproduce._data import sign_row
from meristem.reproduce._revision import SKILL, STEP, WORDS, questions
from meristem_testtime.hf import HFEngine

WIDTH, TOP = 2, 5
SAMPLES, WARMUP = 8, 4
KEEP = {"low": 0.1, "high": 0.9}
SOURCE = "arXiv 2508.15260"


def deepconf_rows(engine: HFEngine, count: int, seed: int) -> list[Row]:
    """Return the rows on the small model, and the headline that it cannot test."""
    rows: list[Row] = []
    for letter in SKILL:
        for name in KEEP:
            rows += _rows(engine, letter, name, count, seed)
    return [*rows, _headline(seed)]


def threshold(result: tt.SearchResult, keep: float) -> float:
    """Return the window confidence below which the samples after the warm-up end, in nats."""
    warmup = [np.array(node.confidence) for node in result.nodes[:WARMUP]]
    lowest = [tt.window_confidence(each, WIDTH).lowest for each in warmup]
    return tt.early_stop_threshold(np.array(lowest), keep)


def _rows(engine: HFEngine, letter: str, name: str, count: int, seed: int) -> list[Row]:
    start = time.perf_counter()
    prompts, gold = questions(letter, count, seed)

    def found(algorithm: tt.Algorithm) -> list[tt.SearchResult]:
        return tt.search_sync(engine, prompts, algorithm, step=STEP, temperature=1.0, seed=seed)

    whole = found(tt.best_of_n(SAMPLES))
    sure = found(tt.deepconf(SAMPLES, warmup=WARMUP, keep=KEEP[name], width=WIDTH, top=TOP))
    majority, weighted = (
        tt.vote(tt.from_results(each, gold, kind="number"), rule).correct.astype(np.float64)
        for each, rule in ((whole, tt.majority), (sure, tt.weighted("weight")))
    )
    saved = 1 - _tokens(sure) / _tokens(whole)
    dropped = np.array([_dropped(each) for each in sure])
    least = np.mean([threshold(each, KEEP[name]) for each in sure])
    shown = (
        ("drops samples after the warm-up", dropped, None,
         f"share; {1 - KEEP[name]:.1f} of the warm-up lies below {least:.3g} nats on the mean"),
        ("saves tokens", saved, None, f"share of those of {SAMPLES} whole samples"),
        (f"beats majority of {SAMPLES} whole samples", weighted, majority,
         f"paired; {weighted.mean():.1%} against {majority.mean():.1%}"),
    )  # fmt: skip
    rows: list[Row] = []
    for what, values, minus, note in shown:
        gap = tt.interval(values, minus=minus, seed=seed)
        rows.append(
            sign_row(
                f"DeepConf-{name} {what}: {WORDS[letter]}", SOURCE, gap, 1,
                note=f"{note}; windows of {WIDTH} tokens",
                seconds=time.perf_counter() - start, seed=seed,
            )
        )  # fmt: skip
    return rows


def _dropped(result: tt.SearchResult) -> float:
    """Return the share of the samples after the warm-up that have no vote."""
    kept = {node.address() for node in result.solutions}
    return float(np.mean([node.address() not in kept for node in result.nodes[WARMUP:]]))


def _tokens(results: Sequence[tt.SearchResult]) -> np.ndarray:
    return np.array([each.cost.tokens for each in results], np.float64)


def _headline(seed: int) -> Row:
    return Row(
        claim="DeepConf beats majority with fewer tokens on Brumo25, an 8B model",
        source=f"{SOURCE}, its repository", measured=None, low=None, high=None, n=0,
        claimed="93.3 % with 2.7 M tokens against 90.0 % with 5.8 M",
        verdict="not testable here", seconds=0.0, seed=seed,
        note="needs an 8B model; no log-probabilities of its samples are published",
    )  # fmt: skip
