"""The three reductions; micro-batches with the global count sum to the full batch exactly."""

from jaxtyping import Bool, Float
from torch import Tensor

from meristem_losses._stats import positive, row_mean, zeroed


def mean_over_tokens(
    x: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"], *, count: float | None = None
) -> Float[Tensor, ""]:
    """Return the sum over kept tokens divided by `count`, by default their number.

    `count` is the number of kept tokens of the whole accumulated batch over all processes
    (DAPO, supervised fine-tuning). An empty mask without count gives 0, still in the graph.
    """
    return zeroed(x, mask).sum() / _count(count, mask.sum().clamp(min=1))


def mean_of_sequence_means(
    x: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"], *, count: float | None = None
) -> Float[Tensor, ""]:
    """Return the mean over rows of the mean over kept tokens (GRPO); empty rows count as 0."""
    return row_mean(x, mask).sum() / _count(count, float(max(len(x), 1)))


def mean_of_sequence_sums(
    x: Float[Tensor, "B S"],
    mask: Bool[Tensor, "B S"],
    *,
    length: float = 1.0,
    count: float | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over rows of sums divided by a constant (LUSPO: 1; Dr.GRPO: longest)."""
    positive("length", length)
    return zeroed(x, mask).sum() / length / _count(count, float(max(len(x), 1)))


def _count(count: float | None, default: Tensor | float) -> Tensor | float:
    if count is None:
        return default
    positive("count", count)
    return count
