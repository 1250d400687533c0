"""Paper 2502.12215 on published samples, and its self-revision on a model trained here.

- eight reasoning models on AIME 2024 and GPQA-diamond, eight samples a question, each alone and
  with and without the samples that give no answer (they are long and wrong by construction)
- verdicts follow `judge`: the 95 % interval over questions decides, no model hides another
"""

import time
from pathlib import Path

import numpy as np

import meristem_testtime as tt
from meristem._rows import Row, Verdict
from meristem.reproduce._data import absent, data_file, judge, pooled
from meristem.reproduce._deepconf import deepconf_rows
from meristem.reproduce._revision import revision_rows, train
from meristem.reproduce._revision_grid import grid_rows
from meristem.reproduce._shortest_votes import Measure, unspent, vote_claims
from meristem.reproduce._stopping import model_stopping, published_stopping
from meristem_core import wilson_interval

TRACES = ("reasoning_traces", "traces.csv.gz")
ANSWERED = ", answered samples only"
SAME = 0.01  # accuracies closer than this are one


def reproduce(out: Path, quick: bool, seed: int) -> list[Row]:
    """Return the rows on the published samples and on the model trained here."""
    engine, count = train(steps=120 if quick else 300, seed=seed), 120 if quick else 400
    return [
        *published_rows(seed),
        *published_stopping(seed),
        *revision_rows(engine, count, seed),
        *grid_rows(240 if quick else 600, count, seed),
        *model_stopping(engine, count, seed),
        *deepconf_rows(engine, count, seed),
    ]


def published_rows(seed: int) -> list[Row]:
    """Return the rows on the published samples; those that need absent data say so."""
    path = data_file(*TRACES)
    claims = (
        ("longer samples are less accurate", "section 3, figure 1", -1, _longer),
        ("right samples are shorter than wrong ones", "section 3, figure 2", -1, _outcome),
        ("'wait' grows with length", "section 3", 1, _wait),
        ("shortest majority beats majority at k = 8", "section 5", 1, _shortest_vote),
    )
    votes = vote_claims()
    if path is None:
        names = [each[:2] for each in (*claims, *votes)]
        return [absent(claim, where, "/".join(TRACES), seed) for claim, where in names]
    strata = tt.read_traces(path)
    rows: list[Row] = []
    for claim, where, sign, measure in claims:
        rows += _claim(strata, claim, where, sign, measure, seed, ("", ANSWERED))
    for claim, where, sign, measure in votes:
        rows += _claim(strata, claim, where, sign, measure, seed, ("",))
    return [*rows, _unspent(strata, seed), _tie_break(strata, seed)]


def _claim(
    strata: dict[str, tt.Traces],
    claim: str,
    where: str,
    sign: int,
    measure: Measure,
    seed: int,
    suffixes: tuple[str, ...],
) -> list[Row]:
    rows: list[Row] = []
    for suffix in suffixes:
        own = [
            _row(f"{claim}: {name}{suffix}", where, sign, measure, _kept(traces, suffix), seed)
            for name, traces in strata.items()
        ]
        verdicts: list[Verdict] = [row.verdict for row in own]
        counts = {each: verdicts.count(each) for each in ("reproduced", "partly", "refuted")}
        rows += own
        rows.append(
            Row(
                claim=f"{claim}: all models{suffix}", source=where, claimed=_side(sign),
                measured=", ".join(f"{n} {verdict}" for verdict, n in counts.items()),
                low=None, high=None, n=len(own), verdict=pooled(verdicts),
                note="reproduced or refuted only where every model is",
                seconds=sum(row.seconds for row in own), seed=seed,
            )
        )  # fmt: skip
    return rows


def _row(claim: str, where: str, sign: int, measure: Measure, traces: tt.Traces, seed: int) -> Row:
    start = time.perf_counter()
    try:
        found = measure(traces, seed)
    except ValueError as error:
        return Row(
            claim=claim, source=where, claimed=_side(sign), measured=None, low=None, high=None,
            n=0, verdict="not testable here", note=str(error), seconds=0.0, seed=seed,
        )  # fmt: skip
    return Row(
        claim=claim, source=where, claimed=_side(sign), measured=found.mean, low=found.low,
        high=found.high, n=found.n_questions, verdict=_verdict(found, sign),
        note=f"over questions; detectable: {found.minimal_detectable:.3g}",
        seconds=time.perf_counter() - start, seed=seed,
    )  # fmt: skip


