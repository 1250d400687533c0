"""What papers say, on planted data and on the grown model: a few seconds each."""

import gzip

import numpy as np
import pytest
import torch

from meristem_core import count_ngrams
from meristem_core.testing import assert_close
from meristem_crosscoders import (
    Crosscoder,
    CrosscoderConfig,
    Splice,
    TrainConfig,
    dimensionality,
    initialise,
    integrated_gradients,
    latent_scaling,
    ngram_phases,
    read_pairs,
    restore_curve,
    sva_pairs,
    train,
)

pytestmark = pytest.mark.paper


def polygon(n):
    angle = torch.arange(n) * (2 * torch.pi / n)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


TETRAHEDRON = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])


def antiprism():
    """Two squares, one turned by an eighth of a circle, as far apart as repulsion drives them."""
    low, high = polygon(4), polygon(8)[1::2]
    height = torch.full((4, 1), 0.5**0.5)
    return torch.cat([torch.cat([low, -height], 1), torch.cat([high, height], 1)])


@pytest.mark.parametrize(
    ("rows", "published"),
    [
        (polygon(2), 1 / 2),
        (polygon(3), 2 / 3),
        (TETRAHEDRON, 3 / 4),
        (polygon(5), 2 / 5),
        (antiprism(), 3 / 8),
    ],
)
def test_dimensionality_of_toy_models_of_superposition(rows, published):
    """Elhage et al. 2022, "The geometry of superposition": the plateaus of feature dimension."""
    found = dimensionality(rows)
    assert_close(found.float(), torch.full((len(rows),), published), scale=10.0)


@pytest.fixture(scope="module")
def planted():
    """16 concepts; at snapshot 0 half of them have 0.3 of their strength, the others none."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(32, 32, generator=draw))[0][:16]
    present = torch.ones(2, 16)
    present[0, :8], present[0, 8:] = 0.3, 0
    active = torch.rand(4096, 16, generator=draw) < 0.1
    size = active * (0.5 + torch.rand(4096, 16, generator=draw))
    x = torch.einsum("bf,sf,fd->bsd", size, present, 4 * directions)
    return x + 0.02 * torch.randn(x.shape, generator=draw), directions


def shared_by_norm_and_by_activations(planted, activation, k, penalty, sparsity):
    """Return, for the weakly shared concepts, the norms' ratio and the activations' ratio."""
    x, directions = planted
    crosscoder = Crosscoder(
        CrosscoderConfig(d_model=32, n_features=32, steps=(0, 1), activation=activation, k=k)
    )
    initialise(crosscoder, x[:512])

    def batches(step):
        while True:
            yield x[(torch.arange(256) + 256 * step) % len(x)]
            step += 1

    config = TrainConfig(steps=250, lr=5e-3, penalty=penalty, sparsity=sparsity, dead_after=10_000)
    train(crosscoder, batches, config)
    scaling = latent_scaling(crosscoder.requires_grad_(False), [x])
    rows = torch.nn.functional.normalize(crosscoder.W_dec[:, 1], dim=1)
    chosen = (rows @ directions[:8].T).argmax(0)
    norms = crosscoder.norms()
    return norms[chosen, 0] / norms[chosen, 1], scaling.ratio_error()[chosen, 0]


def test_l1_shrinks_what_is_weakly_shared_and_batchtopk_does_not(planted):
    """Minder et al. 2025 (arXiv 2504.02922): complete shrinkage, latent scaling that reveals it."""
    by_norm, by_activations = shared_by_norm_and_by_activations(planted, "relu", None, "l1", 1.0)
    assert by_norm.median() < 0.15  # planted: 0.3
    assert by_activations.median() == pytest.approx(0.3, abs=0.06)
    by_norm, by_activations = shared_by_norm_and_by_activations(
        planted, "batchtopk", 2, "none", 0.0
    )
    assert by_norm.median() == pytest.approx(0.3, abs=0.06)
    assert by_activations.median() == pytest.approx(0.3, abs=0.06)


def test_unigrams_come_before_bigrams_and_both_are_left_behind(grown):
    """arXiv 2509.17196, statistical phase: distances from n-grams fall, in order, then rise."""
    ngrams = count_ngrams([grown.tokens[:300].flatten().numpy()], vocabulary=len(grown.words))
    steps = sorted(grown.series)
    found = ngram_phases(grown.series.__getitem__, steps, ngrams, grown.tokens[300:])
    curves = found.to_frame()
    end = int(found.statistical_end(np.random.default_rng(0), n_resamples=50).estimate)
    unigram_end = int(curves["from_unigram"].argmin())
    assert 0 < unigram_end < end < len(steps) - 1
    assert curves["from_unigram"][-1] > 2 * curves["from_unigram"][unigram_end]
    assert curves["from_bigram"][-1] > 1.05 * curves["from_bigram"][end]
    assert (curves["loss"] < found.unigram_loss).argmax() < (
        curves["loss"] < found.bigram_loss
    ).argmax()


def test_tens_of_features_restore_agreement_and_random_ones_do_not(grown):
    """arXiv 2509.17196: few features carry a task; the reviewers' random-k control beside it."""
    step = max(grown.models)
    splice = Splice(
        crosscoder=grown.folded, activations=grown.activations, model=grown.models[step],
        site=grown.site, step=step,
    )  # fmt: skip
    found = integrated_gradients(splice, sva_pairs(grown.encode, n=48, seed=0, distractor=True))
    curve = restore_curve(
        splice,
        sva_pairs(grown.encode, n=48, seed=1, distractor=True),
        found,
        rng=np.random.default_rng(0),
        ks=(0, 4, 8, 96),
        controls=40,
    )
    at_eight = curve.faithfulness()[2]
    assert at_eight > 0.8
    assert at_eight > curve.band()[1, 2]


@pytest.mark.data
def test_the_agreement_files_under_pythias_tokenizer(data_dir, tmp_path):
    """Files of sparse feature circuits: sizes, and how many answers and prompts do not fit."""
    import zstandard
    from tokenizers import Tokenizer

    packed = (data_dir / "tokenizers" / "gpt_neox_20B_tokenizer.json.gz").read_bytes()
    tokenizer = Tokenizer.from_str(gzip.decompress(packed).decode())
    path = tmp_path / "simple.json"
    raw = (data_dir / "lm_probes" / "sva_simple_train.json.zst").read_bytes()
    path.write_bytes(zstandard.ZstdDecompressor().stream_reader(raw).read())
    pairs = read_pairs(path, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    assert (len(pairs), pairs.dropped) == (413, 67)
    assert (pairs.last == 1).all()
