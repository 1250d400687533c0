"""Features of one crosscoder that are most like each other.

Shape letters: F features, S snapshots, D width, N neighbours.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_COSINES = 2**24  # held at once


def nearest_features(
    W_dec_FSD: Float[Tensor, "F S D"], n: int
) -> tuple[Int[Tensor, "F N"], Float[Tensor, "F N"]]:
    """Return the features whose decoders point most nearly the same way, and their cosines.

    The cosine is that of the rows of all snapshots end to end, so that strong snapshots count more.

    Parameters
    ----------
    W_dec_FSD
        Decoder rows in normalised space.
    n
        Neighbours of a feature, at least 1; fewer are returned if there are fewer others.

    Returns
    -------
    The most similar first; a zero row has the cosine 0 with all.

    Raises
    ------
    ValueError
        If n is below 1 or a row is not finite.

    Examples
    --------
    >>> rows = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
    >>> nearest_features(rows, 1)[0].tolist()
    [[1], [0], [1]]
    """
    if n < 1:
        raise ValueError(f"n ({n}) must be at least 1")
    if not bool(W_dec_FSD.isfinite().all()):
        raise ValueError("a decoder row is NaN or infinite; the training diverged")
    F = len(W_dec_FSD)
    unit_FX = torch.nn.functional.normalize(W_dec_FSD.flatten(1), dim=1)
    n = min(n, F - 1)
    cosines: list[Tensor] = []
    features: list[Tensor] = []
    size = max(1, BLOCK_COSINES // F)
    for start in range(0, F, size):
        cosine_BF = (unit_FX[start : start + size] @ unit_FX.T).clamp(-1, 1)
        own = torch.arange(len(cosine_BF), device=cosine_BF.device)
        cosine_BF[own, own + start] = -torch.inf
        best = cosine_BF.topk(n, dim=1)
        cosines.append(best.values)
        features.append(best.indices)
    return torch.cat(features), torch.cat(cosines)
