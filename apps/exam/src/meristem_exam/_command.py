"""The command line of `meristem exam`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from meristem_core import write_atomic, write_json
from meristem_core.command import UsageError
from meristem_exam._choice import Method, Model
from meristem_exam._exam import sit_exam
from meristem_exam._facets import rate, read_ratings
from meristem_exam._findings import Finding
from meristem_exam._report import render_exam
from meristem_exam._report_facets import facets_json, render_facets
from meristem_exam._result import exam_json
from meristem_exam._sources import read_evidence
from meristem_rasch import ExistenceError, IdentificationError

Columns = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamConfig:
    """Measure systems and items on one scale and report what can be trusted.

    Exit code 0: done; 2: a value cannot be used; 3: the data do not identify the measures.
    """

    sources: Annotated[Columns, tyro.conf.Positional]
    """Score files (.csv, .tsv, .jsonl, .parquet) or lm-evaluation-harness logs or their folder."""

    layout: Literal["auto", "wide", "long", "lm-eval"] = "auto"
    """How the scores lie in the file; auto looks at the column names."""

    person: str | None = None
    """Column of the systems or persons."""

    item: Columns = ()
    """Column of the items; several are joined (with --facet and --layout wide: score columns)."""

    score: str | None = None
    """Column of the scores."""

    facet: Columns = ()
    """Columns of raters and of whatever else takes part in a score: many-facet measurement."""

    max_score: str | None = None
    """Largest possible score: a number, or the column that holds it."""

    weight: int | None = None
    """Independent trials behind each score, such as samples of a pass rate."""

    model: Model | None = None
    """Default: pcm if a score exceeds 1, else rasch."""

    method: Method | None = None
    """Default: what the shape of the data asks for; the report says why."""

    difficulty: str | None = None
    """Difficulty labels: a column of the source, or a CSV with columns item and difficulty."""

    subject: str | None = None
    """Column that groups items, within which difficulty and length are compared."""

    length: str | None = None
    """Column with the length of each answer, in tokens or characters."""

    answered: str | None = None
    """Column that is 0 where an output was cut off or gave no answer."""

    group: str | None = None
    """Column with two groups of persons between which items may work differently."""

    graders: Path | None = None
    """CSV with columns unit, rater, score and perhaps criterion."""

    human: Path | None = None
    """The same of human raters, as a baseline for the graders."""

    metric: str | None = None
    """Metric of lm-evaluation-harness logs that hold several."""

    filter: str | None = None
    """Filter of lm-evaluation-harness logs that hold several."""

    seed: int = 0
    """Of every resampling."""

    out: Path = Path("exam.html")
    """The report."""

    json: Path | None = field(default=None)
    """All results as JSON."""


def run(words: list[str]) -> int:
    """Read, measure, write the report and return the exit code."""
    config = tyro.cli(ExamConfig, prog="meristem exam", args=words)
    try:
        page, record, findings = _facets(config) if config.facet else _exam(config)
    except (ExistenceError, IdentificationError) as error:
        print(f"meristem exam: {error}", file=sys.stderr)
        return 3
    except ValueError as error:
        raise UsageError(str(error)) from error
    write_atomic(config.out, page)
    if config.json is not None:
        write_json(config.json, record)
    print("\n".join(each.text for each in findings))
    print(f"report: {config.out}")
    return 0


Results = tuple[str, dict[str, Any], list[Finding]]


def _exam(config: ExamConfig) -> Results:
    evidence = read_evidence(config)
    exam = sit_exam(evidence, model=config.model, method=config.method, seed=config.seed)
    return render_exam(exam), exam_json(exam), exam.findings


def _facets(config: ExamConfig) -> Results:
    study = rate(read_ratings(config))
    return render_facets(study), facets_json(study), study.findings
