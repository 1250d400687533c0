"""Which (token, feature) pairs are open, as a list, without a table of tokens x features x gates.

- the pre-activations of a batch are one product, [B, S D] x [S D, F]
- where the machine multiplies bfloat16 matrices much faster, TopK and BatchTopK look for their
  candidates in bfloat16 and compute those again in float32: a bound on the rounding proves that
  none is missed, so the selection is that of float32
- the k-th largest is bounded from below by the k-th largest of the maxima of groups of features

Shape letters: B tokens, F features, S snapshots, E width of what is encoded, G gates per feature.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meristem_crosscoders._bags import bag_dots, bag_sums, offsets_of
from meristem_crosscoders._products import rows_product

GROUPS_PER_K = 4  # groups of features whose maxima bound the k-th largest: about 1.15 k survive
BFLOAT16_ERROR = 2.0**-8  # largest relative rounding error
FLOAT32_ERROR = 2.0**-23  # of a sum's terms, twice over
IN_CACHE = 128  # rows that are rounded at once
CROWDED = 0.1  # share of candidates from which the whole product is cheaper

Exact = Callable[[Tensor, Tensor], Tensor]  # tokens, rising, and features -> z


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCodes:
    """Open (token, feature) pairs, sorted by token and feature within: a CSR matrix.

    G is the number of gates of a feature: one per snapshot, or 1 for all of them.
    """

    tokens: int
    token: Int[Tensor, " n"]
    feature: Int[Tensor, " n"]
    value: Float[Tensor, " n"]  # z
    is_open: Bool[Tensor, "n G"]

    def offsets(self) -> Int[Tensor, " B_and_one"]:
        """Return where each token's entries begin."""
        return offsets_of(self.token, self.tokens)

    def l0(self) -> Float[Tensor, " G"]:
        """Return the mean number of open features per token, at each gate."""
        return self.is_open.sum(0).double() / self.tokens

    def union(self, n_features: int) -> Float[Tensor, "B F"]:
        """Return the code of each feature where it is open at any snapshot, 0 elsewhere."""
        return self._table(self.value, n_features)

    def at(self, snapshot: int, n_features: int) -> Float[Tensor, "B F"]:
        """Return the codes at one snapshot."""
        gate = snapshot if self.is_open.shape[1] > 1 else 0
        return self._table(self.value * self.is_open[:, gate], n_features)

    def _table(self, value: Float[Tensor, " n"], n_features: int) -> Float[Tensor, "B F"]:
        table = value.new_zeros(self.tokens, n_features)
        table[self.token, self.feature] = value
        return table


def rebuilt(entries: OpenCodes, W_dec_FSD: Float[Tensor, "F S D"]) -> Float[Tensor, "G B E"]:
    """Return sum_i f_i W_dec,i of the listed entries, by gate: E = S D / G numbers each."""
    F, G = len(W_dec_FSD), entries.is_open.shape[1]
    table, parts = W_dec_FSD.reshape(F * G, -1), []
    for g in range(G):
        at = entries.is_open[:, g].nonzero()[:, 0]
        offsets = offsets_of(entries.token[at], entries.tokens)[:-1]
        parts.append(bag_sums(table, entries.feature[at] * G + g, offsets, entries.value[at]))
    return parts[0][None] if G == 1 else torch.stack(parts)


class Scratch:
    """Memory that is used again at every step: fresh pages cost as much as a pass over them."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a tensor of this name, with whatever it held."""
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            self._kept[name] = kept = torch.empty(shape, dtype=dtype, device=like.device)
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Coarse:
    """The encoder in bfloat16, and how far each row is from the one in float32."""

    rows: Tensor  # bfloat16[F, E]
    size: Float[Tensor, " F"]  # Euclidean norm of the float32 row
    gap: Float[Tensor, " F"]  # Euclidean norm of what rounding took away
    scratch: Scratch = field(default_factory=Scratch)


