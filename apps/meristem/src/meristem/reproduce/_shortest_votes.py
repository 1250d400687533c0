"""Rules that prefer short samples, each against another vote on the same samples, exactly."""

from collections.abc import Callable

import numpy as np

import meristem_testtime as tt

Measure = Callable[[tt.Traces, int], tt.MeanInterval]
Claim = tuple[str, str, int, Measure]  # claim, where it stands, its sign, what measures it
SHORT = "arXiv 2505.17813"


def vote_claims() -> tuple[Claim, ...]:
    """Return the claims; sign 0 claims that there is no difference."""
    beats, smv, most = "shortest majority beats", tt.shortest_majority, tt.majority
    return (
        (f"{beats} majority at k = 2", "section 5", 1, _gap(smv, most, 2)),
        (f"{beats} majority at k = 4", "section 5", 1, _gap(smv, most, 4)),
        (f"{beats} longest majority at k = 8", "section 5", 1, _gap(smv, tt.longest_majority, 8)),
        ("shortest majority is majority with ties to the shortest at k = 8",
         "ours, from its formula", 0, _gap(smv, ties_to_shortest, 8)),
        ("the shortest sample beats majority at k = 8", SHORT, 1, _gap(shortest, most, 8)),
        ("short-3 beats majority at k = 8", SHORT, 1, _gap(short_3, most, 8)),
    )  # fmt: skip


def ties_to_shortest(ballots: tt.Ballots) -> np.ndarray:
    """Return the scores of majority, ties broken by the shortest mean length."""
    length = ballots.sums(ballots.tokens) / np.maximum(ballots.counts(), 1)
    return tt.majority(ballots) + _part(length)


def shortest(ballots: tt.Ballots) -> np.ndarray:
    """Return the scores of shortest@k: the shortest sample that has an answer wins."""
    return ballots.maxima(-ballots.tokens)


def short_3(ballots: tt.Ballots) -> np.ndarray:
    """Return the scores of short-3, ties broken by the shortest sample, as its source does."""
    return tt.short_m(3)(ballots) + _part(-shortest(ballots))


def unspent(traces: tt.Traces, m: int) -> np.ndarray:
    """Return the share of a question's tokens that are not drawn if all end with the m-th."""
    shares: list[float] = []
    for question in range(len(traces.questions)):
        tokens = np.sort(traces.tokens[traces.question == question])
        shares.append(1 - np.minimum(tokens, tokens[m - 1]).sum() / tokens.sum())
    return np.array(shares)


def _part(length: np.ndarray) -> np.ndarray:
    """Return a part of one vote, at most a half, that is larger for shorter lengths."""
    return 1 / (2 + length)


def _gap(rule: tt.Rule, other: tt.Rule, k: int) -> Measure:
    def measure(traces: tt.Traces, seed: int) -> tt.MeanInterval:
        first, second = (tt.at_k(traces, each, [k]).values[:, 0] for each in (rule, other))
        return tt.interval(first, minus=second, seed=seed)

    return measure
