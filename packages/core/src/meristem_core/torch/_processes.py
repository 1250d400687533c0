"""A group of processes ends before the interpreter does.

- threads of gloo that are alive while the interpreter ends abort the process now and then
- `torch.distributed.nn.functional` keeps the group of the moment of its import in default
  arguments, and an optimiser's first step imports it; so it is imported here, before there is one
"""

import gc

from torch import distributed

if distributed.is_available():
    import torch.distributed.nn.functional  # noqa: F401 # pyright: ignore[reportUnusedImport]


def end_process_group() -> None:
    """Wait until every process of the group is here, then end it; without a group do nothing.

    Notes
    -----
    Import this before the group is made, and drop what holds it: a model wrapped in
    `DistributedDataParallel` keeps its group, and the threads of the group, alive.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        gc.collect()
        distributed.destroy_process_group()
