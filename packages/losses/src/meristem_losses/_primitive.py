"""The primitive: per-token statistics of the next token without the logits in memory.

Masked rows leave before any matrix product, so their content cannot matter.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meristem_losses._head import Options, chunk_rows, operands, wide
from meristem_losses._schedules import FrozenHead, Recompute, refuse_non_finite, row_names
from meristem_losses._stats import TokenStats
from meristem_losses._teacher import Teacher


def token_logprobs(
    hidden: Float[Tensor, "B S D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "B S"],
    *,
    mask: Bool[Tensor, "B S"] | None = None,
    bias: Float[Tensor, " V"] | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    mean_logit: bool = False,
    log_collision: bool = False,
    top_k_entropy: int | None = None,
    is_top1: bool = False,
    teacher: Teacher | None = None,
    chunk_tokens: int | None = None,
) -> TokenStats:
    """Return the statistics of every kept token, exactly, in the memory of one chunk of logits.

    Differentiable once in `logprobs`, `lse`, `entropy`, `mean_logit` and `divergence`, towards
    hidden states, weight and bias. Where weight and bias need no gradient (adapters, frozen heads)
    and only `logprobs` and `lse` do, the backward pass holds no matrix product.

    Parameters
    ----------
    hidden, weight
        Last hidden states and output embedding; logits are scale (hidden weight' + bias).
    targets
        Token predicted at each position, 0 <= target < V where kept, anything elsewhere.
    mask
        True = keep; by default all.
    softcap, temperature
        Logits become softcap tanh(logits / softcap), then are divided by the temperature.
    entropy, mean_logit, log_collision, top_k_entropy, is_top1
        Further statistics wanted; `top_k_entropy` is k.
    teacher
        Model to compare the distributions with; the statistics then hold `divergence`.
    chunk_tokens
        Rows per chunk; by default 64 MiB of logits on a CPU, 256 MiB on CUDA, half of it beside a
        teacher.

    Raises
    ------
    ValueError
        Shapes that do not fit, targets out of range, options out of range, or non-finite results
        (a NaN or infinity in hidden, weight or bias).

    Notes
    -----
    Outputs are float64 for float64 input, else float32; gradients of the weight are summed in the
    same type and rounded once.
    """
    options = Options(
        scale=scale,
        softcap=softcap,
        temperature=temperature,
        entropy=entropy,
        mean_logit=mean_logit,
        log_collision=log_collision,
        top_k_entropy=top_k_entropy,
        is_top1=is_top1,
    )
    whole = mask is None
    mask = check(hidden, weight, targets, mask, bias, options)
    lesson = lesson_of(teacher, mask, len(weight))
    hidden, weight = operands(hidden, weight)
    # indexing copies, a view does not
    rows = hidden.flatten(0, 1) if whole else hidden[mask]
    labels = targets[mask]
    size = chunk_rows(weight, chunk_tokens, taught=teacher is not None)
    trains_head = weight.requires_grad or (bias is not None and bias.requires_grad)
    if trains_head or entropy or mean_logit or lesson is not None:
        kept = None if lesson is None else lesson.rows(mask)
        values = Recompute.apply(rows, weight, bias, labels, options, size, kept)
    else:
        values = FrozenHead.apply(rows, weight, bias, labels, options, size)
    return scatter(dict(zip(row_names(options, lesson), values, strict=True)), mask)


def token_logprobs_from_logits(
    logits: Float[Tensor, "B S V"],
    targets: Int[Tensor, "B S"],
    *,
    mask: Bool[Tensor, "B S"] | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    mean_logit: bool = False,
    log_collision: bool = False,
    top_k_entropy: int | None = None,
    is_top1: bool = False,
) -> TokenStats:
    """Return the same statistics by plain automatic differentiation, of any order."""
    options = Options(
        temperature=temperature,
        entropy=entropy,
        mean_logit=mean_logit,
        log_collision=log_collision,
        top_k_entropy=top_k_entropy,
        is_top1=is_top1,
    )
    mask = check(
        logits, logits.new_empty(logits.shape[2], 1), targets, mask, None, options, width=False
    )
    z = logits[mask].to(wide(logits.dtype)) / temperature
    logp = z.log_softmax(1)
    rows = {"logprobs": logp.gather(1, targets[mask][:, None])[:, 0], "lse": z.logsumexp(1)}
    if entropy:
        rows["entropy"] = -(logp.exp() * logp).sum(1)
    if mean_logit:
        rows["mean_logit"] = z.mean(1)
    if log_collision:
        rows["log_collision"] = (2 * logp.detach()).logsumexp(1)
    if top_k_entropy is not None:
        top = z.detach().topk(min(top_k_entropy, z.shape[1]), dim=1).values.log_softmax(1)
        rows["top_k_entropy"] = -(top.exp() * top).sum(1)
    if is_top1:
        rows["is_top1"] = z.gather(1, targets[mask][:, None])[:, 0] == z.amax(1)
    refuse_non_finite(rows)
    return scatter(rows, mask)


def lesson_of(
    teacher: Teacher | None, mask: Bool[Tensor, "B S"], vocabulary: int
) -> Teacher | None:
    """Return the teacher as the kernels take it, or say why it does not fit."""
    if teacher is None:
        return None
    teacher.check(mask.shape, vocabulary)
    return teacher.frozen(*operands(teacher.hidden, teacher.weight))


def scatter(rows: dict[str, Tensor], mask: Bool[Tensor, "B S"]) -> TokenStats:
    """Return statistics of kept tokens in their places, zeros elsewhere."""

    def place(values: Tensor) -> Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    return TokenStats(mask=mask, **{name: place(values) for name, values in rows.items()})


def check(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    options: Options,
    *,
    width: bool = True,
) -> Tensor:
    """Refuse what does not fit, once for all schedules; return the mask."""
    mask = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    if not hidden.shape[:2] == targets.shape == mask.shape:
        raise ValueError(
            f"hidden or logits {tuple(hidden.shape)}, targets {tuple(targets.shape)} and mask "
            f"{tuple(mask.shape)} must agree in rows and positions"
        )
    if width and hidden.shape[2] != weight.shape[1]:
        raise ValueError(
            f"hidden has width {hidden.shape[2]}, weight {weight.shape[1]}; pass weight as (V, D)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}, not ({weight.shape[0]},)")
    kept = targets[mask]
    if kept.numel() and not 0 <= int(kept.min()) <= int(kept.max()) < len(weight):
        raise ValueError(
            f"kept targets run from {int(kept.min())} to {int(kept.max())}, outside 0 to "
            f"{len(weight) - 1}; mask padding and ignored tokens"
        )
    for name in ("temperature", "softcap"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be above 0 and finite")
    if options.top_k_entropy is not None and options.top_k_entropy < 1:
        raise ValueError(f"top_k_entropy is {options.top_k_entropy}; it must be at least 1")
    return mask
