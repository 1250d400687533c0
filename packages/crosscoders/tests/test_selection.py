"""Selection by rank through bfloat16 candidates is that of float32, near ties included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.testing import seeds
from meristem_crosscoders import Crosscoder, CrosscoderConfig, _select
from meristem_crosscoders._entries import coarse_rows, coarse_scores, empty_coarse
from meristem_crosscoders._select import ranked


def drawn(seed, activation, k, F, kind):
    config = CrosscoderConfig(
        d_model=8, n_features=F, steps=(0, 1), activation=activation, k=k, gate="shared"
    )
    crosscoder = Crosscoder(config)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 2, 8, generator=generator)
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if kind == "near ties":
            crosscoder.W_enc[1:] = crosscoder.W_enc[:1] * (
                1 + 1e-5 * torch.randn(F - 1, 1, 1, generator=generator)
            )
            crosscoder.W_dec[:] = crosscoder.W_dec[:1]
            crosscoder.b_enc.zero_()
        if kind == "huge norms":
            sizes = 10 ** (4 * torch.rand(F, 1, 1, generator=generator))
            crosscoder.W_enc *= sizes
            x[0] *= 1e4
        if kind == "zeros":
            crosscoder.W_enc[::2] = 0
            crosscoder.W_dec[::3] = 0
            x[1] = 0
    return crosscoder, x


def rounded(crosscoder):
    rows = crosscoder.W_enc.detach().flatten(1)
    coarse = empty_coarse(rows)
    coarse_rows(rows, coarse, 0)
    return coarse


KINDS = ("plain", "near ties", "huge norms", "zeros")


@settings(max_examples=60)
@given(
    seed=seeds(),
    k=st.integers(1, 9),
    F=st.integers(9, 90),
    activation=st.sampled_from(("topk", "batchtopk")),
    kind=st.sampled_from(KINDS),
    coarse=st.booleans(),
    tokens=st.integers(1, 5),
)
@torch.no_grad()
def test_the_selection_is_that_of_exact_products(seed, k, F, activation, kind, coarse, tokens):
    crosscoder, x = drawn(seed, activation, k, F, kind)
    norms, table = crosscoder.gate_norms(), rounded(crosscoder) if coarse else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_select, "SCORES", tokens * F)  # so many tokens are scored at a time
        found = ranked(crosscoder, x.flatten(1), norms, batch=5, coarse=table)
    assert (found.token.diff() >= 0).all()
    z = x.double().flatten(1) @ crosscoder.W_enc.double().flatten(1).T + crosscoder.b_enc.double()
    u = z * norms[:, 0].double()
    taken = torch.zeros_like(u, dtype=torch.bool)
    taken[found.token, found.feature] = True
    size = x.flatten(1).norm(dim=1)[:, None] * crosscoder.W_enc.flatten(1).norm(dim=1)
    slack = 2.0**-20 * (size + crosscoder.b_enc.abs()) * norms[:, 0]  # of 16 float32 products
    dim = 1 if activation == "topk" else (0, 1)
    kept, left = torch.where(taken, u + slack, torch.inf), torch.where(taken, -torch.inf, u - slack)
    assert (kept.amin(dim) >= left.amax(dim)).all() or bool((left.amax(dim) <= 0).all()), (
        "a larger one was left out"
    )
    count = taken.sum(dim)
    sure = ((u - slack) > 0).sum(dim).clamp(max=k if dim == 1 else 5 * k)
    assert (count >= sure).all()
    assert (count <= (k if dim == 1 else 5 * k)).all()
    assert torch.allclose(
        found.value.double(), z[found.token, found.feature], atol=float(slack.max())
    )


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_bounds_hold_and_are_not_idle(kind):
    crosscoder, x = drawn(0, "topk", 3, 90, kind)
    norms, x = crosscoder.gate_norms()[:, 0], x.flatten(1)
    scores = coarse_scores(rounded(crosscoder), x, crosscoder.b_enc, norms)
    u = (x.double() @ crosscoder.W_enc.double().flatten(1).T + crosscoder.b_enc) * norms
    gap = (scores.score_BF - u).abs()
    bound = torch.outer(scores.share_B, scores.slack_F) + scores.error_B[:, None]
    assert (gap <= bound).all()
    if kind == "plain":
        assert (gap > bound / 50).any()
        assert (bound < 0.05 * u.abs().max(1, keepdim=True).values).all()
