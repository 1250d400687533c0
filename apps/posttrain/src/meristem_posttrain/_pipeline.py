"""One run: data, training with evaluations and checkpoints, the model, result and report."""

import copy
import resource
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from torch import Tensor

from meristem_core import (
    Journal,
    latest_checkpoint,
    open_run,
    save_checkpoint,
    sha256_of,
    write_atomic,
    write_json,
)
from meristem_core.command import Progress, UsageError, progress_bar
from meristem_core.torch import load_state, save_state
from meristem_posttrain._config import LORA_RATE, LOSSES, RATES, PosttrainConfig
from meristem_posttrain._data import Split, read_split
from meristem_posttrain._evaluate import evaluate, generated_lengths
from meristem_posttrain._models import (
    changing_state,
    load,
    optimizer_of,
    restore_state,
    save_whole,
    trained_parameters,
)
from meristem_posttrain._objective import Objective, find_objective
from meristem_posttrain._report import render_report
from meristem_posttrain._train import Schedule, fit

SCHEMA, NAME = "meristem-posttrain/1", "meristem-posttrain"
LOGGED_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Posttrained:
    """A finished run; `evaluations` has a record at every evaluated step."""

    schema: str
    config: dict[str, Any]
    parameters: int  # of the model
    trained_parameters: int
    adapter: dict[str, Any] | None  # rank, alpha, and the layers of each name that have one
    steps: int
    examples: int  # trained on
    held_out: int
    left_out: int  # longer than the limit
    evaluations: list[dict[str, Any]]


