"""Which (token, feature) pairs are open, as a list, without a table of tokens x features x gates.

- the pre-activations of a batch are one product, [B, S D] x [S D, F]
- where the machine multiplies bfloat16 matrices much faster, TopK and BatchTopK look for their
  candidates in bfloat16 and compute those again in float32: a bound on the rounding proves that
  none is missed, so the selection is that of float32
- the k-th largest is bounded from below by the k-th largest of the maxima of groups of features

Shape letters: B tokens, F features, S snapshots, E width of what is encoded, G gates per feature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meristem_crosscoders._bags import bag_dots, offsets_of

GROUPS_PER_K = 4  # groups of features whose maxima bound the k-th largest: about 1.15 k survive
BFLOAT16_ERROR = 2.0**-8  # largest relative rounding error
FLOAT32_ERROR = 2.0**-23  # of a sum's terms, twice over
CROWDED = 0.1  # share of candidates from which the whole product is cheaper


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Open (token, feature) pairs, sorted by token and feature within: a CSR matrix."""

    tokens: int
    token: Int[Tensor, " n"]
    feature: Int[Tensor, " n"]
    value: Float[Tensor, " n"]  # z
    is_open: Bool[Tensor, "n G"]

    def offsets(self) -> Int[Tensor, " B_and_one"]:
        """Return where each token's entries begin."""
        return offsets_of(self.token, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coarse:
    """The encoder in bfloat16, and how far each row is from the one in float32."""

    rows: Tensor  # bfloat16[F, E]
    size: Float[Tensor, " F"]  # Euclidean norm of the float32 row
    gap: Float[Tensor, " F"]  # Euclidean norm of what rounding took away


def coarse_rows(rows_FE: Float[Tensor, "F E"], out: Coarse, start: int) -> None:
    """Fill the part of `out` that stands for these rows, which begin at feature `start`."""
    part = slice(start, start + len(rows_FE))
    out.rows[part] = rows_FE
    out.size[part] = rows_FE.norm(dim=1)
    out.gap[part] = (rows_FE - out.rows[part]).norm(dim=1)


def empty_coarse(rows_FE: Float[Tensor, "F E"]) -> Coarse:
    """Return memory for the bfloat16 encoder."""
    size = rows_FE.new_empty(len(rows_FE))
    rows = torch.empty_like(rows_FE, dtype=torch.bfloat16)
    return Coarse(rows=rows, size=size, gap=torch.empty_like(size))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 products are several times faster than float32 ones here."""
    if device.type != "cpu":
        return False
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def largest_by_token(
    scores: Callable[[], tuple[Tensor, Tensor]],
    exact: Callable[[Tensor, Tensor], Tensor],
    norms_F: Float[Tensor, " F"],
    k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token, feature and z of the k largest positive z N of each token.

    Parameters
    ----------
    scores
        Returns lower and upper bounds of z N, each (B, F).
    exact
        Given tokens and features, returns their z.
    norms_F
        N.
    k
        How many.
    """
    low_BF, high_BF = scores()
    bar_B1 = kth_bound(low_BF, k)
    token, feature = ((high_BF >= bar_B1) & (high_BF > 0)).nonzero(as_tuple=True)
    z = exact(token, feature)
    u = z * norms_F[feature]
    start = offsets_of(token, len(low_BF))
    place = torch.arange(len(token), device=token.device) - start[token]
    width = max(k, int(start.diff().max()))
    table = u.new_full((len(low_BF), width), -torch.inf)
    table[token, place] = u
    kept = table.argsort(dim=1, descending=True, stable=True)[:, :k].sort(dim=1).values
    is_kept = table.gather(1, kept) > 0
    chosen = (start[:-1, None] + kept)[is_kept]
    return token[chosen], feature[chosen], z[chosen]


def largest_by_batch(
    scores: Callable[[], tuple[Tensor, Tensor]],
    exact: Callable[[Tensor, Tensor], Tensor],
    norms_F: Float[Tensor, " F"],
    count: int,
    bar: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token, feature and z of the `count` largest positive z N of the batch.

    Parameters as for `largest_by_token`; `bar` turns the values of this process, falling, into the
    least one that is kept over all processes.
    """
    low_BF, high_BF = scores()
    count_here = min(count, low_BF.numel())
    least = _group_maxima(low_BF, -(-count_here // len(low_BF))).flatten().topk(count_here).values
    token, feature = ((high_BF >= least[-1]) & (high_BF > 0)).nonzero(as_tuple=True)
    z = exact(token, feature)
    u = z * norms_F[feature]
    order = u.argsort(descending=True, stable=True)[:count_here]
    order = order[u[order] > 0]
    chosen = order[u[order] >= bar(u[order])].sort().values
    return token[chosen], feature[chosen], z[chosen]


def kth_bound(low_BF: Float[Tensor, "B F"], k: int) -> Float[Tensor, "B 1"]:
    """Return a lower bound of the k-th largest of each row, near it."""
    return _group_maxima(low_BF, k).topk(k, dim=1).values[:, -1:]


def _group_maxima(low_BF: Tensor, k: int) -> Tensor:
    """Return the maxima of at least k groups of features: k of them are at most the k largest."""
    B, F = low_BF.shape
    groups = GROUPS_PER_K * k
    if 2 * groups > F:
        return low_BF
    whole = F // groups * groups
    maxima = low_BF[:, :whole].view(B, -1, groups).amax(1)
    return torch.cat([maxima, low_BF[:, whole:]], dim=1)


def bounds(
    coarse: Coarse,
    x_BE: Float[Tensor, "B E"],
    bias_F: Float[Tensor, " F"],
    norms_F: Float[Tensor, " F"],
) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B F"]]:
    """Return bounds of z N, z = <w, x> + b, from a product in bfloat16.

    Notes
    -----
    With w' and x' rounded, |<w, x> - <w', x'>| <= |w| |x - x'| + |w - w'| |x'|, and the product
    adds a rounding of its result and of its sums. All norms are those of the numbers at hand.
    """
    rounded = x_BE.bfloat16()
    product_BF = (rounded @ coarse.rows.T).float()
    back = rounded.float()
    gap_B = (x_BE - back).norm(dim=1)
    ratio = (coarse.gap / coarse.size).nan_to_num(0).max()
    sums = FLOAT32_ERROR * x_BE.shape[1]  # for any order of summation
    slack_B = (gap_B + (ratio + sums) * back.norm(dim=1)) * (1 + BFLOAT16_ERROR)
    slack_BF = torch.outer(slack_B, coarse.size)
    slack_BF.add_(product_BF.abs(), alpha=2 * BFLOAT16_ERROR)
    slack_BF.add_(bias_F.abs(), alpha=FLOAT32_ERROR)
    product_BF.add_(bias_F)
    low = (product_BF - slack_BF).mul_(norms_F)
    high = product_BF.add_(slack_BF).mul_(norms_F)
    return low, high


def sampled(
    x_BE: Float[Tensor, "B E"], rows_FE: Float[Tensor, "F E"], bias_F: Float[Tensor, " F"]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that computes z at some tokens (sorted) and features, in full."""

    def exact(token: Tensor, feature: Tensor) -> Tensor:
        if len(token) > CROWDED * len(x_BE) * len(rows_FE):
            return (x_BE @ rows_FE.T)[token, feature] + bias_F[feature]
        offsets = offsets_of(token, len(x_BE))[:-1]
        return bag_dots(x_BE, rows_FE, feature, offsets, token) + bias_F[feature]

    return exact
