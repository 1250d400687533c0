"""Training learns, resumes to the bit and refuses what it cannot use."""

from itertools import pairwise

import pytest
import torch

from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    TrainConfig,
    evaluate,
    initialise,
    load_crosscoder,
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


def test_another_run_in_the_folder_is_refused(tmp_path):
    train(fresh(), batches, TrainConfig(steps=2), run_dir=tmp_path)
    with pytest.raises(ValueError, match=r"training lr = 0.0003, this run has 0.1"):
        train(fresh(), batches, TrainConfig(steps=2, lr=0.1), run_dir=tmp_path)


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
