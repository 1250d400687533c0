"""Checks of the norm against the activations: latent scaling, separability, agreement."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.testing import assert_close, seeds
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    evaluate,
    latent_scaling,
    norm_agreement,
    rank_correlation,
    separability,
)
from meristem_crosscoders._separability import _auc_of_scores, fisher_directions, ledoit_wolf


def drawn(seed, *, F=5, S=3, D=4, tokens=40):
    generator = torch.Generator().manual_seed(seed)
    crosscoder = Crosscoder(
        CrosscoderConfig(d_model=D, n_features=F, steps=tuple(range(S)), activation="relu")
    ).double()
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(tokens, S, D, generator=generator, dtype=torch.float64)
    return crosscoder.requires_grad_(False), x


@given(seed=seeds())
def test_beta_is_the_regression_it_claims_to_be(seed):
    crosscoder, x = drawn(seed)
    found = latent_scaling(crosscoder, [x[:7], x[7:]])
    f, W = crosscoder.encode(x).value, crosscoder.W_dec
    rebuilt = crosscoder(x)
    peak = crosscoder.norms().argmax(1)
    for i in range(5):
        opened = f[:, i].amax(1)
        design = torch.outer(opened, W[i, peak[i]]).flatten()
        for s in range(3):
            others = rebuilt[:, s] - torch.outer(f[:, i, s], W[i, s])
            for target, beta in (
                (x[:, s] - others, found.beta_error),
                (rebuilt[:, s] - crosscoder.b_dec[s], found.beta_reconstruction),
            ):
                if design.any():
                    expected = torch.linalg.lstsq(design[:, None], target.flatten()[:, None])
                    assert_close(beta[i, s], expected.solution[0, 0], scale=1e4)
                else:
                    assert beta[i, s] == 0
    assert found.firings.tolist() == [int((f[:, i] != 0).any(1).sum()) for i in range(5)]


@given(seed=seeds(), c=st.floats(0.1, 1.9))
def test_a_single_feature_scaled_by_c_has_beta_c(seed, c):
    crosscoder, x = drawn(seed, F=1, S=2)
    crosscoder.b_dec.zero_()
    f = crosscoder.encode(x).value[:, 0, 0]
    if not f.any():
        return
    peak = int(crosscoder.norms().argmax(1))
    d = crosscoder.W_dec[0, peak]
    crosscoder.W_dec[0, 1 - peak] = c * d / 2  # its row says c / 2, the activations say c
    crosscoder.W_enc[0].mul_(0)  # codes do not depend on what is read: the bias gives them
    crosscoder.b_enc.fill_(1.5)
    y = torch.stack([1.5 * d * (1 if s == peak else c) for s in range(2)]).expand(9, 2, 4)
    found = latent_scaling(crosscoder, [y])
    assert_close(found.beta_error[0, 1 - peak], c, scale=10.0)
    assert_close(found.beta_error[0, peak], 1.0, scale=10.0)
    assert_close(found.beta_reconstruction[0, 1 - peak], c / 2, scale=10.0)
    assert_close(found.ratio_error()[0, 1 - peak], c, scale=10.0)


def test_a_row_that_sparsity_removed_is_called_shrunk(grown):
    """Zero one feature's row at a snapshot where it is strong: the others do not make up for it."""
    norms = grown.crosscoder.norms()
    alive = evaluate(grown.crosscoder, [grown.normalised]).frequency > 0.02
    feature = int((norms[:, 1] * alive).argmax())
    before = latent_scaling(grown.crosscoder, [grown.normalised])
    state = {name: tensor.clone() for name, tensor in grown.crosscoder.state_dict().items()}
    state["W_dec"][feature, 1] = 0
    other = Crosscoder(grown.crosscoder.config)
    other.load_state_dict(state)
    found = latent_scaling(other.eval().requires_grad_(False), [grown.normalised])
    assert not before.shrunk(norms)[feature, 1]
    assert found.shrunk(other.norms())[feature, 1]
    assert found.beta_reconstruction[feature, 1] < before.beta_reconstruction[feature, 1]


def test_folding_changes_no_check(grown):
    raw = grown.activations(grown.tokens[:40])[:, 1:].flatten(0, 1)
    normalised = raw * grown.folded.scale[:, None]
    a, b = latent_scaling(grown.crosscoder, [normalised]), latent_scaling(grown.folded, [raw])
    assert (a.beta_error - b.beta_error).abs().max() < 1e-4
    assert (a.beta_reconstruction - b.beta_reconstruction).abs().max() < 1e-4
    assert a.to_frame()["step"].tolist()[:4] == list(grown.crosscoder.config.steps)


