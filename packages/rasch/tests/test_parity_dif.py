"""Item bias against R's mantelhaen.test and glm, and psychotools's anchor selection, live."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from meristem_rasch import (
    CML,
    Responses,
    andersen_test,
    likelihood_ratio_dif,
    logistic_dif,
    mantel_haenszel,
    rasch_dif,
)
from meristem_rasch._dif import gini_criterion

pytestmark = pytest.mark.skipif(
    shutil.which("Rscript") is None, reason="Rscript is absent; install r-base-core"
)


@pytest.fixture(scope="module")
def r():
    script = Path(__file__).with_name("diagnostics.R")
    done = subprocess.run(
        ["Rscript", "--vanilla", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    out = {key: np.array(numbers, dtype=float) for key, *numbers in lines}
    group = out["group"].astype(int)
    data = Responses.from_wide(out["data"].reshape(len(group), -1))
    return out, data, group.tolist()


def column(out, kind, place):
    return np.array([out[f"{kind}.{k + 1}"][place] for k in range(24)])


def test_mantel_haenszel_is_that_of_r(r):
    out, data, group = r
    ours = mantel_haenszel(data, group)
    np.testing.assert_allclose(ours.statistic, column(out, "mh", 0), rtol=1e-9)
    np.testing.assert_allclose(np.exp(-ours.effect), column(out, "mh", 1), rtol=1e-9)
    half = (np.log(column(out, "mh", 3)) - np.log(column(out, "mh", 2))) / 2
    np.testing.assert_allclose(ours.se * 1.959963984540054, half, rtol=1e-9)


def test_logistic_dif_is_that_of_glm(r):
    out, data, group = r
    uniform, either = logistic_dif(data, group, kind="uniform"), logistic_dif(data, group)
    np.testing.assert_allclose(uniform.statistic, column(out, "logistic", 0), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(either.statistic, column(out, "logistic", 1), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(-uniform.effect, column(out, "logistic", 2), rtol=1e-5)
    np.testing.assert_allclose(uniform.se, column(out, "logistic", 3), rtol=1e-4)
    assert (uniform.df, either.df) == (1, 2)


def test_the_gini_anchor_is_that_of_psychotools(r):
    out, data, group = r
    twelve = data.select(items=np.arange(12))
    fits = [CML().fit(twelve.select(persons=np.array(group) == g)) for g in (0, 1)]
    criterion = gini_criterion(*fits)
    np.testing.assert_allclose(-criterion, out["gini"], atol=2e-5)
    assert rasch_dif(twelve, group).anchors == ("I1",)


def test_the_split_item_and_the_split_by_every_score_are_those_of_erm(r):
    out, data, group = r
    eight = data.select(items=np.arange(8))
    ours = likelihood_ratio_dif(eight, group)
    for k in (0, 1):
        whole, split = out[f"split.{k + 1}"]
        assert ours.statistic[k] == pytest.approx(2 * (split - whole), abs=1e-6)
    test = andersen_test(CML(), eight, split="score")
    np.testing.assert_allclose([test.statistic, test.df], out["every_score"], rtol=1e-6)
