"""Unigram and bigram models of a token stream, the first things a language model learns.

- p1 is add-one smoothed; p2(v | u) is the plain relative frequency, stored sparsely by u
- a token u that nothing followed in the text has p2(. | u) = p1
- the interpolation 0.9 p2 + 0.1 p1 is positive everywhere, as a divergence from it needs
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

BIGRAM_SHARE = 0.9  # of p2 in the interpolated bigram model


@dataclass(frozen=True, slots=True, kw_only=True)
class NGrams:
    """Unigram and bigram probabilities of a text, natural logarithms throughout.

    Row u of p2 is `probability[row_start[u]:row_start[u + 1]]` at the tokens `successor[...]`.
    """

    unigram: Float[np.ndarray, " V"]  # p1, add-one smoothed, positive
    row_start: Int[np.ndarray, " V_and_one"]
    successor: Int[np.ndarray, " pairs"]
    probability: Float[np.ndarray, " pairs"]
    unigram_entropy: float  # nats a token, of the unsmoothed frequencies
    bigram_entropy: float  # nats a token, of the next token given the one before

    def bigram_logprobs(
        self, previous: Integer[np.ndarray, " n"], following: Integer[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Return log(0.9 p2 + 0.1 p1) of each pair, shape (n,), nats."""
        vocabulary = self.unigram.size
        rows = np.repeat(np.arange(vocabulary), np.diff(self.row_start))
        keys = rows * vocabulary + self.successor
        wanted = previous.astype(np.int64) * vocabulary + following
        place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
        p2 = np.where(keys[place] == wanted, self.probability[place], 0.0)
        p1 = self.unigram[following]
        seen = np.diff(self.row_start)[previous] > 0
        return np.log(np.where(seen, BIGRAM_SHARE * p2 + (1 - BIGRAM_SHARE) * p1, p1))


def count_ngrams(
    texts: Sequence[Integer[np.ndarray, " _"]],
    *,
    vocabulary: int,
    weights: Sequence[float] | None = None,
) -> NGrams:
    """Return the unigram and bigram model of one or more token streams.

    Parameters
    ----------
    texts
        Token ids in [0, vocabulary), each of shape (n,), n >= 2.
    vocabulary
        Number of tokens V.
    weights
        Share of each text in the mixture, positive; default: by length.

    Raises
    ------
    ValueError
        If there is no text, a text has fewer than two tokens or an id outside the vocabulary, or a
        weight is not positive.

    Notes
    -----
    H1 = -sum_v p(v) log p(v) and H2 = -sum_u p(u) sum_v p2(v|u) log p2(v|u) are the entropies of
    the weighted relative frequencies: the loss of a model that knows those frequencies exactly.

    Examples
    --------
    >>> counted = count_ngrams([np.array([0, 1, 0, 1, 0])], vocabulary=3)
    >>> counted.successor, counted.bigram_entropy
    (array([1, 0]), 0.0)
    """
    _check(texts, vocabulary, weights)
    shares = np.asarray(weights if weights is not None else [ids.size for ids in texts], float)
    singles = np.zeros(vocabulary)
    keys, counts = np.zeros(0, np.int64), np.zeros(0)
    total = sum(ids.size for ids in texts)
    for ids, share in zip(texts, shares / shares.sum(), strict=True):
        scale = share * total / ids.size  # a weighted mixture keeps the size of the whole
        singles += scale * np.bincount(ids, minlength=vocabulary)
        pairs, times = np.unique(
            ids[:-1].astype(np.int64) * vocabulary + ids[1:], return_counts=True
        )
        keys, place = np.unique(np.concatenate([keys, pairs]), return_inverse=True)
        counts = np.bincount(place, weights=np.concatenate([counts, scale * times]))
    before, successor = np.divmod(keys, vocabulary)
    row_total = np.bincount(before, weights=counts, minlength=vocabulary)
    probability = counts / row_total[before]
    share_of_pair = counts / counts.sum()
    frequency = singles[singles > 0] / singles.sum()
    return NGrams(
        unigram=(singles + 1) / (singles.sum() + vocabulary),
        row_start=np.concatenate([[0], np.cumsum(np.bincount(before, minlength=vocabulary))]),
        successor=successor,
        probability=probability,
        unigram_entropy=float(-(frequency * np.log(frequency)).sum()),
        bigram_entropy=float(-(share_of_pair * np.log(probability)).sum()) + 0.0,
    )


def _check(texts: Sequence[np.ndarray], vocabulary: int, weights: Sequence[float] | None) -> None:
    if not texts:
        raise ValueError("texts is empty; give at least one array of token ids")
    for index, ids in enumerate(texts):
        if ids.size < 2:
            raise ValueError(f"texts[{index}] has {ids.size} tokens; a bigram needs at least 2")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            raise ValueError(
                f"texts[{index}] has token ids from {low} to {high}; they must lie in "
                f"[0, {vocabulary}), so give the tokenizer's vocabulary size"
            )
    if weights is not None and not (
        len(weights) == len(texts) and all(0 < each < float("inf") for each in weights)
    ):
        raise ValueError(
            f"weights ({list(weights)}) must be {len(texts)} positive finite numbers, one per text"
        )
