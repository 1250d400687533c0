"""Run by test_processes.py on two processes: train every case and save what comes out.

python -m torch.distributed.run --standalone --nproc-per-node 2 two_processes.py OUT
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    TrainConfig,
    initialise,
    save_crosscoder,
    train,
)

STEPS, TOKENS, FEATURES = 12, 32, 16
CASES = {  # activation, model, training
    "topk": ({"k": 3, "gate": "shared"}, {"penalty": "none", "clip": 0.5}),
    "batchtopk": ({"k": 3, "gate": "shared"}, {"penalty": "none"}),
    "jumprelu": ({"encode_from": (0, 10)}, {"parity": True}),
}
DIRECTIONS = 4 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(9))


def batch(step):
    """Return the whole batch of a step."""
    generator = torch.Generator().manual_seed(step)
    codes = torch.rand(TOKENS, 6, generator=generator)
    codes = codes * (torch.rand(TOKENS, 6, generator=generator) < 0.3)
    return torch.einsum("bf,sfd->bsd", codes, DIRECTIONS).double()


def batches_of(rank, world, stop=None):
    """Return this process's part of the batches, failing at `stop`."""

    def batches(step):
        while True:
            if step == stop:
                raise KeyboardInterrupt
            yield batch(step)[rank::world]
            step += 1

    return batches


def fresh(activation, part=(0, 1)):
    """Return the crosscoder, or a part of it, before training and how it is trained."""
    model, training = CASES[activation]
    config = CrosscoderConfig(
        d_model=5, n_features=FEATURES, steps=(0, 10, 100), activation=activation, **model
    )
    crosscoder = Crosscoder(config, part=part).double()
    initialise(crosscoder, batch(0))
    if part[0] == 0:
        with torch.no_grad():
            crosscoder.b_enc[:3] = -50.0  # three features that are dead until AuxK helps
    return crosscoder, TrainConfig(
        steps=STEPS, lr=1e-2, dead_after=2 * TOKENS, auxk=0.5, checkpoint_every=4, **training
    )


def main(out):
    """Train each case both ways, with an interruption, and save the results."""
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    assert world == 2
    for activation in CASES:
        for cut in ("data", "features"):
            mine, whole = (rank, world), (0, 1)
            part, held = (mine, whole) if cut == "data" else (whole, mine)
            crosscoder, config = fresh(activation, held)
            run_dir = out / f"{activation}-{cut}"
            try:
                train(crosscoder, batches_of(*part, stop=7), config, run_dir=run_dir, cut=cut)
            except KeyboardInterrupt:
                accelerator.wait_for_everyone()
            again, _ = fresh(activation, held)
            result = train(again, batches_of(*part), config, run_dir=run_dir, cut=cut)
            assert result.resumed_from == 4
            assert len(result.tokens_since_fired) == FEATURES
            assert len(again.W_dec) == FEATURES // held[1], "a part holds nothing of the others"
            save_crosscoder(again, out / f"{activation}-{cut}-{rank}.safetensors")
            accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
