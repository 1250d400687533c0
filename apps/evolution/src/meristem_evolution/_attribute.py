"""Stage: which features carry a behaviour, and when.

- agreement, indirect objects and induction, as far as the tokenizer has single-token answers, and
  the user's own pairs
- integrated gradients at the last snapshot; half of the pairs rank the features, the other half
  tests them by ablating and restoring, beside random features that fire as often
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meristem_core import stream
from meristem_core.command import Progress, UsageError
from meristem_crosscoders import (
    Crosscoder,
    Curve,
    Pairs,
    Splice,
    ablate_curve,
    induction_pairs,
    integrated_gradients,
    ioi_pairs,
    patching_attribution,
    read_pairs,
    restore_curve,
    sva_pairs,
)
from meristem_evolution._config import Settings
from meristem_evolution._study import Study
from meristem_evolution._text import Encode

ARRAYS = "attribution.npz"
INDUCTION_LENGTH = 12  # random tokens, said twice
LEAST_PAIRS = 8
CONTROLS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Faithfulness as features are changed, with the band of random features."""

    features: list[int]
    faithfulness: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One behaviour; lists have a value per snapshot."""

    name: str
    pairs: int
    dropped: int  # pairs without single-token answers or of two lengths
    accuracy: list[float]  # share of prompts whose own answer has the larger logit
    difference: list[float]  # mean logit difference
    carried: list[float]  # part of it that all features carry: clean minus patched
    restore: Shares | None  # at the last snapshot; None if features carry nothing
    ablate: Shares | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """All tasks; effects of each feature at the last snapshot lie beside."""

    tasks: list[Task]
    without: dict[str, str]  # task -> why it was not tried


def attribute(
    folder: Path,
    study: Study,
    crosscoder: Crosscoder,
    settings: Settings,
    encode: Encode | None,
    files: Sequence[Path],
    progress: Progress,
) -> Attributed:
    """Attribute every task to features and write their effects.

    Parameters
    ----------
    encode
        From text to token ids; None leaves out what needs text.
    files
        The user's own tasks.

    Raises
    ------
    UsageError
        If a task file cannot be used.
    """
    found, without = _pairs(study, settings, encode, files)
    tasks: list[Task] = []
    effects: dict[str, np.ndarray] = {}
    total = len(found) * len(study.snapshots.steps)
    for number, pairs in enumerate(found):
        begin = number * len(study.snapshots.steps)
        task, effect = _task(
            study, crosscoder, pairs, settings, lambda s, b=begin: progress(b + s, total, {})
        )
        tasks.append(task)
        effects[task.name] = effect
    np.savez(folder / ARRAYS, allow_pickle=False, **effects)
    return Attributed(tasks=tasks, without=without)


def load_effects(folder: Path) -> dict[str, np.ndarray]:
    """Return the effect of each feature on each task, logits."""
    with np.load(folder / ARRAYS) as saved:
        return dict(saved)


def _pairs(
    study: Study, settings: Settings, encode: Encode | None, files: Sequence[Path]
) -> tuple[list[Pairs], dict[str, str]]:
    n, seed = settings.pairs, settings.seed
    makers = {
        "induction": lambda: induction_pairs(
            len(study.text.vocabulary),
            n=n,
            length=INDUCTION_LENGTH,
            seed=seed,
            exclude=study.text.special,
        )
    }
    if encode is not None:
        makers |= {
            "sva": lambda: sva_pairs(encode, n=n, seed=seed),
            "ioi": lambda: ioi_pairs(encode, n=n, seed=seed),
        }
    found: list[Pairs] = []
    without: dict[str, str] = {}
    for name, make in makers.items():
        try:
            pairs = make()
        except ValueError as error:
            without[name] = str(error)
            continue
        if len(pairs) < LEAST_PAIRS:
            without[name] = f"{len(pairs)} pairs have single-token answers; {LEAST_PAIRS} are few"
        else:
            found.append(pairs)
    for path in files:
        if encode is None:
            break
        try:
            found.append(read_pairs(path, encode)[:n])
        except (ValueError, OSError) as error:
            raise UsageError(f"--tasks {path}: {error}") from error
    return found, without


def _task(study: Study, crosscoder: Crosscoder, pairs: Pairs, settings: Settings,
          tell: Callable[[int], None]) -> tuple[Task, np.ndarray]:  # fmt: skip
    accuracy: list[float] = []
    difference: list[float] = []
    carried: list[float] = []
    steps = study.snapshots.steps
    for number, step in enumerate(steps, start=1):
        found = patching_attribution(_splice(study, crosscoder, step), pairs)
        accuracy.append(found.accuracy())
        difference.append(float(found.clean.mean()))
        carried.append(float((found.clean - found.patched).mean()))
        tell(number)
    splice = _splice(study, crosscoder, steps[-1])
    half = len(pairs) // 2
    ranked = integrated_gradients(splice, pairs[:half])
    rng = stream(settings.seed, "controls")
    curves = [
        draw(splice, pairs[half:], ranked, rng=rng, controls=CONTROLS)
        for draw in (restore_curve, ablate_curve)
    ]
    restore, ablate = (_shares(curve) for curve in curves)
    task = Task(
        name=pairs.task,
        pairs=len(pairs),
        dropped=pairs.dropped,
        accuracy=accuracy,
        difference=difference,
        carried=carried,
        restore=restore,
        ablate=ablate,
    )
    return task, ranked.mean().cpu().numpy().astype(np.float32)


def _splice(study: Study, crosscoder: Crosscoder, step: int) -> Splice:
    return Splice(
        crosscoder=crosscoder,
        activations=study.snapshots.activations,
        model=study.snapshots.model(step),
        site=study.snapshots.site,
        step=step,
    )


def _shares(curve: Curve) -> Shares | None:
    if curve.gap() == 0:
        return None
    low, high = curve.band()
    return Shares(
        features=list(curve.ks),
        faithfulness=curve.faithfulness().tolist(),
        low=low.tolist(),
        high=high.tolist(),
    )
