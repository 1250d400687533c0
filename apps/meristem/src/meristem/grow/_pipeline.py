"""The main job: corpus, tokens, pre-training, phases, features, tuning, checks, report."""

import resource
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from accelerate import Accelerator, InitProcessGroupKwargs

from meristem._rows import Row
from meristem.grow._batches import plan_batches
from meristem.grow._checks import check_learning
from meristem.grow._config import SCALES, GrowConfig, Scale, snapshot_steps
from meristem.grow._corpus import Corpus, build_corpus
from meristem.grow._cost import estimate_cost
from meristem.grow._deliberate import Deliberation, deliberate
from meristem.grow._exam import Examined, hold_exam
from meristem.grow._features import EXPLORER, evolve_features
from meristem.grow._lineage import Lineage
from meristem.grow._model import native_bfloat16
from meristem.grow._phases import Phases, measure_phases
from meristem.grow._pretrain import Pretrained, pretrain
from meristem.grow._report import render_figure, render_report
from meristem.grow._stages import Stages
from meristem.grow._tokens import Tokens, build_tokens, load_tokenizer, load_tokens
from meristem.grow._tune import Tuned, tune_model
from meristem_core import Journal, open_run, write_atomic, write_json
from meristem_core.command import Progress, UsageError
from meristem_evolution.run import Evolved

SCHEMA = "meristem-grow/1"
CHARACTERS_PER_TOKEN = 8  # more than any language needs: bounds what is read of a huge corpus
LEAST_CHARACTERS = 50_000_000  # are read in any case: a short run has the tokenizer of a long one
BARRIER = timedelta(days=2)  # how long processes wait for a stage that only one of them makes


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """A pre-trained model's snapshots, and what it learned when."""

    config: dict[str, object]
    lineage: Lineage
    tokens: Tokens
    pretrained: Pretrained
    phases: Phases
    rows: list[Row]  # the verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A finished run: the stages' results, what they cost, and the verdicts."""

    schema: str
    config: dict[str, object]
    corpus: Corpus
    tokens: Tokens
    pretrained: Pretrained
    phases: Phases
    exam: Examined
    evolution: Evolved
    tuning: Tuned
    deliberation: Deliberation
    rows: list[Row]
    seconds: dict[str, float]  # of each stage, in the session that finished it
    peak_memory: int  # bytes, resident, of this process


def grow(config: GrowConfig, *, say: Callable[[str], None]) -> Grown | None:
    """Run every stage that is not finished yet; the main process returns the whole result.

    Parameters
    ----------
    config
        What to grow, and where.
    say
        Told one line a stage, on the main process.

    Raises
    ------
    UsageError
        If a value cannot be used; nothing is overwritten.
    """
    scale, precision = _resolve(config)
    with _opened(config, scale, precision, say) as stages:
        return _grow(config, stages, _teach(config, scale, precision, stages))


def teach(config: GrowConfig, *, say: Callable[[str], None], scale: Scale | None = None) -> Taught:
    """Run the stages up to what the model learned; `grow` can go on from there.

    Parameters
    ----------
    config, say
        As for `grow`.
    scale
        Other sizes than those of the config's scale.

    Raises
    ------
    UsageError
        If a value cannot be used; nothing is overwritten.
    """
    own, precision = _resolve(config)
    scale = scale or own
    with _opened(config, scale, precision, say) as stages:
        return _teach(config, scale, precision, stages)


@contextmanager
def _opened(
    config: GrowConfig, scale: Scale, precision: str, say: Callable[[str], None]
) -> Generator[Stages, None, None]:
    """Hold the run folder and run its stages."""
    transformers.utils.logging.disable_progress_bar()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if precision == "bf16" else "no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=BARRIER)],
    )
    stages = Stages(config.out, accelerator, say if accelerator.is_main_process else _silence)
    stages.say(f"{config.out}: {estimate_cost(scale)}")
    with ExitStack() as stack:
        stages.on_main(lambda: _hold(stack, config.out, _stored(config, scale, precision)))
        yield stages


def _teach(config: GrowConfig, scale: Scale, precision: str, stages: Stages) -> Taught:
    corpus = stages.alone(
        "corpus", Corpus, lambda folder, progress: _build_corpus(folder, config, scale)
    )
    tokens = stages.alone(
        "tokens",
        Tokens,
        lambda folder, progress: build_tokens(
            folder, corpus=corpus, texts=stages.folder("corpus"), vocabulary=scale.vocabulary
        ),
    )
    pretrained = stages.together(
        "pretrain",
        Pretrained,
        lambda folder, progress: _pretrain(folder, progress, config, scale, corpus, stages),
    )
    lineage = Lineage(run=stages.run, scale=scale, corpus=corpus, steps=pretrained.snapshots)
    phases = stages.together(
        "phases",
        Phases,
        lambda folder, progress: measure_phases(
            folder,
            lineage=lineage,
            seed=config.seed,
            accelerator=stages.accelerator,
            progress=progress,
        ),
    )
    seconds = stages.seconds()
    return Taught(
        config=_stored(config, scale, precision),
        lineage=lineage,
        tokens=tokens,
        pretrained=pretrained,
        phases=phases,
        rows=check_learning(
            stages.folder("phases"),
            phases,
            seed=config.seed,
            seconds=sum(seconds[name] for name in ("corpus", "tokens", "pretrain", "phases")),
        ),
    )


