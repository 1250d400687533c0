"""A product of float32 matrices is one, whichever library computes it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from meristem_core.testing import assert_close, seeds
from meristem_crosscoders._products import rows_product

LAYOUTS = {
    "rows": lambda x: x.clone(),
    "columns": lambda x: x.T.contiguous().T,
    "strided": lambda x: torch.stack([x, x + 1], dim=1)[:, 0],
    "apart": lambda x: torch.stack([x, x + 1], dim=2)[..., 0],
}
layouts = st.sampled_from(sorted(LAYOUTS))
sizes = st.integers(1, 40)


@given(
    shape=st.tuples(sizes, sizes, sizes), x_layout=layouts, rows_layout=layouts,
    with_bias=st.booleans(), seed=seeds(), dtype=st.sampled_from((torch.float32, torch.float64)),
)  # fmt: skip
def test_a_product_is_the_same_for_every_layout(
    shape, x_layout, rows_layout, with_bias, seed, dtype
):
    N, M, E = shape
    draw = torch.Generator().manual_seed(seed)
    x = LAYOUTS[x_layout](torch.randn(N, E, generator=draw, dtype=dtype))
    rows = LAYOUTS[rows_layout](torch.randn(M, E, generator=draw, dtype=dtype))
    bias = torch.randn(M, generator=draw, dtype=dtype)
    found = rows_product(x, rows, bias if with_bias else None)
    expected = x.double() @ rows.double().T + (bias.double() if with_bias else 0)
    assert found.dtype == dtype
    terms = x.double().abs() @ rows.double().abs().T + bias.double().abs()
    assert_close(found, expected, scale=float(terms.max()), context="x rows^T + bias")
