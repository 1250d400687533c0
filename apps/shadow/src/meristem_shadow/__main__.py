"""The command `meristem shadow`: its first word says what is asked of a system."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import tyro

from meristem_core.command import UsageError, run_command
from meristem_shadow import _config

COMMANDS: dict[str, tuple[type, str, str]] = {  # word: configuration, module with `run`, text
    "list": (_config.ListConfig, "_systems", "the systems that have names"),
    "info": (_config.InfoConfig, "_systems", "what is known of one system"),
    "orbit": (
        _config.OrbitConfig,
        "_orbit",
        "is my orbit real? a certificate of a true one near it",
    ),
    "manifold": (
        _config.ManifoldConfig,
        "_manifold",
        "stable and unstable manifolds of a fixed point, with a bound of their error",
    ),
    "conjugacy": (
        _config.ConjugacyConfig,
        "_conjugacy",
        "coordinates in which a planar saddle decouples, degenerate or not",
    ),
    "hyperbolicity": (
        _config.HyperbolicityConfig,
        "_hyperbolicity",
        "cones, the six conditions, and rates that tend to 1 at a boundary",
    ),
    "verify": (_config.VerifyConfig, "_verify", "check a certificate anew, in Arb arithmetic"),
    "training": (
        _config.TrainingConfig,
        "_training",
        "how long exact training follows a rounded one",
    ),
}
USAGE = "usage: meristem shadow COMMAND ...\n\ncommands:\n"


def main(words: list[str]) -> int:
    """Run the command; 0: done and certified, 1: not certified, 2: a value cannot be used."""
    if words[:1] in ([], ["-h"], ["--help"]):
        width = max(map(len, COMMANDS))
        rows = [f"  {word.ljust(width)}  {text}" for word, (_, _, text) in COMMANDS.items()]
        print(USAGE + "\n".join(rows) + "\n\nEach explains itself: meristem shadow orbit --help")
        return 0
    word, *rest = words
    if word not in COMMANDS:
        raise UsageError(f"no command {word}; there are {', '.join(COMMANDS)}")
    kind, module, _ = COMMANDS[word]
    config = tyro.cli(kind, prog=f"meristem shadow {word}", args=rest)
    run: Callable[[Any], int] = import_module(f"meristem_shadow.{module}").run
    try:
        return run(config)
    except ValueError as error:
        raise UsageError(str(error)) from error


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:], name="meristem shadow"))
