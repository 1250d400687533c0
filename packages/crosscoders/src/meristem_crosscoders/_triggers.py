"""What makes a feature fire: its token, the token before, a repetition, or more context.

- a feature's contexts say at which token it is strongest; that token, or the one before it, is put
  at the end of random tokens, and what is left of the strength is measured
- random sequences are read twice in a row; what only repetition explains is the strength in the
  second half less that of the same half after other random tokens

Shape letters: F features, C contexts, W window, S snapshots, D width, P prompts, R sequences,
L tokens of a half.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Integer, Shaped
from torch import Tensor

from meristem_crosscoders._blocks import Activations, check_raw, code_blocks
from meristem_crosscoders._contexts import AFTER, Contexts
from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._model import Crosscoder

TRIGGERS = ("token", "previous", "induction", "context", "other")
PROMPTS = 512  # read at once
DEVIATIONS = 3.0  # of the mean over sequences, from which a repetition counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """How features answer to controlled inputs; 0 for features without contexts."""

    token: Float[Tensor, " F"]  # share of the strength with the token alone after random ones
    previous: Float[Tensor, " F"]  # the same with the token before it alone
    repeated: Float[Tensor, " F"]  # mean strength in the second half of a repeated sequence
    fresh: Float[Tensor, " F"]  # at the same tokens after another first half
    deviations: Float[Tensor, " F"]  # the difference of the two over its standard error

    def kind(self, length_F: Float[Tensor, " F"], *, long: float = 16) -> Int[Tensor, " F"]:
        """Return places in `TRIGGERS`.

        Parameters
        ----------
        length_F
            `context_length(...).median`.
        long
            Tokens of context above which what nothing else explains counts as "context".

        Notes
        -----
        "token": half of the strength with the token alone; else "previous": half of it with the
        token before alone; else "induction": twice as strong in a repeated sequence, by three
        standard errors; else "context" or "other". The classes are ours.
        """
        rules = [
            self.token >= 0.5,
            self.previous >= 0.5,
            (self.repeated >= 2 * self.fresh) & (self.deviations >= DEVIATIONS),
            length_F.to(self.token.device) > long,
        ]
        kind = torch.full(self.token.shape, TRIGGERS.index("other"))
        for place in reversed(range(len(rules))):
            kind[rules[place]] = place
        return kind

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return columns with one row for each feature."""
        names = ("token", "previous", "repeated", "fresh", "deviations")
        values = {name: getattr(self, name) for name in names}
        return long_frame({"feature": range(len(self.token))}, values)


@torch.no_grad()
def feature_triggers(
    crosscoder: Crosscoder,
    activations: Activations,
    contexts: Contexts,
    ids: Integer[np.ndarray, " V"],
    *,
    rng: np.random.Generator,
    draws: int = 2,
    before: int = 16,
    sequences: int = 64,
    half: int = 32,
) -> Triggers:
    """Return how each feature answers to its token, to the token before, and to repetition.

    Parameters
    ----------
    crosscoder
        Folded.
    activations
        From tokens (N, T) to activations (N, T, S, D).
    contexts
        From `top_contexts`, with windows of at least 5 tokens; a few per feature are enough.
    ids
        Tokens of which random ones are drawn: all that are text.
    rng
        Draws them.
    draws
        Random surroundings of each context.
    before
        Random tokens before the kept one.
    sequences, half
        How many sequences are repeated, and their length.

    Raises
    ------
    ValueError
        If the crosscoder is not folded, a number is below 1 (`sequences`, `half`: 2), there are
        fewer than 2 ids, or an activation is not finite.
    """
    check_raw(crosscoder)
    numbers = {"draws": draws, "before": before, "sequences": sequences - 1, "half": half - 1}
    width = contexts.tokens.shape[2]
    if min(numbers.values()) < 1 or len(ids) < 2 or width < AFTER + 1:
        raise ValueError(
            f"draws ({draws}) and before ({before}) must be at least 1, sequences ({sequences}), "
            f"half ({half}) and the number of ids ({len(ids)}) at least 2, windows "
            f"({width} tokens) at least {AFTER + 1}"
        )
    at = width - 1 - width // AFTER
    last_FC, earlier_FC = contexts.tokens[:, :, at], contexts.tokens[:, :, at - 1]
    feature, context = ((last_FC >= 0) & (earlier_FC >= 0)).nonzero(as_tuple=True)
    feature, context = (each.repeat(draws) for each in (feature, context))
    random = torch.from_numpy(rng.choice(ids, (len(feature), before + 2)).astype(np.int64))
    shares = []
    for place, kept in ((-1, last_FC), (-2, earlier_FC)):
        prompts = random.clone()
        prompts[:, place] = kept[feature, context]
        strength = _last(crosscoder, activations, prompts, feature)
        shares.append(_means(strength / contexts.strength[feature, context], feature, len(last_FC)))
    halves = torch.from_numpy(rng.choice(ids, (2, sequences, half)).astype(np.int64))
    repeated_RF, fresh_RF = (
        _second_half(crosscoder, activations, torch.cat([first, halves[1]], 1))
        for first in (halves[1], halves[0])
    )
    gap_RF = repeated_RF - fresh_RF
    error_F = gap_RF.std(0) / sequences**0.5
    deviations_F = torch.where(error_F > 0, gap_RF.mean(0) / error_F, 0)
    return Triggers(
        token=shares[0],
        previous=shares[1],
        repeated=repeated_RF.mean(0),
        fresh=fresh_RF.mean(0),
        deviations=deviations_F,
    )


def _last(
    crosscoder: Crosscoder,
    activations: Activations,
    prompts: Int[Tensor, "P T"],
    feature_P: Int[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """Return each prompt's strength of its feature at the last token."""
    largest_F, found = crosscoder.norms().amax(1).cpu(), []
    for part, i in zip(prompts.split(PROMPTS), feature_P.split(PROMPTS), strict=True):
        x_PSD = activations(part)[:, -1].to(crosscoder.W_enc)
        blocks = code_blocks(crosscoder, [x_PSD])
        f_PF = torch.cat([codes.union(len(largest_F)).cpu() for _, codes in blocks])
        found.append(f_PF[torch.arange(len(part)), i] * largest_F[i])
    return torch.cat([torch.zeros(0), *found])


def _means(value: Float[Tensor, " P"], feature: Int[Tensor, " P"], F: int) -> Float[Tensor, " F"]:
    total = torch.zeros(F, dtype=value.dtype).index_add_(0, feature, value)
    return total / feature.bincount(minlength=F).clamp(min=1)


def _second_half(
    crosscoder: Crosscoder, activations: Activations, tokens: Int[Tensor, "R twoL"]
) -> Float[Tensor, "R F"]:
    """Return the mean strength over the second half but its first token, by sequence."""
    half, F = tokens.shape[1] // 2, crosscoder.config.n_features
    largest_F, found = crosscoder.norms().amax(1).cpu(), []
    for part in tokens.split(max(1, PROMPTS // tokens.shape[1])):
        x_BSD = activations(part)[:, half + 1 :].flatten(0, 1).to(crosscoder.W_enc)
        blocks = code_blocks(crosscoder, [x_BSD])
        f_BF = torch.cat([codes.union(F).cpu() for _, codes in blocks])
        found.append(f_BF.unflatten(0, (len(part), -1)).mean(1) * largest_F)
    return torch.cat(found)
