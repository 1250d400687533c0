"""Advantages from the rewards of groups of responses to one prompt.

An unscorable response has reward NaN: it is left out of its group's statistics and gets 0.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def centred_advantages(
    rewards: Float[Tensor, " N"], group: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Return reward minus the mean of its group (GRPO, Dr.GRPO); equal rewards give exactly 0."""
    known, place, count = _groups(rewards, group)
    r = rewards.masked_fill(~known, 0.0)
    anchor = r.new_full(count.shape, torch.inf).scatter_reduce(
        0, place, rewards.masked_fill(~known, torch.inf), "amin"
    )
    gap = torch.where(known, rewards - anchor[place], 0.0)
    mean = gap.new_zeros(count.shape).scatter_add(0, place, gap) / count.clamp(min=1)
    return torch.where(known, gap - mean[place], 0.0)


def leave_one_out_advantages(
    rewards: Float[Tensor, " N"], group: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Return reward minus the mean of the others of its group (RLOO): K / (K - 1) centred."""
    known, place, count = _groups(rewards, group)
    if bool(((count[place] < 2) & known).any()):
        raise ValueError("a group holds one scored response; leave-one-out needs at least two")
    return centred_advantages(rewards, group) * (count / (count - 1).clamp(min=1))[place]


def length_weighted_advantages(
    rewards: Float[Tensor, " N"], group: Int[Tensor, " N"], lengths: Float[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Return reward minus the group's mean weighted by response length (OPO, 2505.23585)."""
    known, place, count = _groups(rewards, group)
    if lengths.shape != rewards.shape or not bool((lengths[known] > 0).all()):
        raise ValueError("lengths must hold one number above 0 for every scored response")
    # on centred rewards, so that equal rewards give exactly 0
    centred, tokens = centred_advantages(rewards, group), lengths.masked_fill(~known, 0.0)
    total = centred.new_zeros(count.shape).scatter_add(0, place, tokens.to(centred.dtype))
    mean = centred.new_zeros(count.shape).scatter_add(0, place, centred * tokens)
    return torch.where(known, centred - (mean / total.clamp(min=1e-30))[place], 0.0)


def scale_by_batch_std(
    advantages: Float[Tensor, " N"], *, eps: float = 1e-4
) -> Float[Tensor, " N"]:
    """Return advantages over the standard deviation (n - 1) of the batch plus eps."""
    if len(advantages) < 2:
        raise ValueError(f"{len(advantages)} advantages have no deviation; pass at least two")
    return torch.where(advantages == 0, 0.0, advantages / (advantages.std() + eps))


def scale_by_group_std(
    advantages: Float[Tensor, " N"], group: Int[Tensor, " N"], *, eps: float = 1e-4
) -> Float[Tensor, " N"]:
    """Return centred advantages over their group's standard deviation (n - 1) plus eps."""
    _, place, count = _groups(advantages, group)
    square = advantages.new_zeros(count.shape).scatter_add(0, place, advantages**2)
    std = (square / (count - 1).clamp(min=1)).sqrt()[place]
    return torch.where(advantages == 0, 0.0, advantages / (std + eps))


def _groups(rewards: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if rewards.shape != group.shape:
        raise ValueError(f"{len(rewards)} rewards but {len(group)} group labels; pass one each")
    if bool(rewards.isinf().any()):
        raise ValueError("rewards hold an infinity; use NaN for a response that has no score")
    known = ~rewards.isnan()
    labels, place = group.unique(return_inverse=True)
    count = rewards.new_zeros(len(labels)).scatter_add(0, place, known.to(rewards.dtype))
    return known, place, count
