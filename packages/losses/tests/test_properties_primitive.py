"""Laws of the primitive: fused equals plain, and nothing depends on chunks, padding or masks."""

import math
from contextlib import contextmanager

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, linear

from meristem_losses import (
    _head,
    fused_loss,
    next_token_targets,
    token_forward_kl,
    token_logprobs,
    token_reverse_kl,
)
from meristem_losses import token_logprobs_from_logits as from_logits

WANTED = {"entropy": True, "mean_logit": True, "log_collision": True, "top_k_entropy": 3}
NAMES = ("logprobs", "lse", "entropy", "mean_logit")


@st.composite
def problems(draw, dtype=torch.float64):
    b, s, v, d = (draw(st.integers(1, n)) for n in (3, 5, 7, 4))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    hidden, weight = (torch.randn(*n, generator=g, dtype=dtype) for n in ((b, s, d), (v + 1, d)))
    bias = torch.randn(v + 1, generator=g, dtype=dtype) if draw(st.booleans()) else None
    targets = torch.randint(0, v + 1, (b, s), generator=g)
    mask = torch.rand(b, s, generator=g) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    options = {
        "scale": draw(st.sampled_from([1.0, 0.5])),
        "softcap": draw(st.sampled_from([None, 3.0])),
        "temperature": draw(st.sampled_from([1.0, 0.7])),
    }
    return hidden, weight, bias, targets, mask, options, g


def plain(hidden, weight, bias, targets, mask, options, **wanted):
    y = options["scale"] * linear(hidden, weight, bias)
    if options["softcap"]:
        y = options["softcap"] * torch.tanh(y / options["softcap"])
    temperature = options["temperature"]
    return from_logits(y, targets, mask=mask, temperature=temperature, **wanted)


def gradients(stats, coefficients, inputs):
    total = sum((getattr(stats, k) * c).sum() for k, c in coefficients.items())
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


