"""Votes: a rule gives every answer class of a ballot a score, and the largest wins.

- a ballot is a set of samples of one question; many ballots are judged at once
- samples without an answer count in n and never form a class
- rules choose among classes only; ties are settled by name, elsewhere
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

MIN_LENGTH = 2.0  # clamp of a mean length: ln 1 = 0 would divide by zero and flip signs below


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballots:
    """B ballots over n samples; arrays of one row hold for every ballot.

    Attributes
    ----------
    member
        Whether the sample is in the ballot.
    answer
        Class of the sample, 0 to classes - 1, or -1.
    tokens
        Length of the sample.
    scores
        Named scores of the samples.
    classes
        Number of classes r.
    """

    member: Bool[np.ndarray, "b n"]
    answer: Int[np.ndarray, "a n"]
    tokens: Float[np.ndarray, "a n"]
    scores: Mapping[str, Float[np.ndarray, "a n"]]
    classes: int

    def sums(self, values: Float[np.ndarray, "c n"]) -> Float[np.ndarray, "b r"]:
        """Return the sum of `values` over the members of each class; rows as `tokens` or B."""
        if len(self.answer) == 1:
            own = self.answer[0][:, None] == np.arange(self.classes)
            if len(values) == 1:
                return self.member @ np.where(own, values.T, 0.0)
            return np.where(self.member, values, 0.0) @ own
        weights = np.where(self.member, values, 0.0)
        ballot, sample = np.nonzero(self.answer >= 0)
        flat = ballot * self.classes + self.answer[ballot, sample]
        total = np.bincount(
            flat, weights=weights[ballot, sample], minlength=len(weights) * self.classes
        )
        return total.astype(np.float64).reshape(len(weights), self.classes)

    def counts(self) -> Float[np.ndarray, "b r"]:
        """Return the number of members of each class."""
        return self.sums(np.ones((1, self.member.shape[1])))

    def maxima(self, values: Float[np.ndarray, "a n"]) -> Float[np.ndarray, "b r"]:
        """Return the largest of `values` over the members of each class; -inf if there is none."""
        inside = np.where(self.member, values, -np.inf)
        answer = np.broadcast_to(self.answer, self.member.shape)
        found = np.full((len(inside), self.classes), -np.inf)
        ballot, sample = np.nonzero(answer >= 0)
        np.maximum.at(found, (ballot, answer[ballot, sample]), inside[ballot, sample])
        return found

    def only(self, member: Bool[np.ndarray, "b n"]) -> "Ballots":
        """Return the ballots with other members."""
        return Ballots(
            member=member,
            answer=self.answer,
            tokens=self.tokens,
            scores=self.scores,
            classes=self.classes,
        )

    def score(self, name: str) -> Float[np.ndarray, "a n"]:
        """Return the column of scores called `name`."""
        if name not in self.scores:
            raise ValueError(f"there is no score {name!r}; the traces have {sorted(self.scores)}")
        return self.scores[name]


Rule = Callable[[Ballots], Float[np.ndarray, "b r"]]


def majority(ballots: Ballots) -> Float[np.ndarray, "b r"]:
    """Return the size of each class (self-consistency, arXiv 2203.11171)."""
    counts = ballots.counts()
    return _present(counts, counts)


def shortest_majority(ballots: Ballots) -> Float[np.ndarray, "b r"]:
    """Return size / ln(mean length) of each class: Shortest Majority Vote.

    Mean lengths below 2 count as 2.

    References
    ----------
    arXiv 2502.12215.
    """
    return _by_length(ballots, lambda length: 1 / np.log(length))


def longest_majority(ballots: Ballots) -> Float[np.ndarray, "b r"]:
    """Return size times ln(mean length) of each class."""
    return _by_length(ballots, np.log)


def length_power(power: float) -> Rule:
    """Return the rule size / (mean length)**power, for studies of how length should count."""
    return lambda ballots: _by_length(ballots, lambda length: length**-power)


def weighted(score: str, transform: Callable[[np.ndarray], np.ndarray] | None = None) -> Rule:
    """Return the rule that sums a score over each class.

    Parameters
    ----------
    score
        Name of the score.
    transform
        Elementwise map to non-negative weights, such as `sigmoid`; default: as it is.

    Raises
    ------
    ValueError
        When applied, if a weight is negative, as sums of negative rewards punish agreement, or
        not finite.
    """

    def rule(ballots: Ballots) -> np.ndarray:
        values = ballots.score(score)
        weights = values if transform is None else transform(values)
        bad = weights[~((weights >= 0) & (weights < np.inf))]
        if bad.size:
            raise ValueError(
                f"score {score!r} has the weight {bad[0]:.6g}; weights must be at least 0, and "
                "finite, so map them with transform=sigmoid"
            )
        return _present(ballots.counts(), ballots.sums(weights))

    return rule


def sigmoid(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return 1 / (1 + exp(-values)), without overflow."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1 + small)


def best_of(score: str) -> Rule:
    """Return the rule that takes the class of the sample with the largest score (best-of-n)."""
    return lambda ballots: ballots.maxima(ballots.score(score))


def borda(score: str, power: float = 0.5) -> Rule:
    """Return the rule that weighs a sample by (n - rank)**power, rank 0 for the largest score.

    Equal scores share the mean of their weights. Samples without an answer hold ranks.

    References
    ----------
    Self-Certainty, arXiv 2502.18581.
    """

    def rule(ballots: Ballots) -> np.ndarray:
        values = np.broadcast_to(ballots.score(score), ballots.member.shape)
        return _present(
            ballots.counts(), ballots.sums(_borda_weights(values, ballots.member, power))
        )

    return rule


def short_m(m: int = 3) -> Rule:
    """Return the rule that takes the majority among the m shortest samples of a ballot.

    Equal lengths are taken in launch order. The source breaks ties to the shortest chain: vote
    with ties="shortest".

    References
    ----------
    arXiv 2505.17813 (short-m@k).
    """
    if m < 1:
        raise ValueError(f"m ({m}) must be at least 1")

    def rule(ballots: Ballots) -> np.ndarray:
        first = _first(ballots.tokens, ballots.member, np.full(len(ballots.member), m))
        return majority(ballots.only(first))

    return rule


def keep_top(score: str, rule: Rule, share: float = 0.1) -> Rule:
    """Return `rule` applied to the samples whose score is in the top `share` of their ballot.

    At least one sample is kept; all that equal the last one kept stay.

    References
    ----------
    DeepConf, arXiv 2508.15260.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share ({share}) must lie in (0, 1]")

    def filtered(ballots: Ballots) -> np.ndarray:
        values = np.where(ballots.member, ballots.score(score), -np.inf)
        size = ballots.member.sum(1)
        kept = np.maximum(np.ceil(share * size - 1e-9).astype(int), 1)
        edge = np.take_along_axis(np.sort(values, 1)[:, ::-1], (kept - 1)[:, None], 1)
        return rule(ballots.only(ballots.member & (values >= edge)))

    return filtered


