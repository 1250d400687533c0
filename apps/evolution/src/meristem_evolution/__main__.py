"""The command of the app; `meristem evolution` calls `main`."""

import sys

from meristem_core.command import run_command
from meristem_evolution._command import main

if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:], name="meristem-evolution"))
