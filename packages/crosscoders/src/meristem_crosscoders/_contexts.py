"""Where features fire most, as text around the token, gathered in one pass over the sequences.

- a feature's strength at a token is its code, where it is open at any snapshot, times its largest
  norm: what it adds to the activation of its peak snapshot if it is open there
- one context a sequence, at the sequence's strongest token, so that contexts differ
- a running best n per feature: memory does not grow with the text

Shape letters: F features, C contexts, W window, S snapshots, R sequences, T positions, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from meristem_crosscoders._blocks import BLOCK_CODES, Activations, check_raw, code_blocks
from meristem_crosscoders._entries import OpenCodes
from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._select import joined

AFTER = 4  # one token in so many of a window follows the strongest one


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The strongest contexts of each feature, strongest first.

    A feature that fires in fewer sequences has contexts of strength 0 with row and tokens -1.
    """

    snapshot: Int[Tensor, " F"]  # the peak, whose norm scales the strengths
    row: Int[Tensor, "F C"]  # sequence
    position: Int[Tensor, "F C"]  # of the strongest token in it
    strength: Float[Tensor, "F C"]  # there
    tokens: Int[Tensor, "F C W"]  # ids around it; -1 outside of the sequence
    strengths: Float[Tensor, "F C W"]  # of each of them
    is_open: Bool[Tensor, "F C S"]  # at which snapshots the gate is open at the strongest token

    def counts(self) -> Int[Tensor, " F"]:
        """Return the number of contexts of each feature."""
        return (self.row >= 0).sum(1)

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each feature and rank of a context."""
        F, C = self.row.shape
        values = {"row": self.row, "position": self.position, "strength": self.strength}
        return long_frame({"feature": range(F), "rank": range(C)}, values)


@torch.no_grad()
def top_contexts(
    crosscoder: Crosscoder,
    activations: Activations,
    tokens: Int[Tensor, "R T"],
    *,
    n: int = 20,
    width: int = 32,
    drop_first: int = 1,
) -> Contexts:
    """Return the sequences, and the places in them, at which each feature is strongest.

    Parameters
    ----------
    crosscoder
        Folded.
    activations
        From tokens (N, T) to activations (N, T, S, D); called for a few sequences at a time.
    tokens
        The text to search, in sequences of one length.
    n
        Contexts of a feature.
    width
        Tokens of a window; a quarter of them follows the strongest.
    drop_first
        First positions that count for nothing: attention gives the very first a norm of its own.

    Returns
    -------
    The strongest first; of equals the one that comes first in the text.

    Raises
    ------
    ValueError
        If the crosscoder is not folded, a number is out of range, or an activation is not finite.
    """
    check_raw(crosscoder)
    R, T = tokens.shape
    if not 0 <= drop_first < T or n < 1 or width < 1 or R < 1:
        raise ValueError(
            f"n ({n}), width ({width}) and the number of sequences ({R}) must be at least 1 and "
            f"drop_first ({drop_first}) lie between 0 and {T - 1}"
        )
    offsets_W = torch.arange(width) - (width - 1 - width // AFTER)
    peak_F = crosscoder.norms().argmax(1)
    best: _Best | None = None
    for first, strength_RTF, codes in _strengths(crosscoder, activations, tokens, peak_F):
        strength_RTF[:, :drop_first] = 0
        is_open = codes.is_open.expand(-1, len(crosscoder.config.steps))
        found = _strongest(strength_RTF, replace(codes, is_open=is_open), first, offsets_W)
        best = found if best is None else best.joined(found)
        best = best.largest(n)
    if best is None:
        raise ValueError("there is no sequence to search")
    return _contexts(best.filled(n), tokens, offsets_W, peak_F)


@dataclass(frozen=True, slots=True)
class _Best:
    """Candidates (first axis) of each feature."""

    strength: Tensor  # C F
    row: Tensor  # C F
    position: Tensor  # C F
    window: Tensor  # C W F
    is_open: Tensor  # C F S

    def joined(self, other: "_Best") -> "_Best":
        pairs = zip(self._all(), other._all(), strict=True)
        return _Best(*(torch.cat(pair) for pair in pairs))

    def largest(self, n: int) -> "_Best":
        order_CF = self.strength.argsort(dim=0, descending=True, stable=True)[:n]
        window_CWF = order_CF[:, None].expand(-1, self.window.shape[1], -1)
        open_CFS = order_CF[..., None].expand(-1, -1, self.is_open.shape[2])
        return _Best(
            self.strength.gather(0, order_CF),
            self.row.gather(0, order_CF),
            self.position.gather(0, order_CF),
            self.window.gather(0, window_CWF),
            self.is_open.gather(0, open_CFS),
        )

    def filled(self, n: int) -> "_Best":
        """Add empty candidates up to n."""
        missing = n - len(self.strength)
        if missing <= 0:
            return self
        empty = (each.new_zeros((missing, *each.shape[1:])) for each in self._all())
        return self.joined(_Best(*empty))

    def _all(self) -> tuple[Tensor, ...]:
        return self.strength, self.row, self.position, self.window, self.is_open


def _strengths(
    crosscoder: Crosscoder,
    activations: Activations,
    tokens: Int[Tensor, "R T"],
    peak_F: Int[Tensor, " F"],
) -> Iterator[tuple[int, Float[Tensor, "r T F"], OpenCodes]]:
    """Yield the first row, the strengths and the codes of some sequences."""
    T, F = tokens.shape[1], len(peak_F)
    norm_F = crosscoder.norms().gather(1, peak_F[:, None])[:, 0]
    rows = max(1, 4 * BLOCK_CODES // (T * F))
    for first in range(0, len(tokens), rows):
        x_RTSD = activations(tokens[first : first + rows]).to(crosscoder.W_enc)
        codes = joined([each for _, each in code_blocks(crosscoder, [x_RTSD.flatten(0, 1)])])
        yield first, (codes.union(F) * norm_F).unflatten(0, (len(x_RTSD), T)), codes


def _strongest(
    strength_RTF: Float[Tensor, "R T F"],
    codes: OpenCodes,
    first: int,
    offsets_W: Int[Tensor, " W"],
) -> _Best:
    """Return each sequence's strongest token for each feature."""
    R, T, F = strength_RTF.shape
    strength_RF, position_RF = strength_RTF.max(1)
    place_RWF = position_RF[:, None] + offsets_W.to(position_RF.device)[:, None]
    inside_RWF = (place_RWF >= 0) & (place_RWF < T)
    window_RWF = strength_RTF.gather(1, place_RWF.clamp(0, T - 1)) * inside_RWF
    row_RF = torch.arange(first, first + R, device=position_RF.device)[:, None].expand(R, F)
    return _Best(strength_RF, row_RF, position_RF, window_RWF, _open_at(codes, position_RF, T))


