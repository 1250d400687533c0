"""Laws of the crosscoder, its losses, its folding and the life of features."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meristem_core.testing import assert_close, permutations, rngs, seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Normalisation,
    auxk_loss,
    dimensionality,
    estimate_normalisation,
    evaluate,
    feature_cosines,
    fold_normalisation,
    join_crosscoders,
    l1_penalty,
    lifecycle,
    load_crosscoder,
    open_codes,
    reconstruction_error,
    rotation,
    save_crosscoder,
    strengths,
    tanh_penalty,
    tanh_quad_penalty,
    turning_point,
)

ACTIVATIONS = ("jumprelu", "topk", "batchtopk", "relu")


@st.composite
def configs(draw, activations=ACTIVATIONS, code_norms=("sum", "l2", "none")):
    """Draw the fields of a configuration; made into one by `drawn`, as beartype draws randomly."""
    activation, F = draw(st.sampled_from(activations)), draw(st.integers(1, 8))
    selects = activation in ("topk", "batchtopk")
    return SimpleNamespace(
        d_model=draw(st.integers(1, 5)),
        n_features=F,
        steps=tuple(range(draw(st.integers(1, 4)))),
        activation=activation,
        k=draw(st.integers(1, F)) if selects else None,
        gate=draw(st.sampled_from(("snapshot", "shared"))),
        code_norm=draw(st.sampled_from(code_norms)),
        threshold_init=draw(st.floats(0.01, 1)),
        ste_width=draw(st.floats(0.05, 4)),
    )


def random_crosscoder(config, generator):
    """Every parameter random, float64."""
    crosscoder = Crosscoder(CrosscoderConfig(**vars(config))).double()
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return crosscoder


def random_batch(config, generator, tokens=6):
    shape = (tokens, len(config.steps), config.d_model)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def least_open(crosscoder, codes):
    """Return the smallest selected z n of each gate."""
    u = codes.preactivation[..., None] * crosscoder.gate_norms()
    is_open = codes.value[..., : u.shape[-1]] != 0
    return torch.where(is_open, u, torch.inf).amin((0, 1)).detach()


def drawn(config, seed):
    generator = torch.Generator().manual_seed(seed)
    return random_crosscoder(config, generator), random_batch(config, generator)


@given(config=configs(), seed=seeds())
def test_codes_are_the_definition_written_out(config, seed):
    crosscoder, x = drawn(config, seed)
    codes = crosscoder.encode(x)
    z = torch.einsum("bsd,fsd->bf", x, crosscoder.W_enc) + crosscoder.b_enc
    assert_close(codes.preactivation, z, scale=10.0)
    n = crosscoder.W_dec.norm(dim=-1)
    combined = {"sum": n.sum(1), "l2": n.square().sum(1).sqrt(), "none": torch.ones_like(z[0])}
    for s in range(len(config.steps)):
        u = z * (n[:, s] if config.gate == "snapshot" else combined[config.code_norm])
        if config.activation == "jumprelu":
            is_open = u > crosscoder.log_threshold.exp()
        elif config.activation == "relu":
            is_open = u > 0
        elif config.activation == "topk":
            is_open = (u >= u.topk(config.k, dim=1).values[:, -1:]) & (u > 0)
        else:
            is_open = (u >= u.flatten().topk(config.k * len(x)).values[-1]) & (u > 0)
        assert_close(codes.value[..., s], torch.where(is_open, z, 0), scale=10.0)
        rebuilt = codes.value[..., s] @ crosscoder.W_dec[:, s] + crosscoder.b_dec[s]
        assert_close(crosscoder(x)[:, s], rebuilt, scale=100.0)


@given(config=configs(), seed=seeds(), tokens=st.integers(1, 6))
def test_open_codes_list_what_encode_has_as_an_array(config, seed, tokens):
    crosscoder, x = drawn(config, seed)
    dense, listed = crosscoder.encode(x[:tokens]), open_codes(crosscoder, x[:tokens])
    F, S = config.n_features, len(config.steps)
    for s in range(S):
        assert_close(listed.at(s, F), dense.value[..., s], scale=10.0)
    assert_close(listed.union(F), dense.value.amax(-1), scale=10.0)
    assert_close(listed.l0().expand(S), dense.l0())
    at = [listed.feature[a:b] for a, b in zip(listed.offsets(), listed.offsets()[1:], strict=False)]
    assert torch.cat(at).equal(dense.fired().nonzero()[:, 1])


@given(config=configs(("topk", "batchtopk")), seed=seeds())
def test_selection_counts_and_order(config, seed):
    crosscoder, x = drawn(config, seed)
    codes = crosscoder.encode(x)
    u = codes.preactivation[..., None] * crosscoder.gate_norms()
    is_open = codes.value[..., : u.shape[-1]] != 0
    dims, k = ((1,), config.k) if config.activation == "topk" else ((0, 1), config.k * len(x))
    positive = (u > 0).sum(dims)
    assert (is_open.sum(dims) == positive.clamp(max=k)).all()
    least = torch.where(is_open, u, torch.inf).amin(dims, keepdim=True)
    assert (torch.where(is_open, -torch.inf, u) <= least).all()


@given(k=st.integers(1, 6), tokens=st.integers(1, 4))
def test_ties_go_to_the_lowest_feature(k, tokens):
    config = CrosscoderConfig(d_model=2, n_features=6, steps=(0,), activation="topk", k=k)
    crosscoder = Crosscoder(config)
    with torch.no_grad():
        crosscoder.W_enc.fill_(1)
        crosscoder.W_dec.fill_(1)
    codes = crosscoder.encode(torch.ones(tokens, 1, 2))
    assert (codes.value[..., 0] != 0).tolist() == [[i < k for i in range(6)]] * tokens


@given(config=configs(), seed=seeds(), data=st.data())
def test_permuting_snapshots_permutes_the_outputs(config, seed, data):
    crosscoder, x = drawn(config, seed)
    order = torch.from_numpy(data.draw(permutations(len(config.steps))))
    other = Crosscoder(crosscoder.config).double()
    state = crosscoder.state_dict()
    for name in ("W_enc", "W_dec"):
        state[name] = state[name][:, order]
    state["b_dec"] = state["b_dec"][order]
    other.load_state_dict(state)
    assert_close(
        other.encode(x[:, order]).value, crosscoder.encode(x).value[..., order], scale=10.0
    )
    assert_close(other(x[:, order]), crosscoder(x)[:, order], scale=100.0)


@given(config=configs(), seed=seeds(), data=st.data())
def test_permuting_features_permutes_codes_and_gradients(config, seed, data):
    crosscoder, x = drawn(config, seed)
    order = torch.from_numpy(data.draw(permutations(config.n_features)))
    other = Crosscoder(crosscoder.config).double()
    state = {k: v.clone() for k, v in crosscoder.state_dict().items()}
    for name in state.keys() & {"W_enc", "W_dec", "b_enc", "log_threshold"}:
        state[name] = state[name][order]
    other.load_state_dict(state)
    assert_close(other.encode(x).value, crosscoder.encode(x).value[:, order], scale=10.0)
    assert_close(other.norms(), crosscoder.norms()[order])
    for model in (crosscoder, other):
        loss = reconstruction_error(model(x), x)
        (loss + tanh_quad_penalty(strengths(model, model.encode(x)))).backward()
    size = float(crosscoder.W_enc.grad.abs().max())
    assert_close(other.W_enc.grad, crosscoder.W_enc.grad[order], scale=10 * size)
    size = float(crosscoder.W_dec.grad.abs().max())
    assert_close(other.W_dec.grad, crosscoder.W_dec.grad[order], scale=10 * size)


@given(config=configs(code_norms=("sum", "l2")), seed=seeds(), log2=st.integers(-6, 6))
def test_rescaling_encoder_against_decoder_changes_nothing(config, seed, log2):
    crosscoder, x = drawn(config, seed)
    before, rebuilt = crosscoder.encode(x), crosscoder(x)
    y = strengths(crosscoder, before)
    with torch.no_grad():  # a power of two, so that no rounding moves a gate
        crosscoder.W_dec[0] *= 2.0**log2
        crosscoder.W_enc[0] /= 2.0**log2
        crosscoder.b_enc[0] /= 2.0**log2
    after = crosscoder.encode(x)
    assert ((after.value != 0) == (before.value != 0)).all()
    assert_close(crosscoder(x), rebuilt, scale=100.0)
    for penalty in (tanh_penalty, tanh_quad_penalty, l1_penalty):
        assert_close(
            penalty(strengths(crosscoder, after)), penalty(y), scale=float(penalty(y.detach()))
        )


@given(config=configs(("jumprelu",)), seed=seeds(), penalised=st.booleans())
def test_threshold_gradient_is_the_straight_through_formula(config, seed, penalised):
    crosscoder, x = drawn(config, seed)
    codes = crosscoder.encode(x)
    rebuilt = crosscoder.decode(codes.value)
    loss = reconstruction_error(rebuilt, x)
    if penalised:
        loss = loss + tanh_penalty(strengths(crosscoder, codes), slope=2.0)
    loss.backward()
    with torch.no_grad():
        n, B, S = crosscoder.norms(), len(x), len(config.steps)
        dL_dx = 2 * (rebuilt - x) / (B * S)
        dL_df = torch.einsum("bsd,fsd->bfs", dL_dx, crosscoder.W_dec)
        if penalised:
            y = codes.value * n
            dL_df += n * 2.0 * (1 - (2.0 * y).tanh() ** 2) / (B * S)
        gate_n = crosscoder.gate_norms()
        per_gate = dL_df if config.gate == "snapshot" else dL_df.sum(-1, keepdim=True)
        t, u = crosscoder.log_threshold.exp(), codes.preactivation[..., None] * gate_n
        window = ((u - t[:, None]).abs() < config.ste_width / 2) & (u > 0)
        expected = -(t**2) / config.ste_width * (window * per_gate / gate_n).sum((0, 2))
    size = float(expected.abs().max()) + float(per_gate.abs().max()) / config.ste_width
    assert_close(crosscoder.log_threshold.grad, expected, scale=100 * size)
    silent = ~window.any(2).any(0)
    assert (crosscoder.log_threshold.grad[silent] == 0).all()


@pytest.mark.parametrize("gate", ["snapshot", "shared"])
def test_silent_features_below_the_threshold_still_move_it(gate):
    config = SimpleNamespace(d_model=3, n_features=8, steps=(0, 1), gate=gate, ste_width=100.0)
    crosscoder, x = drawn(config, 0)
    with torch.no_grad():
        crosscoder.log_threshold.fill_(np.log(45.0))  # above every u, inside the window
    codes = crosscoder.encode(x)
    reconstruction_error(crosscoder.decode(codes.value), x).backward()
    assert not codes.value.any()
    assert crosscoder.W_enc.grad.abs().max() == 0
    assert crosscoder.log_threshold.grad[(codes.preactivation > 0).any(0)].abs().min() > 0


def test_a_zero_row_gives_no_nan():
    config = SimpleNamespace(d_model=3, n_features=4, steps=(0, 1))
    crosscoder, x = drawn(config, 0)
    with torch.no_grad():
        crosscoder.W_dec[1, 0] = 0
        crosscoder.W_dec[2] = 0
    codes = crosscoder.encode(x)
    y = strengths(crosscoder, codes)
    (reconstruction_error(crosscoder.decode(codes.value), x) + tanh_quad_penalty(y)).backward()
    assert all(p.grad.isfinite().all() for p in crosscoder.parameters())
    assert codes.value[:, 2].abs().max() == 0


@settings(max_examples=60)  # a gradcheck is many forward passes
@given(config=configs(), seed=seeds())
def test_gradients_agree_with_finite_differences(config, seed):
    crosscoder, x = drawn(config, seed)
    names = ("W_enc", "b_enc", "W_dec", "b_dec")

    def loss(*values):
        pairs = dict(zip(names, values, strict=True))
        rebuilt = torch.func.functional_call(crosscoder, pairs, (x,))
        return (rebuilt - x).square().mean()

    u = crosscoder.encode(x).preactivation[..., None] * crosscoder.gate_norms()
    edges = u.abs().flatten()
    if config.activation == "jumprelu":
        edges = (u - crosscoder.log_threshold.exp()[:, None]).abs().flatten()
    gaps = u.transpose(0, 2).flatten(1).sort(dim=1).values.diff(dim=1)
    assume(edges.min() > 1e-3 and (config.k is None or not gaps.numel() or gaps.min() > 1e-3))
    values = tuple(getattr(crosscoder, name).detach().clone().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(loss, values, fast_mode=True, eps=1e-7, atol=1e-4)


@given(config=configs(), seed=seeds(), alive=st.integers(0, 8))
def test_auxk_reaches_the_encoder_of_dead_features_only(config, seed, alive):
    crosscoder, x = drawn(config, seed)
    codes = crosscoder.encode(x)
    dead = torch.arange(config.n_features) >= alive
    error = x - crosscoder.decode(codes.value)
    loss = auxk_loss(crosscoder, codes, error, dead, k=config.n_features)
    if not dead.any():
        assert loss == 0
        return
    loss.backward()
    moved = crosscoder.W_enc.grad.abs().sum((1, 2)) > 0
    positive = (codes.preactivation > 0).any(0)
    assert (moved == (dead & positive)).all()
    assert crosscoder.b_dec.grad is None


@given(config=configs(), seed=seeds())
def test_auxk_is_one_for_a_decoder_of_zeros_and_grows_with_the_dead(config, seed):
    crosscoder, x = drawn(config, seed)
    with torch.no_grad():
        crosscoder.W_dec.zero_()
    codes = crosscoder.encode(x)
    error = x - x.mean(0)
    F = config.n_features
    dead = torch.ones(F, dtype=torch.bool)
    assert_close(auxk_loss(crosscoder, codes, error, dead, k=F), 1.0)
    assert_close(auxk_loss(crosscoder, codes, error, dead, k=2 * F), 0.5)


@given(config=configs(), seed=seeds())
def test_folding_changes_no_code_gate_or_raw_reconstruction(config, seed):
    crosscoder, x = drawn(config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    S, D = len(config.steps), config.d_model
    scale = (3 * torch.randn(S, generator=generator, dtype=torch.float64)).exp()
    mean = torch.randn(S, D, generator=generator, dtype=torch.float64)
    normalisation = Normalisation(scale=scale, mean=mean)
    raw = x / scale[:, None] + mean
    assert_close(normalisation.apply(raw), x, scale=1e3 * float(scale.max()))
    if config.activation == "batchtopk":
        crosscoder.update_threshold(least_open(crosscoder, crosscoder.encode(x)))
        assume((crosscoder.threshold_batches > 0).all())
        crosscoder.inference_threshold += 1e-3  # no value lies on it
    for training in (True, False):
        crosscoder.train(training)
        folded = fold_normalisation(crosscoder, normalisation)
        before, after = crosscoder.encode(x), folded.encode(raw)
        assert ((before.value != 0) == (after.value != 0)).all()
        size = 1e4 * max(1.0, float(scale.max()))
        assert_close(after.value, before.value, scale=size)
        rebuilt = crosscoder(x) / scale[:, None] + mean
        assert_close(folded(raw), rebuilt, scale=size * max(1.0, float(1 / scale.min())))
        assert_close(strengths(folded, after), strengths(crosscoder, before), scale=size)
    with pytest.raises(ValueError, match="raw activations already"):
        fold_normalisation(folded, normalisation)


@given(config=configs(("jumprelu", "batchtopk")), seed=seeds())
def test_folded_thresholds_open_the_same_gates_without_the_scale(config, seed):
    config = SimpleNamespace(**{**vars(config), "gate": "snapshot"})
    crosscoder, x = drawn(config, seed)
    crosscoder.update_threshold(least_open(crosscoder, crosscoder.encode(x)))
    assume((crosscoder.threshold_batches > 0).all())
    crosscoder.inference_threshold += 1e-3
    generator = torch.Generator().manual_seed(seed + 1)
    scale = torch.rand(len(config.steps), generator=generator, dtype=torch.float64) + 0.1
    normalisation = Normalisation(scale=scale, mean=torch.zeros_like(crosscoder.b_dec))
    folded = fold_normalisation(crosscoder, normalisation).eval()
    codes = folded.encode(x / scale[:, None])
    plain = codes.preactivation[..., None] * folded.W_dec.norm(dim=-1)
    assert ((plain > folded.thresholds()) == (codes.value != 0)).all()
    assert_close(folded.thresholds(), crosscoder.eval().thresholds() / scale, scale=100.0)


@given(seed=seeds(), center=st.booleans(), size=st.floats(1e-3, 1e3))
def test_normalised_activations_have_mean_norm_root_of_the_width(seed, center, size):
    generator = torch.Generator().manual_seed(seed)
    raw = size * (torch.randn(9, 3, 5, generator=generator, dtype=torch.float64) + 1)
    x = estimate_normalisation(raw, center=center).apply(raw)
    assert_close(x.norm(dim=-1).mean(0), torch.full((3,), 5.0, dtype=torch.float64).sqrt())
    if center:
        assert_close(x.mean(0), torch.zeros(3, 5, dtype=torch.float64), scale=10.0)


@given(seed=seeds(), cut=st.integers(1, 19))
def test_quality_does_not_depend_on_the_batches(seed, cut):
    config = SimpleNamespace(d_model=4, n_features=6, steps=(0, 1, 2))
    generator = torch.Generator().manual_seed(seed)
    crosscoder, x = random_crosscoder(config, generator), random_batch(config, generator, 20)
    whole, parts = evaluate(crosscoder, [x]), evaluate(crosscoder, [x[:cut], x[cut:]])
    assert_close(parts.explained_variance, whole.explained_variance, scale=1e3)
    assert_close(parts.l0, whole.l0)
    assert_close(parts.frequency, whole.frequency)
    rest = (x - crosscoder(x)).square().sum((0, 2)) / (x - x.mean(0)).square().sum((0, 2))
    assert_close(whole.explained_variance, 1 - rest, scale=1e3)
    assert whole.l0_union >= float(whole.l0.max())


@given(config=configs(), seed=seeds(), training=st.booleans())
def test_quality_is_that_of_the_codes(config, seed, training):
    crosscoder, x = drawn(config, seed)
    crosscoder.update_threshold(least_open(crosscoder, crosscoder.encode(x)))
    crosscoder.train(training or not bool((crosscoder.threshold_batches > 0).all()))
    codes, quality = crosscoder.encode(x), evaluate(crosscoder, [x])
    assert_close(quality.l0, codes.l0())
    assert_close(quality.frequency, codes.fired().double().mean(0))
    error, total = (x - crosscoder(x)).square(), (x - x.mean(0)).square()
    size = 1e3 * float(error.detach().sum() / total.sum((0, 2)).min())
    rest = error.sum((0, 2)) / total.sum((0, 2))
    assert_close(quality.explained_variance, 1 - rest.detach(), scale=1 + size)


@settings(max_examples=50)  # every save waits for the disk
@given(config=configs(), seed=seeds(), double=st.booleans())
def test_a_saved_crosscoder_comes_back_to_the_bit(tmp_path_factory, config, seed, double):
    crosscoder, x = drawn(config, seed)
    crosscoder.update_threshold(least_open(crosscoder, crosscoder.encode(x)))
    crosscoder = crosscoder if double else crosscoder.float()
    path = tmp_path_factory.getbasetemp() / "crosscoder.safetensors"
    save_crosscoder(crosscoder, path)
    loaded = load_crosscoder(path)
    assert loaded.config == crosscoder.config
    state = crosscoder.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())
    assert loaded.W_dec.dtype == crosscoder.W_dec.dtype
    written = path.read_bytes()
    save_crosscoder(loaded, path)
    assert path.read_bytes() == written


@settings(max_examples=30)  # every save waits for the disk
@given(config=configs(), processes=st.integers(1, 4))
def test_parts_of_the_features_make_the_whole(tmp_path_factory, config, processes):
    config = CrosscoderConfig(**vars(config) | {"n_features": config.n_features * processes})
    whole, folder = Crosscoder(config), tmp_path_factory.mktemp("parts")
    for rank in range(processes):
        part = Crosscoder(config, part=(rank, processes))
        assert len(part.W_enc) * processes == config.n_features
        save_crosscoder(part, folder / f"{rank}")
        if processes > 1:
            with pytest.raises(ValueError, match=rf"part {rank} of {processes} .*join_crosscoders"):
                load_crosscoder(folder / f"{rank}").encode(torch.zeros(1, 1, 1))
    found = join_crosscoders(sorted(folder.iterdir(), reverse=True))
    assert found.config == config
    assert found.part == (0, 1)
    for name, value in whole.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    if processes > 1:
        with pytest.raises(ValueError, match="make no whole; give each once"):
            join_crosscoders(list(folder.iterdir())[1:])


norm_tables = st.tuples(rngs(), st.integers(1, 9), st.integers(1, 6)).map(
    lambda drawn: torch.from_numpy(drawn[0].gamma(0.5, size=drawn[1:]))
)


@given(norms=norm_tables, low=st.floats(0.01, 1), high=st.floats(0.01, 1), seed=seeds())
def test_emergence_grows_with_the_threshold_and_kinds_partition(norms, low, high, seed):
    low, high = sorted((low, high))
    early, late = (lifecycle(norms, threshold=h) for h in (low, high))
    assert (early.emergence <= late.emergence).all()
    assert (late.emergence <= late.peak).all()
    assert sum(early.counts().values()) == len(norms)
    assert ((late.lifetime > 0) & (late.lifetime <= 1)).all()
    factor = 2.0 ** torch.randint(-8, 8, (len(norms), 1)).double()  # exact
    scaled = lifecycle(norms * factor, threshold=high)
    for name in ("emergence", "peak", "lifetime", "kind"):
        assert torch.equal(getattr(scaled, name), getattr(late, name))


@given(seed=seeds(), F=st.integers(1, 12), D=st.integers(1, 6), log_size=st.integers(-200, 150))
def test_dimensionality_is_bounded_by_the_rank_and_blind_to_rotations(seed, F, D, log_size):
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(F, D, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    D_F = dimensionality(W)
    gram = W @ W.T
    assert_close(D_F, gram.diag() ** 2 / (gram**2).sum(1))
    assert ((D_F > 0) & (D_F <= 1 + 1e-12)).all()
    assert D_F.sum() <= min(F, D) + 1e-9
    assert_close(dimensionality(W @ turn), D_F, scale=10.0)
    assert_close(dimensionality(W * 10.0**log_size), D_F, scale=10.0)
    assert_close(dimensionality(turn), torch.ones(D, dtype=torch.float64), scale=10.0)


@given(seed=seeds(), F=st.integers(1, 8), S=st.integers(1, 5), D=st.integers(1, 6))
def test_rotation_is_a_mean_of_cosines(seed, F, S, D):
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(F, S, D, generator=generator, dtype=torch.float64)
    C = rotation(W)
    assert torch.equal(C, C.T)
    assert_close(C.diag(), torch.ones(S, dtype=torch.float64))
    assert (C.abs() <= 1).all()
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    assert_close(rotation(W @ turn), C, scale=10.0)
    expected = torch.nn.functional.cosine_similarity(W[:, :, None], W[:, None], dim=-1).mean(0)
    assert_close(C, expected, scale=10.0)


@given(seed=seeds(), S=st.integers(3, 7), data=st.data())
def test_the_turning_point_is_where_the_rows_turn(seed, S, data):
    split = data.draw(st.integers(1, S - 1))
    generator = torch.Generator().manual_seed(seed)
    before, after = torch.linalg.qr(torch.randn(6, 6, 2, generator=generator)).Q.unbind(-1)
    later = (torch.arange(S) >= split)[None, :, None]
    W = torch.where(later, after[:, None], before[:, None])
    found = turning_point(feature_cosines(W), rng=np.random.default_rng(seed), n_resamples=20)
    assert found.split == split == found.interval.low == found.interval.high
    assert found.contrast == pytest.approx(1, abs=1e-5)
