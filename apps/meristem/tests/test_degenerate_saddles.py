"""Paper 2502.17151 in its quick form, and the maps that it draws."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meristem.reproduce._degenerate_saddles import random_saddle, reproduce, round_forms
from meristem_dynamics import check_degenerate_saddle, zoo


@pytest.mark.parametrize("degrees", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_round_forms_fulfil_the_conditions(degrees):
    report = check_degenerate_saddle(zoo.degenerate_saddle(*round_forms(*degrees)))
    assert report.ok
    assert (report.k, report.k2) == degrees


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_drawn_maps_that_fulfil_the_conditions_have_their_degrees_and_shallow_slopes(seed):
    report = check_degenerate_saddle(random_saddle(np.random.default_rng(seed), 1, 2))
    assume(report.ok)
    assert (report.k, report.k2) == (1, 2)
    assert max(abs(report.slope_stable), abs(report.slope_unstable)) <= 1


@pytest.mark.paper
def test_quick_rows(tmp_path):
    rows = reproduce(tmp_path, True, 0)
    assert [row.verdict for row in rows] == ["reproduced"] * 6
    assert rows[0].measured == "12 of 12 branches proved"
    assert all(row.seed == 0 and row.seconds > 0 for row in rows)
