"""The `meristem` command: it looks at the first word and hands over the rest."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from meristem_core.command import run_command

COMMANDS = {  # word: module with a function `main`, what it does
    "grow": (
        "meristem.grow._command",
        "grow a language model on real text and watch what it learns",
    ),
    "evolution": (
        "meristem_evolution._command",
        "find the features of a model's checkpoints, and when each appears",
    ),
    "posttrain": (
        "meristem_posttrain.__main__",
        "fine-tune or align a causal language model with any loss",
    ),
    "deliberate": (
        "meristem_deliberate.__main__",
        "spend test-time compute on questions: sample, vote, revise, compare",
    ),
    "exam": (
        "meristem_exam.__main__",
        "turn evaluation results into measurement: scale, fit, ranking, findings",
    ),
    "shadow": (
        "meristem_shadow.__main__",
        "prove that a true orbit is near a computed one; training as a pseudo-orbit",
    ),
    "reproduce": (
        "meristem.reproduce._command",
        "reproduce the papers behind Meristem, claim by claim",
    ),
}
EXAMPLES = """\
examples:
  meristem grow                                  a model of your own in seven minutes
  meristem grow --corpus books/ --scale small    on your own text
  meristem evolution --checkpoints runs/grow/pretrain/snapshots --corpus books/
  meristem exam scores.csv                       what your evaluation measured
  meristem reproduce --list                      the papers and how far we are"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: done, the verdict holds; 1: it does not hold; 2: a value cannot be used; 130: interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    match words[:1]:
        case [] | ["-h"] | ["--help"]:
            print(_help())
            return 0
        case ["--version"]:
            print(f"meristem {version('meristem')}")
            return 0
        case [word] if word in COMMANDS:
            command: Callable[[list[str]], int] = import_module(COMMANDS[word][0]).main
            return run_command(command, words[1:], name="meristem")
        case _:
            print(
                f"meristem: no command {words[0]}; there are {', '.join(COMMANDS)}", file=sys.stderr
            )
    return 2


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: meristem COMMAND ...",
            "",
            "commands:",
            *lines,
            "",
            EXAMPLES,
            "",
            "Each command explains itself: meristem grow --help",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
