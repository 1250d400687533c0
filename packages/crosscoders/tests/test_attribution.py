"""Attribution and its curves on a model that has learned to agree verbs with subjects."""

import numpy as np
import pytest
import torch

from meristem_core.testing import assert_close
from meristem_crosscoders import (
    Splice,
    ablate_curve,
    gradient_attribution,
    integrated_gradients,
    patching_attribution,
    restore_curve,
    sva_pairs,
)
from meristem_crosscoders._curves import MATCHED, matched_orders
from meristem_crosscoders._splice import logit_difference


@pytest.fixture(scope="session")
def splice(grown):
    step = max(grown.models)
    return Splice(
        crosscoder=grown.folded,
        activations=grown.activations,
        model=grown.models[step],
        site=grown.site,
        step=step,
    )


@pytest.fixture(scope="session")
def pairs(grown):
    return sva_pairs(grown.encode, n=48, seed=0)


@pytest.fixture(scope="session")
def attribution(splice, pairs):
    return integrated_gradients(splice, pairs)


def test_the_model_has_learned_the_task_and_its_snapshots_before_have_not(
    grown, attribution, pairs
):
    assert attribution.accuracy() == 1
    first = min(grown.models)
    before = logit_difference(grown.models[first](pairs.clean).logits, pairs)
    assert 0.2 < float((before > 0).double().mean()) < 0.8


def test_the_spliced_model_is_the_model(splice, pairs, attribution):
    plain = logit_difference(splice.model(pairs.clean).logits, pairs)
    assert_close(attribution.clean, plain, scale=100.0)


def test_few_features_carry_agreement_and_random_ones_do_not(grown, splice, attribution):
    others = sva_pairs(grown.encode, n=48, seed=1)  # not those that chose the features
    ks = (0, 1, 2, 4, 8, 96)
    ablated = ablate_curve(splice, others, attribution, rng=np.random.default_rng(0), ks=ks)
    restored = restore_curve(splice, others, attribution, rng=np.random.default_rng(0), ks=ks)
    at_eight = ks.index(8)
    assert ablated.faithfulness()[at_eight] < ablated.band()[0, at_eight] - 0.2
    assert restored.faithfulness()[at_eight] > restored.band()[1, at_eight] + 0.1
    assert restored.faithfulness()[at_eight] > 0.8
    assert restored.area() > 0.5 > ablated.area()
    for curve in (ablated, restored):
        interval = curve.intervals(np.random.default_rng(0), n_resamples=50)[at_eight]
        assert interval.low <= float(curve.faithfulness()[at_eight]) <= interval.high


def test_restoring_goes_from_nothing_to_all_and_ablating_back(splice, pairs, attribution):
    rng = np.random.default_rng(0)
    restored = restore_curve(splice, pairs, attribution, rng=rng, ks=(0, 96), controls=2)
    ablated = ablate_curve(splice, pairs, attribution, rng=rng, ks=(0, 96), controls=2)
    for curve, ends in ((restored, [0.0, 1.0]), (ablated, [1.0, 0.0])):
        shares = torch.cat([curve.faithfulness()[None], curve.control_faithfulness()])
        assert_close(shares.float(), torch.tensor([ends] * 3), scale=10.0)
    assert_close(restored.full, attribution.clean, scale=100.0)
    assert_close(restored.empty, attribution.patched, scale=100.0)
    assert restored.to_frame()["k"].tolist() == [0, 96]


def test_integrated_gradients_add_up_and_better_with_more_steps(splice, pairs, attribution):
    size = (attribution.clean - attribution.patched).abs().max()
    assert attribution.incompleteness().abs().max() < 0.02 * size
    fine = integrated_gradients(splice, pairs, n_steps=100)
    assert fine.incompleteness().abs().max() < 1e-3 * size
    rough = patching_attribution(splice, pairs)
    assert rough.incompleteness().abs().max() > fine.incompleteness().abs().max()


def test_the_three_methods_agree_on_what_matters_most(splice, pairs, attribution):
    top = set(attribution.ranking()[:8].tolist())
    for method in (gradient_attribution, patching_attribution):
        assert len(top & set(method(splice, pairs).ranking()[:8].tolist())) >= 4


def test_integrated_gradients_predict_the_effect_of_one_feature(splice, pairs, attribution):
    """Patching the top feature alone moves the metric by about its effect."""
    curve = ablate_curve(
        splice, pairs, attribution, rng=np.random.default_rng(0), ks=(0, 1), controls=1
    )
    moved = float((curve.metric[0] - curve.metric[1]).mean())
    predicted = float(attribution.mean()[attribution.ranking()[0]])
    assert moved == pytest.approx(predicted, rel=0.5)


def test_a_splice_by_hand_gives_the_curve(splice, pairs, attribution, grown):
    """Independent of the package's hooks: replace the layer, run, read two logits."""
    chosen = attribution.ranking()[:4]
    x = grown.activations(pairs.clean), grown.activations(pairs.patch)
    f, f_patch = (
        grown.folded.encode(each.flatten(0, 1)).value[..., -1].unflatten(0, pairs.clean.shape)
        for each in x
    )
    mixed = f.clone()
    mixed[..., chosen] = f_patch[..., chosen]
    active = x[0][:, :, -1] + (mixed - f) @ grown.folded.W_dec[:, -1]
    hidden = splice.model.model.layers[1](
        active, position_embeddings=splice.model.model.rotary_emb(active, torch.arange(2)[None])
    )
    hidden = hidden if isinstance(hidden, torch.Tensor) else hidden[0]
    logits = splice.model.lm_head(splice.model.model.norm(hidden))
    expected = logit_difference(logits, pairs)
    curve = ablate_curve(splice, pairs, attribution, rng=np.random.default_rng(0), ks=(4,))
    assert pairs.clean.shape[1] == 2  # causal without a mask: the last of two positions sees both
    assert_close(curve.metric[0], expected, scale=1000.0)


def test_controls_keep_the_firing_counts_and_end_with_all_features():
    ranking = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    firings = torch.arange(100) ** 2
    for order in matched_orders(ranking, firings, n=5, rng=np.random.default_rng(0)):
        assert sorted(order.tolist()) == list(range(100))
        assert (order // MATCHED == ranking // MATCHED).all()
        assert (order != ranking).sum() > 80


def test_bad_input_is_refused(splice, grown, pairs, attribution):
    with pytest.raises(ValueError, match="fold_normalisation"):
        Splice(
            crosscoder=grown.crosscoder,
            activations=grown.activations,
            model=splice.model,
            site=grown.site,
            step=0,
        )
    with pytest.raises(ValueError, match="no snapshot of this crosscoder"):
        Splice(
            crosscoder=grown.folded,
            activations=grown.activations,
            model=splice.model,
            site=grown.site,
            step=7,
        )
    with pytest.raises(ValueError, match="no module"):
        Splice(
            crosscoder=grown.folded,
            activations=grown.activations,
            model=splice.model,
            site="model.layers.9",
            step=0,
        )
    with pytest.raises(ValueError, match="must increase"):
        ablate_curve(splice, pairs, attribution, rng=np.random.default_rng(0), ks=(4, 2))
    with pytest.raises(ValueError, match="n_steps"):
        integrated_gradients(splice, pairs, n_steps=0)
