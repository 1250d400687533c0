"""The command `meristem deliberate`: ask an engine, or replay samples that were drawn elsewhere."""

import sys

import tyro

from meristem_core.command import run_command
from meristem_deliberate._config import DeliberateConfig, ReplayConfig


def main(words: list[str]) -> int:
    """Run the command; 0: done, 2: a value cannot be used, 3: the engine failed."""
    if words[:1] == ["replay"]:
        config = tyro.cli(ReplayConfig, prog="meristem deliberate replay", args=words[1:])
        from meristem_deliberate._replay import replay

        return replay(config)
    config = tyro.cli(DeliberateConfig, prog="meristem deliberate", args=words)
    from meristem_deliberate._pipeline import deliberate

    return deliberate(config)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:], name="meristem deliberate"))
