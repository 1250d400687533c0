"""What `meristem grow` is told, and what each scale means."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from meristem_core.command import UsageError
from meristem_evolution import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How the grown model is fine-tuned and preference-tuned on a generated task."""

    rates: tuple[float, ...]  # of fine-tuning
    divergences: int  # how many are compared
    sft_steps: int
    dpo_steps: int
    batch: int
    demonstrations: int  # and as many pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes that belong together: a model, its optimiser and its data."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int  # tokens a sequence
    batch: int  # sequences a step, over all processes
    micro_batch: int  # sequences a forward pass, per process
    steps: int
    linear_snapshots: int  # evenly spaced ones after the powers of two
    learning_rate: float
    warmup: int  # steps
    checkpoint_every: int  # steps
    validation_tokens: int  # per domain, at every snapshot
    evolution: Settings  # of the crosscoder over the snapshots
    tuning: Tuning
    snapshots: tuple[int, ...] = ()  # where a paper lists them; else log-then-linear


SCALES = {
    "micro": Scale(
        layers=2,
        width=64,
        heads=2,
        vocabulary=512,
        context=64,
        batch=16,
        micro_batch=16,
        steps=800,
        linear_snapshots=8,
        learning_rate=6e-3,
        warmup=30,
        checkpoint_every=100,
        validation_tokens=16_384,
        tuning=Tuning(
            rates=(4e-3, 1e-3),
            divergences=2,
            sft_steps=30,
            dpo_steps=8,
            batch=16,
            demonstrations=256,
        ),
        evolution=Settings(
            features=256,
            tokens=24_576,
            activation="batchtopk",
            k=16,
            learning_rate=4e-3,
            batch=256,
            analysis_tokens=4096,
            contexts=6,
            pairs=16,
        ),
    ),
    "tiny": Scale(
        layers=4,
        width=128,
        heads=4,
        vocabulary=2048,
        context=128,
        batch=32,
        micro_batch=32,
        steps=800,
        linear_snapshots=8,
        learning_rate=3e-3,
        warmup=40,
        checkpoint_every=50,
        validation_tokens=16_384,
        tuning=Tuning(
            rates=(4e-3, 2e-3, 1e-3),
            divergences=3,
            sft_steps=80,
            dpo_steps=20,
            batch=16,
            demonstrations=256,
        ),
        evolution=Settings(
            features=1024,
            tokens=98_304,
            activation="batchtopk",
            k=24,
            learning_rate=2e-3,
            batch=512,
            analysis_tokens=8192,
            pairs=32,
        ),
    ),
    "small": Scale(
        layers=6,
        width=256,
        heads=4,
        vocabulary=4096,
        context=256,
        batch=32,
        micro_batch=32,
        steps=1250,
        linear_snapshots=10,
        learning_rate=2e-3,
        warmup=100,
        checkpoint_every=50,
        validation_tokens=65_536,
        tuning=Tuning(
            rates=(2e-3, 1e-3, 5e-4, 2.5e-4),
            divergences=3,
            sft_steps=200,
            dpo_steps=50,
            batch=16,
            demonstrations=512,
        ),
        evolution=Settings(
            features=4096,
            tokens=2_000_000,
            activation="batchtopk",
            k=32,
            learning_rate=1e-3,
            analysis_tokens=65_536,
        ),
    ),
    # Pythia-160M (arXiv 2304.01373, section 2.1) and the 32 snapshots of arXiv 2509.17196.
    "paper": Scale(
        layers=12,
        width=768,
        heads=12,
        vocabulary=50_304,
        context=2048,
        batch=1024,
        micro_batch=16,
        steps=143_000,
        linear_snapshots=21,
        learning_rate=6e-4,
        warmup=1430,
        checkpoint_every=1000,
        validation_tokens=1_048_576,
        tuning=Tuning(
            rates=(2e-5, 1e-5, 5e-6, 2.5e-6),
            divergences=3,
            sft_steps=500,
            dpo_steps=100,
            batch=32,
            demonstrations=4096,
        ),
        evolution=Settings(
            features=32_768,
            tokens=800_000_000,
            learning_rate=5e-5,
            batch=2048,
            analysis_tokens=1_048_576,
            contexts=20,
            pairs=256,
        ),
        snapshots=(
            *(0, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            *range(1000, 10_001, 1000),
            *(14_000, 20_000, 27_000, 34_000, 47_000, 60_000),
            *(74_000, 87_000, 100_000, 114_000, 127_000, 143_000),
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowConfig:
    """Grow a language model on real text and watch what it learns, when.

    The text is this Python's own documentation and source unless a corpus is named. A run that
    was interrupted goes on where it stopped when the same command is given again.
    """

    scale: Literal["micro", "tiny", "small", "paper"] = "tiny"
    """micro: about a minute on 2 cores; tiny: about 6; small: about an hour; paper: Pythia-160M
    on GPUs."""

    corpus: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A file, folder, glob (.txt, .jsonl, .gz, .zst) or hub:NAME; PATH=2 gives it weight 2.
    Repeat for a mix of domains."""

    encoding: str = "utf-8"
    """How the corpus files are encoded."""

    out: Path = Path("runs/grow")
    """The run folder: made if absent, continued if it holds the same run."""

    seed: int = 0
    """Of the initial weights, the order of the data and the sampled texts."""

    steps: int | None = None
    """Train for so many steps instead of the scale's own number."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the processor multiplies it natively, else fp32."""


def check_config(config: GrowConfig) -> None:
    """Refuse what can be refused before anything heavy is imported.

    Raises
    ------
    UsageError
        If there are no steps to take, or the paper's scale has no corpus.
    """
    if config.steps is not None and config.steps < 1:
        raise UsageError(f"--steps ({config.steps}) must be at least 1")
    if config.scale == "paper" and not config.corpus:
        raise UsageError("--scale paper needs --corpus, such as hub:monology/pile-uncopyrighted")


def snapshot_steps(steps: int, linear: int) -> list[int]:
    """Return log-then-linear snapshot steps: 0, powers of two, then `linear` even ones to the end.

    The linear part starts where its spacing exceeds that of the powers of two, so that no stretch
    of training is watched less closely than steps / linear.

    Examples
    --------
    >>> snapshot_steps(1200, 8)
    [0, 1, 2, 4, 8, 16, 32, 64, 128, 150, 300, 450, 600, 750, 900, 1050, 1200]
    >>> snapshot_steps(1, 8)
    [0, 1]
    """
    spacing = max(1, steps // linear)
    powers = {2**exponent for exponent in range(steps.bit_length()) if 2**exponent < spacing}
    return sorted({0, steps} | powers | set(range(spacing, steps + 1, spacing)))
