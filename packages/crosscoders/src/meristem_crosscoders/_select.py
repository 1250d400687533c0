"""The open entries of a batch, for every activation.

Shape letters: B tokens, F features, S snapshots, D width, E width of what is encoded, G gates.
"""

from collections.abc import Callable
from itertools import accumulate

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from meristem_crosscoders._bags import offsets_of
from meristem_crosscoders._entries import (
    Coarse,
    Exact,
    OpenCodes,
    Scores,
    coarse_scores,
    exact_scores,
    largest_by_batch,
    largest_by_token,
    sampled,
)
from meristem_crosscoders._mesh import Cohort, Mesh
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._products import rows_product

Found = tuple[Tensor, Tensor, Tensor]  # token, feature, z

SCORES = 2**20  # pre-activations of TopK that exist at a time: 4 MiB in float32
EDGE = 1e-5  # relative: entries this near to a gate are looked at, then judged in full


def ranked(
    crosscoder: Crosscoder,
    x_BE: Float[Tensor, "B E"],
    norms_FG: Float[Tensor, "F G"],
    *,
    batch: int,
    coarse: Coarse | None = None,
    mesh: Mesh = Mesh(),  # noqa: B008 frozen
) -> OpenCodes:
    """Return the entries that rank highest: "topk", and "batchtopk" in training.

    Parameters
    ----------
    crosscoder
        Whose `config.k` counts.
    x_BE
        What is encoded, snapshots side by side.
    norms_FG
        What scales a pre-activation before its gate.
    batch
        Tokens of the batch over all processes.
    coarse
        The encoder in bfloat16, where that is faster.
    mesh
        Over which processes the batch or the features are cut.
    """
    size = len(x_BE)
    if crosscoder.config.activation == "topk":  # tokens do not compete
        size = max(1, SCORES // len(norms_FG))
    return joined(
        [
            _ranked(crosscoder, part_BE, norms_FG, batch=batch, coarse=coarse, mesh=mesh)
            for part_BE in x_BE.split(size)
        ]
    )


def _ranked(
    crosscoder: Crosscoder, x_BE: Tensor, norms_FG: Tensor, *, batch: int, coarse: Coarse | None,
    mesh: Mesh,
) -> OpenCodes:  # fmt: skip
    rows_FE, bias_F = crosscoder.W_enc.detach().flatten(1), crosscoder.b_enc.detach()
    k = crosscoder.config.k or 0

    def choose(norms_F: Tensor, scores: Scores, exact: Exact) -> Found:
        if crosscoder.config.activation == "topk":
            found = largest_by_token(scores, exact, norms_F, min(k, len(norms_F)))
            return over_features(found, norms_F, len(x_BE), k, mesh.features)
        cohort = mesh.data if mesh.data.size > 1 else mesh.features
        return largest_by_batch(scores, exact, norms_F, k * batch, _bar(k * batch, cohort))

    if coarse is not None and norms_FG.shape[1] == 1:
        norms_F, exact = norms_FG[:, 0], sampled(x_BE, rows_FE, bias_F)
        found = choose(norms_F, coarse_scores(coarse, x_BE, bias_F, norms_F), exact)
        return entries(len(x_BE), *found)
    z_BF = rows_product(x_BE, rows_FE, bias_F)
    parts = [choose(n, exact_scores(z_BF * n), lambda b, i: z_BF[b, i]) for n in norms_FG.unbind(1)]
    return entries(len(x_BE), *parts[0]) if len(parts) == 1 else _union(parts, z_BF)


def open_codes(crosscoder: Crosscoder, x_BSD: Float[Tensor, "B S D"]) -> OpenCodes:
    """Return the codes of a batch as a list: what `Crosscoder.encode` has as an array, detached.

    Holds a list of the open pairs and, of arrays, pre-activations (B, F) only.

    Raises
    ------
    ValueError
        As `Crosscoder.encode` does.
    """
    crosscoder.check_whole()
    return codes_of(crosscoder, x_BSD, Mesh())


def codes_of(crosscoder: Crosscoder, x_BSD: Float[Tensor, "B S D"], mesh: Mesh) -> OpenCodes:
    """Return the codes of the features that this process holds."""
    crosscoder.check_shape(x_BSD)
    x_BE, norms_FG = crosscoder.encoded(x_BSD), crosscoder.gate_norms().detach()
    activation = crosscoder.config.activation
    if activation == "topk" or (activation == "batchtopk" and crosscoder.training):
        return ranked(crosscoder, x_BE, norms_FG, batch=len(x_BE), mesh=mesh)
    z_BF = rows_product(x_BE, crosscoder.W_enc.detach().flatten(1), crosscoder.b_enc.detach())
    least = z_BF.new_zeros(1, 1) if activation == "relu" else crosscoder.gate_thresholds().detach()
    return above(z_BF, norms_FG, least)


def joined(parts: list[OpenCodes]) -> OpenCodes:
    """Return the entries of parts of a batch as those of the whole."""
    if len(parts) == 1:
        return parts[0]
    starts = accumulate((part.tokens for part in parts), initial=0)
    return OpenCodes(
        tokens=sum(part.tokens for part in parts),
        token=torch.cat([p.token + start for p, start in zip(parts, starts, strict=False)]),
        feature=torch.cat([part.feature for part in parts]),
        value=torch.cat([part.value for part in parts]),
        is_open=torch.cat([part.is_open for part in parts]),
    )


def entries(tokens: int, token: Tensor, feature: Tensor, value: Tensor) -> OpenCodes:
    """Return entries of a shared gate."""
    is_open = torch.ones_like(value, dtype=torch.bool)[:, None]
    return OpenCodes(tokens=tokens, token=token, feature=feature, value=value, is_open=is_open)


def above(
    z_BF: Float[Tensor, "B F"],
    norms_FG: Float[Tensor, "F G"],
    threshold_FG: Float[Tensor, "F_or_one G_or_one"],
    near_F1: Float[Tensor, "F 1"] | None = None,
) -> OpenCodes:
    """Return the entries with z n above a threshold, or z n above `near` at any gate.

    `is_open` tells which gates are above their threshold. Only z > 0 counts.
    """
    least_FG = threshold_FG if near_F1 is None else torch.minimum(threshold_FG, near_F1)
    cut_FG = torch.where(norms_FG > 0, least_FG / norms_FG, torch.inf)
    cut_F = cut_FG.amin(1).clamp(min=0) * (1 - EDGE)
    token, feature = (z_BF > cut_F).nonzero(as_tuple=True)
    z = z_BF[token, feature]
    u = z[:, None] * norms_FG[feature]
    is_open = u > threshold_FG.expand_as(norms_FG)[feature]
    if near_F1 is None:
        keep = is_open.any(1)
        token, feature, z, is_open = token[keep], feature[keep], z[keep], is_open[keep]
    return OpenCodes(tokens=len(z_BF), token=token, feature=feature, value=z, is_open=is_open)


def over_features(found: Found, norms_F: Tensor, tokens: int, k: int, cohort: Cohort) -> Found:
    """Return the part of the found that ranks among the k largest over all processes."""
    if cohort.size == 1:
        return found
    token, feature, z = found
    place = torch.arange(len(token), device=token.device) - offsets_of(token, tokens)[token]
    table = z.new_full((tokens, k), -torch.inf)
    table[token, place] = z * norms_F[feature]
    every = torch.cat(cohort.gather(table), dim=1)
    first = every.argsort(dim=1, descending=True, stable=True)[:, :k]
    is_kept = torch.zeros_like(every, dtype=torch.bool).scatter_(1, first, True)
    keep = is_kept[token, cohort.rank * k + place]
    return token[keep], feature[keep], z[keep]


def _bar(count: int, cohort: Cohort) -> Callable[[Tensor], Tensor]:
    """Return the function that finds the least of the `count` largest over all processes."""

    def bar(u: Tensor) -> Tensor:
        every = torch.cat(cohort.gather_uneven(u)) if cohort.size > 1 else u
        return every.topk(count).values[-1] if len(every) > count else u.new_zeros(())

    return bar


def _union(parts: list[tuple[Tensor, Tensor, Tensor]], z_BF: Float[Tensor, "B F"]) -> OpenCodes:
    """Return the entries that are open at any gate."""
    B, F = z_BF.shape
    keys = torch.cat([token * F + feature for token, feature, _ in parts])
    gate = torch.cat([torch.full_like(p[0], g) for g, p in enumerate(parts)])
    key, place = keys.unique(return_inverse=True)
    is_open: Bool[Tensor, "n G"] = torch.zeros(
        len(key), len(parts), dtype=torch.bool, device=key.device
    )
    is_open[place, gate] = True
    token, feature = key // F, key % F
    return OpenCodes(
        tokens=B, token=token, feature=feature, value=z_BF[token, feature], is_open=is_open
    )
