"""The three reductions; micro-batches with the global count sum to the full batch exactly."""

from jaxtyping import Bool, Float
from torch import Tensor

from meristem_losses._stats import positive


def mean_over_tokens(
    x: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"], *, count: float | None = None
) -> Float[Tensor, ""]:
    """Return the sum over kept tokens divided by `count`, by default their number.

    `count` is the number of kept tokens of the whole accumulated batch over all processes
    (DAPO, supervised fine-tuning). An empty mask without count gives 0, still in the graph.
    """
    return _kept(x, mask).sum() / _count(count, mask.sum().clamp(min=1))


def mean_of_sequence_means(
    x: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"], *, count: float | None = None
) -> Float[Tensor, ""]:
    """Return the mean over rows of the mean over kept tokens (GRPO); empty rows count as 0."""
    means = _kept(x, mask).sum(1) / mask.sum(1).clamp(min=1)
    return means.sum() / _count(count, float(max(len(x), 1)))


def mean_of_sequence_sums(
    x: Float[Tensor, "B S"],
    mask: Bool[Tensor, "B S"],
    *,
    length: float = 1.0,
    count: float | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over rows of sums divided by a constant (LUSPO: 1; Dr.GRPO: longest)."""
    positive("length", length)
    return _kept(x, mask).sum() / length / _count(count, float(max(len(x), 1)))


def _kept(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask, 0.0)


def _count(count: float | None, default: Tensor | float) -> Tensor | float:
    if count is None:
        return default
    positive("count", count)
    return count
