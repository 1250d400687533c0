"""Weights of other libraries: their own formulas on their own keys, and back."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from meristem_core.testing import seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Normalisation,
    read_crosscoder_learning,
    read_llamascopium,
    write_crosscoder_learning,
    write_llamascopium,
)

STEPS, HOOKS = (0, 5, 20), ("a", "b", "c")


def drawn(seed, **fields):
    generator = torch.Generator().manual_seed(seed)
    crosscoder = Crosscoder(CrosscoderConfig(d_model=4, n_features=7, steps=STEPS, **fields))
    crosscoder = crosscoder.double()
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).double())
    x = torch.randn(6, 3, 4, generator=generator).double()
    scale = torch.rand(3, generator=generator).double() + 0.5
    return crosscoder, x, Normalisation(scale=scale, mean=torch.zeros(3, 4).double())


def llamascopium(folder, raw):
    """Rebuild raw activations by the published formula: per-head sums, gates on z times norms."""
    w = load_file(folder / "sae_weights.safetensors")
    plain = json.loads((folder / "config.json").read_text())
    norms = torch.stack([w[f"dataset_average_activation_norm.{hook}"] for hook in HOOKS])
    factor = (math.sqrt(plain["d_model"]) / norms)[:, None]
    z = (torch.einsum("bhd,hdf->bhf", raw * factor, w["W_E"]) + w["b_E"]).sum(1, keepdim=True)
    size = w["W_D"].norm(dim=-1)
    u = z * size
    if plain["act_fn"] == "jumprelu":
        u = u * (u > w["activation_function.log_jumprelu_threshold"].exp())
    elif plain["act_fn"] == "relu":
        u = u.relu()
    else:
        u = u.relu() * (u >= u.topk(plain["top_k"], dim=-1).values[..., -1:])
    return (torch.einsum("bhf,hfd->bhd", u / size, w["W_D"]) + w["b_D"]) / factor


@settings(max_examples=30)
@given(seed=seeds(), kind=st.sampled_from(("jumprelu", "topk", "relu")))
def test_llamascopium_computes_the_same_and_comes_back(tmp_path_factory, seed, kind):
    folder = tmp_path_factory.mktemp("llamascopium")
    fields = {"k": 3} if kind == "topk" else {}
    crosscoder, raw, normalisation = drawn(seed, activation=kind, **fields)
    write_llamascopium(crosscoder, folder, normalisation, HOOKS)
    ours = crosscoder(normalisation.apply(raw)) / normalisation.scale[:, None]
    assert torch.allclose(llamascopium(folder, raw), ours, atol=1e-10)
    plain = json.loads((folder / "config.json").read_text())
    assert int(plain["d_model"] * plain["expansion_factor"]) == 7
    back, scales = read_llamascopium(folder, STEPS)
    assert torch.allclose(scales.scale, normalisation.scale)
    assert back.config == crosscoder.config
    for name, value in crosscoder.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def crosscoder_learning(path, x, *, use_threshold):
    """Rebuild activations by the published formula of CrossCoder and BatchTopKCrossCoder."""
    w = torch.load(path, weights_only=True)
    f = (torch.einsum("bld,ldf->blf", x, w["encoder.weight"]).sum(1) + w["encoder.bias"]).relu()
    if "k" in w:
        norms = w["decoder.weight"].norm(dim=2)
        flat = w["decoder.weight"].permute(1, 0, 2).flatten(1).norm(dim=1)
        scale = {1: norms.sum(0), 2: flat, 4: torch.ones_like(flat), 5: norms}
        scaled = f[:, None] * scale[int(w["code_normalization_id"])].reshape(-1, f.shape[1])
        threshold = w["threshold"].reshape(-1)
        if not use_threshold:
            count = int(w["k"]) * len(x)
            columns = scaled.transpose(0, 1).flatten(1)
            threshold = columns.topk(count, dim=1).values[:, -1]
            f = f[:, None] * (scaled >= threshold[:, None])
        else:
            f = f[:, None] * (scaled > threshold[:, None])
        f = f.expand(-1, x.shape[1], -1)
    else:
        f = f[:, None].expand(-1, x.shape[1], -1)
    return torch.einsum("blf,lfd->bld", f, w["decoder.weight"]) + w["decoder.bias"]


@settings(max_examples=30)
@given(
    seed=seeds(),
    fields=st.sampled_from(
        (
            {"activation": "relu", "gate": "shared", "code_norm": "none"},
            {"activation": "batchtopk", "k": 2, "gate": "snapshot", "code_norm": "none"},
            {"activation": "batchtopk", "k": 2, "gate": "shared", "code_norm": "sum"},
            {"activation": "batchtopk", "k": 2, "gate": "shared", "code_norm": "l2"},
            {"activation": "batchtopk", "k": 2, "gate": "shared", "code_norm": "none"},
        )
    ),
    known=st.booleans(),
)
def test_crosscoder_learning_computes_the_same_and_comes_back(
    tmp_path_factory, seed, fields, known
):
    path = tmp_path_factory.mktemp("crosscoder_learning") / "weights.pt"
    crosscoder, x, _ = drawn(seed, **fields)
    if known and "k" in fields:
        crosscoder.update_threshold(torch.full_like(crosscoder.inference_threshold, 1.5))
        crosscoder.eval()
    write_crosscoder_learning(crosscoder, path)
    assert torch.allclose(
        crosscoder_learning(path, x, use_threshold=known), crosscoder(x), atol=1e-10
    )
    back = read_crosscoder_learning(path, STEPS)
    assert back.config == crosscoder.config
    for name, value in crosscoder.state_dict().items():
        if name != "threshold_batches":
            assert torch.equal(back.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "batchtopk", "k": 2}, "Llamascopium has no 'batchtopk'"),
        ({"activation": "relu", "gate": "shared"}, "with a 'shared' gate"),
        ({"activation": "relu", "encode_from": (0,)}, "has no equal elsewhere"),
    ],
)
def test_what_llamascopium_has_not_is_refused(tmp_path, fields, message):
    crosscoder, _, normalisation = drawn(0, **fields)
    with pytest.raises(ValueError, match=message):
        write_llamascopium(crosscoder, tmp_path, normalisation, HOOKS)


def test_what_crosscoder_learning_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no 'jumprelu'"):
        write_crosscoder_learning(drawn(0)[0], tmp_path / "w.pt")


def test_foreign_files_that_cannot_be_read_are_refused(tmp_path):
    crosscoder, _, normalisation = drawn(0)
    write_llamascopium(crosscoder, tmp_path, normalisation, HOOKS)
    with pytest.raises(ValueError, match="has 3 heads but 2 steps are given"):
        read_llamascopium(tmp_path, (0, 1))
    plain = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**plain, "norm_activation": "token-wise"}))
    with pytest.raises(ValueError, match="normalises 'token-wise'"):
        read_llamascopium(tmp_path, STEPS)
    crosscoder, _, _ = drawn(0, activation="batchtopk", k=2)
    path = tmp_path / "w.pt"
    write_crosscoder_learning(crosscoder, path)
    weights = torch.load(path, weights_only=True)
    torch.save({**weights, "activation_mean": torch.zeros(3, 4)}, path)
    with pytest.raises(ValueError, match="scales its activations itself"):
        read_crosscoder_learning(path, STEPS)
    torch.save({**weights, "code_normalization_id": torch.tensor(3)}, path)
    with pytest.raises(ValueError, match="mixed"):
        read_crosscoder_learning(path, STEPS)
