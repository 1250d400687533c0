"""Two gloo processes, through accelerate, end where one does."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from meristem_core import latest_checkpoint
from meristem_crosscoders import join_crosscoders, load_crosscoder, train

SCRIPT = Path(__file__).with_name("two_processes.py")


def script():
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launch, "--nproc-per-node", "2", str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    two = script()
    for activation in two.CASES:
        alone, config = two.fresh(activation)
        train(alone, two.batches_of(0, 1), config)
        shared = [tmp_path / f"{activation}-data-{rank}.safetensors" for rank in (0, 1)]
        parts = [tmp_path / f"{activation}-features-{rank}.safetensors" for rank in (0, 1)]
        last = latest_checkpoint(tmp_path / f"{activation}-features").path
        for case, found in {
            "data": load_crosscoder(shared[0]),
            "data of the other process": load_crosscoder(shared[1]),
            "features": join_crosscoders(parts),
            "features of the checkpoint": join_crosscoders(last.glob("crosscoder-*")),
        }.items():
            for name, expected in alone.state_dict().items():
                gap = float((found.state_dict()[name] - expected).abs().max())
                # Adam divides by small roots
                assert gap < 1e-5, f"{activation}, {case}, {name}: {gap} from one process"
    alone, config = two.fresh("topk")
    with pytest.raises(ValueError, match=r"processes data = 2, this run has 1"):
        train(alone, two.batches_of(0, 1), config, run_dir=tmp_path / "topk-data")
