"""How much context does a feature need? Shorten its contexts until it no longer fires.

Shape letters: F features, C contexts, S snapshots, P places, T positions, D width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from meristem_crosscoders._blocks import Activations, check_raw, code_blocks
from meristem_crosscoders._contexts import Contexts
from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._model import Crosscoder

PLACES = 512  # shortened contexts that the models read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLength:
    """Tokens that a feature needs to reach half of its strength."""

    length: Int[Tensor, "F C"]  # of each context; 0 where there is none
    median: Float[Tensor, " F"]  # over contexts; 0 for features without any

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each feature."""
        values = {"median": self.median, "contexts": (self.length > 0).sum(1)}
        return long_frame({"feature": range(len(self.median))}, values)


@torch.no_grad()
def context_length(
    crosscoder: Crosscoder,
    activations: Activations,
    tokens: Int[Tensor, "R T"],
    contexts: Contexts,
) -> ContextLength:
    """Return the shortest contexts with which features reach half of their full strength.

    Parameters
    ----------
    crosscoder, activations, tokens
        As given to `top_contexts`.
    contexts
        Its result. The models read each distinct place once for each length 1, 2, 4, ...: fewer
        contexts a feature cost less.

    Returns
    -------
    Lengths are powers of two, or the whole prefix where nothing shorter does. A shortened context
    begins at position 0 of the model: where the first position is special (an attention sink, a
    beginning-of-text token in training) a length of 1 says little.

    Raises
    ------
    ValueError
        If the crosscoder is not folded, or the contexts are of other tokens.

    Notes
    -----
    The measure is ours: arXiv 2509.17196 lets a language model grade complexity from 1 to 5.
    """
    check_raw(crosscoder)
    if int(contexts.row.max()) >= len(tokens) or int(contexts.position.max()) >= tokens.shape[1]:
        raise ValueError("the contexts are of other tokens; give those that top_contexts searched")
    feature, context = (contexts.row >= 0).nonzero(as_tuple=True)
    place = contexts.row * tokens.shape[1] + contexts.position
    half = contexts.strength / 2
    length = torch.where(contexts.row >= 0, contexts.position + 1, 0)  # the whole prefix
    size = 1
    while feature.numel():
        shorter = contexts.position[feature, context] + 1 > size
        feature, context = feature[shorter], context[shorter]
        if not feature.numel():
            break
        strength = _shortened(
            crosscoder,
            activations,
            tokens,
            place[feature, context],
            feature,
            size,
        )
        reached = strength >= half[feature, context]
        length[feature[reached], context[reached]] = size
        feature, context = feature[~reached], context[~reached]
        size *= 2
    return ContextLength(length=length, median=_medians(length))


def _shortened(
    crosscoder: Crosscoder,
    activations: Activations,
    tokens: Int[Tensor, "R T"],
    place_M: Int[Tensor, " M"],
    feature_M: Int[Tensor, " M"],
    size: int,
) -> Float[Tensor, " M"]:
    """Return each feature's strength at its place when only the last `size` tokens are read."""
    places_P, of_M = place_M.unique(return_inverse=True)
    largest_F = crosscoder.norms().amax(1).cpu()
    strength_M = torch.zeros(len(place_M))
    for start in range(0, len(places_P), PLACES):
        part_P = places_P[start : start + PLACES]
        row_P, last_P = part_P // tokens.shape[1], part_P % tokens.shape[1]
        read = tokens[row_P[:, None], last_P[:, None] + torch.arange(1 - size, 1)]
        x_PSD = activations(read)[:, -1].to(crosscoder.W_enc)
        done = start
        for _, codes in code_blocks(crosscoder, [x_PSD]):
            mine = ((of_M >= done) & (of_M < done + codes.tokens)).nonzero()[:, 0]
            i = feature_M[mine]
            f = codes.union(len(largest_F)).cpu()[of_M[mine] - done, i]
            strength_M[mine] = (f * largest_F[i]).float()
            done += codes.tokens
    return strength_M


def _medians(length_FC: Int[Tensor, "F C"]) -> Float[Tensor, " F"]:
    rows = (row[row > 0].double() for row in length_FC)
    medians = [float(row.quantile(0.5)) if row.numel() else 0.0 for row in rows]
    return torch.tensor(medians, dtype=torch.float64)
