"""The command line of `meristem grow`."""

import sys

import tyro

from meristem._rows import table
from meristem.grow._config import GrowConfig, check_config


def main(words: list[str]) -> int:
    """Grow, print the verdicts, and return the exit code."""
    config = tyro.cli(GrowConfig, prog="meristem grow", args=words)
    check_config(config)
    from meristem.grow._pipeline import grow  # brings torch: not needed for --help
    from meristem_core.torch import end_process_group

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    grown = grow(config, say=say)
    end_process_group()
    if grown is None:
        return 0
    holds = all(row.verdict == "reproduced" for row in grown.rows)
    print(table(grown.rows))
    print(f"report: {config.out / 'report.html'}")
    print(f"features: {config.out / 'explorer.html'}")
    print("verdict: " + ("every check holds" if holds else "not every check holds"))
    return 0 if holds else 1
