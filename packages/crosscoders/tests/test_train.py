"""Training learns, resumes to the bit and refuses what it cannot use."""

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Normalisation,
    TrainConfig,
    check_memory,
    evaluate,
    initialise,
    l1_penalty,
    load_crosscoder,
    reconstruction_error,
    save_crosscoder,
    strengths,
    tanh_quad_penalty,
    train,
)


def batches(step):
    while True:
        generator = torch.Generator().manual_seed(step)
        codes = torch.rand(64, 6, generator=generator) * (
            torch.rand(64, 6, generator=generator) < 0.3
        )
        yield torch.einsum("bf,sfd->bsd", codes, DIRECTIONS)
        step += 1


DIRECTIONS = 4 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(9))


def fresh(activation="jumprelu", **fields):
    config = CrosscoderConfig(
        d_model=5, n_features=12, steps=(0, 10, 100), activation=activation, **fields
    )
    crosscoder = Crosscoder(config)
    initialise(crosscoder, next(batches(0)))
    return crosscoder


def same(a, b):
    b = b.state_dict()
    return all(torch.equal(v, b[k]) for k, v in a.state_dict().items())


CASES = {
    "jumprelu": ({}, {"preactivation": 1e-3}),
    "batchtopk": ({"k": 3}, {"penalty": "none"}),
    "topk": ({"k": 3, "gate": "shared"}, {"penalty": "none"}),
    "relu": ({}, {"penalty": "l1", "sparsity": 1e-3}),
}


@pytest.mark.parametrize("activation", CASES)
def test_training_explains_variance_it_did_not_explain_before(activation):
    model, training = CASES[activation]
    crosscoder = fresh(activation, **model)
    held_out = next(batches(10**6))
    crosscoder.train()
    before = evaluate(crosscoder, [held_out]).explained_variance
    train(crosscoder, batches, TrainConfig(steps=250, lr=1e-2, dead_after=2000, **training))
    after = evaluate(crosscoder, [held_out])
    assert (after.explained_variance > before + 0.2).all()
    assert (after.explained_variance > 0.7).all()


@pytest.mark.parametrize("activation", CASES)
@pytest.mark.parametrize("stop", [1, 4, 5, 9, 10])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, activation, stop):
    model, training = CASES[activation]
    config = TrainConfig(steps=10, lr=1e-2, dead_after=128, checkpoint_every=2, **training)
    whole = fresh(activation, **model)
    result = train(whole, batches, config)

    def failing(step):
        for place, batch in enumerate(batches(step), start=step):
            if place == stop:
                raise KeyboardInterrupt
            yield batch

    if stop < 10:
        with pytest.raises(KeyboardInterrupt):
            train(fresh(activation, **model), failing, config, run_dir=tmp_path)
    else:
        train(fresh(activation, **model), batches, config, run_dir=tmp_path)
    other = Crosscoder(whole.config)  # another start, which the checkpoint replaces
    if stop < 2:
        other = fresh(activation, **model)
    again = train(other, batches, config, run_dir=tmp_path)
    assert again.resumed_from == stop - stop % 2
    assert same(other, whole)
    assert torch.equal(again.tokens_since_fired, result.tokens_since_fired)
    saved = load_crosscoder(tmp_path / "step-00000010" / "crosscoder.safetensors")
    assert same(saved, whole)


def test_progress_is_told_and_does_not_change_the_run():
    seen, config = [], TrainConfig(steps=7, progress_every=3, lr=1e-2)
    silent, told = fresh(), fresh()
    train(silent, batches, config)
    train(told, batches, config, progress=seen.append)
    assert [p.step for p in seen] == [3, 6, 7]
    assert all(p.loss >= p.reconstruction > 0 and p.l0.shape == (3,) for p in seen)
    assert same(silent, told)