def posttrain(config: PosttrainConfig, *, say: Callable[[str], None]) -> Posttrained | None:
    """Run, or continue, and return the result on the main process.

    `say` is told one line a milestone there.

    Raises
    ------
    UsageError
        If a value cannot be used; nothing is overwritten.
    """
    objective = find_objective(
        config.stage, config.loss or LOSSES[config.stage], _settings(config.set)
    )
    transformers.utils.logging.disable_progress_bar()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if config.precision == "bf16" else "no",
    )
    model, tokenizer = load(config.model)
    if config.lora:
        from meristem_posttrain._adapter import add_adapter

        model = add_adapter(model, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    data = read_split(config, objective.form, tokenizer)
    steps = config.steps or max(1, len(data.train) // config.batch)
    schedule = Schedule(
        steps=steps,
        batch=config.batch,
        micro_batch=config.micro_batch,
        learning_rate=config.learning_rate or _rate(config),
    )
    stored = _stored(config, objective, schedule)
    try:
        hold = (
            open_run(
                config.out, stored, name="meristem posttrain", version=version("meristem-posttrain")
            )
            if accelerator.is_main_process
            else nullcontext()
        )
    except (ValueError, OSError) as error:
        raise UsageError(f"--out {error}") from error
    with hold:
        if accelerator.is_main_process:
            say(
                f"{config.out}: {objective.name} on {len(data.train)} examples, {steps} steps of "
                f"{config.batch}; {len(data.held_out)} held out, {data.left_out} too long"
            )
        run = _Run(config, objective, schedule, data, accelerator, stored, tokenizer)
        return run.finish(model)


class _Run:
    """The open run of one process."""

    def __init__(
        self,
        config: PosttrainConfig,
        objective: Objective,
        schedule: Schedule,
        data: Split,
        accelerator: Accelerator,
        stored: dict[str, Any],
        tokenizer: Any,
    ) -> None:
        self.config, self.objective, self.schedule = config, objective, schedule
        self.data, self.accelerator, self.stored = data, accelerator, stored
        self.tokenizer, self.out = tokenizer, config.out
        every = max(1, schedule.steps // config.evaluations)
        self.evaluated = {0, schedule.steps, *range(every, schedule.steps, every)}

    def finish(self, model: Any) -> Posttrained | None:
        """Train from the last checkpoint, evaluate, save and report; the main process returns."""
        begin = time.perf_counter()
        reference = self._reference(model)
        optimizer = optimizer_of(model, self.schedule.learning_rate)
        start = self._restore(model, optimizer)
        model, optimizer = self.accelerator.prepare(model, optimizer)
        bare = self.accelerator.unwrap_model(model)
        main = self.accelerator.is_main_process
        with (
            Journal(self.out / "metrics.jsonl") if main else nullcontext() as metrics,
            Journal(self.out / "evaluations.jsonl") if main else nullcontext() as evaluations,
            progress_bar("posttrain") as progress,
        ):
            if metrics is not None and evaluations is not None:
                metrics.rewind(lambda record: record["step"] <= start)
                evaluations.rewind(lambda record: record["step"] < start)

            def before(step: int) -> None:
                if evaluations is not None and step in self.evaluated:
                    evaluations.append({"step": step, **self._evaluate(bare, reference)})
                if main and step > start and self._saves(step):
                    self._save(step, bare, optimizer)

            fit(
                model, reference, optimizer, self.data.train, self.objective, self.schedule,
                seed=self.config.seed, accelerator=self.accelerator, start=start, before=before,
                after=lambda step, found: self._log(step, found, metrics, progress),
            )  # fmt: skip
        return self._result(bare, time.perf_counter() - begin) if main else None

    def _reference(self, model: Any) -> Any:
        if self.config.reference is None and self.config.lora:
            from meristem_posttrain._adapter import WithoutAdapter

            return WithoutAdapter(model)
        other = self.config.reference
        reference = copy.deepcopy(model) if other is None else load(other)[0]
        return reference.eval().requires_grad_(False).to(self.accelerator.device)

    def _evaluate(self, model: Any, reference: Any) -> dict[str, Any]:
        model.eval()
        found: dict[str, Any] = evaluate(
            model, reference, self.data.held_out, self.objective,
            micro_batch=self.config.micro_batch,
        )  # fmt: skip
        some = self.data.held_out[: self.config.sample_prompts]
        if some:
            answers = generated_lengths(
                model, some, end=self.tokenizer.eos_token_id, tokens=self.config.sample_tokens
            )
            found["length"] = sum(map(len, answers)) / len(answers)
            found["sample"] = self.tokenizer.decode(answers[0])
        return found

    def _log(
        self, step: int, found: dict[str, float], journal: Journal | None, progress: Progress
    ) -> None:
        every = max(1, self.schedule.steps // LOGGED_POINTS)
        if journal is not None and (step % every == 0 or step == self.schedule.steps):
            journal.append({"step": step, **found}, sync=False)
            progress(step, self.schedule.steps, {"loss": found["loss"]})

    def _saves(self, step: int) -> bool:
        return step % self.config.checkpoint_every == 0 or step == self.schedule.steps

    def _save(self, step: int, model: Any, optimizer: Any) -> None:
        state = {"model": changing_state(model), "optimizer": optimizer.state_dict()}
        save_checkpoint(
            self.out / "checkpoints",
            step,
            lambda path: save_state(path / "training.safetensors", state),
            state={},
        )

    def _restore(self, model: Any, optimizer: Any) -> int:
        try:
            checkpoint = latest_checkpoint(self.out / "checkpoints")
            if checkpoint is None:
                return 0
            saved = load_state(checkpoint.path / "training.safetensors")
        except ValueError as error:
            raise UsageError(str(error)) from error
        restore_state(model, saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        return checkpoint.step

    def _result(self, model: Any, seconds: float) -> Posttrained:
        with Journal(self.out / "evaluations.jsonl") as journal:
            evaluations = list(journal)
        with Journal(self.out / "metrics.jsonl") as journal:
            training = list(journal)
        trained = _size(trained_parameters(model))
        adapter = self._adapter(model)
        model = self._save_models(model)
        result = Posttrained(
            schema=SCHEMA,
            config=self.stored,
            parameters=_size(model.parameters()),
            trained_parameters=trained,
            adapter=None if adapter is None else asdict(adapter),
            steps=self.schedule.steps,
            examples=len(self.data.train),
            held_out=len(self.data.held_out),
            left_out=self.data.left_out,
            evaluations=evaluations,
        )
        unit = 1 if sys.platform == "darwin" else 1024
        cost = {
            "seconds": seconds,  # of the session that finished the run
            "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        }
        write_json(self.out / "cost.json", cost)
        some = self.data.held_out[: self.config.sample_prompts]
        prompt = self.tokenizer.decode(some[0].prompt) if some else ""
        write_atomic(self.out / "report.html", render_report(result, training, cost, prompt))
        write_json(self.out / "result.json", result)
        return result

    def _adapter(self, model: Any) -> Any:
        if not self.config.lora:
            return None
        from meristem_posttrain._adapter import describe

        return describe(model, rank=self.config.lora_rank, alpha=self.config.lora_alpha)

    def _save_models(self, model: Any) -> Any:
        """Save the adapter, if there is one, and the model with it merged, which is returned."""
        if self.config.lora:
            save_whole(
                self.out / "adapter",
                lambda folder: model.save_pretrained(folder, save_embedding_layers=False),
            )
            model = model.merge_and_unload()
        save_whole(self.out / "model", model.save_pretrained, self.tokenizer.save_pretrained)
        return model


def _rate(config: PosttrainConfig) -> float:
    return RATES[config.stage] * (LORA_RATE if config.lora else 1)


def _size(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _settings(words: tuple[str, ...]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            raise UsageError(f"--set {word} has no value; write NAME=VALUE")
    return dict(word.split("=", 1) for word in words)  # type: ignore[arg-type]


def _stored(config: PosttrainConfig, objective: Objective, schedule: Schedule) -> dict[str, Any]:
    """Return what decides the results, as it stands in config.json."""
    chosen = replace(
        config,
        loss=objective.name,
        steps=schedule.steps,
        learning_rate=schedule.learning_rate,
    )
    values = {k: v for k, v in asdict(chosen).items() if k not in ("out", "data")}
    return {**values, "data": str(config.data), "data_sha256": sha256_of(config.data)}
