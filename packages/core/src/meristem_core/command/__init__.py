"""What the command of every app does the same way; needs the extra `command`.

Results go to stdout, progress to stderr, and a value that cannot be used ends in one line.
"""

from meristem_core.command._progress import Progress, progress_bar
from meristem_core.command._run import UsageError, run_command

__all__ = ["Progress", "UsageError", "progress_bar", "run_command"]
