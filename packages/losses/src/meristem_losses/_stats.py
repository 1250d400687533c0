"""Per-token statistics of a language model, and what is read off them at once.

- letters: B rows, S positions, N kept tokens, V vocabulary, D width
- targets and mask belong to predicted tokens; only `next_token_targets` shifts
- natural logarithms; zeros where the mask is False
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStats:
    """Statistics of the next-token distribution at every kept position; None where not asked for.

    `logprobs` log p(target); `lse` log of the sum of exponentiated logits; `entropy` nats;
    `mean_logit` mean over the vocabulary; `log_collision` log of the sum of squared probabilities
    and `top_k_entropy`, entropy of the k largest after renormalising, carry no gradient;
    `is_top1` whether no token is more probable than the target; `divergence` from a `Teacher`.
    """

    logprobs: Float[Tensor, "B S"]
    lse: Float[Tensor, "B S"]
    mask: Bool[Tensor, "B S"]
    entropy: Float[Tensor, "B S"] | None = None
    mean_logit: Float[Tensor, "B S"] | None = None
    log_collision: Float[Tensor, "B S"] | None = None
    top_k_entropy: Float[Tensor, "B S"] | None = None
    is_top1: Bool[Tensor, "B S"] | None = None
    divergence: Float[Tensor, "B S"] | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "mask"}
        for name, value in given.items():
            if value is not None and value.shape != self.mask.shape:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, the mask {tuple(self.mask.shape)}; "
                    "pass one value a position"
                )
        kept = {
            k: torch.isfinite(v.detach()) | ~self.mask for k, v in given.items() if v is not None
        }
        if not bool(torch.stack([x.all() for x in kept.values()]).all()):
            names = " and ".join(k for k, x in kept.items() if not bool(x.all()))
            raise ValueError(f"{names} hold a non-finite value at a kept token; mask that token")

    def select(self, rows: Int[Tensor, " R"]) -> "TokenStats":
        """Return the statistics of some rows."""

        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows]

        return TokenStats(
            logprobs=self.logprobs[rows],
            lse=self.lse[rows],
            mask=self.mask[rows],
            entropy=some(self.entropy),
            mean_logit=some(self.mean_logit),
            log_collision=some(self.log_collision),
            top_k_entropy=some(self.top_k_entropy),
            is_top1=some(self.is_top1),
            divergence=some(self.divergence),
        )


def next_token_targets(
    input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]
) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Return targets and mask shifted so that position t predicts token t + 1.

    The last position predicts nothing: its target is 0 and its mask False.

    Examples
    --------
    >>> ids, keep = torch.tensor([[5, 6, 7]]), torch.tensor([[False, True, True]])
    >>> [x.tolist() for x in next_token_targets(ids, keep)]
    [[[6, 7, 0]], [[True, True, False]]]
    """
    targets, kept = input_ids.roll(-1, 1), mask.roll(-1, 1)
    targets[:, -1:], kept[:, -1:] = 0, False
    return targets, kept


def sequence_logprobs(stats: TokenStats, *, average: bool = False) -> Float[Tensor, " B"]:
    """Return the sum of the log-probabilities of each row, or their mean over kept tokens.

    A row without kept tokens gives 0.
    """
    total = stats.logprobs.sum(1)
    return total / stats.mask.sum(1).clamp(min=1) if average else total


def zeroed(x: Float[Tensor, "B _"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """Return x with zeros where masked."""
    return x.masked_fill(~mask, 0.0)


def row_mean(x: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B 1"]:
    """Return the mean of each row over its kept tokens, 0 for a row without any."""
    return zeroed(x, mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def need(stats: TokenStats, name: str, loss: str) -> Tensor:
    """Return an optional statistic, or say how to ask for it."""
    value = getattr(stats, name)
    if value is None:
        raise ValueError(f"{loss} needs {name}, which is None; ask token_logprobs for {name}")
    return value


def same_shape(stats: TokenStats, name: str, other: Tensor) -> None:
    """Refuse a second model's values that do not fit, or are not finite where kept."""
    if other.shape != stats.mask.shape:
        raise ValueError(
            f"{name} has shape {tuple(other.shape)}, the statistics {tuple(stats.mask.shape)}; "
            "score the same padded batch with both models"
        )
    if not bool(torch.isfinite(other[stats.mask]).all()):
        raise ValueError(f"{name} holds a non-finite value at a kept token; mask that token")


def positive(name: str, value: float) -> None:
    """Refuse a value that is not above 0 and finite."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be above 0 and finite")


def finite(**given: float) -> None:
    """Refuse numbers that are NaN or infinite, by name."""
    for name, value in given.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; it must be finite")


def finite_values(name: str, values: Tensor) -> None:
    """Refuse a tensor with a NaN or an infinity."""
    if not bool(torch.isfinite(values.detach()).all()):
        raise ValueError(f"{name} hold a non-finite value; leave that response out")
