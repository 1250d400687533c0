"""Run by test_processes.py on two processes: what is left of gloo after the group has ended."""

import torch
from torch import distributed, nn

from meristem_core.testing import gloo_threads
from meristem_core.torch import end_process_group


def train() -> None:
    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
    model.users = [model]  # a cycle, as accelerate's and transformers' models have them
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


if __name__ == "__main__":  # pytest imports every module for its doctests
    distributed.init_process_group("gloo")
    train()
    assert gloo_threads(), "gloo's threads have another name: this test sees nothing"
    end_process_group()
    assert not gloo_threads(), gloo_threads()
    end_process_group()  # nothing is left to end
