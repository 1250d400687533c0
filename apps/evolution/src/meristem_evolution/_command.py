"""The command line of `meristem evolution`."""

import sys

import tyro

from meristem_evolution._config import EvolutionConfig, check_config


def main(words: list[str]) -> int:
    """Run, print what was found, and return the exit code."""
    config = tyro.cli(EvolutionConfig, prog="meristem evolution", args=words)
    check_config(config)
    from meristem_evolution._run import run_evolution  # brings torch: not needed for --help

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    evolved = run_evolution(config, say=say)
    if config.json:
        print((config.out / "result.json").read_text(encoding="utf-8"), end="")
    else:
        print(*evolved.summary(), f"explorer: {config.out / 'explorer.html'}", sep="\n")
    return 0
