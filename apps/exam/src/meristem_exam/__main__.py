"""The command: `python -m meristem_exam` is `meristem exam`."""

import sys
from collections.abc import Sequence

from meristem_core.command import run_command


def main(words: Sequence[str]) -> int:
    """Run the command on its words and return the exit code."""
    from meristem_exam._command import run

    return run(list(words))


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:], name="meristem exam"))
