"""What `meristem evolution` is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from meristem_core.command import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides the numbers, whatever the checkpoints."""

    features: int = 4096
    """Features of the crosscoder."""

    tokens: int = 2_000_000
    """Tokens to train on; a smaller corpus is read several times."""

    activation: Literal["jumprelu", "batchtopk", "relu"] = "jumprelu"
    """jumprelu: a learned threshold per feature, as in the paper; batchtopk: a fixed number of
    features per token and snapshot; relu: with an L1 penalty, which shrinks norms."""

    k: int = 32
    """Open features per token and snapshot, of batchtopk."""

    sparsity: float = 0.3
    """Weight of the penalty of jumprelu or relu: more of it opens fewer features."""

    learning_rate: float = 1e-3
    """Peak rate of Adam."""

    batch: int = 1024
    """Tokens a step."""

    analysis_tokens: int = 65_536
    """Held-out tokens on which features are measured and their contexts found."""

    contexts: int = 10
    """Contexts shown of each feature."""

    pairs: int = 64
    """Prompt pairs of a task."""

    seed: int = 0
    """Of the first weights, the order of the text and every resample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionConfig(Settings):
    """Train a crosscoder over the checkpoints of one run and look at its features.

    The result is a trained crosscoder, result.json, and explorer.html: one page that opens without
    a network. A run that was interrupted goes on where it stopped when the same command is given
    again. On 2 cores, over the snapshots of `meristem grow --scale micro`, within a minute:

      meristem evolution --checkpoints runs/grow/pretrain/snapshots --corpus books/
      --features 512 --tokens 100000 --analysis-tokens 8192
    """

    checkpoints: str
    """A folder of checkpoint folders that end with their step, such as step-1000, or
    hub:ID@REVISION,REVISION,... such as hub:EleutherAI/pythia-160m@step512,step1000,step143000."""

    corpus: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A file, folder or glob (.txt, .jsonl, .gz, .zst) of text; repeat for a mix in equal parts."""

    out: Path = Path("runs/evolution")
    """The run folder: made if absent, continued if it holds the same run."""

    site: str = ""
    """Name of the submodule whose output is read; by default the middle layer of the decoder."""

    context: int = 128
    """Tokens of a sequence that the models read."""

    tasks: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Further tasks, JSON lines with clean_prefix, patch_prefix, clean_answer, patch_answer;
    agreement, indirect objects and induction are always tried."""

    device: str = "auto"
    """Where models and crosscoder run: auto, cpu, cuda, cuda:1, ..."""

    encoding: str = "utf-8"
    """How the corpus files are encoded."""

    json: bool = False
    """Print the result as JSON instead of a summary."""


LEAST = {
    "features": 8,
    "tokens": 1000,
    "k": 1,
    "batch": 16,
    "context": 8,
    "analysis_tokens": 1000,
    "contexts": 1,
    "pairs": 2,
}


def check_config(config: EvolutionConfig) -> None:
    """Refuse what can be refused before anything heavy is imported.

    Raises
    ------
    UsageError
        If a number is too small or a task file is missing.
    """
    for name, least in LEAST.items():
        if getattr(config, name) < least:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} ({getattr(config, name)}) must be at least {least}")
    for name in ("sparsity", "learning_rate"):
        value = getattr(config, name)
        if not 0 < value < float("inf"):
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} ({value}) must be positive and finite")
    if config.k > config.features:
        raise UsageError(f"--k ({config.k}) must be at most --features ({config.features})")
    if not config.corpus:
        raise UsageError("--corpus is missing; give a file, folder or glob of text")
    for path in config.tasks:
        if not path.is_file():
            raise UsageError(f"--tasks {path} not found; give a file of JSON lines")
