"""What every public loss does with empty rows, empty batches and values that cannot be used."""

import dataclasses
import inspect
import math

import pytest
import torch

import meristem_losses as ml

F64 = torch.float64
MASK = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]]).bool()
ADV = torch.tensor([[1.3], [-0.7], [0.4], [-1.1]], dtype=F64)
LOSSES = {n: getattr(ml, n) for n in ml.__all__ if n.endswith("_loss") and n != "fused_loss"}
LOSSES |= {n: getattr(ml, n) for n in ("k1", "k2", "k3", "entropy_bonus", "kl_cov_penalty")}
NEEDED = {
    name: [
        key for key, p in inspect.signature(loss).parameters.items() if p.default is p.empty
    ]
    for name, loss in LOSSES.items()
}  # fmt: skip


def logits_of(seed):
    return torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=F64)


def stats_of(logits, mask):
    targets = torch.arange(20).view(4, 5)[: len(mask)] % 6
    return ml.token_logprobs_from_logits(
        logits, targets, mask=mask, entropy=True, mean_logit=True, top_k_entropy=4
    )


def given(name, logits=None, mask=MASK):
    """Return arguments for a loss: policy and reference on the same rows."""
    rows = len(mask)
    stats = stats_of(logits_of(0)[:rows] if logits is None else logits, mask)
    ref = stats_of(logits_of(7)[:rows], mask)
    pairs = ml.preference_pairs(stats, ref)
    ratios = ml.sequence_logprobs(stats) - ml.sequence_logprobs(ref)
    advantages = ADV[:rows]
    known = {
        "stats": stats, "ref_stats": ref, "divergence": ml.REVERSE_KL, "pairs": pairs,
        "ref_logprobs": ref.logprobs, "old_logprobs": ref.logprobs, "weights": advantages**2,
        "advantages": advantages[:, 0] if name == "a2po_loss" else advantages,
        "forward_kl": stats.entropy, "gold_nll": pairs.chosen**2, "coefficient": 0.1,
        "probability": pairs.chosen.sigmoid().detach(), "log_ratios": ratios,
        "desirable": torch.tensor([True, False, True, True])[:rows],
        "reference_point": torch.zeros((), dtype=F64), "scores": ratios.view(-1, 2),
        "generator": torch.Generator(),
    }  # fmt: skip
    return {key: known[key] for key in NEEDED[name]}


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_without_tokens_has_no_gradient(name):
    mask = MASK.clone()
    mask[3] = False
    logits = logits_of(0)
    logits[3] = torch.nan  # whatever stands where nothing is kept
    logits.requires_grad_()
    loss = LOSSES[name](**given(name, logits, mask))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert bool(loss.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert not bool(gradient[3].any())
    assert bool(gradient[:3].any())
    if "stats" in NEEDED[name]:
        assert not bool(loss[3].any())


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_batch_gives_an_empty_loss(name):
    assert LOSSES[name](**given(name, mask=MASK[:0])).numel() == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("scale", ["beta", "tau"])
def test_a_scale_must_be_positive(scale, bad):
    taken = [n for n, loss in LOSSES.items() if scale in inspect.signature(loss).parameters]
    assert taken
    for name in taken:
        with pytest.raises(ValueError, match=rf"{scale} is {bad}"):
            LOSSES[name](**given(name), **{scale: bad})


def tensors_in(value):
    """Paths to the tensors of numbers in an argument: itself, or fields of a dataclass."""
    if isinstance(value, torch.Tensor):
        return [None] if value.is_floating_point() else []
    if not dataclasses.is_dataclass(value) or isinstance(value, ml.Divergence):
        return []
    held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return [k for k, v in held.items() if tensors_in(v)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", LOSSES)
def test_a_number_that_is_none_never_passes(name, bad):
    arguments = given(name)
    tried = 0
    for key, value in arguments.items():
        for field in tensors_in(value):
            inner = value if field is None else getattr(value, field)
            broken = inner.clone()
            broken.view(-1)[0] = bad

            def call(key=key, value=value, field=field, broken=broken):
                spoiled = broken if field is None else dataclasses.replace(value, **{field: broken})
                return LOSSES[name](**{**arguments, key: spoiled})

            with pytest.raises(ValueError, match="non-finite"):
                call()
            tried += 1
    assert tried


@pytest.mark.parametrize("name", LOSSES)
def test_an_option_that_is_no_number_never_passes(name):
    options = inspect.signature(LOSSES[name]).parameters.values()
    given_ = given(name)
    for option in options:
        if isinstance(option.default, float) or option.name == "coefficient":
            with pytest.raises(ValueError, match="nan"):
                LOSSES[name](**{**given_, option.name: math.nan})


def plain(hidden, weight, targets):
    return ml.token_logprobs_from_logits(
        hidden @ weight.T, targets, mask=MASK, entropy=True, mean_logit=True, top_k_entropy=4
    )


def recomputed(hidden, weight, targets):
    return ml.token_logprobs(
        hidden, weight, targets, mask=MASK, entropy=True, mean_logit=True, top_k_entropy=4
    )


def frozen(hidden, weight, targets):
    return ml.token_logprobs(hidden, weight, targets, mask=MASK, top_k_entropy=4)


def in_one_pass(hidden, weight, targets, loss):
    return ml.fused_loss(
        hidden, weight, targets, mask=MASK, groups=torch.zeros(4, dtype=torch.long),
        loss=lambda stats, rows: loss(stats).sum(), entropy=True, mean_logit=True, top_k_entropy=4,
    ).value  # fmt: skip


def of_stats(name):
    """Return a loss as a function of the statistics of the policy alone."""

    arguments = given(name)
    ref = stats_of(logits_of(7), MASK)

    def loss(stats):
        ratios = ml.sequence_logprobs(stats) - ml.sequence_logprobs(ref)
        own = {
            "stats": stats, "pairs": ml.preference_pairs(stats, ref), "log_ratios": ratios,
            "scores": ratios.view(-1, 2),
        }  # fmt: skip
        return LOSSES[name](**{k: own.get(k, v) for k, v in arguments.items()})

    return loss


FAULTS = {
    "a target above": (lambda h, w, t: t.__setitem__((0, 0), 6), "outside 0 to 5"),
    "a target below": (lambda h, w, t: t.__setitem__((0, 0), -100), "outside 0 to 5"),
    "NaN in hidden": (lambda h, w, t: h.__setitem__((0, 0, 0), math.nan), "not finite"),
    "NaN in weight": (lambda h, w, t: w.__setitem__((1, 0), math.nan), "not finite"),
    "infinite logits": (lambda h, w, t: h.__setitem__((0, 0), math.inf), "not finite"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_targets_out_of_range_and_spoiled_logits_never_reach_a_loss(name):
    loss = of_stats(name)
    g = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*n, generator=g, dtype=F64) for n in ((4, 5, 3), (6, 3)))
    targets = torch.arange(20).view(4, 5) % 6
    ways = [lambda *x: loss(plain(*x)), lambda *x: loss(recomputed(*x))]
    ways += [lambda *x: in_one_pass(*x, loss)]
    ways += [] if name in ("entropy_bonus", "asft_loss") else [lambda *x: loss(frozen(*x))]
    for i, (spoil, message) in enumerate(FAULTS.values()):
        way = ways[i % len(ways)]  # every way and every fault at least once
        inputs = hidden.clone(), weight.clone(), targets.clone()
        spoil(*inputs)
        with pytest.raises(ValueError, match=message):
            way(*inputs)
    way = ways[list(LOSSES).index(name) % len(ways)]
    value = way(hidden, weight, targets.masked_fill(~MASK, -100))  # what is masked may be anything
    assert bool(value.isfinite().all())
    assert torch.equal(value, way(hidden, weight, targets))
