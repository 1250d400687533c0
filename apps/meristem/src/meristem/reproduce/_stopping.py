"""Stopping on the counts of answers, replayed on whole samples, against the vote over all.

- in launch order, and in order of arrival, where shorter samples are judged first
- an early vote and the full one break ties to the sample that was launched first
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

import meristem_testtime as tt
from meristem._rows import Row
from meristem.reproduce._data import absent, data_file, read_zst, sign_row
from meristem.reproduce._revision import ERROR, SKILL, WORDS, drawn
from meristem_core import wilson_interval
from meristem_testtime.hf import HFEngine

REWARDS = ("qwen_math_rm", "qwen25math_rm8_math100.jsonl.zst")
SOURCE = "arXiv 2305.11860; order of arrival: ours"
RISK = 0.05  # that the rules at 0.95 accept


def published_stopping(seed: int) -> list[Row]:
    """Return the rows on 100 questions of MATH with eight samples each."""
    path = data_file(*REWARDS)
    if path is None:
        return [absent("adaptive stopping on MATH samples", SOURCE, "/".join(REWARDS), seed)]
    samples = _samples([json.loads(line) for line in read_zst(path).splitlines()])
    return stopping_rows(samples, "MATH samples", 1, seed)


def model_stopping(engine: HFEngine, count: int, seed: int) -> list[Row]:
    """Return the rows on the small model, whose long samples are those that were repaired."""
    rows: list[Row] = []
    for letter, skill in SKILL.items():
        samples = drawn(engine, letter, count, seed)
        rows += stopping_rows(samples, WORDS[letter], -1 if skill > 1 - ERROR else 1, seed)
    return rows


def stopping_rows(traces: tt.Traces, where: str, sign: int, seed: int) -> list[Row]:
    """Return what each rule saves and changes, and what the order of arrival does to the first.

    Parameters
    ----------
    sign
        Of how much likelier short samples are right than long ones.
    """
    rules = {"beta(0.95)": tt.beta(), "dirichlet(0.95)": tt.dirichlet(), "certain": tt.certain}
    rows: list[Row] = []
    for name, stop in rules.items():
        rows += _rule(traces, f"{name}: {where}", stop, 0.0 if name == "certain" else RISK, seed)
    return [*rows, *_arrival(traces, f"beta(0.95): {where}", sign, seed)]


def judged(traces: tt.Traces, stop: tt.Stop, order: np.ndarray) -> np.ndarray:
    """Return which samples a rule hears of until it says enough.

    Parameters
    ----------
    order
        A value of each sample; those of a question are judged from the least on, equal ones as
        they were launched.
    """
    known = cache(stop)
    heard = np.zeros(traces.question.size, bool)
    for question in range(len(traces.questions)):
        rows = np.flatnonzero(traces.question == question)
        rows = rows[np.argsort(order[rows], kind="stable")]
        counts: Counter[int] = Counter()
        for place, row in enumerate(rows.tolist()):
            heard[row] = True
            counts.update([int(traces.answer[row])] if traces.answer[row] >= 0 else [])
            if counts and known(tuple(sorted(counts.values())), rows.size - 1 - place):
                break
    return heard


def disagreement(traces: tt.Traces, heard: np.ndarray) -> np.ndarray:
    """Return for which questions the vote over `heard` is not that over all samples."""
    early, full = (tt.vote(each, tt.majority).answer for each in (traces.take(heard), traces))
    return early != full


def _rule(traces: tt.Traces, claim: str, stop: tt.Stop, risk: float, seed: int) -> list[Row]:
    start = time.perf_counter()
    launched = judged(traces, stop, np.zeros(traces.question.size))
    arrived = disagreement(traces, judged(traces, stop, traces.tokens)).mean()
    saved = tt.interval(1 - _mean(traces, launched), seed=seed)
    wrong = disagreement(traces, launched)
    share = wilson_interval(int(wrong.sum()), wrong.size)
    within = share.high <= risk if risk else not wrong.any()
    beyond = share.low > risk if risk else wrong.any()
    seconds = time.perf_counter() - start
    return [
        sign_row(
            f"samples saved by {claim}", SOURCE, saved, 1, seconds=seconds, seed=seed,
            note="share of the samples, launch order, over questions",
        ),
        Row(
            claim=f"early vote is not the full vote by {claim}", source=SOURCE, claimed=risk,
            measured=share.estimate, low=share.low, high=share.high, n=wrong.size,
            verdict="reproduced" if within else "refuted" if beyond else "partly",
            note=f"at most so, launch order (Wilson); {arrived:.1%} in order of arrival",
            seconds=seconds, seed=seed,
        ),
    ]  # fmt: skip


def _arrival(traces: tt.Traces, claim: str, sign: int, seed: int) -> list[Row]:
    start = time.perf_counter()
    orders = (traces.tokens, np.zeros(traces.question.size))
    heard = [judged(traces, tt.beta(), order) for order in orders]
    wrong = [disagreement(traces, each).astype(np.float64) for each in heard]
    length = [_mean(traces, traces.tokens, each) for each in heard]
    right = [_mean(traces, traces.correct, each) for each in heard]
    rows: list[Row] = []
    for what, direction, (arrived, launched) in (
        ("judges shorter samples", -1, length),
        (f"judges samples that are {'more' if sign > 0 else 'less'} often right", sign, right),
        ("disagrees more with the full vote", 1, wrong),
    ):
        found = tt.interval(arrived, minus=launched, seed=seed)
        rows.append(
            sign_row(
                f"order of arrival {what}, {claim}", SOURCE, found, direction,
                note=f"minus launch order, which has {launched.mean():.3g}; paired over questions",
                seconds=time.perf_counter() - start, seed=seed,
            )
        )  # fmt: skip
    return rows


def _mean(traces: tt.Traces, values: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of each question's values, of all samples or some."""
    weights = np.ones(values.size) if among is None else among.astype(np.float64)
    return np.bincount(traces.question, weights * values) / np.bincount(traces.question, weights)


def _samples(rows: Sequence[dict[str, Any]]) -> tt.Traces:
    """Return the samples of MATH; their length is counted in words."""
    answers: list[int] = []
    for row in rows:
        known: dict[str, int] = {}
        answers += [known.setdefault(each, len(known)) if each else -1 for each in row["pred"]]
    return tt.Traces(
        question=np.repeat(np.arange(len(rows)), [len(row["pred"]) for row in rows]),
        answer=np.array(answers),
        tokens=np.array([len(text.split()) for row in rows for text in row["code"]]),
        correct=np.array([bool(score) for row in rows for score in row["score"]]),
        questions=tuple(map(str, range(len(rows)))),
    )
