"""The whole job: text, crosscoder, measurements, attribution, page."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from meristem_core import RunDir, open_run, write_atomic, write_json
from meristem_core.command import UsageError
from meristem_crosscoders import Crosscoder, SnapshotSet, check_memory
from meristem_evolution._attribute import Attributed, attribute, load_effects
from meristem_evolution._checkpoints import find_source, load_source
from meristem_evolution._config import EvolutionConfig, Settings
from meristem_evolution._explore import explorer_of
from meristem_evolution._fit import Fitted, crosscoder_config, fit, load_fitted
from meristem_evolution._measure import Measured, load_arrays, measure
from meristem_evolution._page import render_explorer
from meristem_evolution._stages import Stages
from meristem_evolution._study import Study
from meristem_evolution._text import (
    Encode,
    load_text,
    read_rows,
    save_rows,
    split_rows,
    token_bytes,
)

SCHEMA = "meristem-evolution/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How much text there is."""

    train: int  # tokens
    held_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolved:
    """A finished run."""

    schema: str
    config: dict[str, object]
    site: str
    fitted: Fitted
    measured: Measured
    attributed: Attributed
    seconds: dict[str, float]  # of each stage, in the session that finished it

    def summary(self) -> list[str]:
        """Return the findings in a few lines."""
        found = self.measured
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds["0.5"].items())
        low, high = min(found.explained_variance), max(found.explained_variance)
        lines = [
            f"features: {kinds}",
            f"explained variance: {low:.3f} to {high:.3f}, {found.l0[-1]:.1f} open at the end",
            (
                f"directions turn before step {found.turning.step} "
                f"[{found.turning.low}, {found.turning.high}]"
            ),
        ]
        tasks = self.attributed.tasks
        return lines + [
            f"{task.name}: accuracy {task.accuracy[-1]:.2f} at the end" for task in tasks
        ]


def run_evolution(config: EvolutionConfig, *, say: Callable[[str], None]) -> Evolved:
    """Run every stage that is not finished yet and return the whole result.

    Raises
    ------
    UsageError
        If a value cannot be used; nothing is overwritten.
    """
    source = find_source(config.checkpoints)
    device = _device(config.device)
    stored = {name: value for name, value in asdict(config).items() if name not in UNSTORED}
    with _open(config.out, stored):
        stages = Stages(config.out, say)
        snapshots, tokenizer = load_source(source, config.site, device=device)
        _check_memory(snapshots, config, device)
        say(f"{len(snapshots.steps)} checkpoints at {snapshots.site}, width {snapshots.d_model}")

        def encode(text: str) -> Sequence[int]:
            return tokenizer.encode(text, add_special_tokens=False)

        end: Any = tokenizer.eos_token_id

        def make_rows(folder: Path, _: object) -> Rows:
            rows = read_rows(
                config.corpus,
                encode,
                end=end,
                context=config.context,
                tokens=config.tokens + config.analysis_tokens,
                encoding=config.encoding,
            )
            train, held = split_rows(rows, held_out_tokens=config.analysis_tokens, seed=config.seed)
            save_rows(folder, train, held)
            return Rows(train=train.size, held_out=held.size)

        stages.finish("text", Rows, make_rows)
        text = load_text(
            stages.folder("text"), token_bytes(tokenizer), tuple(tokenizer.all_special_ids)
        )
        study = Study(snapshots=snapshots, text=text)
        return evolve(
            stages,
            study,
            config,
            stored=stored,
            page=config.out / "explorer.html",
            encode=encode,
            tasks=config.tasks,
        )


def evolve(
    stages: Stages,
    study: Study,
    settings: Settings,
    *,
    stored: dict[str, object],
    page: Path,
    encode: Encode | None,
    tasks: Sequence[Path] = (),
) -> Evolved:
    """Train, measure, attribute, and write `result.json` and the explorer.

    Parameters
    ----------
    stages
        Of an open run folder.
    study
        Snapshots and text.
    settings
        What decides the numbers.
    stored
        How the result names its configuration.
    page
        Where the explorer is written.
    encode
        From text to token ids, for tasks that are made of text.
    tasks
        The user's own.

    Raises
    ------
    UsageError
        If an activation is not finite, the loss diverges, or too few features live.
    """
    fitted, crosscoder, measured = fit_and_measure(stages, study, settings)
    try:
        attributed = stages.finish(
            "attribute",
            Attributed,
            lambda folder, p: attribute(folder, study, crosscoder, settings, encode, tasks, p),
        )
    except (ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    evolved = Evolved(
        schema=SCHEMA,
        config=stored,
        site=study.snapshots.site,
        fitted=fitted,
        measured=measured,
        attributed=attributed,
        seconds=stages.seconds(),
    )
    write_json(stages.run / "result.json", evolved)
    explorer = explorer_of(
        evolved,
        load_arrays(stages.folder("measure")),
        load_effects(stages.folder("attribute")),
        study.text.vocabulary,
    )
    write_atomic(page, render_explorer(explorer))
    return evolved


def fit_and_measure(
    stages: Stages, study: Study, settings: Settings
) -> tuple[Fitted, Crosscoder, Measured]:
    """Run the first two stages of `evolve` and return what they leave, with the folded crosscoder.

    Raises
    ------
    UsageError
        If an activation is not finite, the loss diverges, or too few features live.
    """
    try:
        fitted = stages.finish("fit", Fitted, lambda folder, p: fit(folder, study, settings, p))
        crosscoder = load_fitted(stages.folder("fit"))
        measured = stages.finish(
            "measure", Measured, lambda folder, p: measure(folder, study, crosscoder, settings, p)
        )
    except (ValueError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    return fitted, crosscoder, measured


UNSTORED = ("out", "device", "json")  # decide where and how, not what


def _check_memory(snapshots: SnapshotSet, settings: Settings, device: torch.device) -> None:
    """Refuse a dictionary that will not fit before the corpus is read."""
    try:
        config = crosscoder_config(snapshots, settings)
        check_memory(config, batch_tokens=settings.batch, device=device)
    except ValueError as error:
        raise UsageError(f"--features {settings.features}: {error}") from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used ({error})") from error


def _open(path: Path, stored: dict[str, object]) -> RunDir:
    try:
        return open_run(
            path, stored, name="meristem evolution", version=version("meristem-evolution")
        )
    except (ValueError, OSError) as error:
        raise UsageError(f"--out {error}") from error