def coarse_rows(rows_FE: Float[Tensor, "F E"], out: Coarse, start: int) -> None:
    """Fill the part of `out` that stands for these rows, which begin at feature `start`."""
    shape = min(IN_CACHE, len(rows_FE)), rows_FE.shape[1]
    back_nE = out.scratch.empty(f"back {shape}", shape, rows_FE, torch.float32)
    for low in range(0, len(rows_FE), IN_CACHE):
        block = rows_FE[low : low + IN_CACHE]
        part, back = slice(start + low, start + low + len(block)), back_nE[: len(block)]
        out.rows[part] = block
        out.size[part] = block.norm(dim=1)
        out.gap[part] = back.copy_(out.rows[part]).sub_(block).norm(dim=1)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Bounds of u = z N: score - slack_i share_b - error_b <= u <= score + the same."""

    score_BF: Float[Tensor, "B F"]
    slack_F: Float[Tensor, " F"]
    share_B: Float[Tensor, " B"]
    error_B: Float[Tensor, " B"]
    is_exact: bool = False
    scratch: Scratch = field(default_factory=Scratch)

    def maxima(self, groups: int) -> Float[Tensor, "B groups"]:
        """Return lower bounds of the largest u in each of at least this many groups of features.

        Their k-th largest is at most the k-th largest u, and near it. With few features a group is
        one.
        """
        B, F = self.score_BF.shape
        groups = groups if 2 * groups <= F else F
        whole = F // groups * groups
        most = self.score_BF[:, :whole].view(B, -1, groups).amax(1)
        if whole < F:
            most = torch.cat([most, self.score_BF[:, whole:]], dim=1)
        if self.is_exact:
            return most
        slack = self.slack_F[:whole].view(-1, groups).amax(0)
        if whole < F:
            slack = torch.cat([slack, self.slack_F[whole:]])
        return torch.addr(most - self.error_B[:, None], self.share_B, slack, alpha=-1)

    def candidates(self, least_B: Float[Tensor, " B_or_one"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens, features and upper bounds of the u that may be positive and >= `least`.

        The scores are used up.
        """
        high_BF = self.score_BF
        if not self.is_exact:
            high_BF.addr_(self.share_B, self.slack_F)
        bar_B = least_B.clamp(min=0) - self.error_B
        is_high = self.scratch.empty("is high", tuple(high_BF.shape), high_BF, torch.bool)
        torch.ge(high_BF, bar_B[:, None], out=is_high)
        token, feature = is_high.nonzero(as_tuple=True)
        return token, feature, high_BF[token, feature] + self.error_B[token]


def exact_scores(score_BF: Float[Tensor, "B F"]) -> Scores:
    """Return scores that are u itself."""
    zero_B, zero_F = torch.zeros_like(score_BF[:, 0]), torch.zeros_like(score_BF[0])
    return Scores(score_BF=score_BF, slack_F=zero_F, share_B=zero_B, error_B=zero_B, is_exact=True)


def coarse_scores(
    coarse: Coarse,
    x_BE: Float[Tensor, "B E"],
    bias_F: Float[Tensor, " F"],
    norms_F: Float[Tensor, " F"],
) -> Scores:
    """Return scores of z N, z = <w, x> + b, from a product in bfloat16.

    Notes
    -----
    With w' and x' rounded, |<w, x> - <w', x'>| <= |w| |x - x'| + |w - w'| |x'|; the product adds a
    rounding of its sums and of its result. All norms are those of the numbers at hand.
    """
    rounded, shape = x_BE.bfloat16(), (len(x_BE), len(coarse.rows))
    product_BF = coarse.scratch.empty("product", shape, x_BE, torch.bfloat16)
    score_BF = coarse.scratch.empty("score", shape, x_BE, x_BE.dtype)
    torch.mm(rounded, coarse.rows.T, out=product_BF)
    score_BF.copy_(product_BF).mul_(norms_F).add_(bias_F * norms_F)
    back = rounded.float()
    gap_B, size_B = (x_BE - back).norm(dim=1), back.norm(dim=1)
    ratio = (coarse.gap / coarse.size).nan_to_num(0).max()
    sums = FLOAT32_ERROR * x_BE.shape[1]  # for any order of summation
    largest_B = torch.maximum(score_BF.amax(1), -score_BF.amin(1)) + (bias_F * norms_F).abs().max()
    return Scores(
        score_BF=score_BF,
        slack_F=coarse.size * norms_F,
        share_B=(gap_B + (ratio + sums) * size_B) * (1 + BFLOAT16_ERROR),
        error_B=largest_B * (BFLOAT16_ERROR + 4 * FLOAT32_ERROR),
        scratch=coarse.scratch,
    )


