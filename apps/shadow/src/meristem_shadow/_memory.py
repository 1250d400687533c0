"""What `training` holds in memory, and what the machine has."""

import math
import sys

from meristem_core import free_memory
from meristem_core.command import UsageError

VECTORS = 4  # states in float64 that are alive at once beside those of the directions, measured
PER_DIRECTION = 12  # the same for each direction: displacements, their images, one derivative
SHARE = 0.9  # of the free memory: the rest is for the activations of a batch


def needed_bytes(parameters: int, steps: int, directions: int) -> int:
    """Return about what `training` holds, without the activations of its batch.

    Rounded states are held in float32, which they are; those at work are float64.
    """
    return 3 * parameters * (4 * (steps + 1) + 8 * (VECTORS + PER_DIRECTION * directions))


def check_memory(parameters: int, steps: int, directions: int) -> None:
    """Say on stderr what is needed; raise a UsageError if the free memory is too small.

    Nothing is checked where the system does not say what it has.
    """
    needed, free = needed_bytes(parameters, steps, directions), free_memory()
    need = f"states need about {needed / 2**30:,.2f} GiB, beside the model's activations"
    print(need, file=sys.stderr, flush=True)
    if free is None or needed <= SHARE * free:
        return
    fits = steps - math.ceil((needed - SHARE * free) / (12 * parameters))
    mend = f"--steps {fits}" if fits > 0 else "fewer --directions"
    raise UsageError(
        f"--steps {steps} --directions {directions}: with {parameters:,} parameters they need "
        f"about {needed / 2**30:,.1f} GiB, {free / 2**30:,.1f} GiB are free; take {mend} or a "
        "smaller model"
    )
