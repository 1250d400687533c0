"""What the shared strategies promise, drawn."""

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from meristem_core import testing as t
from meristem_core.testing import assert_close

shapes = array_shapes(max_dims=3, max_side=4)
sizes = st.integers(1, 8)


@given(data=st.data(), n=sizes)
def test_simplices_are_probabilities(data, n):
    p = data.draw(t.simplices(n))
    assert (p >= 0).all(), p
    assert abs(p.sum() - 1) <= n * np.finfo(np.float64).eps, f"sum {p.sum()!r}"


def test_simplices_reach_corners_and_inner_points():
    assert find(t.simplices(3), lambda p: p.max() == 1).tolist() == [1.0, 0.0, 0.0]
    assert (find(t.simplices(3), lambda p: bool(p.min() > 0.1)) > 0.1).all()


@given(data=st.data(), n=sizes)
def test_permutations_hold_each_index_once(data, n):
    assert sorted(data.draw(t.permutations(n))) == list(range(n))


@given(data=st.data(), shape=shapes, vocab=sizes)
def test_token_ids_lie_in_the_vocabulary_or_are_the_pad(data, shape, vocab):
    ids = data.draw(t.token_ids(shape, vocab=vocab, pad=-100))
    assert (ids.shape, ids.dtype) == (shape, np.int64)
    assert (((ids >= 0) & (ids < vocab)) | (ids == -100)).all(), ids


@given(data=st.data(), bound=st.floats(1e-3, 6e4))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_finite_arrays_keep_dtype_and_bound(dtype, data, bound):
    x = data.draw(t.finite_arrays(shapes, dtype=dtype, bound=bound))
    assert x.dtype == dtype
    assert (np.abs(x.astype(np.float64)) <= bound).all(), f"beyond {bound}: {x}"
    normal = np.abs(x[x != 0])
    assert (normal >= np.finfo(dtype).tiny).all(), f"subnormal: {x}"


@given(x=t.finite_vectors(min_size=2, max_size=5, bound=1.0), scores=t.logits((2, 3)))
def test_vectors_and_logits_have_their_shapes(x, scores):
    assert x.ndim == 1
    assert 2 <= x.size <= 5
    assert np.abs(x).max() <= 1
    assert scores.shape == (2, 3)
    assert np.isfinite(scores).all()


@given(mask=t.masks(shapes))
def test_masks_keep_at_least_one(mask):
    assert mask.dtype == np.bool_
    assert mask.any()


def test_masks_reach_the_edges():
    assert not find(t.masks((3,), at_least_one=False), lambda m: not m.any()).any()
    assert find(t.masks((3,)), lambda m: m.sum() == 1).tolist() == [True, False, False]
    assert find(t.masks((3,)), lambda m: bool(m[2]) and m.sum() == 1).tolist()[2]


@given(seed=t.seeds(), rng=t.rngs())
def test_seeds_seed_and_generators_are_their_own(seed, rng):
    same = [np.random.default_rng(seed).random(3) for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert isinstance(rng, np.random.Generator)


@given(data=st.data(), bound=st.floats(1e-3, 6e4))
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_keep_dtype_and_bound(dtype, data, bound):
    torch = pytest.importorskip("torch")
    x = data.draw(t.torch_tensors(shapes, dtype=dtype, bound=bound))
    assert x.dtype == getattr(torch, dtype)
    assert bool((x.double().abs() <= bound).all()), f"beyond {bound}: {x}"


@given(data=st.data())
def test_torch_generators_are_seeded(data):
    torch = pytest.importorskip("torch")
    generator = data.draw(t.generators())
    again = torch.Generator().manual_seed(generator.initial_seed())
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=again))


@given(rng=t.rngs(), n=st.integers(1, 3000))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_in_two_orders_are_close_and_a_real_change_is_not(dtype, rng, n):
    x = rng.uniform(-1, 1, size=(n, 4)).astype(dtype)
    assert_close(x.sum(axis=0), x[::-1].sum(axis=0), scale=float(n))
    moved = x + dtype_step(dtype, n)
    with pytest.raises(AssertionError, match="off by"):
        assert_close(moved, x)


def dtype_step(dtype, n):
    """A change just above the tolerance for n x 4 numbers of size one."""
    return np.dtype(dtype).type(20 * np.finfo(dtype).eps * np.sqrt(4 * n))
