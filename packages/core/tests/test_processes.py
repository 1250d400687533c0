"""Two real processes and their group, which must end before the interpreter does."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at the threads in /proc")
def test_no_thread_of_a_group_outlives_it():
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = str(Path(__file__).with_name("two_processes.py"))
    done = subprocess.run([*start, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
