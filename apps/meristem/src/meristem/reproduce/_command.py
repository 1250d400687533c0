"""The command line of `meristem reproduce`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from meristem._rows import Row, table
from meristem.reproduce._papers import PAPERS, Paper
from meristem_core.command import UsageError

SCHEMA = "meristem-reproduce/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceConfig:
    """Reproduce a paper claim by claim.

    Every verdict follows a rule that was written before the run. Exit code 0: every claim that can
    be tested here is reproduced; 1: one is not, or only partly.
    """

    paper: Annotated[str, tyro.conf.Positional] = ""
    """arXiv id of the paper, such as 2509.17196."""

    list: bool = False
    """Name the papers and how far each is."""

    quick: bool = False
    """End within two or three minutes on 2 cores: fewer, smaller runs."""

    json: bool = False
    """Print JSON instead of a table."""

    seed: int = 0
    """Of everything random."""

    out: Path = Path("runs/reproduce")
    """Where the runs behind the rows are kept; finished ones are not repeated."""


def main(words: list[str]) -> int:
    """Reproduce, print the rows, and return the exit code."""
    config = tyro.cli(ReproduceConfig, prog="meristem reproduce", args=words)
    if config.list:
        _print_papers(as_json=config.json)
        return 0
    paper = _find(config.paper)
    rows = paper.load()(config.out / paper.id, config.quick, config.seed)
    if config.json:
        result = {"schema": SCHEMA, "paper": paper.id, "rows": [asdict(row) for row in rows]}
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        print(f"{paper.id}  {paper.title}\n\n{table(rows)}")
    return 0 if _all_reproduced(rows) else 1


def _all_reproduced(rows: list[Row]) -> bool:
    return {row.verdict for row in rows} <= {"reproduced", "not testable here"}


def _find(name: str) -> Paper:
    if not name:
        raise UsageError("reproduce needs an arXiv id; see: meristem reproduce --list")
    if name not in PAPERS:
        raise UsageError(f"{name} is none of our papers; see: meristem reproduce --list")
    paper = PAPERS[name]
    if paper.module is None:
        raise UsageError(
            f"{name} is not reproduced yet: it waits for {paper.part}; "
            "see: meristem reproduce --list"
        )
    return paper


def _print_papers(*, as_json: bool) -> None:
    if as_json:
        listed = [
            {key: getattr(paper, key) for key in ("id", "title", "part", "state")}
            for paper in PAPERS.values()
        ]
        print(json.dumps({"schema": SCHEMA, "papers": listed}, indent=2))
        return
    for paper in PAPERS.values():
        print(f"{paper.id}  {paper.state:8}  {paper.part:17}  {paper.title}")