@contextmanager
def jaxtyping_disabled():
    """Let our own message through: users run without the annotation check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def close(x, y):
    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-11)


@settings(max_examples=30)  # keeps the fast suite fast
@given(problems(), st.integers(1, 20))
def test_recomputing_equals_plain_in_values_and_gradients(problem, chunk):
    hidden, weight, bias, targets, mask, options, g = problem
    inputs = [x.requires_grad_() for x in (hidden, weight, bias) if x is not None]
    before = [x.detach().clone() for x in inputs]
    ours = token_logprobs(
        hidden, weight, targets, mask=mask, bias=bias, chunk_tokens=chunk, **options, **WANTED
    )
    theirs = plain(hidden, weight, bias, targets, mask, options, **WANTED)
    for name in (*NAMES, "log_collision", "top_k_entropy"):
        close(getattr(ours, name), getattr(theirs, name))
    weights = {k: torch.randn(mask.shape, generator=g, dtype=torch.float64) for k in NAMES}
    for x, y in zip(
        gradients(ours, weights, inputs), gradients(theirs, weights, inputs), strict=True
    ):
        close(x, y)
    assert all(bool((x == y).all()) for x, y in zip(inputs, before, strict=True))


@settings(max_examples=30)  # keeps the fast suite fast
@given(problems(), st.integers(1, 20))
def test_frozen_head_has_the_gradient_of_the_trainable_head(problem, chunk):
    hidden, weight, bias, targets, mask, options, g = problem
    hidden.requires_grad_()
    weights = {
        k: torch.randn(mask.shape, generator=g, dtype=torch.float64) for k in ("logprobs", "lse")
    }
    ours = token_logprobs(
        hidden, weight, targets, mask=mask, bias=bias, chunk_tokens=chunk, **options
    )
    theirs = plain(hidden, weight, bias, targets, mask, options)
    close(gradients(ours, weights, [hidden])[0], gradients(theirs, weights, [hidden])[0])


@settings(max_examples=30)  # keeps the fast suite fast
@given(problems(), st.integers(1, 20), st.booleans(), st.floats(-2, 2))
def test_one_pass_equals_the_sum_of_its_groups(problem, chunk, grouped, upstream):
    hidden, weight, bias, targets, mask, options, g = problem
    inputs = [x.requires_grad_() for x in (hidden, weight, bias) if x is not None]
    every = torch.randn(mask.shape, generator=g, dtype=torch.float64)
    groups = torch.randint(0, 2, mask.shape[:1], generator=g) if grouped else None

    def loss(stats, index):
        w = every[index] if grouped else every.flatten()[index][None]
        x = w * stats.logprobs + stats.entropy * w.cos() + stats.lse**2 + stats.mean_logit
        return (x * stats.mask).sum()

    wanted = {"entropy": True, "mean_logit": True}
    fused = fused_loss(
        hidden, weight, targets, loss=loss, mask=mask, bias=bias, groups=groups,
        chunk_tokens=chunk, **options, **wanted,
    )  # fmt: skip
    stats = plain(hidden, weight, bias, targets, mask, options, **wanted)
    rows = torch.arange(len(mask))
    whole = loss(stats, rows) if grouped else None
    if whole is None:
        x = every * stats.logprobs + stats.entropy * every.cos() + stats.lse**2 + stats.mean_logit
        whole = (x * mask).sum()
    close(fused.value, whole)
    close(fused.logprobs, stats.logprobs)
    ours = torch.autograd.grad(upstream * fused.value, inputs)
    theirs = torch.autograd.grad(upstream * whole, inputs)
    for x, y in zip(ours, theirs, strict=True):
        close(x, y)


@settings(max_examples=30)  # keeps the fast suite fast
@given(problems())
def test_masked_content_cannot_matter(problem):
    hidden, weight, bias, targets, mask, options, _ = problem
    dirty = hidden.masked_fill(~mask[..., None], torch.nan)
    spoiled = targets.masked_fill(~mask, -100)
    one = token_logprobs(hidden, weight, targets, mask=mask, bias=bias, **options)
    two = token_logprobs(dirty, weight, spoiled, mask=mask, bias=bias, **options)
    assert torch.equal(one.logprobs, two.logprobs)
    assert bool((two.logprobs[~mask] == 0).all())


@settings(max_examples=30)  # keeps the fast suite fast
@given(problems(), st.floats(-50, 50))
def test_a_shift_of_all_logits_moves_lse_alone(problem, shift):
    hidden, weight, _, targets, mask, _, _ = problem
    bias = torch.zeros(len(weight), dtype=torch.float64)
    one = token_logprobs(hidden, weight, targets, mask=mask, bias=bias, entropy=True)
    two = token_logprobs(hidden, weight, targets, mask=mask, bias=bias + shift, entropy=True)
    close(one.logprobs, two.logprobs)
    close(one.entropy, two.entropy)
    close(one.lse + shift * mask.double(), two.lse)


@settings(max_examples=30)  # keeps the fast suite fast
@given(problems())
def test_bounds_of_the_statistics(problem):
    hidden, weight, bias, targets, mask, options, _ = problem
    x = token_logprobs(hidden, weight, targets, mask=mask, bias=bias, **options, **WANTED)
    top = math.log(len(weight)) + 1e-12
    assert bool((x.logprobs <= 1e-15).all())
    assert bool((x.entropy >= 0).all())
    assert bool((x.entropy <= top).all())
    assert bool((x.log_collision >= -top).all())
    assert bool((x.log_collision <= 1e-12).all())


@given(problems(dtype=torch.float32))
def test_parity_with_cross_entropy_in_float32(problem):
    hidden, weight, bias, targets, _, _, _ = problem
    ours = token_logprobs(hidden, weight, targets, bias=bias)
    theirs = cross_entropy(
        linear(hidden, weight, bias).flatten(0, 1), targets.flatten(), reduction="none"
    )
    torch.testing.assert_close(-ours.logprobs.flatten(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradcheck(softcap, frozen):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, generator=g, dtype=torch.float64, requires_grad=not frozen)
    targets = torch.randint(0, 5, (2, 3), generator=g)

    def run(h, w):
        x = token_logprobs(h, w, targets, softcap=softcap, chunk_tokens=4, entropy=not frozen)
        return (x.logprobs, x.lse) if frozen else (x.logprobs, x.lse, x.entropy)

    assert torch.autograd.gradcheck(run, (hidden, weight))


def test_bfloat16_gives_float32_statistics_near_float64():
    g = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(*n, generator=g).bfloat16() for n in ((2, 8, 32), (64, 32)))
    weight.requires_grad_()
    targets = torch.randint(0, 64, (2, 8), generator=g)
    ours = token_logprobs(hidden, weight, targets, chunk_tokens=3)
    exact = token_logprobs(hidden.double(), weight.double(), targets)
    assert ours.logprobs.dtype == torch.float32
    scale = exact.lse.abs().max().item()  # one rounding of a logit to 8 bits
    torch.testing.assert_close(ours.logprobs.double(), exact.logprobs, rtol=0, atol=scale * 2**-7)
    ours.logprobs.sum().backward()
    assert weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.full((1, 2), 5)}, "outside 0 to 4"),
        ({"hidden": torch.full((1, 2, 4), torch.nan)}, "not finite"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"chunk_tokens": 0}, "chunk_tokens is 0"),
        ({"softcap": math.inf}, "softcap is inf"),
        ({"top_k_entropy": 0}, "top_k_entropy is 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    given_ = {
        "hidden": torch.ones(1, 2, 4),
        "weight": torch.ones(5, 4),
        "targets": torch.zeros(1, 2, dtype=torch.long),
    }
    with pytest.raises(ValueError, match=message):
        token_logprobs(**(given_ | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(5, 3)}, "width 4, weight 3"),
        ({"mask": torch.ones(1, 3, dtype=torch.bool)}, "must agree"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    given_ = {
        "hidden": torch.ones(1, 2, 4),
        "weight": torch.ones(5, 4),
        "targets": torch.zeros(1, 2, dtype=torch.long),
    }
    with jaxtyping_disabled(), pytest.raises(ValueError, match=message):
        token_logprobs(**(given_ | change))


def test_second_derivatives_name_the_plain_path():
    hidden = torch.ones(1, 1, 2, requires_grad=True)
    x = token_logprobs(hidden, torch.ones(3, 2), torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(RuntimeError, match="token_logprobs_from_logits"):
        torch.autograd.grad(x.logprobs.sum(), hidden, create_graph=True)


def test_all_masked_gives_zero_loss_and_gradient():
    hidden, weight = torch.ones(1, 2, 2, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    targets, mask = torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.bool)
    token_logprobs(hidden, weight, targets, mask=mask).logprobs.sum().backward()
    assert bool((hidden.grad == 0).all())
    assert bool((weight.grad == 0).all())


def test_shift_loses_the_last_position():
    targets, mask = next_token_targets(torch.tensor([[1, 2, 3]]), torch.tensor([[True] * 3]))
    assert targets.tolist() == [[2, 3, 0]]
    assert mask.tolist() == [[True, True, False]]


@settings(max_examples=30)
@given(problems(), st.integers(1, 20), st.booleans())
def test_divergences_of_heads_equal_the_plain_path(problem, chunk, forward):
    hidden, weight, _, _, mask, _, g = problem
    inputs = [hidden.requires_grad_(), weight.requires_grad_()]
    ref_hidden = torch.randn(*mask.shape, 2, generator=g, dtype=torch.float64)
    ref_weight = torch.randn(len(weight), 2, generator=g, dtype=torch.float64)
    divergence = token_forward_kl if forward else token_reverse_kl
    ours = divergence(
        hidden, weight, ref_hidden=ref_hidden, ref_weight=ref_weight, mask=mask, chunk_tokens=chunk
    )
    ref, logp = (linear(ref_hidden, ref_weight).log_softmax(2), linear(*inputs).log_softmax(2))
    first, second = (logp, ref) if forward else (ref, logp)
    pointwise = torch.nn.functional.kl_div(first, second, log_target=True, reduction="none")
    theirs = pointwise.sum(2) * mask
    close(ours, theirs)
    for x, y in zip(
        torch.autograd.grad(ours.sum(), inputs),
        torch.autograd.grad(theirs.sum(), inputs),
        strict=True,
    ):
        close(x, y)


@pytest.mark.parametrize("frozen", [True, False])
def test_bfloat16_gradients_survive_confidence_and_cancellation(frozen):
    """Logits are whole numbers, exact in bfloat16: only the gradients can lose digits."""
    g = torch.Generator().manual_seed(1)
    table = torch.randint(-1, 2, (64, 16), generator=g)
    targets = torch.randint(64, (1, 48), generator=g).repeat(2, 1)
    sign = torch.tensor([[1.0], [-(1 - 2**-6)]])  # the second row nearly undoes the first
    grads = []
    for kind in (torch.bfloat16, torch.float64):
        h = (2 * table[targets]).to(kind).requires_grad_()
        w = table.to(kind).requires_grad_(not frozen)
        (token_logprobs(h, w, targets, chunk_tokens=1).logprobs * sign).sum().backward()
        grads.append((h.grad.double(), None if frozen else w.grad.double()))
    (dh, dw), (exact_dh, exact_dw) = grads
    assert (dh - exact_dh).norm() < 2**-7 * exact_dh.norm()
    if not frozen:
        assert (dw - exact_dw).norm() < 2**-7 * exact_dw.norm()


def test_autocast_decides_the_type_of_the_product():
    g = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*n, generator=g).requires_grad_() for n in ((1, 6, 8), (11, 8)))
    targets = torch.randint(0, 11, (1, 6), generator=g)
    expected = token_logprobs(hidden.bfloat16(), weight.bfloat16(), targets).logprobs
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logprobs(hidden.bfloat16(), weight, targets).logprobs
        one = fused_loss(hidden, weight, targets, loss=lambda s, _: s.logprobs.sum())
    close(found, expected)
    close(one.value, expected.sum())
    (dw,) = torch.autograd.grad(found.sum(), weight)
    (again,) = torch.autograd.grad(one.value, weight, retain_graph=True)
    assert dw.dtype == again.dtype == torch.float32
    close(dw, again)
    with pytest.raises(RuntimeError, match="one backward pass"):
        torch.autograd.grad(one.value, weight)


def test_a_group_between_one_and_two_buffers_is_not_split(monkeypatch):
    seen = []
    original = _head.Head.chunk

    def counting(self, hidden, *more):
        seen.append(len(hidden))
        return original(self, hidden, *more)

    monkeypatch.setattr(_head.Head, "chunk", counting)
    monkeypatch.setattr(_head, "CPU_BUFFER_BYTES", 64 * 4 * 50)  # 64 rows of 50 logits
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(5, 60, 8, generator=g), torch.randn(50, 8, generator=g)
    targets = torch.randint(0, 50, (5, 60), generator=g)
    groups = torch.tensor([0, 0, 1, 1, 2])  # 120, 120 and 60 rows
    fused_loss(
        hidden.requires_grad_(), weight, targets, loss=lambda s, _: s.logprobs.sum(), groups=groups
    )
    assert seen == [120, 120, 60]
