"""A step whose gradient is too large is as if it had not been."""

import math

import pytest
import torch

from meristem_losses import drop_large_gradients

X = torch.tensor([[1.0, 2.0], [3.0, -1.0]])


def run(norms, max_norm):
    """Steps with gradients of given norms; what the optimiser holds after each."""
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(X)
        model.bias.zero_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    found = []
    for norm in norms:
        direction = torch.arange(1.0, 7.0) / math.sqrt(91)
        whole = direction * norm
        model.weight.grad, model.bias.grad = whole[:4].view(2, 2).clone(), whole[4:].clone()
        found.append(drop_large_gradients(model.parameters(), max_norm=max_norm))
        optimizer.step()
        optimizer.zero_grad()
    held = optimizer.state[model.weight] if optimizer.state else {}
    return found, [model.weight.detach(), *held.values()]


def test_a_dropped_step_leaves_weights_and_moments():
    found, after = run([0.2, 0.5, 0.1, math.nan, math.inf, 0.3], 0.3)
    _, without = run([0.2, 0.1, 0.3], 0.3 + 1e-6)
    torch.testing.assert_close(torch.tensor(found[:3]), torch.tensor([0.2, 0.5, 0.1]))
    assert math.isnan(found[3])
    assert not math.isfinite(found[4])
    assert len(after) == len(without) == 4  # weights, step, two moments
    for x, y in zip(after, without, strict=True):
        assert torch.equal(x, y)


def test_nothing_to_drop():
    assert drop_large_gradients([torch.ones(2, requires_grad=True)], max_norm=0.3) == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_threshold_must_be_positive(bad):
    with pytest.raises(ValueError, match=f"max_norm is {bad}"):
        drop_large_gradients([], max_norm=bad)
