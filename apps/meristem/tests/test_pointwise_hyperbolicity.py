"""Paper 2502.16497 in its quick form: the rows and the verdicts that do not hang on the machine."""

import numpy as np
import pytest

from meristem.reproduce._pointwise_hyperbolicity import kicked, reproduce
from meristem_dynamics import zoo


def test_a_kick_is_undone_by_its_inverse():
    f = zoo.slowdown_cat()
    g = kicked(f, 1e-3, 1.6)
    z = np.random.default_rng(0).random((20, 2))
    back = np.stack(g.inverse([g(z)[:, 0], g(z)[:, 1]], g.parameters()), axis=1)
    gap = back - z
    assert np.abs(gap - np.rint(gap)).max() < 1e-12


@pytest.mark.slow
@pytest.mark.paper
def test_quick_rows(tmp_path):
    verdicts = [row.verdict for row in reproduce(tmp_path, True, 0)]
    wanted = ["reproduced", "reproduced", "refuted", "reproduced", "partly", "reproduced"]
    assert verdicts == wanted
