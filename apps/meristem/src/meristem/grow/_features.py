"""Stage 5: a crosscoder over the run's own snapshots, and the explorer of its features."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerFast

from meristem.grow._lineage import Lineage
from meristem.grow._tokens import load_tokens
from meristem_core import stream
from meristem_core.command import UsageError
from meristem_crosscoders import SnapshotSet
from meristem_evolution.run import Evolved, Stages, Study, Text, default_site, evolve, token_bytes

EXPLORER = "explorer.html"


def evolve_features(
    folder: Path,
    *,
    lineage: Lineage,
    page: Path,
    seed: int,
    say: Callable[[str], None],
) -> Evolved:
    """Train the crosscoder in `folder` and write the explorer to `page`.

    Raises
    ------
    UsageError
        If too few features live, or a domain has too little text.
    """
    settings = replace(lineage.scale.evolution, seed=seed)
    study = study_of(lineage, seed)
    return evolve(
        Stages(folder, say, prefix="features, "),
        study,
        settings,
        stored={"site": study.snapshots.site, **asdict(settings)},
        page=page,
        encode=_encoder(lineage.tokenizer()),
    )


def study_of(lineage: Lineage, seed: int) -> Study:
    """Return the snapshots at their middle layer, and rows of every domain by its weight."""
    tokenizer, settings = lineage.tokenizer(), lineage.scale.evolution
    paths = {step: lineage.path(step) for step in lineage.steps}
    text = Text(
        train=_rows(lineage, "train", settings.tokens, seed),
        held_out=_rows(lineage, "validation", settings.analysis_tokens, seed),
        vocabulary=token_bytes(tokenizer),
        special=tuple(tokenizer.all_special_ids),
    )
    site = default_site(paths[lineage.steps[-1]])
    return Study(snapshots=SnapshotSet.from_dirs(paths, site), text=text)


def _encoder(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], list[int]]:
    return lambda text: tokenizer.encode(text, add_special_tokens=False)


def _rows(lineage: Lineage, split: str, wanted: int, seed: int) -> Int[np.ndarray, "rows context"]:
    """Return rows of every domain by its weight, at least one each, in a drawn order."""
    context = lineage.scale.context
    parts: list[np.ndarray] = []
    for domain in lineage.corpus.domains:
        ids = load_tokens(lineage.tokens, domain.name, split)
        rows = ids[: ids.size // context * context].reshape(-1, context)
        if not len(rows):
            raise UsageError(
                f"--corpus: domain {domain.name} has {ids.size} {split} tokens, fewer than one row "
                f"of {context}; give more text"
            )
        # the first token of a row is not used, so that a few more rows are needed
        count = max(1, round(domain.weight * wanted / (context - 1)) + 1)
        order = stream(seed, "feature rows", split, domain.name).permutation(len(rows))
        parts.append(rows[np.sort(order[:count])])
    rows = np.concatenate(parts).astype(np.int64)
    return rows[stream(seed, "feature order", split).permutation(len(rows))]