def _grow(config: GrowConfig, stages: Stages, taught: Taught) -> Grown | None:
    seed, accelerator, lineage = config.seed, stages.accelerator, taught.lineage
    evolution = stages.alone(
        "features",
        Evolved,
        lambda folder, progress: evolve_features(
            folder, lineage=lineage, page=config.out / EXPLORER, seed=seed, say=stages.say
        ),
    )
    tuning = stages.alone(
        "tuning",
        Tuned,
        lambda folder, progress: tune_model(folder, lineage=lineage, seed=seed, progress=progress),
    )
    exam = stages.alone(
        "exam",
        Examined,
        lambda folder, progress: hold_exam(
            folder, lineage=lineage, seed=seed, accelerator=accelerator, progress=progress
        ),
    )
    deliberation = stages.alone(
        "deliberate", Deliberation, lambda folder, progress: deliberate(lineage=lineage, seed=seed)
    )
    if not accelerator.is_main_process:
        return None
    grown = Grown(
        schema=SCHEMA,
        config=taught.config,
        corpus=lineage.corpus,
        tokens=taught.tokens,
        pretrained=taught.pretrained,
        phases=taught.phases,
        exam=exam,
        evolution=evolution,
        tuning=tuning,
        deliberation=deliberation,
        rows=taught.rows,
        seconds=stages.seconds(),
        peak_memory=peak_memory(),
    )
    _write(config.out, grown, stages.folder("pretrain"))
    return grown


def _write(out: Path, grown: Grown, pretrained: Path) -> None:
    write_json(out / "result.json", grown)
    with Journal(pretrained / "metrics.jsonl") as journal:
        write_atomic(out / "report.html", render_report(grown, list(journal)))
    write_atomic(out / "growing.svg", render_figure(grown))


def _build_corpus(folder: Path, config: GrowConfig, scale: Scale) -> Corpus:
    taught = CHARACTERS_PER_TOKEN * scale.steps * scale.batch * scale.context
    return build_corpus(
        folder,
        sources=config.corpus,
        encoding=config.encoding,
        seed=config.seed,
        max_characters=max(LEAST_CHARACTERS, taught),
    )


def _pretrain(
    folder: Path,
    progress: Progress,
    config: GrowConfig,
    scale: Scale,
    corpus: Corpus,
    stages: Stages,
) -> Pretrained:
    tokens = stages.folder("tokens")
    batches = plan_batches(
        {domain.name: load_tokens(tokens, domain.name, "train") for domain in corpus.domains},
        {domain.name: domain.weight for domain in corpus.domains},
        steps=scale.steps,
        batch=scale.batch,
        context=scale.context,
        seed=config.seed,
    )
    return pretrain(
        folder,
        scale=scale,
        batches=batches,
        snapshots=list(scale.snapshots) or snapshot_steps(scale.steps, scale.linear_snapshots),
        tokenizer=load_tokenizer(tokens),
        seed=config.seed,
        accelerator=stages.accelerator,
        progress=progress,
    )


def _resolve(config: GrowConfig) -> tuple[Scale, str]:
    scale = SCALES[config.scale]
    if config.steps is not None:
        scale = replace(scale, steps=config.steps, snapshots=())
    if config.scale == "paper":
        cost = estimate_cost(scale)
        if not torch.cuda.is_available():
            raise UsageError(f"--scale paper needs GPUs ({cost}); here use --scale small")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if native_bfloat16() else "fp32"
    return scale, precision


def _stored(config: GrowConfig, scale: Scale, precision: str) -> dict[str, object]:
    """Return what decides the results, as it stands in config.json."""
    chosen = {key: value for key, value in asdict(config).items() if key not in ("out", "steps")}
    return {**chosen, "precision": precision, "sizes": asdict(scale)}


def _silence(line: str) -> None:
    """Say nothing: what the main process says is enough."""


def _hold(stack: ExitStack, path: Path, stored: dict[str, object]) -> None:
    """Open the run folder until the stack is left."""
    try:
        run = open_run(path, stored, name="meristem grow", version=version("meristem"))
        stack.enter_context(run)
    except (ValueError, OSError) as error:
        raise UsageError(f"--out {error}") from error


def peak_memory() -> int:
    """Return the largest resident set of this process so far, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
