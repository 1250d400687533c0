"""Matching features, thinning snapshots, warm-ups, and a snapshot that was not trained on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.testing import assert_close, permutations, seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    TrainConfig,
    assign_features,
    compare_emergence,
    evaluate,
    every_second,
    feature_cosines,
    held_out_snapshot,
    initialise,
    lifecycle,
    match_features,
    spacing_sensitivity,
    train,
    warmup_effect,
)


def random_crosscoder(seed, *, F=12, steps=(0, 1, 2), D=6, **config):
    generator = torch.Generator().manual_seed(seed)
    crosscoder = Crosscoder(
        CrosscoderConfig(**{"activation": "relu"} | config, d_model=D, n_features=F, steps=steps)
    )
    with torch.no_grad():
        for parameter in (crosscoder.W_enc, crosscoder.W_dec, crosscoder.b_dec):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return crosscoder.requires_grad_(False)


def permuted(crosscoder, order, noise=0.0):
    other = Crosscoder(crosscoder.config)
    state = {name: tensor.clone() for name, tensor in crosscoder.state_dict().items()}
    for name in ("W_enc", "W_dec", "b_enc"):
        state[name] = state[name][order]
    state["W_dec"] += noise
    other.load_state_dict(state)
    return other.requires_grad_(False)


@settings(max_examples=25)
@given(seed=seeds(), order=permutations(12), log2=st.integers(-3, 3))
def test_a_permuted_and_rescaled_dictionary_matches_whole(seed, order, log2):
    a = random_crosscoder(seed, D=16)
    order = torch.from_numpy(order)
    b = permuted(a, order)
    b.W_dec *= 2.0**log2
    for match in (match_features, assign_features):
        found = match(a, b, rng=np.random.default_rng(seed), n_permutations=19)
        assert found.partner.tolist() == order.argsort().tolist()
        assert_close(found.cosine, torch.ones(12), scale=10.0)
        assert (found.shared().estimate, found.p_value()) == (1.0, 0.05)
        assert found.to_frame()["matched"].all()


@settings(max_examples=30)
@given(seed=seeds(), F=st.integers(1, 9), G=st.integers(1, 9))
def test_nearest_and_assigned_are_what_they_say(seed, F, G):
    a, b = random_crosscoder(seed, F=F), random_crosscoder(seed + 1, F=G)
    cosines = torch.nn.functional.normalize(a.W_dec.flatten(1)) @ torch.nn.functional.normalize(
        b.W_dec.flatten(1)
    ).T  # fmt: skip
    rng = np.random.default_rng(seed)
    nearest = match_features(a, b, rng=rng, n_permutations=2, threshold=-1.0)
    assert_close(nearest.cosine, cosines.max(1).values, scale=10.0)
    for i in range(F):
        j = int(cosines[i].argmax())
        assert nearest.partner[i] == (j if int(cosines[:, j].argmax()) == i else -1)
    assigned = assign_features(a, b, rng=rng, n_permutations=2, threshold=-1.0)
    chosen = assigned.partner[assigned.partner >= 0]
    assert len(chosen) == len(set(chosen.tolist())) == min(F, G)
    greedy = sum(float(cosines[i, i]) for i in range(min(F, G)))
    assert float(assigned.cosine.sum()) >= greedy - 1e-5


def test_unrelated_dictionaries_look_like_the_null():
    values = [
        match_features(
            random_crosscoder(seed, F=40),
            random_crosscoder(seed + 100, F=40),
            rng=np.random.default_rng(seed),
            n_permutations=19,
        ).p_value()
        for seed in range(20)
    ]
    assert 0.25 < np.mean(values) < 0.8  # uniform on 0.05, 0.1, ..., 1: mean 0.525, sd 0.065
    assert max(values) > 0.5


def test_dead_features_and_other_runs_are_left_out():
    a = random_crosscoder(0)
    alive = torch.arange(12) < 8
    found = match_features(a, a, rng=np.random.default_rng(0), alive_a=alive, alive_b=~alive)
    assert not (found.partner[found.partner >= 0] < 8).any()
    assert found.shared().estimate == 0
    with pytest.raises(ValueError, match="no rows to compare"):
        match_features(a, random_crosscoder(1, steps=(7, 8)), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="no feature is alive"):
        match_features(a, a, rng=np.random.default_rng(0), alive_a=alive & ~alive)


def test_only_common_snapshots_are_compared():
    a = random_crosscoder(0, steps=(0, 1, 2, 3))
    b = Crosscoder(CrosscoderConfig(d_model=6, n_features=12, steps=(1, 3), activation="relu"))
    with torch.no_grad():
        b.W_dec.copy_(a.W_dec[:, [1, 3]])
    found = match_features(a, b, rng=np.random.default_rng(0))
    assert found.partner.tolist() == list(range(12))


def test_features_of_two_seeds_match_more_than_chance_on_the_grown_model(grown):
    other = Crosscoder(
        CrosscoderConfig(
            d_model=32, n_features=96, steps=grown.crosscoder.config.steps, activation="topk",
            k=6, seed=1,
        )
    )  # fmt: skip
    x = grown.normalised
    initialise(other, x[:512])

    def batches(step):
        while True:
            yield x[(torch.arange(256) * 17 + step * 256) % len(x)]
            step += 1

    train(other, batches, TrainConfig(steps=150, lr=5e-3, penalty="none", dead_after=20_000))
    alive = [evaluate(each, [x]).frequency > 0.001 for each in (grown.crosscoder, other)]
    found = match_features(
        grown.crosscoder, other, rng=np.random.default_rng(0), alive_a=alive[0], alive_b=alive[1]
    )
    assert found.p_value() < 0.05
    assert found.mean_cosine() > float(found.null.max()) + 0.1
    lives = [
        lifecycle(each.norms().detach(), alive=mask)
        for each, mask in zip((grown.crosscoder, other), alive, strict=True)
    ]
    steps = grown.crosscoder.config.steps
    agreement = compare_emergence(
        *lives, found, steps_a=steps, steps_b=steps, rng=np.random.default_rng(0)
    )
    assert agreement.features == int(found.matched().sum())
    assert agreement.correlation.estimate > 0
    assert agreement.same.estimate > 0.4


@settings(max_examples=25)
@given(seed=seeds(), S=st.integers(3, 8), data=st.data())
def test_emergence_of_fewer_snapshots_is_never_earlier(seed, S, data):
    generator = torch.Generator().manual_seed(seed)
    norms = torch.rand(20, S, generator=generator).cummax(1).values + 0.01  # monotone: no peak lost
    steps = tuple(2**s for s in range(S))
    cosines = feature_cosines(torch.randn(20, S, 4, generator=generator))
    inner = data.draw(st.sets(st.sampled_from(steps[:-1]), min_size=2))
    choice = tuple(sorted({*inner, steps[-1]}))
    alive = torch.ones(20, dtype=torch.bool)
    whole, thinned = spacing_sensitivity(
        norms, cosines, steps, (steps, choice), alive=alive, rng=np.random.default_rng(seed)
    )
    assert whole.same_emergence.estimate == 1
    assert thinned.same_emergence.estimate == 1  # a monotone norm keeps its largest value
    assert sum(thinned.counts.values()) == 20
    assert thinned.turning_step in choice[1:]
    assert thinned.steps == choice


def test_every_second_keeps_both_ends():
    assert every_second((0, 1, 2, 4, 8)) == (0, 2, 8)
    assert every_second((0, 1, 2, 4)) == (0, 1, 4)


def turned(steps, at, *, F=40, seed=0):
    """Cosines of features that point one way before a step and another way from it on."""
    generator = torch.Generator().manual_seed(seed)
    early, late = torch.randn(2, F, 1, 16, generator=generator)
    side = torch.tensor([float(step >= at) for step in steps])[:, None]
    noise = 0.1 * torch.randn(F, len(steps), 16, generator=generator)
    return feature_cosines(early * (1 - side) + late * side + noise)


def test_the_warm_up_is_followed_or_ignored():
    steps = (0, 10, 20, 40, 80, 160, 320, 640)
    followed = {w: (steps, turned(steps, 4 * w)) for w in (10, 40, 160)}
    found = warmup_effect(followed, rng=np.random.default_rng(0), n_resamples=50)
    assert found.turning_steps == (40, 160, 640)
    assert found.elasticity.estimate == pytest.approx(1.0)
    assert found.elasticity.low == pytest.approx(1.0)
    ignored = {w: (steps, turned(steps, 80)) for w in (10, 40)}
    found = warmup_effect(ignored, rng=np.random.default_rng(0), n_resamples=50)
    assert found.elasticity.high == pytest.approx(0.0)
    assert found.to_frame()["warmup"].tolist() == [10, 40]
    with pytest.raises(ValueError, match="two or more"):
        warmup_effect({10: followed[10]}, rng=np.random.default_rng(0))


@settings(max_examples=40)
@given(
    seed=seeds(),
    activation=st.sampled_from(("jumprelu", "topk", "relu")),
    gate=st.sampled_from(("snapshot", "shared")),
)
def test_a_snapshot_on_the_line_between_is_rebuilt_like_its_neighbours(seed, activation, gate):
    """The held-out activation is the interpolated decoding itself: explained to the last digit."""
    k = {"k": 3} if activation == "topk" else {}
    crosscoder = random_crosscoder(seed, steps=(0, 3, 99), activation=activation, gate=gate, **k)
    crosscoder.W_dec[:, 1] = crosscoder.W_dec[:, 0]  # one gate for 0, 3 and all between
    crosscoder.b_dec[1] = crosscoder.b_dec[0] + 1
    x = torch.randn(30, 3, 6, generator=torch.Generator().manual_seed(seed))
    held = crosscoder(x)[:, 0] + 0.5  # step 1 is half-way from 0 to 3 in log(1 + step)
    if not held.std(0).any():
        return
    found = held_out_snapshot(crosscoder, [(x[:9], held[:9]), (x[9:], held[9:])], step=1)
    assert found.interpolated == pytest.approx(1, abs=1e-9)
    assert found.before == pytest.approx(found.after, abs=1e-4)
    assert found.before < 1
    codes = crosscoder.encode(x).value[..., 0]
    assert found.l0 == pytest.approx(float((codes != 0).sum()) / 30)


def test_the_explained_variance_of_a_known_snapshot_is_evaluates(grown):
    """Asked just beside a known step, the interpolation is that snapshot, as evaluate sees it."""
    config = grown.crosscoder.config
    wide = Crosscoder(
        CrosscoderConfig(
            d_model=32, n_features=96, steps=tuple(s * 10**9 for s in (0, 1, 2, 3)),
            activation="topk", k=config.k,
        )
    )  # fmt: skip
    wide.load_state_dict(grown.crosscoder.state_dict())
    x = grown.normalised[:1000]
    found = held_out_snapshot(wide.eval(), [(x, x[:, 1])], step=10**9 + 1)
    quality = evaluate(grown.crosscoder, [x])
    assert found.interpolated == pytest.approx(float(quality.explained_variance[1]), abs=1e-5)
    assert found.after < found.before == pytest.approx(found.interpolated, abs=1e-5)
    assert found.to_frame()["decoder"].tolist() == ["before", "after", "interpolated"]


def test_what_is_no_held_out_snapshot_is_refused(grown):
    x = grown.normalised[:4]
    for step in (0, 20, 301, -1):
        with pytest.raises(ValueError, match="strictly between"):
            held_out_snapshot(grown.crosscoder, [(x, x[:, 0])], step=step)
    with pytest.raises(ValueError, match="folded"):
        held_out_snapshot(grown.folded, [(x, x[:, 0])], step=30)
    with pytest.raises(ValueError, match="no variance"):
        held_out_snapshot(grown.crosscoder, [(x[:1], x[:1, 0])], step=30)
    with pytest.raises(ValueError, match="3 or more"):
        spacing_sensitivity(
            torch.ones(2, 4), torch.ones(2, 4, 4), (0, 1, 2, 3), [(0, 1)],
            alive=torch.ones(2, dtype=torch.bool), rng=np.random.default_rng(0),
        )  # fmt: skip
