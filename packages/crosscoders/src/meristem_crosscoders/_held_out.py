"""How well the features of its neighbours rebuild a snapshot that was not trained on.

- codes come from the snapshots that the crosscoder knows
- decoder rows for the unknown one are those before it, after it, or on the line between them

Shape letters: B tokens, F features, S snapshots, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log1p

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from meristem_crosscoders._blocks import check_ready
from meristem_crosscoders._gates import largest_per_token
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._select import open_codes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Explained variance of one snapshot that was not trained on, by three decoders."""

    step: int
    tokens: int
    before: float  # rows of the last known snapshot before it
    after: float  # rows of the first known snapshot after it
    interpolated: float  # rows in between, linear in log(1 + step)
    l0: float  # open features a token, of the interpolated decoder

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each decoder."""
        names = ("before", "after", "interpolated")
        return {
            "step": np.full(3, self.step),
            "decoder": np.array(names),
            "explained_variance": np.array([getattr(self, name) for name in names]),
        }


@torch.no_grad()
def held_out_snapshot(
    crosscoder: Crosscoder,
    batches: Iterable[tuple[Float[Tensor, "_ S D"], Float[Tensor, "_ D"]]],
    *,
    step: int,
) -> HeldOut:
    """Return how well a crosscoder rebuilds a snapshot between those that it was trained on.

    Parameters
    ----------
    crosscoder
        Trained without that snapshot, not folded.
    batches
        Normalised activations of the same tokens: at the snapshots of the crosscoder, and at the
        held-out one, which has its own normalisation.
    step
        Training step of the held-out snapshot, strictly between the first and the last.

    Raises
    ------
    ValueError
        If the step is not in between or was trained on, the crosscoder is folded, an activation is
        not finite, there is none, or the held-out activations are all equal.

    Notes
    -----
    Explained variance is 1 - sum |x - x̂|^2 / sum |x - mean|^2, as in `evaluate`. Interpolated
    norms decide the gates, as the norms of any snapshot do.
    """
    check_ready(crosscoder)
    before, share = _place(crosscoder, step)
    decoders = [
        _decoder(crosscoder, before, weight) for weight in (0.0, 1.0, share)
    ]  # before, after, between
    errors, opened, tokens = [0.0, 0.0, 0.0], 0, 0
    total = square = torch.zeros(1, dtype=torch.float64)
    for x_BSD, held_BD in batches:
        if not bool(x_BSD.isfinite().all()) or not bool(held_BD.isfinite().all()):
            raise ValueError(f"a batch after token {tokens} holds NaN or infinity; drop them")
        z_BF = _ungated(crosscoder, x_BSD)
        gated = [_gated(crosscoder, z_BF, rows_FD) for rows_FD, _ in decoders]
        for i, (rows_FD, bias_D) in enumerate(decoders):
            errors[i] += float((gated[i] @ rows_FD + bias_D - held_BD).double().square().sum())
        opened += int(gated[-1].count_nonzero())
        tokens += len(held_BD)
        total = total + held_BD.double().sum(0)
        square = square + held_BD.double().square().sum()
    variance = float(square - total.square().sum() / max(1, tokens))
    if not variance > 0:
        raise ValueError(f"{tokens} held-out activations have no variance to explain; give more")
    explained = [1 - error / variance for error in errors]
    return HeldOut(
        step=step,
        tokens=tokens,
        before=explained[0],
        after=explained[1],
        interpolated=explained[2],
        l0=opened / tokens,
    )


def _place(crosscoder: Crosscoder, step: int) -> tuple[int, float]:
    """Return the number of the snapshot before a step, and how far on the step lies."""
    steps = crosscoder.config.steps
    if crosscoder.config.raw:
        raise ValueError("this crosscoder is folded; give the one that was trained")
    if step in steps or not steps[0] < step < steps[-1]:
        raise ValueError(
            f"step {step} must lie strictly between the trained snapshots {steps} and be none"
        )
    before = len([each for each in steps if each < step]) - 1
    a, b = log1p(steps[before]), log1p(steps[before + 1])
    return before, (log1p(step) - a) / (b - a)


def _decoder(
    crosscoder: Crosscoder, before: int, share: float
) -> tuple[Float[Tensor, "F D"], Float[Tensor, " D"]]:
    rows_FD = crosscoder.W_dec[:, before].lerp(crosscoder.W_dec[:, before + 1], share)
    return rows_FD, crosscoder.b_dec[before].lerp(crosscoder.b_dec[before + 1], share)


def _ungated(crosscoder: Crosscoder, x_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "B F"]:
    """Return the codes, which a shared gate decides for all snapshots, or what others will gate."""
    if crosscoder.config.gate == "shared":
        return open_codes(crosscoder, x_BSD).union(crosscoder.config.n_features)
    return crosscoder.preactivations(x_BSD)


def _gated(
    crosscoder: Crosscoder, z_BF: Float[Tensor, "B F"], rows_FD: Float[Tensor, "F D"]
) -> Float[Tensor, "B F"]:
    """Return the codes at a snapshot with these decoder rows."""
    config = crosscoder.config
    if config.gate == "shared":
        return z_BF
    u_BF = z_BF * rows_FD.norm(dim=1)
    if config.activation == "topk":
        assert config.k is not None
        return z_BF * largest_per_token(u_BF[..., None], config.k)[..., 0]
    if config.activation == "relu":
        return z_BF.relu() * (u_BF > 0)
    if crosscoder.log_threshold is not None:
        return z_BF * (u_BF > crosscoder.log_threshold.exp())
    return z_BF * (u_BF > crosscoder.inference_threshold.mean())