def largest_by_token(
    scores: Scores, exact: Exact, norms_F: Float[Tensor, " F"], k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token, feature and z of the k largest positive z N of each token.

    `exact` returns the z of tokens and features; ties go to the lowest feature. The k-th largest of
    the likeliest candidates, in full, is a bar for the rest, most of which need not be computed.
    """
    low_B = scores.maxima(GROUPS_PER_K * k).topk(k, dim=1).values[:, -1]
    token, feature, high = scores.candidates(low_B)
    table = _Ragged.of(token, len(low_B), least=k)
    z, u = torch.zeros_like(high), torch.full_like(high, -torch.inf)

    def compute(now: Bool[Tensor, " n"]) -> None:
        at = now.nonzero()[:, 0]
        z[at] = exact(token[at], feature[at])
        u[at] = z[at] * norms_F[feature[at]]

    if scores.is_exact:
        z, u = exact(token, feature), high
    else:
        likely = high >= table.kth_largest(high, k)[token]
        compute(likely)
        compute(~likely & (high >= table.kth_largest(u, k)[token]))
    chosen = (table.is_largest(u, k) & (u > 0)).nonzero()[:, 0]
    return token[chosen], feature[chosen], z[chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ragged:
    """Lists of different lengths, one per token, as rows of a table."""

    token: Int[Tensor, " n"]
    place: Int[Tensor, " n"]
    shape: tuple[int, int]

    @classmethod
    def of(cls, token: Int[Tensor, " n"], tokens: int, *, least: int) -> "_Ragged":
        """Return the lists of entries sorted by token, in a table of at least `least` columns."""
        start = offsets_of(token, tokens)
        place = torch.arange(len(token), device=token.device) - start[token]
        return cls(token=token, place=place, shape=(tokens, max(least, int(start.diff().max()))))

    def table(self, value: Tensor) -> Tensor:
        """Return values as rows, filled up with -inf."""
        out = value.new_full(self.shape, -torch.inf)
        out[self.token, self.place] = value
        return out

    def kth_largest(self, value: Tensor, k: int) -> Float[Tensor, " B"]:
        """Return the k-th largest of each token's values."""
        return self.table(value).topk(k, dim=1).values[:, -1]

    def is_largest(self, value: Tensor, k: int) -> Bool[Tensor, " n"]:
        """Return True at the k largest of each token; of equal ones the first."""
        table = self.table(value)
        kept = table >= table.topk(k, dim=1).values[:, -1:]
        if bool((kept.sum(1) > k).any()):
            first = table.argsort(dim=1, descending=True, stable=True)[:, :k]
            kept = torch.zeros_like(kept).scatter_(1, first, True)
        return kept[self.token, self.place]


def largest_by_batch(
    scores: Scores,
    exact: Exact,
    norms_F: Float[Tensor, " F"],
    count: int,
    bar: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token, feature and z of the `count` largest positive z N of the batch.

    `bar` turns the values of this process, falling, into the least that is kept over all processes.
    """
    B, F = scores.score_BF.shape
    count = min(count, B * F)
    least = scores.maxima(GROUPS_PER_K * -(-count // B)).flatten().topk(count).values[-1:]
    token, feature, _ = scores.candidates(least)
    z = exact(token, feature)
    u = z * norms_F[feature]
    order = u.argsort(descending=True, stable=True)[:count]
    order = order[u[order] > 0]
    chosen = order[u[order] >= bar(u[order])].sort().values
    return token[chosen], feature[chosen], z[chosen]


def sampled(
    x_BE: Float[Tensor, "B E"], rows_FE: Float[Tensor, "F E"], bias_F: Float[Tensor, " F"]
) -> Exact:
    """Return the function that computes z at some tokens (sorted) and features, in full."""

    def exact(token: Tensor, feature: Tensor) -> Tensor:
        if len(token) > CROWDED * len(x_BE) * len(rows_FE):
            return rows_product(x_BE, rows_FE, bias_F)[token, feature]
        offsets = offsets_of(token, len(x_BE))[:-1]
        return bag_dots(x_BE, rows_FE, feature, offsets, token) + bias_F[feature]

    return exact