def _longer(traces: tt.Traces, seed: int) -> tt.MeanInterval:
    """Return accuracy of the longer minus the shorter of two random samples of a question."""
    several = traces.take(traces.sizes()[traces.question] > 1)
    tokens = several.tokens.astype(np.float64)
    scored = tt.Traces(
        question=several.question, answer=several.answer, tokens=several.tokens,
        correct=several.correct, questions=several.questions,
        scores={"long": tokens, "short": -tokens},
    )  # fmt: skip
    long, short = (tt.bon_at_k(scored, [2], name)[:, 0] for name in ("long", "short"))
    return tt.interval(long, minus=short, seed=seed)


def _outcome(traces: tt.Traces, seed: int) -> tt.MeanInterval:
    return tt.length_by_outcome(traces, seed=seed).difference


def _wait(traces: tt.Traces, seed: int) -> tt.MeanInterval:
    return tt.marker_trend(traces, "wait", seed=seed).correlation


def _shortest_vote(traces: tt.Traces, seed: int) -> tt.MeanInterval:
    """Return the shortest majority vote minus majority on all samples of a question, exactly."""
    gaps: list[np.ndarray] = []
    for size in np.unique(traces.sizes()):
        part = traces.take(traces.sizes()[traces.question] == size)
        k = [int(size)]
        gaps.append((tt.at_k(part, tt.shortest_majority, k).values - tt.maj_at_k(part, k))[:, 0])
    return tt.interval(np.concatenate(gaps), seed=seed)


def _unspent(strata: dict[str, tt.Traces], seed: int) -> Row:
    """Return the tokens that short-3 of all samples spares, which run side by side."""
    start = time.perf_counter()
    shares = np.concatenate([unspent(traces, 3) for traces in strata.values()])
    names = [name for traces in strata.values() for name in traces.questions]
    label = np.unique(names, return_inverse=True)[1]
    found = tt.interval(shares, clusters=label, seed=seed)
    return Row(
        claim="short-3 of 8 spares tokens: all models", source="arXiv 2505.17813",
        claimed="above 0", measured=found.mean, low=found.low, high=found.high,
        n=found.n_clusters, verdict=judge(found, 1), seconds=time.perf_counter() - start,
        note="share of the tokens of 8 samples; majority, shortest and longest majority spare "
        "none; models of a question resampled together", seed=seed,
    )  # fmt: skip


def _tie_break(strata: dict[str, tt.Traces], seed: int) -> Row:
    """Return how often the shortest vote overturns a sole majority."""
    start = time.perf_counter()
    found = [tt.explain_smv(traces) for traces in strata.values()]
    counts = np.array([len(traces.questions) for traces in strata.values()])
    share = wilson_interval(sum(len(each.overturned) for each in found), int(counts.sum()))
    broken = float(np.average([each.tie_break for each in found], weights=counts))
    return Row(
        claim="the shortest vote is majority with a tie-break by length: under 1 % overturned",
        source="ours, from its formula", claimed=0.01, measured=share.estimate, low=share.low,
        high=share.high, n=int(counts.sum()),
        verdict="reproduced" if share.high < 0.01 else "refuted" if share.low > 0.01 else "partly",
        note=f"share of the votes over 8 samples (Wilson); {broken:.1%} are ties broken",
        seconds=time.perf_counter() - start, seed=seed,
    )  # fmt: skip


def _kept(traces: tt.Traces, suffix: str) -> tt.Traces:
    return traces.take(traces.answer >= 0) if suffix else traces


def _side(sign: int) -> str | float:
    return ("above 0" if sign > 0 else "below 0") if sign else 0.0


def _verdict(found: tt.MeanInterval, sign: int) -> Verdict:
    """Return `judge` of a sign; of sign 0: refuted without 0, reproduced with it and within SAME.

    Partly: the interval holds 0 and more than SAME.
    """
    if sign:
        return judge(found, sign)
    if not found.low <= 0 <= found.high:
        return "refuted"
    return "reproduced" if found.low >= -SAME and found.high <= SAME else "partly"
