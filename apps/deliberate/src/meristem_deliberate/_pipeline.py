"""Ask, record, measure, report; every stage is a function of the journal."""

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import meristem_testtime as tt
from meristem_core import digest, open_run, write_atomic, write_json
from meristem_core.answers import Kind, answer_key, extract_answer
from meristem_core.command import UsageError, progress_bar
from meristem_deliberate._config import DeliberateConfig
from meristem_deliberate._contents import render_with_contents
from meristem_deliberate._engines import open_engine, prompt_of
from meristem_deliberate._measure import Measured, measure, plain_of
from meristem_deliberate._questions import Question, read_questions
from meristem_deliberate._report import page, summary
from meristem_deliberate._table import traces_csv

SCHEMA = "meristem-deliberate/1"
IN_FLIGHT = 64  # samples under a budget: what these cost is the most that is spent beyond it
SHOWN = 10  # questions that a message names
LEAST = 2  # questions that an interval needs


def deliberate(config: DeliberateConfig) -> int:
    """Run or resume, write the run folder, print the result, and return the exit code."""
    _check(config)
    questions = read_questions(config.questions, config.limit)
    kind = _kind(config, questions)
    stored = _stored(config, questions)
    with ExitStack() as stack:
        _hold(stack, config.out, stored)
        engine = stack.enter_context(open_engine(config))
        recorded = _journal(stack, config.out / "samples.jsonl", engine)
        try:
            sampled = _ask(recorded, questions, config, kind, revise=False, spent=0)
            spent = sum(each.cost.tokens for each in sampled)
            revised = (
                _ask(recorded, questions, config, kind, revise=True, spent=spent)
                if config.revise
                else []
            )
        except tt.UnsupportedError as error:
            raise UsageError(str(error)) from error
        except tt.EngineError as error:
            print(f"meristem deliberate: {error}; {config.out} keeps every sample", file=sys.stderr)
            return 3
        except ValueError as error:
            raise UsageError(str(error)) from error
    cost = {"tokens": sum(each.cost.tokens for each in [*sampled, *revised]),
            "samples": sum(each.cost.samples for each in [*sampled, *revised])}  # fmt: skip
    left = [each.question for each in [*sampled, *revised] if each.exhausted]
    if left:
        stored = stored | {"left": list(dict.fromkeys(left))}
        _say_left(config, cost["tokens"], list(dict.fromkeys(left)))
    sampled, revised = _done(sampled, revised)
    if len(sampled) < LEAST:
        return 3
    gold = {each.id: each.answer for each in questions}
    traces = tt.from_results(sampled, gold, kind=kind)
    chains = tt.from_revisions(revised, gold, kind=kind) if revised else None
    measured = {"": measure(traces, chains, ks=None, seed=config.seed)}
    write_atomic(config.out / "traces.csv", traces_csv(traces))
    code = conclude(config.out, measured, stored | {"cost": cost}, as_json=config.json)
    return 3 if left else code


def _done(
    sampled: list[tt.SearchResult], revised: list[tt.SearchResult]
) -> tuple[list[tt.SearchResult], list[tt.SearchResult]]:
    """Return what was found for the questions that are done, or the samples where too few are."""
    sampled, revised = ([r for r in each if not r.exhausted] for each in (sampled, revised))
    if len(revised) < LEAST:
        return sampled, []
    names = {each.question for each in revised}
    return [each for each in sampled if each.question in names], revised


def _say_left(config: DeliberateConfig, tokens: int, left: list[str]) -> None:
    shown = ", ".join(left[:SHOWN]) + (", ..." if len(left) > SHOWN else "")
    print(
        f"meristem deliberate: {tokens} tokens are spent, --budget is {config.budget}; {len(left)} "
        f"questions are not done: {shown}. {config.out} keeps every sample; raise --budget and the "
        "same command goes on",
        file=sys.stderr,
    )


