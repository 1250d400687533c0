"""Everything that is measured on one stratum, by calls of meristem-testtime alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import meristem_testtime as tt

BUDGETS = 8  # points of the comparison at equal budgets
DRAWS = 1024  # random orders above 16 samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One stratum; what cannot be measured on it is None, and `notes` says why."""

    questions: int
    samples: int
    tokens: float  # mean of a sample
    unanswered: float  # share of the samples
    capped: float | None  # share of the samples
    coverage: tuple[tt.MeanInterval, ...]
    curve: tt.Curve
    smv: tt.SmvExplanation
    full_vote: Mapping[str, float]  # accuracy of the whole vote, ties by launch order
    answered: Mapping[str, tt.MeanInterval]  # accuracy at the largest common k, answered samples
    profile: tt.LengthProfile | None
    outcome: tt.LengthByOutcome | None
    trends: Mapping[str, tt.MarkerTrend]
    revision: tt.RevisionReport | None
    budget: tt.BudgetComparison | None
    shapes: tuple[tt.Cell, ...] | None  # chains times rounds
    notes: tuple[str, ...]


def rules_for(traces: tt.Traces) -> dict[str, tt.Rule]:
    """Return the rules that the columns of `traces` allow, majority first."""
    rules: dict[str, tt.Rule] = {
        "majority": tt.majority,
        "shortest majority": tt.shortest_majority,
        "longest majority": tt.longest_majority,
        "short-3": tt.short_m(3),
    }
    for name, column in traces.scores.items():
        if np.unique(column).size > 1:
            rules[f"best of n by {name}"] = tt.best_of(name)
            rules[f"Borda by {name}"] = tt.borda(name)
            if column.min() >= 0:
                rules[f"weighted by {name}"] = tt.weighted(name)
    return rules


def measure(
    traces: tt.Traces, chains: tt.Chains | None, *, ks: Sequence[int] | None, seed: int
) -> Measured:
    """Return the measurements of `traces` and of the chains on the same questions.

    Raises
    ------
    ValueError
        If there is one question, or a k exceeds the samples of one.
    """
    least = int(traces.sizes().min())
    ks = _powers(least) if ks is None else tuple(ks)
    rules = rules_for(traces)
    coverage = tt.pass_at_k(traces, ks)
    notes = [
        f"{name} has values below 0, the least {column.min():g}, so no vote is weighted by it; map "
        "it to positive values first"
        for name, column in traces.scores.items()
        if column.min() < 0
    ]
    return Measured(
        questions=len(traces.questions),
        samples=traces.question.size,
        tokens=float(traces.tokens.mean()),
        unanswered=float((traces.answer < 0).mean()),
        capped=None if traces.capped is None else float(traces.capped.mean()),
        coverage=tuple(tt.interval(coverage[:, i], seed=seed) for i in range(len(ks))),
        curve=tt.curve(traces, rules, ks, draws=DRAWS, seed=seed),
        smv=tt.explain_smv(traces),
        full_vote={
            name: float(tt.vote(traces, rule).correct.mean()) for name, rule in rules.items()
        },
        answered=_answered(traces, notes, seed),
        profile=_or_note(notes, tt.length_profile, traces, seed),
        outcome=_or_note(notes, tt.length_by_outcome, traces, seed),
        trends=_trends(traces, notes, seed),
        revision=None if chains is None else tt.revisions(chains),
        budget=None if chains is None else _budget(traces, chains, seed),
        shapes=None if chains is None else tt.chains_by_rounds(chains, traces, seed=seed),
        notes=tuple(notes),
    )


def plain_of(measured: Measured) -> dict[str, Any]:
    """Return the measurements as plain JSON values, without the values of single questions."""
    result = asdict(measured)
    del result["curve"]["values"]
    if result["budget"] is not None:
        result["budget"]["sequential"] = result["budget"]["sequential"].mean(0)
        result["budget"]["parallel"] = result["budget"]["parallel"].mean(0)
    return result


def _answered(traces: tt.Traces, notes: list[str], seed: int) -> dict[str, tt.MeanInterval]:
    """Return majority and its rivals on the samples that have an answer, at one k for all."""
    kept = traces.answer >= 0
    if kept.all():
        return {}
    if not kept.any():
        notes.append("no sample has an answer")
        return {}
    held = traces.take(kept)
    if len(held.questions) < 2:
        notes.append("fewer than two questions have an answer")
        return {}
    k = int(held.sizes().min())
    found = tt.curve(held, rules_for(held), [k], draws=DRAWS, seed=seed)
    notes.append(
        f"without the unanswered samples {len(held.questions)} questions with {k} samples or more "
        "are left"
    )
    return {name: each[0] for name, each in found.accuracy.items()}


def _trends(traces: tt.Traces, notes: list[str], seed: int) -> dict[str, tt.MarkerTrend]:
    found: dict[str, tt.MarkerTrend] = {}
    for name in traces.markers:
        try:
            found[name] = tt.marker_trend(traces, name, seed=seed)
        except ValueError as error:
            notes.append(f"marker {name}: {error}")
    return found


def _or_note(notes: list[str], analysis: Any, traces: tt.Traces, seed: int) -> Any:
    try:
        return analysis(traces, seed=seed)
    except ValueError as error:
        notes.append(str(error))
        return None


def _budget(traces: tt.Traces, chains: tt.Chains, seed: int) -> tt.BudgetComparison:
    """Compare at budgets from a typical first answer to the cost of a whole chain."""
    first = max(float(chains.tokens[:, 0].mean()), 1.0)
    whole = max(float(chains.tokens.sum(1).mean()), first + 1)
    budgets = np.unique(np.geomspace(first, whole, BUDGETS).round().astype(int)).tolist()
    return tt.equal_budget(chains, traces, budgets, seed=seed)


def _powers(n: int) -> tuple[int, ...]:
    return tuple(sorted({*(2**i for i in range(n.bit_length())), n}))
