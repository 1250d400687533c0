"""What every public loss does with empty rows, empty batches and values that cannot be used."""

import inspect
import math

import pytest
import torch

import meristem_losses as ml

F64 = torch.float64
MASK = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]]).bool()
ADV = torch.tensor([[1.3], [-0.7], [0.4], [-1.1]], dtype=F64)
LOSSES = {n: getattr(ml, n) for n in ml.__all__ if n.endswith("_loss") and n != "fused_loss"}
LOSSES |= {n: getattr(ml, n) for n in ("k1", "k2", "k3", "entropy_bonus")}
NEEDED = {
    name: [
        key for key, p in inspect.signature(loss).parameters.items() if p.default is p.empty
    ]
    for name, loss in LOSSES.items()
}  # fmt: skip
OTHERS = {"ref_stats", "ref_logprobs", "old_logprobs"}


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


@pytest.mark.parametrize("name", [n for n in LOSSES if OTHERS & set(NEEDED[n])])
def test_another_models_nan_is_refused(name):
    arguments = given(name)
    for key in OTHERS & set(arguments):
        broken = ml.TokenStats(
            logprobs=arguments[key] * torch.nan if key != "ref_stats" else MASK * torch.nan,
            lse=MASK * torch.nan, mask=MASK,
        )  # fmt: skip
        wrong = broken if key == "ref_stats" else broken.logprobs
        with pytest.raises(ValueError, match="non-finite"):
            LOSSES[name](**{**arguments, key: wrong})


@pytest.mark.parametrize("name", [n for n in LOSSES if "advantages" in NEEDED[n]])
def test_advantages_must_be_numbers(name):
    arguments = given(name)
    arguments["advantages"] = arguments["advantages"] * torch.nan
    with pytest.raises(ValueError, match="non-finite"):
        LOSSES[name](**arguments)


def test_a_reference_of_nan_makes_no_pairs():
    stats = stats_of(logits_of(0), MASK)
    broken = ml.TokenStats(logprobs=stats.logprobs * torch.nan, lse=stats.lse, mask=MASK)
    with pytest.raises(ValueError, match="non-finite"):
        ml.preference_pairs(stats, broken)
