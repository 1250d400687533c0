"""Run by test_posttrain.py on two processes: the command, and a look at the threads it leaves.

A thread of gloo that is alive while the interpreter ends aborts the process now and then.
"""

import sys
from pathlib import Path

from meristem_core.command import run_command
from meristem_posttrain.__main__ import main

if __name__ == "__main__":  # pytest imports every module for its doctests
    try:
        code = run_command(main, sys.argv[1:], name="meristem posttrain")
    except SystemExit as end:
        code = end.code
    names = {thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")}
    left = {name for name in names if "gloo" in name}
    assert not left, left
    sys.exit(code)
