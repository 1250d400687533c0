"""Accuracy of several rules over the number of samples, with intervals and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from meristem_testtime._at_k import at_k
from meristem_testtime._estimates import MeanInterval, interval
from meristem_testtime._majority import maj_at_k
from meristem_testtime._rules import Rule, majority
from meristem_testtime._traces import Traces

RESAMPLES = 2000  # of the questions, for each point of a curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Expected accuracy of rules on k samples; entry i of a tuple belongs to ks[i].

    Attributes
    ----------
    ks
        Numbers of samples.
    tokens
        Expected tokens that k samples of a question cost, mean over questions.
    values
        For each rule, one row a question, one column a k.
    accuracy
        For each rule, means over questions.
    difference
        For each rule but the first, its accuracy minus that of the first, paired by question.
    mc_se
        For each rule, the largest Monte-Carlo standard error of its means; 0 where exact.
    """

    ks: tuple[int, ...]
    tokens: Float[np.ndarray, " k"]
    values: dict[str, Float[np.ndarray, "q k"]]
    accuracy: dict[str, tuple[MeanInterval, ...]]
    difference: dict[str, tuple[MeanInterval, ...]]
    mc_se: dict[str, float]


def curve(
    traces: Traces,
    rules: Mapping[str, Rule],
    ks: Sequence[int],
    *,
    draws: int = 4096,
    seed: int = 0,
) -> Curve:
    """Return the accuracy of each rule at each k, ties shared evenly.

    Parameters
    ----------
    rules
        Named rules; the others are compared with the first.
    ks
        Numbers of samples, 1 <= k <= n for every question.
    draws, seed
        As for `at_k`; majority is exact for every n.

    Raises
    ------
    ValueError
        If there is no rule, a k is out of range, or there is one question.
    """
    if not rules:
        raise ValueError("there is no rule; give at least one, such as majority")
    values: dict[str, Float[np.ndarray, "q k"]] = {}
    errors: dict[str, float] = {}
    for name, rule in rules.items():
        if rule is majority:
            values[name], errors[name] = maj_at_k(traces, ks), 0.0
            continue
        found = at_k(traces, rule, ks, draws=draws, seed=seed)
        values[name] = found.values
        errors[name] = float(np.sqrt((found.mc_se**2).sum(0)).max() / len(found.values))
    first = next(iter(rules))
    length = np.bincount(traces.question, weights=traces.tokens) / traces.sizes()
    return Curve(
        ks=tuple(ks),
        tokens=np.asarray(ks) * length.mean(),
        values=values,
        accuracy={name: _intervals(each, None, seed) for name, each in values.items()},
        difference={
            name: _intervals(each, values[first], seed)
            for name, each in values.items()
            if name != first
        },
        mc_se=errors,
    )


def _intervals(values: np.ndarray, minus: np.ndarray | None, seed: int) -> tuple[MeanInterval, ...]:
    return tuple(
        interval(
            values[:, column], minus=None if minus is None else minus[:, column],
            resamples=RESAMPLES, seed=seed,
        )
        for column in range(values.shape[1])
    )  # fmt: skip
