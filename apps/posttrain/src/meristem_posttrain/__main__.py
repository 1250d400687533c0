"""The command line of `meristem posttrain`."""

import sys

import tyro

from meristem_core.command import run_command
from meristem_posttrain._config import PosttrainConfig, check_config


def main(words: list[str]) -> int:
    """Train, print the held-out numbers before and after, and return the exit code."""
    config = tyro.cli(PosttrainConfig, prog="meristem posttrain", args=words)
    check_config(config)
    from meristem_core.torch import end_process_group  # torch: not needed for --help
    from meristem_posttrain._pipeline import posttrain

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found = posttrain(config, say=say)
    end_process_group()
    if found is None:
        return 0
    first, last = found.evaluations[0], found.evaluations[-1]
    for name, value in last.items():
        if name not in ("step", "sample"):
            print(f"{name:18} {first[name]:10.4g} -> {value:.4g}")
    print(f"model: {config.out / 'model'}")
    print(f"report: {config.out / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:], name="meristem posttrain"))
