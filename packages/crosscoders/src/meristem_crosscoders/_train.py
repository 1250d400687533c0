"""Train a crosscoder, resumable bit for bit, on one process or several.

- gradients come from lists of open entries where few are open, and are applied block by block
- Adam; linear warm-up, constant, linear cool-down; thresholds have a smaller learning rate
- the sparsity weight grows linearly over the first steps
- batches are a function of the step, so that a resumed run sees the ones it has not seen
- a checkpoint holds the crosscoder, the optimiser, how long each feature has been silent and the
  normalisation of the activations
- several processes share the batch, or the features; either way the loss is that of one

Shape letters: B tokens, S snapshots, D width.
"""

from collections.abc import Callable, Sized
from pathlib import Path

from torch import Tensor

from meristem_crosscoders._memory import require, training_bytes
from meristem_crosscoders._mesh import Cut, Mesh, mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._run import Batches, Run
from meristem_crosscoders._schedule import Progress, TrainConfig, TrainResult


def train(
    crosscoder: Crosscoder,
    batches: Batches,
    config: TrainConfig,
    *,
    run_dir: Path | str | None = None,
    cut: Cut = "data",
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a crosscoder in place, or go on with the run in `run_dir`.

    Parameters
    ----------
    crosscoder
        From `initialise`; overwritten by the newest checkpoint in `run_dir`.
    batches
        Given a step, returns the normalised batches from that step on, each of shape (B, S, D): a
        `Harvest`, or a function. A harvest's tokens, order and normalisation are kept with the run
        and compared when it is resumed.
    config
        How to train.
    run_dir
        Where checkpoints lie; None keeps none. All processes see the same folder.
    cut
        What several processes share, if `torch.distributed` is initialised (accelerate's
        `Accelerator()` does that): "data", where each gives its own part of the batch, or
        "features", where each gives the same batch to its part of the features, a
        `Crosscoder(config, part=(rank, processes))`, and holds nothing of the others;
        `join_crosscoders` makes a whole of the saved parts. "none": this process trains alone,
        whatever the others do.
    progress
        Called every `progress_every` steps and after the last, on every process.

    Returns
    -------
    Where training began and ended. A killed and resumed run ends with the same bits as one that
    was left alone, on one machine with one number of threads.

    Raises
    ------
    ValueError
        If the crosscoder is folded, or a part under another cut, the penalty does not suit its
        activation, a batch is not finite or of another shape, there are too few batches, memory is
        too small, or `run_dir` holds another run: another configuration, source, normalisation or
        number of processes.
    RuntimeError
        If the loss is not finite.
    """
    _check(crosscoder, config)
    _check_length(batches, config)
    parts = mesh(cut)
    _check_part(crosscoder, parts)
    run = Run(crosscoder, config, parts, batches)
    begin = run.resume(run_dir) if run_dir is not None else 0
    crosscoder.train()
    stream = batches(begin)
    for step in range(begin, config.steps):
        x_BSD = next(stream, None)
        if x_BSD is None:
            raise ValueError(f"the batches end after {step} of {config.steps} steps; give more")
        crosscoder.check_shape(x_BSD)
        if step == begin:
            _check_memory(crosscoder, x_BSD, run.mesh)
        done = run.step(step, x_BSD)
        last = step + 1 == config.steps
        if run_dir is not None and (last or (step + 1) % config.checkpoint_every == 0):
            run.save(run_dir, step + 1)
        if progress is not None and (last or (step + 1) % config.progress_every == 0):
            progress(done())
    crosscoder.eval()
    return TrainResult(
        resumed_from=begin, steps=config.steps, tokens_since_fired=run.everywhere(run.silent_F)
    )


def _check(crosscoder: Crosscoder, config: TrainConfig) -> None:
    kind = crosscoder.config.activation
    if crosscoder.config.raw:
        raise ValueError("this crosscoder is folded; train first, fold_normalisation afterwards")
    if kind in ("topk", "batchtopk") and config.penalty != "none":
        raise ValueError(f"penalty {config.penalty!r} with {kind!r} counts sparsity twice; "
                         'give penalty="none"')  # fmt: skip
    if kind != "jumprelu" and config.preactivation > 0:
        raise ValueError(f"preactivation ({config.preactivation}) needs thresholds, which {kind!r} "
                         "has not; give 0")  # fmt: skip


def _check_part(crosscoder: Crosscoder, parts: Mesh) -> None:
    mine = (parts.features.rank, parts.features.size)
    if crosscoder.part != mine:
        raise ValueError(
            f"this process trains part {mine} (rank, processes) of the features, the crosscoder is "
            f"part {crosscoder.part}; make it with Crosscoder(config, part={mine})"
        )


def _check_length(batches: Batches, config: TrainConfig) -> None:
    """Refuse a harvest that ends before the run does."""
    if isinstance(batches, Sized) and len(batches) < config.steps:
        raise ValueError(
            f"there are {len(batches)} batches for {config.steps} steps; give more tokens or epochs"
        )


def _check_memory(crosscoder: Crosscoder, x_BSD: Tensor, parts: Mesh) -> None:
    needed = training_bytes(crosscoder.config, len(x_BSD), parts.features.size)
    require(needed, "training", crosscoder.W_dec.device)
