"""Nearest features: against all pairs, and what may not change them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import meristem_crosscoders._neighbours as module
from meristem_core.testing import seeds
from meristem_crosscoders import nearest_features


@given(seed=seeds(), n=st.integers(1, 6), block=st.sampled_from([1, 7, 2**24]))
def test_neighbours_are_those_of_all_pairs_whatever_the_block(seed, n, block):
    rows = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_COSINES", block)
        features, cosines = nearest_features(rows, n)
    flat = rows.flatten(1)
    whole = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=-1)
    whole.fill_diagonal_(-2)
    wanted = whole.sort(dim=1, descending=True).values[:, : min(n, 4)]
    torch.testing.assert_close(cosines, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.gather(1, features), cosines, atol=1e-5, rtol=0)


@given(seed=seeds())
def test_strength_of_a_feature_does_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, 2, 3, generator=generator)
    factor = torch.rand(6, 1, 1, generator=generator) + 0.1
    torch.testing.assert_close(
        nearest_features(factor * rows, 2)[1], nearest_features(rows, 2)[1], atol=1e-5, rtol=0
    )


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"n \(0\) must be at least 1"):
        nearest_features(torch.ones(3, 1, 2), 0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        nearest_features(torch.full((3, 1, 2), torch.nan), 1)
