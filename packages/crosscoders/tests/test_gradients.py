"""The sparse and the tiled step equal automatic differentiation of the dense definition."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.testing import assert_close, seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    _tiles,
    auxk_loss,
    l1_penalty,
    preactivation_penalty,
    reconstruction_error,
    strengths,
    tanh_penalty,
    tanh_quad_penalty,
)
from meristem_crosscoders._gradients import Terms
from meristem_crosscoders._step import step_gradients

PENALTIES = {"tanh_quad": tanh_quad_penalty, "tanh": tanh_penalty, "l1": l1_penalty}


def crosscoder_of(config, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    crosscoder = Crosscoder(CrosscoderConfig(**vars(config))).to(dtype)
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
    shape = (6, len(config.steps), config.d_model)
    return crosscoder, torch.randn(shape, generator=generator, dtype=dtype)


def dense_loss(crosscoder, x, terms):
    """The losses written with arrays of tokens x features x snapshots."""
    codes = crosscoder.encode(x)
    rebuilt = crosscoder.decode(codes.value)
    error = reconstruction_error(rebuilt, x)
    loss = error
    if terms.penalty != "none":
        y = strengths(crosscoder, codes)
        loss = loss + terms.sparsity * PENALTIES[terms.penalty](y)
    if terms.preactivation > 0:
        loss = loss + terms.preactivation * preactivation_penalty(crosscoder, codes)
    if terms.auxk > 0:
        loss = loss + terms.auxk * auxk_loss(crosscoder, codes, x - rebuilt, terms.dead_F)
    return loss, error, codes


@st.composite
def cases(draw):
    activation = draw(st.sampled_from(("jumprelu", "topk", "batchtopk", "relu")))
    F, S = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    selects = activation in ("topk", "batchtopk")
    steps = tuple(range(S))
    config = SimpleNamespace(
        d_model=draw(st.integers(1, 5)), n_features=F, steps=steps, activation=activation,
        k=draw(st.integers(1, F)) if selects else None,
        gate=draw(st.sampled_from(("snapshot", "shared"))),
        code_norm=draw(st.sampled_from(("sum", "l2", "none"))),
        encode_from=draw(st.sampled_from((None, steps[:1], steps[-1:]))),
        threshold_init=draw(st.floats(0.01, 3)), ste_width=draw(st.floats(0.05, 4)),
    )  # fmt: skip
    terms = Terms(
        penalty=draw(st.sampled_from(("tanh_quad", "tanh", "l1", "none"))),
        sparsity=draw(st.sampled_from((0.0, 0.7))),
        preactivation=draw(st.sampled_from((0.0, 0.3))) if activation == "jumprelu" else 0.0,
        auxk=draw(st.sampled_from((0.0, 0.5))),
        dead_F=torch.arange(F) >= draw(st.integers(0, F)),
    )
    return config, terms


def compare(gradients, crosscoder, scale):
    """Compare with what .backward() left in the parameters."""
    F = crosscoder.config.n_features
    for name, found in {
        "b_enc": gradients.b_enc,
        "b_dec": gradients.b_dec,
        "log_threshold": gradients.log_threshold,
        "W_enc": torch.cat(
            [gradients.encoder(slice(0, F // 2)), gradients.encoder(slice(F // 2, F))]
        ),
        "W_dec": gradients.decoder(slice(0, F)),
    }.items():
        parameter = getattr(crosscoder, name)
        if parameter is None:
            assert found is None
            continue
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert_close(found, expected, scale=scale * (1 + float(expected.abs().max())))


@settings(max_examples=150)
@given(case=cases(), seed=seeds(), dense=st.sampled_from((0.0, 2.0)), width=st.integers(1, 9))
def test_gradients_are_those_of_the_dense_definition(case, seed, dense, width):
    with pytest.MonkeyPatch.context() as patch:  # features in a tile
        patch.setattr(_tiles, "TILE", 1)
        patch.setattr(_tiles, "NARROWEST", width)
        check_gradients(case, seed, dense)


def check_gradients(case, seed, dense):
    config, terms = case
    crosscoder, x = crosscoder_of(config, seed)
    loss, error, codes = dense_loss(crosscoder, x, terms)
    loss.backward()
    found = step_gradients(crosscoder, x, terms, dense=dense)
    size = float(x.square().sum()) + float(loss.detach())
    assert_close(found.loss, loss.detach(), scale=100 * size)
    assert_close(found.reconstruction, error.detach(), scale=100 * size)
    assert (found.fired_F == codes.fired().any(0)).all()
    assert_close(found.open_S, codes.l0())
    if config.activation == "batchtopk":
        u = codes.preactivation[..., None] * crosscoder.gate_norms()
        u = torch.where(codes.value[..., : u.shape[-1]] != 0, u, torch.inf)
        assert_close(found.least_G, u.detach().amin((0, 1)), scale=10.0)
    compare(found, crosscoder, scale=1e3 * size)
