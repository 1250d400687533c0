"""Run by test_pretrain.py on two processes: the command, and a look at the threads it leaves.

A thread of gloo that is alive while the interpreter ends aborts the process now and then.
"""

import sys

from meristem.__main__ import main
from meristem_core.testing import gloo_threads

if __name__ == "__main__":  # pytest imports every module for its doctests
    code = main()
    assert not gloo_threads(), gloo_threads()
    sys.exit(code if code > 1 else 0)  # a model of few steps need not hold its verdicts
