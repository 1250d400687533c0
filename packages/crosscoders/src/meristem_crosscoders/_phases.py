"""When does a model leave n-gram statistics behind? Its distance to them at every snapshot.

Shape letters: S snapshots, R rows of tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from meristem_core import Interval, NGrams, bootstrap_interval
from meristem_core.torch import NGramTables, ngram_divergences, ngram_tables, score_rows
from meristem_crosscoders._frames import long_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Nats a token on held-out rows; the model's own prediction is q."""

    steps: tuple[int, ...]
    loss: Float[Tensor, "S R"]
    from_unigram: Float[Tensor, "S R"]  # KL(q || p1)
    from_bigram: Float[Tensor, "S R"]  # KL(q || 0.9 p2 + 0.1 p1)
    of_bigram: Float[Tensor, "S R"]  # KL(p2 || q)
    unigram_entropy: float  # of the training text
    bigram_entropy: float  # of the training text, given the token before
    unigram_loss: float  # of p1 on the same rows
    bigram_loss: float  # of 0.9 p2 + 0.1 p1 on the same rows

    def statistical_end(self, rng: np.random.Generator, *, n_resamples: int = 500) -> Interval:
        """Return the snapshot (its number) nearest to the bigrams, with an interval over rows.

        KL(q || p2) falls while a model learns bigrams and rises once it knows more: its minimum
        ends the statistical phase. At an end of the series the phase has not been seen to end.
        """
        distance_SR = self.from_bigram.double().numpy()
        return bootstrap_interval(
            lambda rows: float(distance_SR[:, rows].mean(1).argmin()),
            distance_SR.shape[1],
            rng=rng,
            n_resamples=n_resamples,
        )

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each step: means over rows."""
        names = ("loss", "from_unigram", "from_bigram", "of_bigram")
        values = {name: getattr(self, name).double().mean(1) for name in names}
        return long_frame({"step": self.steps}, values)


def ngram_phases(
    model_at: Callable[[int], nn.Module],
    steps: Sequence[int],
    ngrams: NGrams,
    rows: Int[Tensor, "R width"],
) -> Phases:
    """Return loss and n-gram divergences of every snapshot.

    Parameters
    ----------
    model_at
        From a step to its model, such as ``SnapshotSet.model``; called for one at a time. A causal
        model of the transformers library, in evaluation mode.
    steps
        Steps of the snapshots, increasing.
    ngrams
        ``count_ngrams`` of the training text, in the model's own tokens.
    rows
        Held-out text: each token but a row's first is predicted.

    Raises
    ------
    ValueError
        If the vocabularies differ, a log-probability is NaN, or a row has fewer than 2 tokens.

    References
    ----------
    arXiv 2509.17196, which reports KL(model || n-gram); the interpolation, KL(p2 || q) and the
    rule for the end of the phase are ours.
    """
    tables: NGramTables | None = None
    found: list[Tensor] = []
    for step in steps:
        model = model_at(step)
        device = next(model.parameters()).device
        if tables is None or tables.log_unigram.device != device:
            tables = ngram_tables(ngrams, device=device)
        found.append(_measured(model, rows, tables))
    loss, from_unigram, from_bigram, of_bigram = torch.stack(found, dim=1)
    before, after = (ids.flatten().cpu().numpy() for ids in (rows[:, :-1], rows[:, 1:]))
    return Phases(
        steps=tuple(steps),
        loss=loss,
        from_unigram=from_unigram,
        from_bigram=from_bigram,
        of_bigram=of_bigram,
        unigram_entropy=ngrams.unigram_entropy,
        bigram_entropy=ngrams.bigram_entropy,
        unigram_loss=float(-np.log(ngrams.unigram[after]).mean()),
        bigram_loss=float(-ngrams.bigram_logprobs(before, after).mean()),
    )


def _measured(
    model: nn.Module, rows: Int[Tensor, "R width"], tables: NGramTables
) -> Float[Tensor, "four R"]:
    """Return loss and three divergences of each row, means over its positions."""
    parts: list[Tensor] = []
    for block in score_rows(model, rows):
        found = ngram_divergences(block.logprobs, block.previous, tables)
        kinds = (block.loss(), found.from_unigram, found.from_bigram, found.of_bigram)
        parts.append(torch.stack(kinds).cpu())
    return torch.cat(parts, dim=1).view(4, len(rows), -1).double().mean(2)
