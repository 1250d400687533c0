"""Stage 5: every snapshot sits an exam of generated items, on one scale with the items.

- continue: which of four spans follows 24 tokens of unseen text
- order: which of four orders of the next eight tokens is the real one
- repeat: random tokens begin again; which of four spans follows
- the answer is the span with the highest log-probability; chance is one in four
- abilities are conditional maximum likelihood given how many snapshots solve each item
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Int
from transformers import PreTrainedModel

from meristem.grow._lineage import Lineage
from meristem.grow._tokens import load_tokens
from meristem_core import read_json, stream, write_json
from meristem_core.command import Progress
from meristem_core.torch import score_rows
from meristem_exam import Evidence, sit_exam
from meristem_rasch import ScoreMatrix

PREFIX, ANSWER, OPTIONS = 24, 8, 4
ITEMS = 30  # of a kind and domain

Options = Int[np.ndarray, "items options width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """Snapshots and items on one scale in logits; items average 0."""

    steps: list[int]
    ability: list[float | None]  # None: no item, or every item, solved
    low: list[float | None]  # 95 %
    high: list[float | None]
    rate: dict[str, list[float]]  # kind -> share solved by each snapshot
    items: list[str]
    kinds: list[str]  # of the items
    difficulty: list[float]
    reliability: float


def hold_exam(
    folder: Path,
    *,
    lineage: Lineage,
    seed: int,
    accelerator: Accelerator,
    progress: Progress,
) -> Examined:
    """Return where the snapshots stand; answers of a snapshot are kept and not asked again.

    Parameters
    ----------
    folder
        Where the answers of each snapshot are written.
    """
    made = {
        f"{kind} {domain.name}": options
        for domain in lineage.corpus.domains
        for kind, options in make_items(
            load_tokens(lineage.tokens, domain.name, "validation"),
            domain.name,
            lineage.scale.vocabulary,
            seed,
        ).items()
    }
    options = np.concatenate(list(made.values()))
    kinds = [kind.split()[0] for kind, part in made.items() for _ in range(len(part))]
    items = [f"{kind} {k + 1}" for kind, part in made.items() for k in range(len(part))]
    for done, step in enumerate(lineage.steps, start=1):
        path = folder / f"{step}.json"
        if not path.exists():
            model = lineage.model(step).to(accelerator.device)
            write_json(path, answer(model, options))
        progress(done, len(lineage.steps), {})
    right = np.array([read_json(folder / f"{step}.json") for step in lineage.steps], dtype=float)
    return place(right, items, kinds, lineage.steps, seed)


def make_items(
    ids: Int[np.ndarray, " n"], name: str, vocabulary: int, seed: int
) -> dict[str, Options]:
    """Return items of each kind from held-out tokens; option 0 is right.

    Texts too short for an item of a kind give none of it.
    """
    rng = stream(seed, "exam", name)
    text = ids.astype(np.int64)
    width = PREFIX + ANSWER
    made: dict[str, list[np.ndarray]] = {"continue": [], "order": [], "repeat": []}
    for _ in range(ITEMS):
        if len(text) > 4 * width:
            start = int(rng.integers(len(text) - width))
            row = text[start : start + width]
            made["continue"].append(_options(row, [_elsewhere(text, start, rng) for _ in range(3)]))
            shuffled = _orders(row[PREFIX:], rng)
            if shuffled:
                made["order"].append(_options(row, shuffled))
        half = PREFIX - ANSWER
        drawn = rng.integers(vocabulary, size=half)
        row = np.concatenate([drawn, drawn[:ANSWER], drawn[ANSWER : 2 * ANSWER]])
        others = [rng.integers(vocabulary, size=ANSWER) for _ in range(3)]
        made["repeat"].append(_options(row, others))
    return {kind: np.stack(rows) for kind, rows in made.items() if rows}


def _options(row: np.ndarray, wrong: Sequence[np.ndarray]) -> np.ndarray:
    prefix = row[:PREFIX]
    return np.stack([row, *(np.concatenate([prefix, span]) for span in wrong)])


def _elsewhere(text: np.ndarray, start: int, rng: np.random.Generator) -> np.ndarray:
    """Return a span that does not overlap the item."""
    width = PREFIX + ANSWER
    while True:
        other = int(rng.integers(len(text) - ANSWER))
        if not start - ANSWER < other < start + width:
            return text[other : other + ANSWER]


def _orders(span: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return three other orders of the span, or none where too few tokens differ."""
    found: list[np.ndarray] = []
    for _ in range(20):
        trial = span[rng.permutation(len(span))]
        if not any((trial == other).all() for other in [span, *found]):
            found.append(trial)
        if len(found) == OPTIONS - 1:
            return found
    return []


def answer(model: PreTrainedModel, options: Options) -> list[int]:
    """Return 1 where the model gives the right span the highest log-probability, else 0."""
    count, width = len(options), options.shape[2]
    rows = torch.from_numpy(options.reshape(-1, width))
    loss = torch.cat([block.loss().cpu() for block in score_rows(model, rows)])
    spans = loss.view(count, OPTIONS, width - 1)[:, :, -ANSWER:].double().sum(dim=2)
    return (spans[:, 0] < spans[:, 1:].min(dim=1).values).int().tolist()


def place(
    right: np.ndarray,
    items: Sequence[str],
    kinds: Sequence[str],
    steps: Sequence[int],
    seed: int,
) -> Examined:
    """Return the scale of the answers, snapshots x items."""
    labels = np.array(kinds)
    matrix = ScoreMatrix(
        values=right, persons=tuple(f"step {step}" for step in steps), items=tuple(items)
    )
    scale = sit_exam(Evidence(source=("exam",), matrix=matrix), method="dual", seed=seed).scale
    return Examined(
        steps=list(steps),
        ability=_known(scale.ability),
        low=_known(scale.low),
        high=_known(scale.high),
        rate={
            kind: right[:, labels == kind].mean(axis=1).tolist() for kind in dict.fromkeys(kinds)
        },
        items=list(items),
        kinds=list(kinds),
        difficulty=scale.difficulty.tolist(),
        reliability=scale.reliability,
    )


def _known(x: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in x]
