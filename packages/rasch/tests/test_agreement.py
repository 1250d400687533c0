"""Published agreement statistics, and their laws."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_rasch import icc, isr, krippendorff_alpha

SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]
N = float("nan")
KRIPPENDORFF = [  # four observers, twelve units (Krippendorff 2011)
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


@pytest.mark.paper
def test_shrout_and_fleiss_1979():
    table = icc(SHROUT_FLEISS)
    single = [table.one_way, table.agreement, table.consistency]
    np.testing.assert_allclose(single, [0.166, 0.290, 0.715], atol=5e-4)
    mean = [table.one_way_mean, table.agreement_mean, table.consistency_mean]
    np.testing.assert_allclose(mean, [0.443, 0.620, 0.909], atol=5e-4)


@pytest.mark.paper
@pytest.mark.parametrize(
    ("level", "published"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)],
)
def test_krippendorff_2011(level, published):
    assert krippendorff_alpha(np.transpose(KRIPPENDORFF), level=level) == pytest.approx(
        published, abs=5e-4
    )


@given(rng=rngs(), scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_affine_maps_and_rater_order_change_nothing(rng, scale, shift):
    table = rng.normal(size=(8, 3))
    moved = scale * table[:, rng.permutation(3)] + shift
    assert krippendorff_alpha(moved) == pytest.approx(krippendorff_alpha(table), abs=1e-9)
    assert icc(moved).agreement == pytest.approx(icc(table).agreement, abs=1e-9)


@given(rng=rngs())
def test_severity_is_forgiven_by_consistency_only(rng):
    base = rng.normal(size=(10, 1))
    table = icc(base + rng.normal(size=3))
    assert table.consistency == pytest.approx(1)
    assert table.agreement < 1


@given(rng=rngs())
def test_perfect_agreement_is_one(rng):
    table = np.tile(rng.integers(0, 5, size=(20, 1)).astype(float), (1, 3))
    table[0], table[1] = 0, 1
    for level in ("nominal", "ordinal", "interval", "ratio"):
        assert krippendorff_alpha(table, level=level) == pytest.approx(1)


def test_isr_measures_shape_and_not_agreement():
    rng = np.random.default_rng(0)
    fine = np.linspace(-10, 10, 20_001)
    normal = isr(rng.normal(size=100_000), np.zeros(100_000), grid=fine, rng=rng)
    assert normal.rate == pytest.approx(0.3173, abs=0.006)
    assert normal.gaussian == pytest.approx(0.3173, abs=0.02)
    uniform = isr(rng.uniform(size=100_000), np.zeros(100_000), grid=fine, rng=rng)
    assert uniform.rate == pytest.approx(1 - 3**-0.5, abs=0.006)
    pair = isr(np.array([0.0, 1.0]), ["a", "a"], grid=np.arange(2.0), rng=rng)
    assert pair.rate == 0


@pytest.mark.parametrize("table", [[[1, 1], [1, 1]], [[1, N], [N, 1]]])
def test_undefined_agreement_is_refused(table):
    with pytest.raises(ValueError, match=r"equal|one rating|complete"):
        icc(table)
    with pytest.raises(ValueError, match="two different ratings"):
        krippendorff_alpha(table)
    with pytest.raises(ValueError, match="one rating"):
        icc([[1, 2], [1, 2]])


def test_intervals_of_the_intraclass_correlations_are_those_of_shrout_and_fleiss():
    """The bounds that R's `psych::ICC` prints for the example of Shrout & Fleiss (1979)."""
    wanted = {
        "one_way": (-0.133, 0.72), "agreement": (0.019, 0.76), "consistency": (0.342, 0.95),
        "one_way_mean": (-0.884, 0.91), "agreement_mean": (0.071, 0.93),
        "consistency_mean": (0.676, 0.99),
    }  # fmt: skip
    found = icc(SHROUT_FLEISS)
    assert found.intervals.keys() == wanted.keys()
    for name, (low, high) in wanted.items():
        assert found.intervals[name][0] == pytest.approx(low, abs=6e-4), name
        assert found.intervals[name][1] == pytest.approx(high, abs=6e-3), name


@given(rng=rngs(), n=st.integers(2, 6), k=st.integers(2, 4))
def test_intervals_hold_the_correlation(rng, n, k):
    table = rng.integers(0, 4, size=(n, k))
    assume(np.ptp(table, axis=0).any())
    found = icc(table)
    for name, (low, high) in found.intervals.items():
        value = getattr(found, name)
        assert low <= value + 1e-9, name
        assert value <= high + 1e-9, name
