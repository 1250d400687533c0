"""The norm that all rows begin with.

Shape letters: B tokens, S snapshots, D width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from meristem_crosscoders._entries import rebuilt
from meristem_crosscoders._mesh import mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._select import codes_of


@torch.no_grad()
def initialise(crosscoder: Crosscoder, x_BSD: Float[Tensor, "B S D"]) -> float:
    """Give all rows the common norm that rebuilds a batch best, and return that norm.

    Norms 0.1 to 5 are tried in 50 steps, then 20 within 0.1 of the best, as in the authors' code;
    a norm that opens no gate rebuilds nothing and loses. Processes that hold parts search together
    and give the same batch.

    Raises
    ------
    ValueError
        If the batch has another shape or is not finite.
    """
    if not bool(x_BSD.isfinite().all()):
        raise ValueError("the batch holds NaN or infinite activations; drop those tokens")
    rows = nn.functional.normalize(crosscoder.W_dec, dim=-1)
    was_training = crosscoder.training
    crosscoder.train()  # batchtopk has no threshold yet

    def error(norm: float) -> float:
        crosscoder.W_dec.copy_(norm * rows)
        crosscoder.W_enc.copy_(norm * rows[:, : crosscoder.W_enc.shape[1]])
        return float((_rebuild(crosscoder, x_BSD) - x_BSD).square().mean())

    coarse = min(torch.linspace(0.1, 5, 50).tolist(), key=error)
    fine = torch.linspace(max(coarse - 0.1, 0.01), coarse + 0.1, 20).tolist()
    best = min([coarse, *fine], key=error)
    error(best)
    crosscoder.train(was_training)
    return best


def _rebuild(crosscoder: Crosscoder, x_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
    """Return the reconstruction, of all parts together where this is one."""
    if crosscoder.part[1] == 1:
        return crosscoder(x_BSD)
    parts = mesh("features")
    total_GBE = parts.features.sum(rebuilt(codes_of(crosscoder, x_BSD, parts), crosscoder.W_dec))
    return total_GBE.transpose(0, 1).reshape(x_BSD.shape) + crosscoder.b_dec
