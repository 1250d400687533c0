"""Products of matrices in float32, by the faster of the two libraries that PyTorch holds.

On processors with AVX-512 oneDNN is at least as fast as MKL, which PyTorch takes by itself, and
more than twice as fast where the maker is not MKL's. Both are float32 throughout.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def rows_product(
    x_NE: Float[Tensor, "N E"],
    rows_ME: Float[Tensor, "M E"],
    bias_M: Float[Tensor, " M"] | None = None,
) -> Float[Tensor, "N M"]:
    """Return x rows^T + bias; not for automatic differentiation."""
    if _is_for_onednn(x_NE):
        if not rows_ME.is_contiguous() and not rows_ME.T.is_contiguous():
            rows_ME = rows_ME.contiguous()  # oneDNN has no fast way through other strides
        return torch.ops.mkldnn._linear_pointwise(x_NE, rows_ME, bias_M, "none", [], "")
    if bias_M is None:
        return x_NE @ rows_ME.T
    return torch.addmm(bias_M, x_NE, rows_ME.T)


def _is_for_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.cpu._is_avx512_supported()  # pyright: ignore[reportPrivateUsage] no public name
    )
