"""Two gloo processes, through accelerate, end where one does."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from meristem_crosscoders import load_crosscoder, train

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
        for cut in ("data", "features"):
            both = [
                load_crosscoder(tmp_path / f"{activation}-{cut}-{rank}.safetensors")
                for rank in (0, 1)
            ]
            for name, expected in alone.state_dict().items():
                first, second = (each.state_dict()[name] for each in both)
                case = f"{activation}, {cut}, {name}"
                assert torch.equal(first, second), f"{case}: the processes differ"
                gap = float((first - expected).abs().max())
                assert gap < 1e-5, f"{case}: {gap} from one process"  # Adam divides by small roots
    alone, config = two.fresh("topk")
    with pytest.raises(ValueError, match=r"processes data = 2, this run has 1"):
        train(alone, two.batches_of(0, 1), config, run_dir=tmp_path / "topk-data")