def _open_at(codes: OpenCodes, position_RF: Int[Tensor, "R F"], T: int) -> Bool[Tensor, "R F S"]:
    """Return at which snapshots each feature is open at its own position of each sequence."""
    row, place, i = codes.token // T, codes.token % T, codes.feature
    here = place == position_RF[row, i]
    open_RFS = codes.is_open.new_zeros(*position_RF.shape, codes.is_open.shape[1])
    open_RFS[row[here], i[here]] = codes.is_open[here]
    return open_RFS


def _contexts(
    best: _Best, tokens: Int[Tensor, "R T"], offsets_W: Tensor, peak_F: Int[Tensor, " F"]
) -> Contexts:
    fired_CF = (best.strength > 0).cpu()
    row_CF, position_CF = best.row.cpu(), best.position.cpu()
    place_CFW = position_CF[..., None] + offsets_W
    inside_CFW = (place_CFW >= 0) & (place_CFW < tokens.shape[1]) & fired_CF[..., None]
    ids_CFW = tokens[row_CF[..., None], place_CFW.clamp(0, tokens.shape[1] - 1)]
    return Contexts(
        snapshot=peak_F.cpu(),
        row=row_CF.masked_fill(~fired_CF, -1).T,
        position=position_CF.masked_fill(~fired_CF, -1).T,
        strength=best.strength.cpu().T,
        tokens=ids_CFW.masked_fill(~inside_CFW, -1).transpose(0, 1),
        strengths=best.window.cpu().permute(2, 0, 1) * fired_CF.T[..., None],
        is_open=best.is_open.cpu().transpose(0, 1) & fired_CF.T[..., None],
    )