def test_the_schedule_rises_stays_and_falls():
    config = TrainConfig(steps=100, lr=1.0, warmup=0.1, cooldown=0.2, sparsity=2.0)
    rates = [config.lr_at(s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:80] == [1.0] * 71
    assert rates[90] == pytest.approx(1 / 32 + 31 / 32 / 2)
    assert all(a > b for a, b in pairwise(rates[80:]))
    assert [config.sparsity_at(s) for s in (0, 5, 10, 99)] == pytest.approx([0, 1, 2, 2])


def test_the_batchtopk_threshold_is_the_mean_of_the_smallest_selected_values():
    crosscoder = fresh("batchtopk", k=2, gate="shared")
    least = []
    for batch, _ in zip(batches(0), range(3), strict=False):
        codes = crosscoder.encode(batch)
        u = (codes.preactivation * crosscoder.gate_norms()[:, 0])[codes.value[..., 0] != 0]
        least.append(float(u.detach().min()))
        crosscoder.update_threshold(u.detach().min()[None])
    assert float(crosscoder.inference_threshold) == pytest.approx(sum(least) / 3, rel=1e-5)


def test_dead_features_are_counted_in_tokens():
    crosscoder, seen = fresh(), []
    with torch.no_grad():
        crosscoder.b_enc[:4] = -1e6
    config = TrainConfig(steps=5, dead_after=256, progress_every=1, lr=0.0)
    result = train(crosscoder, batches, config, progress=seen.append)
    assert result.tokens_since_fired[:4].tolist() == [320] * 4
    assert [p.dead >= 4 for p in seen] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        (("topk", {"k": 2}), {}, "counts sparsity twice"),
        (("relu", {}), {"preactivation": 1.0}, "needs thresholds"),
    ],
)
def test_what_does_not_go_together_is_refused(model, training, message):
    with pytest.raises(ValueError, match=message):
        train(fresh(model[0], **model[1]), batches, TrainConfig(steps=1, **training))


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({}, {"lr": 0.1}, r"training lr = 0.0003, this run has 0.1"),
        ({"seed": 1}, {}, r"crosscoder seed = 0, this run has 1"),
    ],
)
def test_another_run_in_the_folder_is_refused(tmp_path, model, training, message):
    train(fresh(), batches, TrainConfig(steps=2), run_dir=tmp_path)
    with pytest.raises(ValueError, match=message):
        train(fresh(**model), batches, TrainConfig(steps=2, **training), run_dir=tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_activation_is_named(value):
    def broken(step):
        batch = next(batches(step))
        batch[7, 1, 2] = value
        yield batch

    with pytest.raises(ValueError, match=r"step 0 holds (nan|inf) at token 7, snapshot 1"):
        train(fresh(), broken, TrainConfig(steps=1))


def test_batches_that_end_early_are_refused():
    with pytest.raises(ValueError, match="end after 0 of 3 steps"):
        train(fresh(), lambda step: iter(()), TrainConfig(steps=3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_features": 0}, "n_features"),
        ({"steps": (3, 1)}, "must increase"),
        ({"activation": "topk"}, "k .None. must lie"),
        ({"activation": "topk", "k": 9}, "k .9. must lie"),
        ({"k": 2}, "no meaning"),
        ({"ste_width": 0.0}, "ste_width"),
    ],
)
def test_a_bad_config_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CrosscoderConfig(**{"d_model": 4, "n_features": 8, "steps": (0, 1), **fields})


def test_batchtopk_needs_a_threshold_to_infer():
    with pytest.raises(ValueError, match="unknown before training"):
        fresh("batchtopk", k=2).eval().encode(next(batches(0)))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "crosscoder.safetensors"
    path.write_bytes(b"no tensors here")
    with pytest.raises(ValueError, match="damaged"):
        load_crosscoder(path)


PROGRAM = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_train import KILLED, batches, fresh
from meristem_crosscoders import train

def mortal(step):
    for place, batch in enumerate(batches(step), start=step):
        if place == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

train(fresh(), mortal, KILLED, run_dir=sys.argv[2])
"""
KILLED = TrainConfig(steps=12, lr=1e-2, dead_after=200, checkpoint_every=3, clip=1.0, parity=True)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", PROGRAM, here, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    whole, again = fresh(), fresh()
    train(whole, batches, KILLED)
    assert train(again, batches, KILLED, run_dir=tmp_path).resumed_from == 6
    assert same(again, whole)


@pytest.mark.parametrize("activation", CASES)
def test_steps_are_those_of_torch_adam_on_the_dense_losses(activation):
    model, _ = CASES[activation]
    crosscoder, other = fresh(activation, **model), fresh(activation, **model)
    kind = {"topk": "none", "batchtopk": "none", "relu": "l1"}.get(activation, "tanh_quad")
    config = TrainConfig(
        steps=5, lr=1e-2, penalty=kind, sparsity=0.1, auxk=0.0, clip=0.5, threshold_lr_ratio=1.0
    )
    train(crosscoder, batches, config)
    optimizer = torch.optim.Adam(other.parameters())
    stream = batches(0)
    for step in range(5):
        x = next(stream)
        codes = other.train().encode(x)
        loss = reconstruction_error(other.decode(codes.value), x)
        if kind != "none":
            penalty = {"l1": l1_penalty, "tanh_quad": tanh_quad_penalty}[kind]
            loss = loss + config.sparsity_at(step) * penalty(strengths(other, codes))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(step)
        optimizer.step()
    for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
        found, expected = crosscoder.get_parameter(name), other.get_parameter(name)
        assert torch.allclose(found, expected, atol=2e-4), f"{name} moved otherwise"


def test_parity_moves_the_bias_as_often_as_there_are_snapshots():
    plain, parity, config = fresh("relu"), fresh("relu"), {"steps": 1, "penalty": "l1"}
    train(plain, batches, TrainConfig(**config))
    train(parity, batches, TrainConfig(**config, parity=True))
    assert torch.allclose(parity.b_enc, 3 * plain.b_enc, rtol=1e-5)
    assert torch.equal(parity.W_enc, plain.W_enc)


class Source:
    """Batches with an identity, a length and a normalisation, as a harvest has."""

    def __init__(self, name="a", length=100, scale=1.0):
        self.name, self.length = name, length
        self.normalisation = Normalisation(scale=torch.full((3,), scale), mean=torch.zeros(3, 5))

    def __call__(self, step):
        return batches(step)

    def __len__(self):
        return self.length

    def identity(self):
        return self.name


def test_too_few_batches_are_refused_before_the_first():
    with pytest.raises(ValueError, match="there are 4 batches for 5 steps"):
        train(fresh(), Source(length=4), TrainConfig(steps=5))


@pytest.mark.parametrize(
    ("other", "message"),
    [({"name": "b"}, "batches identity = 'a'"), ({"scale": 2.0}, "another normalisation")],
)
def test_another_corpus_or_normalisation_is_refused(tmp_path, other, message):
    train(fresh(), Source(), TrainConfig(steps=2), run_dir=tmp_path)
    train(fresh(), Source(), TrainConfig(steps=2), run_dir=tmp_path)
    with pytest.raises(ValueError, match=message):
        train(fresh(), Source(**other), TrainConfig(steps=2), run_dir=tmp_path)


def test_a_dictionary_larger_than_memory_is_refused_before_it_is_made():
    config = CrosscoderConfig(d_model=4096, n_features=2**30, steps=(0, 1, 2, 3))
    with pytest.raises(ValueError, match=r"needs 131080\.0 GiB, .* GiB are free"):
        Crosscoder(config)
    with pytest.raises(ValueError, match=r"training needs 405528\.3 GiB, .* GiB are free"):
        check_memory(config, batch_tokens=1024)


def test_parts_are_trained_where_the_others_are():
    part = Crosscoder(fresh().config, part=(0, 2))
    with pytest.raises(ValueError, match=r"trains part \(0, 1\) .* is part \(0, 2\)"):
        train(part, batches, TrainConfig(steps=1))
    with pytest.raises(ValueError, match=r"part is \(2, 2\); give \(rank, processes\)"):
        Crosscoder(fresh().config, part=(2, 2))
    with pytest.raises(ValueError, match=r"cannot be cut evenly over 5 processes; take"):
        Crosscoder(fresh().config, part=(0, 5))


def test_encoding_some_snapshots_rebuilds_all(tmp_path):
    crosscoder = fresh("topk", k=3, gate="shared", encode_from=(0, 10))
    train(crosscoder, batches, TrainConfig(steps=150, lr=1e-2, penalty="none"))
    x = next(batches(0))
    blind = x.clone()
    blind[:, 2] = torch.randn(64, 5)
    assert torch.equal(crosscoder(x), crosscoder(blind)), "the third snapshot entered the codes"
    assert (evaluate(crosscoder, [x]).explained_variance > 0.5).all()
    save_crosscoder(crosscoder, tmp_path / "c.safetensors")
    assert same(crosscoder, load_crosscoder(tmp_path / "c.safetensors"))


def test_encoding_an_unknown_snapshot_is_refused():
    with pytest.raises(ValueError, match=r"encode_from \(5,\) must name some of steps"):
        fresh("relu", encode_from=(5,))
