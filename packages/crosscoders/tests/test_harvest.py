"""All snapshots in step: what is kept, in which order, from where, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from meristem_core.testing import seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Harvest,
    SnapshotSet,
    TrainConfig,
    find_snapshots,
    load_normalisation,
    train,
)

VOCABULARY = 17
SITE = "transformer.h.0"


def language_model(seed, **sizes):
    fields = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 6, "n_layer": 2, "n_head": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(GPT2Config(**{**fields, **sizes})).eval()


class Embed(nn.Module):
    """One number per token and position: the activation says which token it is."""

    def __init__(self, factor):
        super().__init__()
        self.site = nn.Identity()
        self.factor = factor

    def forward(self, tokens):
        place = torch.arange(tokens.shape[1]).expand(tokens.shape)
        return self.site(self.factor * torch.stack([tokens, place], dim=-1).float())


def embeds(steps=(0, 10)):
    return SnapshotSet.from_modules({s: Embed(s + 1.0) for s in steps}, "site")


def tokens_of(seed, n=7, length=5, high=100):
    return np.random.default_rng(seed).integers(0, high, (n, length))


@settings(max_examples=40)
@given(
    seed=seeds(),
    n=st.integers(1, 9),
    batch=st.integers(1, 7),
    per_window=st.integers(1, 4),
    epochs=st.integers(1, 3),
    first=st.integers(0, 2),
)
def test_every_kept_token_comes_once_an_epoch(seed, n, batch, per_window, epochs, first):
    tokens = tokens_of(seed, n=n, high=6)
    tokens[0, -1] = 3  # one token is kept in any case
    harvest = Harvest(
        embeds(), tokens, batch_tokens=batch, window_tokens=batch * per_window, epochs=epochs,
        seed=seed, drop_ids=[0, 2], drop_first=first,
    )  # fmt: skip
    found = list(harvest.batches())
    places = [p for b in found for p in zip(b.sequence.tolist(), b.offset.tolist(), strict=True)]
    kept = {
        (r, t) for r in range(n) for t in range(first, 5) if tokens[r, t] not in (0, 2)
    }  # fmt: skip
    assert harvest.epoch_tokens == len(kept)
    assert set(places) == kept
    assert {places.count(p) for p in kept} == {epochs}
    if harvest.window_tokens == 1:
        assert all(set(places[e * len(kept) :][: len(kept)]) == kept for e in range(epochs))
    assert len(found) == len(harvest)
    assert all(len(b.x) == batch for b in found[:-1])
    for b in found:
        values = np.stack([tokens[b.sequence, b.offset], b.offset], -1)
        for s, step in enumerate((0, 10)):
            assert (b.x[:, s].numpy() == (step + 1) * values).all(), "a row is not its token's"


@settings(max_examples=25)
@given(seed=seeds(), step=st.integers(0, 12))
def test_a_stream_from_a_step_is_the_tail_of_the_whole(seed, step):
    snapshots = SnapshotSet.from_modules({0: language_model(0), 5: language_model(1)}, SITE)
    tokens = tokens_of(seed, n=9, length=8, high=VOCABULARY)
    harvest = Harvest(snapshots, tokens, batch_tokens=6, window_tokens=18, seed=seed)
    whole, tail = list(harvest()), list(harvest(step))
    assert len(tail) == len(whole) - step
    assert all(torch.equal(a, b) for a, b in zip(tail, whole[step:], strict=True))
    other = Harvest(snapshots, tokens, batch_tokens=6, window_tokens=18, seed=seed + 1)
    assert not torch.equal(next(other()), whole[0])


def test_activations_are_the_hidden_states_of_the_whole_model():
    snapshots = {0: language_model(0), 5: language_model(1)}
    tokens = torch.from_numpy(tokens_of(0, high=VOCABULARY))
    found = SnapshotSet.from_modules(snapshots, SITE).activations(tokens)
    for s, model in enumerate(snapshots.values()):
        with torch.no_grad():
            hidden = model(tokens, output_hidden_states=True).hidden_states[1]
        assert torch.allclose(found[:, :, s], hidden, atol=1e-6)


def test_a_forward_pass_after_a_stopped_one_is_whole():
    model = language_model(0)
    tokens = torch.arange(6)[None]
    before = model(tokens).logits
    SnapshotSet.from_modules({0: model}, SITE).activations(tokens)
    assert torch.equal(model(tokens).logits, before)


def test_nothing_above_the_site_is_computed():
    model, seen = language_model(0), []
    model.transformer.h[1].register_forward_hook(lambda *_: seen.append(1))
    SnapshotSet.from_modules({0: model}, SITE).activations(torch.zeros(2, 3, dtype=torch.int64))
    assert not seen


def test_estimated_normalisation_gives_root_width():
    tokens = tokens_of(0, n=40, high=VOCABULARY)
    snapshots = SnapshotSet.from_modules({0: language_model(0), 5: language_model(1)}, SITE)
    harvest = Harvest(snapshots, tokens, batch_tokens=16, window_tokens=32)
    normalisation = harvest.estimate_normalisation()
    x = torch.cat(list(harvest.normalised(normalisation)()))
    assert torch.allclose(x.norm(dim=-1).mean(0), torch.full((2,), 6.0).sqrt())
    assert x.shape == (200, 2, 6)


def test_padding_is_not_kept_and_must_come_last():
    tokens, mask = tokens_of(0), np.ones((7, 5), dtype=bool)
    mask[2, 3:] = False
    harvest = Harvest(embeds(), tokens, mask=mask, batch_tokens=4, window_tokens=8)
    assert harvest.epoch_tokens == 33
    places = [(s, t) for b in harvest.batches() for s, t in zip(b.sequence, b.offset, strict=True)]
    assert (2, 3) not in places
    assert (2, 2) in places
    mask[2, 1] = False
    with pytest.raises(ValueError, match="sequence 2 has a token after padding"):
        Harvest(embeds(), tokens, mask=mask)


def test_the_window_may_be_half_as_large():
    tokens = tokens_of(0, high=VOCABULARY)
    snapshots = SnapshotSet.from_modules({0: language_model(0)}, SITE)
    whole, half = (
        Harvest(snapshots, tokens, batch_tokens=35, window_tokens=35, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.window_bytes * 2 == whole.window_bytes == 35 * 6 * 4
    a, b = next(whole()), next(half())
    assert b.dtype == torch.float32
    assert torch.allclose(a, b, rtol=2**-8, atol=0)


def save(folder, model, words=VOCABULARY):
    model.save_pretrained(folder)
    vocabulary = {f"w{i}": i for i in range(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path):
    for step in (4, 0, 128):
        save(tmp_path / f"step-{step:09d}", language_model(step))
    return tmp_path


def test_folders_are_found_by_their_number_and_loaded(folder):
    (folder / "step-7-notes").mkdir()
    paths = find_snapshots(folder)
    assert list(paths) == [0, 4, 128]
    tokens = torch.from_numpy(tokens_of(0, high=VOCABULARY))
    found = SnapshotSet.from_dirs(paths, SITE)
    assert (found.steps, found.d_model, found.vocabulary) == ((0, 4, 128), 6, VOCABULARY)
    expected = SnapshotSet.from_modules({s: language_model(s) for s in paths}, SITE)
    assert torch.equal(found.activations(tokens), expected.activations(tokens))
    in_turn = SnapshotSet.from_dirs(paths, SITE, resident=False)
    assert torch.equal(in_turn.activations(tokens), expected.activations(tokens))


def test_a_revision_is_read_from_the_hub_cache(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    for step, source in find_snapshots(folder).items():
        target = cache / "models--a--b" / "snapshots" / f"{step:040d}"
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        (cache / "models--a--b" / "refs").mkdir(exist_ok=True)
        (cache / "models--a--b" / "refs" / f"step{step}").write_text(target.name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(cache))
    revisions = {0: "step0", 4: "step4", 128: "step128"}
    found = SnapshotSet.from_hub("a/b", revisions, SITE)
    tokens = torch.from_numpy(tokens_of(0, high=VOCABULARY))
    expected = SnapshotSet.from_modules({s: language_model(s) for s in revisions}, SITE)
    assert torch.equal(found.activations(tokens), expected.activations(tokens))
    with pytest.raises(ValueError, match="revision 'step9' of 'a/b' cannot be had"):
        SnapshotSet.from_hub("a/b", {9: "step9"}, SITE)


def test_a_folder_without_snapshots_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no snapshot"):
        find_snapshots(tmp_path)


def test_two_folders_of_one_step_are_refused(folder):
    save(folder / "checkpoint-4", language_model(0))
    with pytest.raises(ValueError, match="both of step 4"):
        find_snapshots(folder)


def test_other_tokenizers_are_refused(folder):
    save(folder / "step-200", language_model(0), words=9)
    with pytest.raises(ValueError, match="tokenizers of steps 0 and 200 differ"):
        SnapshotSet.from_dirs(find_snapshots(folder), SITE)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_embd": 8}, "d_model is 8 at step 5 but 6 at step 0"),
        ({"vocab_size": 20}, "vocabulary is 20 at step 5 but 17 at step 0"),
        ({"n_layer": 9}, "models of steps 0 and 5 differ: one has no 'transformer.h"),
    ],
)
def test_models_of_two_sizes_are_refused(sizes, message):
    models = {0: language_model(0), 5: language_model(1, **sizes)}
    with pytest.raises(ValueError, match=message):
        SnapshotSet.from_modules(models, SITE)


def test_an_unknown_site_lists_the_nearest():
    models = {0: language_model(0), 5: language_model(0, n_layer=1)}
    with pytest.raises(ValueError, match=r"step 5 has no site 'transformer.h.1'.*transformer.h.0"):
        SnapshotSet.from_modules(models, "transformer.h.1")


def test_a_token_outside_of_the_vocabulary_is_refused():
    snapshots = SnapshotSet.from_modules({0: language_model(0)}, SITE)
    with pytest.raises(ValueError, match="token id 17 is outside of the models' vocabulary of 17"):
        next(Harvest(snapshots, np.full((2, 3), 17), batch_tokens=2, window_tokens=2)())


def test_a_broken_activation_is_named():
    model = language_model(0)
    with torch.no_grad():
        model.transformer.wte.weight[5, 2] = float("nan")
    tokens = tokens_of(0, high=5)
    tokens[3, 2:] = 5
    snapshots = SnapshotSet.from_modules({0: language_model(0), 64: model}, SITE)
    with pytest.raises(ValueError, match=r"site 'transformer.h.0' of step 64 is nan"):
        list(Harvest(snapshots, tokens, batch_tokens=5, window_tokens=35)())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_tokens": 0}, "batch_tokens .0. must be at least 1"),
        ({"batch_tokens": 8, "window_tokens": 12}, "multiple of batch_tokens .8.; give 16"),
        ({"epochs": 0}, "epochs"),
        ({"drop_first": -1}, "drop_first"),
        ({"drop_first": 5}, "no token is kept"),
    ],
)
def test_a_bad_plan_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Harvest(embeds(), tokens_of(0), **fields)


def test_parts_share_the_sequences():
    tokens, places = tokens_of(0, n=7), []
    parts = [
        Harvest(embeds(), tokens, batch_tokens=4, window_tokens=8, part=(rank, 3))
        for rank in range(3)
    ]
    for part in parts:
        places += [
            p for b in part.batches() for p in zip(b.sequence, b.offset, strict=True)
        ]  # fmt: skip
    assert sorted(places) == [(n, t) for n in range(7) for t in range(5)]
    assert {len(part) for part in parts} == {3}  # of the smallest, which has 10 tokens
    assert len({part.identity() for part in parts}) == 1
    with pytest.raises(ValueError, match=r"part \(3, 3\) must be"):
        Harvest(embeds(), tokens, part=(3, 3))


def test_training_on_a_harvest_keeps_its_normalisation(tmp_path):
    tokens = tokens_of(0, n=40, high=VOCABULARY)
    snapshots = SnapshotSet.from_modules({0: language_model(0), 5: language_model(1)}, SITE)
    raw = Harvest(snapshots, tokens, batch_tokens=20, window_tokens=40)
    harvest = raw.normalised(raw.estimate_normalisation())
    fields = {"d_model": 6, "n_features": 8, "steps": snapshots.steps}
    config = CrosscoderConfig(**fields, activation="topk", k=2, gate="shared")
    training = TrainConfig(steps=8, penalty="none", checkpoint_every=3)
    whole, cut = Crosscoder(config), Crosscoder(config)
    train(whole, harvest, training)

    def killed(step):
        for place, x in enumerate(harvest(step), start=step):
            if place == 5:
                raise KeyboardInterrupt
            yield x

    killed.identity, killed.normalisation = harvest.identity, harvest.normalisation
    with pytest.raises(KeyboardInterrupt):
        train(cut, killed, training, run_dir=tmp_path)
    saved = load_normalisation(tmp_path)
    assert torch.equal(saved.scale, harvest.normalisation.scale)
    again = Crosscoder(config)
    result = train(again, raw.normalised(saved), training, run_dir=tmp_path)
    assert result.resumed_from == 3
    assert torch.equal(again.W_dec, whole.W_dec)
    other = Harvest(snapshots, tokens[::-1], batch_tokens=20, window_tokens=40)
    with pytest.raises(ValueError, match="batches identity"):
        train(again, other.normalised(saved), training, run_dir=tmp_path)
    with pytest.raises(ValueError, match="there are 10 batches for 11 steps"):
        train(again, harvest, TrainConfig(steps=11, penalty="none"))