def conclude(
    out: Path, measured: Mapping[str, Measured], facts: Mapping[str, Any], *, as_json: bool
) -> int:
    """Write result.json and report.html, and print what was found."""
    result = {
        "schema": SCHEMA,
        "config": dict(facts),
        "versions": {name: version(name) for name in ("meristem-deliberate", "meristem-testtime")},
        "strata": {name: plain_of(each) for name, each in measured.items()},
    }
    write_json(out / "result.json", result)
    write_atomic(out / "report.html", render_with_contents(page(measured, facts)))
    if as_json:
        print((out / "result.json").read_text("utf-8"), end="")
    else:
        print(f"{summary(measured)}\nreport: {out / 'report.html'}")
    return 0


def _ask(
    engine: tt.ReplayEngine,
    questions: list[Question],
    config: DeliberateConfig,
    kind: Kind,
    *,
    revise: bool,
    spent: int,
) -> list[tt.SearchResult]:
    gold = {each.id: answer_key(each.answer) for each in questions}
    prompts = {
        each.id: prompt_of(engine.engine, config.prompt.replace("{question}", each.text))
        for each in questions
    }
    start, tokens, right, samples = time.monotonic(), 0, 0, 0
    with progress_bar("revise" if revise else "sample") as show:

        def note(done: int, total: int, found: tt.SearchResult) -> None:
            nonlocal tokens, right, samples
            tokens += found.cost.tokens
            for node in found.solutions:
                stated = extract_answer(node.text, kind)
                samples += 1
                right += stated is not None and answer_key(stated) == gold[found.question]
            rate = tokens / max(time.monotonic() - start, 1e-9)
            show(done, total, {"accuracy": right / max(samples, 1), "tokens/s": rate})

        limit = config.budget
        samples_each = config.chains if revise else config.n
        return tt.search_sync(
            engine,
            prompts,
            tt.grid(config.chains, config.revise, config.cue) if revise else tt.best_of_n(config.n),
            step=tt.Step(max_tokens=config.max_tokens, max_steps=1),
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            budget=tt.Budget(run_tokens=None if limit is None else max(limit - spent, 0)),
            concurrency=256 if limit is None else max(IN_FLIGHT // samples_each, 1),
            seed=config.seed + revise,
            progress=note,
        )


def _check(config: DeliberateConfig) -> None:
    limits = {"n": 1, "max_tokens": 1, "revise": 0, "chains": 1, "budget": 1, "top_k": 1}
    for name, least in limits.items():
        value = getattr(config, name)
        if value is not None and value < least:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} {value}: it must be at least {least}")
    if config.chains > 1 and not config.revise:
        raise UsageError(f"--chains {config.chains}: chains are revised; give --revise 1 or more")
    if not 0 <= config.temperature < float("inf"):
        raise UsageError(f"--temperature {config.temperature}: it must be finite and at least 0")
    if not 0 < config.top_p <= 1:
        raise UsageError(f"--top-p {config.top_p}: it must lie in (0, 1]")
    if not config.cue or "" in config.cue:
        raise UsageError(f"--cue {' '.join(config.cue)!r}: give one text or more, none empty")
    if "{question}" not in config.prompt:
        raise UsageError(f"--prompt {config.prompt!r} lacks {{question}}; nothing would be asked")


def _kind(config: DeliberateConfig, questions: list[Question]) -> Kind:
    if config.kind != "auto":
        return config.kind
    return cast("Kind", "choice" if any(each.has_options for each in questions) else "math")


def _stored(config: DeliberateConfig, questions: list[Question]) -> dict[str, object]:
    names = ("engine", "model", "tokenizer", "n", "temperature", "top_p", "top_k", "max_tokens",
             "revise", "chains", "cue", "kind", "prompt", "seed")  # fmt: skip
    stored: dict[str, object] = {name: getattr(config, name) for name in names}
    return stored | {"questions": len(questions), "questions_digest": digest(questions)}


def _hold(stack: ExitStack, path: Path, stored: Mapping[str, object]) -> None:
    """Open the run folder until the stack is left."""
    try:
        stack.enter_context(
            open_run(
                path, stored, name="meristem deliberate", version=version("meristem-deliberate")
            )
        )
    except (ValueError, OSError) as error:
        raise UsageError(f"--out {error}") from error


def _journal(stack: ExitStack, path: Path, engine: tt.Engine) -> tt.ReplayEngine:
    try:
        return stack.enter_context(tt.ReplayEngine(path, engine))
    except (ValueError, KeyError) as error:
        raise UsageError(f"{error}") from error
