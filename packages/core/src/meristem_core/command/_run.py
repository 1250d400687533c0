"""Run a command so that every way it can end is one line and one exit code."""

import logging
import os
import sys
from collections.abc import Callable


class UsageError(Exception):
    """A value the user gave cannot be used; the message names it, the rule and the mend."""


def run_command(command: Callable[[list[str]], int], words: list[str], *, name: str) -> int:
    """Run a command on its words and return the exit code.

    0: done, the verdict holds; 1: it does not hold; 2: a value cannot be used or a file cannot be
    written (one line on stderr says which); 130: interrupted. Of several processes one speaks.

    Parameters
    ----------
    command
        Takes the words after the command's name and returns 0 or 1.
    words
        Of the command line.
    name
        What stands before the line on stderr.

    Examples
    --------
    >>> run_command(lambda words: len(words), ["one"], name="meristem")
    1
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return command(words)
    except (UsageError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # whoever read our output has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif os.environ.get("RANK", "0") == "0":
            print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 a command speaks
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 130
