"""Stage: everything that is measured of the features on held-out text.

Numbers of the whole crosscoder go to the stage's result, numbers per feature to `features.npz`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from meristem_core import count_ngrams, stream
from meristem_core.command import Progress
from meristem_crosscoders import (
    Contexts,
    Crosscoder,
    Lifecycle,
    Phases,
    context_length,
    dimensionality,
    evaluate,
    feature_cosines,
    latent_scaling,
    lifecycle,
    nearest_features,
    ngram_phases,
    norm_agreement,
    rank_correlation,
    rotation,
    separability,
    threshold_sensitivity,
    top_contexts,
    turning_point,
)
from meristem_evolution._config import Settings
from meristem_evolution._study import Study

ARRAYS = "features.npz"
LEAST_FIRINGS = 10  # on the held-out text, of a feature that counts as alive
LEAST_ALIVE = 3  # features without which nothing can be said of their turning
THRESHOLD = 0.5  # of emergence: the middle of those that are compared
WIDTH = 32  # tokens of a context
NEIGHBOURS = 5
COMPLEXITY_CONTEXTS = 5  # of a feature, shortened to find how much of them it needs
SEPARATED_TOKENS = 4096  # that fit the discriminants, and as many that judge them
PHASE_ROWS = 128
NGRAM_TOKENS = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning:
    """Where directions turn most: a step, and what was found for resampled features."""

    step: int
    low: int
    high: int
    contrast: float  # mean cosine within the two blocks minus that between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """Nats a token on held-out text, a value per snapshot; see `ngram_phases`."""

    loss: list[float]
    from_unigram: list[float]
    from_bigram: list[float]
    of_bigram: list[float]
    unigram_loss: float
    bigram_loss: float
    statistical_end: int  # step of the smallest distance from the bigrams


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the features of a run do; lists have a value per snapshot."""

    steps: list[int]
    tokens: int  # on which features were measured
    alive: int  # features that fired often enough there
    kinds: dict[str, dict[str, int]]  # threshold -> kind -> features
    emergence: dict[str, list[int]]  # threshold -> features that emerge at each snapshot
    median_lifetime: float  # share of the later snapshots, of emergent and transient features
    explained_variance: list[float]
    l0: list[float]  # open features a token
    l0_union: float
    rotation: list[list[float]]
    turning: Turning
    dimensionality: list[float]  # total, as a share of the width
    norm_agreement: list[Bounded | None]  # rank correlation of norm and separability
    shrunk: list[float]  # share of living features with a small norm that the activations deny
    complexity: Bounded | None  # rank correlation of emergence and context length
    learning: Learning


