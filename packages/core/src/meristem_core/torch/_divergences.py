"""How far a model's predictions are from n-gram statistics.

- KL(q || p1) and KL(q || p2): has the model left unigrams, bigrams? p2 is interpolated with p1
- KL(p2 || q): does the model know the bigrams? Needs no smoothing
- sparse over the bigrams seen: the dense work is one pass over the log-probabilities

Shape letters: N positions, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_core._ngrams import BIGRAM_SHARE, NGrams


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramDivergences:
    """Divergences in nats at each position, all >= 0 up to rounding."""

    from_unigram: Float[Tensor, " N"]  # KL(q || p1)
    from_bigram: Float[Tensor, " N"]  # KL(q || 0.9 p2 + 0.1 p1)
    of_bigram: Float[Tensor, " N"]  # KL(p2 || q)


def ngram_divergences(
    logprobs_NV: Float[Tensor, "N V"], previous_N: Int[Tensor, " N"], ngrams: NGrams
) -> NGramDivergences:
    """Return the divergences between a model's next-token distribution q and n-grams.

    Parameters
    ----------
    logprobs_NV
        Log-probabilities of the next token, shape (N, V), normalised.
    previous_N
        The token before, shape (N,), which chooses the row of p2.
    ngrams
        Unigrams and bigrams of the training text.

    Raises
    ------
    ValueError
        If the vocabularies differ or a log-probability is NaN.

    References
    ----------
    Choice of directions and of the interpolation: arXiv 2509.17196 reports KL(model || n-gram).
    """
    N, V = logprobs_NV.shape
    if ngrams.unigram.size != V:
        raise ValueError(
            f"logprobs cover {V} tokens but the n-grams {ngrams.unigram.size}; count the n-grams "
            f"with the model's own tokenizer"
        )
    if torch.isnan(logprobs_NV).any():
        row = int(torch.isnan(logprobs_NV).any(1).nonzero()[0])
        raise ValueError(f"log-probabilities of position {row} are nan; the model overflowed")
    device, dtype = logprobs_NV.device, logprobs_NV.dtype

    def tensor(array: object, kind: torch.dtype = dtype) -> Tensor:
        return torch.as_tensor(array, device=device, dtype=kind)

    probs_NV = logprobs_NV.exp()
    log_p1_V = tensor(ngrams.unigram).log()
    negentropy_N = (probs_NV * logprobs_NV.clamp_min(torch.finfo(dtype).min)).sum(1)
    cross_p1_N = probs_NV @ log_p1_V

    row_start = tensor(ngrams.row_start, torch.int64)
    counts_N = row_start[previous_N + 1] - row_start[previous_N]
    position = torch.repeat_interleave(torch.arange(N, device=device), counts_N)
    first = counts_N.cumsum(0) - counts_N
    entry = torch.arange(position.numel(), device=device) + (row_start[previous_N] - first)[position]
    token = tensor(ngrams.successor, torch.int64)[entry]
    p2 = tensor(ngrams.probability)[entry]
    unseen = math.log(1 - BIGRAM_SHARE)
    gain = (BIGRAM_SHARE * p2 + (1 - BIGRAM_SHARE) * log_p1_V[token].exp()).log() - (
        unseen + log_p1_V[token]
    )
    flat = position * V + token

    def per_position(values: Tensor) -> Tensor:
        return torch.zeros(N, device=device, dtype=dtype).index_add_(0, position, values)

    known_N = counts_N > 0
    cross_p2_N = cross_p1_N + torch.where(known_N, unseen, 0.0) + per_position(
        probs_NV.view(-1)[flat] * gain
    )
    of_bigram_N = per_position(p2 * (p2.log() - logprobs_NV.view(-1)[flat]))
    if not bool(known_N.all()):
        p1_V = log_p1_V.exp()
        of_unigram_N = (p1_V * (log_p1_V - logprobs_NV[~known_N])).sum(1)
        of_bigram_N[~known_N] = of_unigram_N
    return NGramDivergences(
        from_unigram=negentropy_N - cross_p1_N,
        from_bigram=negentropy_N - cross_p2_N,
        of_bigram=of_bigram_N,
    )
