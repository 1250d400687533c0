"""Run by test_posttrain.py on two processes: the command, and a look at the threads it leaves.

A thread of gloo that is alive while the interpreter ends aborts the process now and then.
"""

import sys

from meristem_core.testing import gloo_threads
from meristem_posttrain.__main__ import main

if __name__ == "__main__":  # pytest imports every module for its doctests
    code = main(sys.argv[1:])
    assert not gloo_threads(), gloo_threads()
    sys.exit(code)