def _by_length(
    ballots: Ballots, weight: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, "b r"]:
    counts = ballots.counts()
    length = np.maximum(ballots.sums(ballots.tokens) / np.maximum(counts, 1), MIN_LENGTH)
    return _present(counts, counts * weight(length))


def _present(counts: np.ndarray, scores: np.ndarray) -> Float[np.ndarray, "b r"]:
    return np.where(counts > 0, scores, -np.inf)


def _first(values: np.ndarray, member: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Return the m members of each ballot that come first in a stable sort of `values`."""
    order = np.argsort(np.where(member, values, np.inf), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(int(values.shape[1]))[None], 1)
    return member & (rank < m[:, None])


def _borda_weights(values: np.ndarray, member: np.ndarray, power: float) -> np.ndarray:
    """Return the weight of each sample: the mean over the ranks of its group of equal scores."""
    n = member.sum(1, keepdims=True)
    inside = np.where(member, -values, np.inf)
    order = np.argsort(inside, axis=1, kind="stable")
    ranked = np.take_along_axis(inside, order, 1)
    place = np.arange(int(member.shape[1]))
    plain = np.maximum(n - place, 0) ** power
    starts = np.concatenate([np.ones((len(ranked), 1), bool), ranked[:, 1:] != ranked[:, :-1]], 1)
    group = np.cumsum(starts.ravel()) - 1
    mean = np.bincount(group, weights=plain.ravel()) / np.bincount(group)
    weights = np.empty(member.shape)
    np.put_along_axis(weights, order, mean[group].reshape(member.shape), 1)
    return weights