@settings(max_examples=30)
@given(seed=seeds(), tokens=st.integers(3, 60), D=st.integers(1, 6))
def test_shrinkage_is_sklearns(seed, tokens, D):
    from sklearn.covariance import ledoit_wolf_shrinkage

    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, D, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(D, D, generator=generator, dtype=torch.float64)
    centred = x - x.mean(0)
    found = ledoit_wolf(centred, centred.mT @ centred / tokens)
    assert float(found) == pytest.approx(
        0.0 if D == 1 else ledoit_wolf_shrinkage(x.numpy()), abs=1e-9
    ) or (D == 1 and float(found) == 1.0)


class Shrunk:
    """A covariance estimator for sklearn: a fixed share of a fixed multiple of the identity."""

    def __init__(self, share, variance):
        self.share, self.variance = share, variance

    def fit(self, x):
        covariance = np.cov(x.T, bias=True)
        self.covariance_ = (1 - self.share) * covariance + self.share * self.variance * np.eye(5)


@settings(max_examples=30)
@given(seed=seeds())
def test_directions_and_auc_are_sklearns(seed):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(100, 5, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(5, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    label = x[:, :1] / x[:, 0].std() + noise > 0.5
    centred = x - x.mean(0)
    covariance = centred.mT @ centred / 100
    share, variance = ledoit_wolf(centred, covariance), covariance.diagonal().mean()
    w = fisher_directions(x, label)
    for i in range(3):
        estimator = Shrunk(float(share), float(variance))
        lda = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=estimator)
        lda.fit(x.numpy(), label[:, i].numpy())
        theirs = torch.from_numpy(lda.coef_[0])
        assert torch.cosine_similarity(theirs, w[:, i], dim=0) > 1 - 1e-9
        score = (x @ w[:, i]).round(decimals=1)[None]  # with ties
        auc = float(roc_auc_score(label[:, i].numpy(), score[0].numpy()))
        assert float(_auc_of_scores(score, label[None, :, i])[0]) == pytest.approx(auc, abs=1e-12)


def test_features_separate_tokens_and_random_labels_do_not(grown):
    x = grown.normalised
    found = separability(grown.crosscoder, x[::2], x[1::2])
    assert found.auc[found.measured].mean() > 0.8
    assert (found.auc[~found.measured] == 0.5).all()
    assert found.measured.sum() > 30
    shuffled = x[1::2][torch.randperm(len(x[1::2]), generator=torch.Generator().manual_seed(0))]
    broken = torch.cat([shuffled[:, :1], x[1::2][:, 1:]], dim=1)
    frequent = found.measured & (found.positives > 200)
    # snapshot 0 now shows other tokens than the ones that the other snapshots label
    mixed = separability(grown.crosscoder, x[::2], broken)
    assert mixed.auc[frequent, 0].mean() < found.auc[frequent, 0].mean() - 0.1
    assert found.to_frame()["auc"].size == found.auc.numel()


def test_agreement_of_norm_and_separability_has_an_interval(grown):
    x = grown.normalised
    found = separability(grown.crosscoder, x[::2], x[1::2])
    intervals = norm_agreement(
        grown.crosscoder.norms(),
        found.auc.float(),
        alive=found.measured,
        rng=np.random.default_rng(0),
    )
    assert len(intervals) == len(grown.models)
    assert all(-1 <= each.low <= each.estimate <= each.high <= 1 for each in intervals)


@given(seed=seeds(), n=st.integers(3, 30))
def test_rank_correlation_is_scipys_and_ranks_only(seed, n):
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    a, b = (torch.from_numpy(rng.integers(0, 6, n).astype(float)) for _ in range(2))
    found = rank_correlation(a, b, rng=rng, n_resamples=2).estimate
    if a.unique().numel() == 1 or b.unique().numel() == 1:
        assert found == 0
    else:
        assert found == pytest.approx(float(spearmanr(a, b).statistic), abs=1e-12)
    assert rank_correlation(a.exp(), b, rng=rng, n_resamples=2).estimate == found


def test_what_cannot_be_checked_is_refused(grown):
    x = grown.normalised[:4].clone()
    with pytest.raises(ValueError, match="no covariance"):
        separability(grown.crosscoder, x[:1], x)
    x[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        latent_scaling(grown.crosscoder, [x])
    with pytest.raises(ValueError, match="no activation"):
        latent_scaling(grown.crosscoder, [])
    with pytest.raises(ValueError, match="3 or more"):
        rank_correlation(torch.ones(2), torch.ones(2), rng=np.random.default_rng(0))
