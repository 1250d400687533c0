"""Laws of attribution and its curves on random dictionaries and random small models."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from meristem_core.testing import assert_close, permutations, seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Normalisation,
    Pairs,
    SnapshotSet,
    Splice,
    ablate_curve,
    fold_normalisation,
    gradient_attribution,
    integrated_gradients,
    patching_attribution,
    restore_curve,
)

V, D, F, N, T = 7, 4, 9, 3, 2


class Last(nn.Module):
    """Causal: a position sees the sum x so far, and reads x + bend x^power."""

    def __init__(self, bend, power):
        super().__init__()
        self.bend, self.power = bend, power
        self.read = nn.Linear(D, V, bias=False)

    def forward(self, x):
        x = x.cumsum(1)
        return self.read(x + self.bend * x**self.power)


def drawn(seed, bend=0.0, power=2, silent=False):
    """A model of two snapshots, a random dictionary and random pairs; float64.

    If `silent`, every patch token has activation 0 and no feature fires there.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    models = {}
    for step in (0, 5):
        model = nn.Sequential(nn.Embedding(V, D), nn.Identity(), Last(bend, power)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(random(*parameter.shape))
            model[0].weight[0] = 0
        models[step] = model.requires_grad_(False)
    snapshots = SnapshotSet.from_modules(models, "1")
    crosscoder = Crosscoder(
        CrosscoderConfig(d_model=D, n_features=F, steps=(0, 5), activation="relu")
    ).double()
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter.copy_(random(*parameter.shape))
        crosscoder.b_enc.copy_(-crosscoder.b_enc.abs())
    scale = random(2).abs() + 0.1
    folded = fold_normalisation(
        crosscoder, Normalisation(scale=scale, mean=torch.zeros(2, D, dtype=torch.float64))
    )
    rng = np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(1, V, (2, N, T)))
    answers = np.array([rng.choice(V, 2, replace=False) for _ in range(N)])
    pairs = Pairs(
        task="random",
        clean=ids[0],
        patch=torch.zeros_like(ids[1]) if silent else ids[1],
        last=torch.from_numpy(rng.integers(0, T, N)),
        clean_answer=torch.from_numpy(answers[:, 0]),
        patch_answer=torch.from_numpy(answers[:, 1]),
    )
    splice = Splice(
        crosscoder=folded.requires_grad_(False), activations=snapshots.activations,
        model=models[5], site="1", step=5,
    )  # fmt: skip
    return splice, pairs


def size_of(attribution):
    return 1e4 * (1 + float(attribution.effect.abs().max()))  # float32 activations and logits


@settings(max_examples=20)
@given(seed=seeds(), n_steps=st.integers(1, 4))
def test_of_a_linear_metric_effects_add_up_exactly_and_need_one_step(seed, n_steps):
    splice, pairs = drawn(seed)
    found = integrated_gradients(splice, pairs, n_steps=n_steps)
    assert_close(found.incompleteness().float(), torch.zeros(N), scale=10 * size_of(found) / 1e4)
    patching = patching_attribution(splice, pairs)
    assert_close(found.effect, patching.effect, scale=size_of(found))
    assert_close(found.clean, patching.clean, scale=size_of(found))


@settings(max_examples=20)
@given(seed=seeds())
def test_of_a_linear_metric_and_a_silent_patch_the_three_methods_are_one(seed):
    splice, pairs = drawn(seed, silent=True)
    found = [
        gradient_attribution(splice, pairs),
        patching_attribution(splice, pairs),
        integrated_gradients(splice, pairs, n_steps=2),
    ]
    for each in found[1:]:
        assert_close(each.effect, found[0].effect, scale=size_of(each))


@settings(max_examples=8)
@given(seed=seeds(), bend=st.floats(0.1, 1))
def test_the_midpoint_rule_is_exact_for_a_square_and_quadratic_for_a_cube(seed, bend):
    """Its error on a parabola, the gradient of a cubic metric, falls as 1 / n^2 without more."""
    for power in (2, 3):
        splice, pairs = drawn(seed, bend, power)
        once, thrice = (integrated_gradients(splice, pairs, n_steps=n) for n in (1, 3))
        size = once.effect.abs().sum(1) + once.clean.abs() + once.patched.abs()
        rest = thrice.incompleteness() - (once.incompleteness() / 9 if power == 3 else 0)
        assert (rest.abs() <= 1e-9 * size).all()
        if power == 3:
            fine = integrated_gradients(splice, pairs, n_steps=100)
            assert (fine.incompleteness().abs() <= 1e-3 * size).all()


@settings(max_examples=20)
@given(seed=seeds(), bend=st.floats(0, 1), order=permutations(F))
def test_permuting_features_permutes_effects(seed, bend, order):
    splice, pairs = drawn(seed, bend)
    other = Crosscoder(splice.crosscoder.config).double()
    state = {name: tensor.clone() for name, tensor in splice.crosscoder.state_dict().items()}
    for name in ("W_enc", "W_dec", "b_enc"):
        state[name] = state[name][torch.from_numpy(order)]
    other.load_state_dict(state)
    moved = Splice(
        crosscoder=other.requires_grad_(False), activations=splice.activations,
        model=splice.model, site="1", step=5,
    )  # fmt: skip
    found = integrated_gradients(splice, pairs, n_steps=3)
    assert_close(
        integrated_gradients(moved, pairs, n_steps=3).effect,
        found.effect[:, torch.from_numpy(order)],
        scale=size_of(found),
    )


@settings(max_examples=20)
@given(seed=seeds(), bend=st.floats(0, 1))
def test_curves_end_where_they_must_and_mirror_for_a_linear_metric(seed, bend):
    splice, pairs = drawn(seed, bend)
    found = integrated_gradients(splice, pairs, n_steps=2)
    rng = np.random.default_rng(seed)
    ks = tuple(range(F + 1))
    ablated = ablate_curve(splice, pairs, found, rng=rng, ks=ks, controls=2)
    restored = restore_curve(splice, pairs, found, rng=rng, ks=ks, controls=2)
    assert torch.equal(ablated.metric[0], ablated.full)
    assert torch.equal(ablated.metric[-1], ablated.empty)
    assert torch.equal(restored.metric[0], restored.empty)
    assert torch.equal(restored.metric[-1], restored.full)
    for control in (restored.control, ablated.control.flip(1)):
        assert torch.equal(control[:, 0], restored.empty.expand(2, -1))
        assert torch.equal(control[:, -1], restored.full.expand(2, -1))
    if bend == 0:  # what the first k give and what they take away is the same
        together = ablated.metric + restored.metric
        size = 1e3 * (1 + float(together.abs().max()))
        assert_close(together, (ablated.full + ablated.empty).expand(F + 1, -1), scale=size)
