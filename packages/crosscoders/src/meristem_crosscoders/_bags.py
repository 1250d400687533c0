"""Sums and products over lists of (row, column, coefficient), the sparse half of a step.

A bag is what one output row gathers: `offsets` says where each begins, as in a CSR matrix without
its last entry. Nothing of the size rows x columns exists, and no output is written by two threads,
so results do not depend on their order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

SUM = 0  # ATen's number of the mode


def bag_sums(
    table: Float[Tensor, "R E"],
    index: Int[Tensor, " n"],
    offsets: Int[Tensor, " bags"],
    coefficient: Float[Tensor, " n"],
) -> Float[Tensor, "bags E"]:
    """Return for each bag the sum of coefficient times the table's row: a sparse-dense product."""
    return torch.nn.functional.embedding_bag(
        index, table, offsets, mode="sum", per_sample_weights=coefficient
    )


def bag_dots(
    rows: Float[Tensor, "bags E"],
    table: Float[Tensor, "R E"],
    index: Int[Tensor, " n"],
    offsets: Int[Tensor, " bags"],
    bag: Int[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Return for each entry the product of its bag's row with the table's: a sampled product."""
    if not index.numel():
        return rows.new_zeros(0)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        rows.contiguous(), table, index, offsets, bag, SUM
    )


def offsets_of(bag: Int[Tensor, " n"], bags: int) -> Int[Tensor, " bags_and_one"]:
    """Return where each bag begins in a sorted list, and its length at the end."""
    edges = torch.arange(bags + 1, device=bag.device)
    return torch.searchsorted(bag, edges)


def column_sums(
    value: Float[Tensor, "n G"], column: Int[Tensor, " n"], columns: int
) -> Float[Tensor, "columns G"]:
    """Return the sums of values by column."""
    return value.new_zeros(columns, value.shape[1]).index_add_(0, column, value)
