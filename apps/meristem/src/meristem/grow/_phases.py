"""Stage 4: what every snapshot has learned, measured on text it never saw.

- the loss of every held-out token, kept for later stages
- divergences from the unigrams and bigrams of the training text: the statistical phase of training
  (arXiv 2509.17196), beside the loss of the n-gram models themselves on the same tokens
- induction on repeated random tokens, and a short continuation of one unseen document a domain
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from meristem.grow._config import Scale
from meristem.grow._lineage import Lineage
from meristem.grow._score import continue_text, induction_gain
from meristem.grow._tokens import load_tokens
from meristem_core import NGrams, count_ngrams, read_json, write_json
from meristem_core.command import Progress, UsageError
from meristem_core.torch import NGramTables, ngram_divergences, ngram_tables, score_rows

PROMPT, CONTINUATION = 24, 64  # tokens of a sample
DIVERGENCES = ("kl_from_unigram", "kl_from_bigram", "kl_of_bigram")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """One domain's held-out measurements in nats a token; the lists have a value per snapshot."""

    loss: list[float]
    kl_from_unigram: list[float]  # KL(q || p1)
    kl_from_bigram: list[float]  # KL(q || 0.9 p2 + 0.1 p1)
    kl_of_bigram: list[float]  # KL(p2 || q)
    unigram_loss: float  # of p1 on the same tokens
    bigram_loss: float  # of 0.9 p2 + 0.1 p1 on the same tokens
    tokens: int
    prompt: str
    samples: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """All domains; the token losses lie beside and are read by `load_losses`."""

    steps: list[int]
    domains: dict[str, Learning]
    unigram_entropy: float  # nats a token, of the training text
    bigram_entropy: float
    induction: list[float]  # nats a token, per snapshot


def measure_phases(
    folder: Path,
    *,
    lineage: Lineage,
    seed: int,
    accelerator: Accelerator,
    progress: Progress,
) -> Phases | None:
    """Measure every snapshot; processes share the snapshots, measured ones are not repeated.

    Parameters
    ----------
    folder
        Where each snapshot's measurements and the token losses are written.

    Returns
    -------
        The phases on the main process, None on the others.

    Raises
    ------
    UsageError
        If a domain has too little held-out text, or a snapshot gives NaN.
    """
    tokenizer, tokens, scale = lineage.tokenizer(), lineage.tokens, lineage.scale
    names = [domain.name for domain in lineage.corpus.domains]
    rows = {name: _held_out(tokens, name, scale) for name in names}
    prompts = {name: load_tokens(tokens, name, "probe")[:PROMPT] for name in names}
    ngrams = count_ngrams(
        [load_tokens(tokens, name, "train") for name in names],
        vocabulary=scale.vocabulary,
        weights=[domain.weight for domain in lineage.corpus.domains],
    )
    tables = ngram_tables(ngrams, device=accelerator.device)
    mine = lineage.steps[accelerator.process_index :: accelerator.num_processes]
    for done, step in enumerate(mine, start=1):
        result = folder / f"{step}.json"
        if not result.exists():
            model = lineage.model(step).to(accelerator.device)
            curves = {
                name: _measure(model, rows[name], tables, folder, f"{name}.{step}")
                for name in names
            }
            samples = {
                name: tokenizer.decode(continue_text(model, prompt, tokens=CONTINUATION, seed=seed))
                for name, prompt in prompts.items()
            }
            gain = induction_gain(model, scale.context, seed=seed)
            write_json(result, {"curves": curves, "samples": samples, "induction": gain})
        progress(done, len(mine), {})
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return None
    measured = [read_json(folder / f"{step}.json") for step in lineage.steps]
    return Phases(
        steps=lineage.steps,
        domains={
            name: Learning(
                **_curves(measured, name),
                **_measure_ngrams(rows[name], ngrams, folder / f"{name}.ngrams.npy"),
                tokens=rows[name][:, 1:].numel(),
                prompt=str(tokenizer.decode(prompts[name])),
                samples=[each["samples"][name] for each in measured],
            )
            for name in names
        },
        unigram_entropy=ngrams.unigram_entropy,
        bigram_entropy=ngrams.bigram_entropy,
        induction=[each["induction"] for each in measured],
    )


def _curves(measured: Sequence[dict[str, Any]], domain: str) -> dict[str, Any]:
    return {
        key: [each["curves"][domain][key] for each in measured] for key in ("loss", *DIVERGENCES)
    }


def load_losses(
    folder: Path, domain: str, steps: Sequence[int]
) -> Float[np.ndarray, "snapshots rows context"]:
    """Return the loss of every held-out token at every snapshot, nats.

    Flattened, entry i is token i + 1 of the domain's validation split: the first has no loss.
    """
    return np.stack([np.load(folder / f"{domain}.{step}.loss.npy") for step in steps])


def load_divergences(
    folder: Path, domain: str, steps: Sequence[int]
) -> Float[np.ndarray, "snapshots kinds rows"]:
    """Return the mean divergences of every held-out row, nats, in the order of DIVERGENCES."""
    return np.stack([np.load(folder / f"{domain}.{step}.kl.npy") for step in steps])


def load_ngram_losses(folder: Path, domain: str) -> Float[np.ndarray, "2 rows context"]:
    """Return the loss of the unigram and of the bigram model on the same tokens, nats."""
    return np.load(folder / f"{domain}.ngrams.npy")


def _held_out(tokens: Path, name: str, scale: Scale) -> Int[Tensor, "rows width"]:
    """Cut the validation split into rows that overlap by one token: each is predicted once."""
    ids = load_tokens(tokens, name, "validation")
    count = min(ids.size - 1, scale.validation_tokens) // scale.context
    if count < 1 or load_tokens(tokens, name, "probe").size < PROMPT:
        raise UsageError(
            f"--corpus: domain {name} has {ids.size} validation tokens; at least "
            f"{scale.context + 1} are needed, so give more text"
        )
    starts = np.arange(count)[:, None] * scale.context
    return torch.from_numpy(ids[starts + np.arange(scale.context + 1)].astype(np.int64))


def _measure(
    model: PreTrainedModel,
    rows: Int[Tensor, "rows width"],
    tables: NGramTables,
    folder: Path,
    prefix: str,
) -> dict[str, float]:
    """Write token losses and row divergences, and return their means."""
    losses: list[Tensor] = []
    divergences: list[Tensor] = []
    for block in score_rows(model, rows):
        found = ngram_divergences(block.logprobs, block.previous, tables)
        losses.append(block.loss().cpu())
        divergences.append(
            torch.stack([found.from_unigram, found.from_bigram, found.of_bigram]).cpu()
        )
    loss = torch.cat(losses).view(len(rows), -1).numpy()
    by_row = torch.cat(divergences, dim=1).view(3, len(rows), -1).double().mean(2).numpy()
    np.save(folder / f"{prefix}.loss.npy", loss)
    np.save(folder / f"{prefix}.kl.npy", by_row)
    means = dict(zip(DIVERGENCES, by_row.mean(1).tolist(), strict=True))
    return {"loss": float(loss.mean(dtype=np.float64)), **means}


def _measure_ngrams(rows: Int[Tensor, "rows width"], ngrams: NGrams, path: Path) -> dict[str, Any]:
    previous, target = rows[:, :-1].flatten().numpy(), rows[:, 1:].flatten().numpy()
    unigram = -np.log(ngrams.unigram[target])
    bigram = -ngrams.bigram_logprobs(previous, target)
    np.save(path, np.stack([unigram, bigram]).reshape(2, len(rows), -1))
    return {"unigram_loss": float(unigram.mean()), "bigram_loss": float(bigram.mean())}