def measure(folder: Path, study: Study, crosscoder: Crosscoder, settings: Settings,
            progress: Progress) -> Measured:  # fmt: skip
    """Measure the folded crosscoder and write `features.npz`.

    Raises
    ------
    ValueError
        If fewer than 3 features are alive, or an activation is not finite.
    """
    rng = stream(settings.seed, "measure")
    held_out = study.held_out_stream(settings)
    parts = iter(range(1, 8))

    def done(name: str) -> None:
        progress(next(parts), 7, {})

    quality = evaluate(crosscoder, held_out())
    alive = quality.frequency * quality.tokens >= LEAST_FIRINGS
    _check_alive(alive, quality.tokens)
    norms = crosscoder.norms().detach()
    lives = threshold_sensitivity(norms, alive=alive)
    life = lifecycle(norms, alive=alive, threshold=THRESHOLD)
    done("quality")
    rows = crosscoder.W_dec.detach() * crosscoder.scale[:, None]  # in normalised space
    cosines = feature_cosines(rows)
    turning = turning_point(cosines[alive], rng=rng)
    dimensions = torch.stack([dimensionality(rows[:, s]) for s in range(rows.shape[1])], 1)
    done("turning")
    scaling = latent_scaling(crosscoder, held_out())
    done("scaling")
    auc, agreement = _separability(crosscoder, held_out(), norms, alive, rng)
    done("separability")
    tokens = torch.from_numpy(np.asarray(study.text.held_out, dtype=np.int64))
    contexts = top_contexts(
        crosscoder, study.snapshots.activations, tokens, n=settings.contexts, width=WIDTH
    )
    done("contexts")
    few = _first(contexts, min(COMPLEXITY_CONTEXTS, settings.contexts))
    length = context_length(crosscoder, study.snapshots.activations, tokens, few).median
    complexity = _complexity(life, length, rng)
    done("complexity")
    learning = _learning(study, tokens, rng)
    done("phases")
    _save(folder, crosscoder, study, life, contexts, quality.frequency, dimensions, cosines,
          {"context_length": length, "auc": auc})  # fmt: skip
    steps = study.snapshots.steps
    low, high = (round(each) for each in (turning.interval.low, turning.interval.high))
    shrunk = scaling.shrunk(norms)[alive]
    later = life.lifetime[alive & (life.emergence > 0)]
    return Measured(
        steps=list(steps),
        tokens=quality.tokens,
        alive=int(alive.sum()),
        kinds={f"{each.threshold:g}": each.counts() for each in lives},
        emergence={f"{each.threshold:g}": _histogram(each, len(steps)) for each in lives},
        median_lifetime=float(later.median()) if later.numel() else 0.0,
        explained_variance=quality.explained_variance.tolist(),
        l0=quality.l0.tolist(),
        l0_union=quality.l0_union,
        rotation=rotation(rows[alive]).tolist(),
        turning=Turning(
            step=steps[turning.split], low=steps[low], high=steps[high], contrast=turning.contrast
        ),
        dimensionality=(dimensions[alive].sum(0) / rows.shape[2]).tolist(),
        norm_agreement=agreement,
        shrunk=shrunk.double().mean(0).tolist(),
        complexity=complexity,
        learning=learning,
    )


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return the numbers per feature of a finished stage."""
    with np.load(folder / ARRAYS) as saved:
        return dict(saved)


def _check_alive(alive: Bool[Tensor, " F"], tokens: int) -> None:
    if int(alive.sum()) < LEAST_ALIVE:
        raise ValueError(
            f"{int(alive.sum())} of {alive.numel()} features fire {LEAST_FIRINGS} times on "
            f"{tokens} held-out tokens; train on more tokens, or with less sparsity"
        )


def _histogram(life: Lifecycle, S: int) -> list[int]:
    return torch.bincount(life.emergence[life.emergence >= 0], minlength=S).tolist()


def _separability(
    crosscoder: Crosscoder,
    batches: Iterable[Tensor],
    norms: Tensor,
    alive: Bool[Tensor, " F"],
    rng: np.random.Generator,
) -> tuple[Tensor, list[Bounded | None]]:
    """Return the AUC at every snapshot, and how norms agree with it; None if they cannot."""
    size = crosscoder.W_dec.shape[2]
    found: list[Tensor] = list(islice(batches, -(-2 * SEPARATED_TOKENS // 64)))
    x_BSD = torch.cat(found)[: 2 * SEPARATED_TOKENS]
    half = len(x_BSD) // 2
    if half < 2 * size:  # a covariance of so few tokens says nothing
        return torch.full_like(norms, torch.nan), [None] * norms.shape[1]
    found_auc = separability(crosscoder, x_BSD[:half], x_BSD[half:])
    measured = alive & found_auc.measured
    auc = torch.where(measured[:, None], found_auc.auc, torch.nan)
    if int(measured.sum()) < LEAST_ALIVE:
        return auc, [None] * norms.shape[1]
    intervals = norm_agreement(norms, found_auc.auc, alive=measured, rng=rng)
    return auc, [bounded(each) for each in intervals]


def _complexity(life: Lifecycle, length: Tensor, rng: np.random.Generator) -> Bounded | None:
    known = (life.emergence >= 0) & (length > 0)
    a, b = life.emergence[known], length[known]
    if a.unique().numel() < 2 or b.unique().numel() < 2:
        return None
    return bounded(rank_correlation(a, b, rng=rng))


def _learning(study: Study, tokens: Tensor, rng: np.random.Generator) -> Learning:
    text, snapshots = study.text, study.snapshots
    counted = np.asarray(text.train).ravel()[:NGRAM_TOKENS]
    ngrams = count_ngrams([counted], vocabulary=snapshots.vocabulary)
    phases = ngram_phases(snapshots.model, snapshots.steps, ngrams, tokens[:PHASE_ROWS])
    end = int(phases.statistical_end(rng).estimate)
    return Learning(
        **_means(phases),
        unigram_loss=phases.unigram_loss,
        bigram_loss=phases.bigram_loss,
        statistical_end=snapshots.steps[end],
    )


def _means(phases: Phases) -> dict[str, list[float]]:
    frame = phases.to_frame()
    return {name: frame[name].tolist() for name in frame if name != "step"}


def bounded(interval: Any) -> Bounded:
    """Return an interval of core as it stands in results."""
    return Bounded(estimate=interval.estimate, low=interval.low, high=interval.high)


def _first(contexts: Contexts, n: int) -> Contexts:
    """Return the first n contexts of each feature."""
    names = ("row", "position", "strength", "tokens", "strengths", "is_open")
    cut = {name: getattr(contexts, name)[:, :n] for name in names}
    return Contexts(snapshot=contexts.snapshot, **cut)


def _save(
    folder: Path,
    crosscoder: Crosscoder,
    study: Study,
    life: Lifecycle,
    contexts: Contexts,
    frequency: Tensor,
    dimensions: Tensor,
    cosines: Tensor,
    more: dict[str, Tensor],
) -> None:
    norms = crosscoder.norms().detach()
    rows = crosscoder.W_dec.detach() * crosscoder.scale[:, None]
    neighbours, similarity = nearest_features(rows, NEIGHBOURS)
    peak = norms.argmax(1, keepdim=True)
    arrays = {
        "norms": norms,
        "threshold": crosscoder.thresholds().detach() * crosscoder.scale,
        "emergence": life.emergence,
        "peak": life.peak,
        "lifetime": life.lifetime,
        "kind": life.kind,
        "frequency": frequency,
        "dimensionality": dimensions.gather(1, peak)[:, 0],
        "cosines": cosines,
        "neighbours": neighbours,
        "similarity": similarity,
        "context_tokens": contexts.tokens,
        "context_activation": contexts.strengths / norms.gather(1, peak)[..., None].cpu(),
        **more,
    }
    small = {
        name: value.cpu().numpy().astype(np.float32 if value.is_floating_point() else np.int32)
        for name, value in arrays.items()
    }
    np.savez(folder / ARRAYS, allow_pickle=False, **small)
