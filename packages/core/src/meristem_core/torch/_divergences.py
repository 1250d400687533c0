"""How far a model's predictions are from n-gram statistics.

- KL(q || p1) and KL(q || p2): has the model left unigrams, bigrams? p2 is interpolated with p1
- KL(p2 || q): does the model know the bigrams? Needs no smoothing
- sparse over the bigrams seen: the dense work is two passes over the log-probabilities

Shape letters: N positions, V vocabulary, P pairs seen.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_core._ngrams import BIGRAM_SHARE, NGrams


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramTables:
    """N-grams as tensors on one device; make them with `ngram_tables`."""

    log_unigram: Float[Tensor, " V"]
    row_start: Int[Tensor, " V_and_one"]
    successor: Int[Tensor, " P"]
    bigram: Float[Tensor, " P"]  # p2
    bigram_negentropy: Float[Tensor, " V"]  # sum_v p2 log p2 of each row
    gain: Float[Tensor, " P"]  # log(0.9 p2 + 0.1 p1) - log(0.1 p1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramDivergences:
    """Divergences in nats at each position, all >= 0 up to rounding."""

    from_unigram: Float[Tensor, " N"]  # KL(q || p1)
    from_bigram: Float[Tensor, " N"]  # KL(q || 0.9 p2 + 0.1 p1)
    of_bigram: Float[Tensor, " N"]  # KL(p2 || q)


def ngram_tables(
    ngrams: NGrams, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> NGramTables:
    """Return the n-grams as tensors, computed in float64 and then rounded to `dtype`."""
    p1 = torch.from_numpy(ngrams.unigram)
    p2 = torch.from_numpy(ngrams.probability)
    row_start = torch.from_numpy(ngrams.row_start)
    successor = torch.from_numpy(ngrams.successor)
    rows = torch.repeat_interleave(row_start.diff())
    rest = (1 - BIGRAM_SHARE) * p1[successor]
    return NGramTables(
        log_unigram=p1.log().to(device, dtype),
        row_start=row_start.to(device),
        successor=successor.to(device),
        bigram=p2.to(device, dtype),
        bigram_negentropy=torch.zeros_like(p1).index_add_(0, rows, p2 * p2.log()).to(device, dtype),
        gain=torch.log1p(BIGRAM_SHARE * p2 / rest).to(device, dtype),
    )


def ngram_divergences(
    logprobs_NV: Float[Tensor, "N V"], previous_N: Int[Tensor, " N"], tables: NGramTables
) -> NGramDivergences:
    """Return the divergences between a model's next-token distribution q and n-grams.

    Parameters
    ----------
    logprobs_NV
        Log-probabilities of the next token, shape (N, V), normalised. Blocks of a few MiB are
        fastest: about half as many (position, bigram) pairs are gathered beside them.
    previous_N
        The token before, shape (N,), which chooses the row of p2.
    tables
        Unigrams and bigrams of the training text, on the same device and of the same dtype.

    Raises
    ------
    ValueError
        If the vocabularies differ or a log-probability is NaN.

    Notes
    -----
    With g the gain of a seen pair, log p2(v|u) = log 0.1 + log p1(v) + g(u, v), so the
    cross-entropy with p2 is that with p1, a constant, and a sum over the pairs seen after u.

    References
    ----------
    arXiv 2509.17196 reports KL(model || n-gram); the interpolation and KL(p2 || q) are ours.
    """
    V = logprobs_NV.shape[1]
    if tables.log_unigram.numel() != V:
        raise ValueError(
            f"log-probabilities cover {V} tokens but the n-grams {tables.log_unigram.numel()}; "
            "count the n-grams with the model's own tokenizer"
        )
    probs_NV = logprobs_NV.exp()
    negentropy_N = torch.linalg.vecdot(probs_NV, logprobs_NV.clamp_min(_lowest(logprobs_NV.dtype)))
    _refuse_nan(negentropy_N)
    cross_p1_N = probs_NV @ tables.log_unigram
    position, pair = _pairs(previous_N, tables.row_start)
    flat = position * V + tables.successor[pair]

    def per_position(values: Float[Tensor, " M"]) -> Float[Tensor, " N"]:
        return torch.zeros_like(cross_p1_N).index_add_(0, position, values)

    gain_N = per_position(probs_NV.flatten()[flat] * tables.gain[pair])
    known_N = tables.row_start.diff()[previous_N] > 0
    cross_p2_N = cross_p1_N + gain_N + known_N.to(gain_N.dtype) * math.log(1 - BIGRAM_SHARE)
    of_bigram_N = tables.bigram_negentropy[previous_N] - per_position(
        logprobs_NV.flatten()[flat] * tables.bigram[pair]
    )
    if not bool(known_N.all()):  # after a token that nothing followed, p2 is p1
        p1_V = tables.log_unigram.exp()
        missing = logprobs_NV[~known_N]
        of_bigram_N[~known_N] = ((tables.log_unigram - missing) * p1_V).sum(1)
    return NGramDivergences(
        from_unigram=negentropy_N - cross_p1_N,
        from_bigram=negentropy_N - cross_p2_N,
        of_bigram=of_bigram_N,
    )


def _pairs(
    previous_N: Int[Tensor, " N"], row_start: Int[Tensor, " V_and_one"]
) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    """Return, for each bigram seen after each position's token, the position and the pair."""
    start_N = row_start[previous_N]
    count_N = row_start[previous_N + 1] - start_N
    position = torch.repeat_interleave(count_N)
    shift_N = start_N - (count_N.cumsum(0) - count_N)
    return position, torch.arange(position.numel(), device=position.device) + shift_N[position]


def _lowest(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).min  # 0 log 0 = 0, not 0 times -inf


def _refuse_nan(negentropy_N: Float[Tensor, " N"]) -> None:
    bad = torch.isnan(negentropy_N).nonzero()
    if bad.numel():
        raise ValueError(
            f"a log-probability of position {int(bad[0])} is nan; the model overflowed or diverged"
        )
