"""Agreement with eRm and psychotools, started live on the data sets that they ship."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from meristem_rasch import CML, Responses, andersen_test, item_fit, martin_loef_test
from meristem_rasch._calibration import shifted_covariance

HAVE_R = shutil.which("Rscript") is not None
pytestmark = pytest.mark.skipif(
    not HAVE_R, reason="Rscript is absent; install r-base-core, r-cran-erm, r-cran-psychotools"
)


@pytest.fixture(scope="session")
def reference():
    script = Path(__file__).with_name("reference.R")
    done = subprocess.run(
        ["Rscript", "--vanilla", str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = {}
    for line in done.stdout.splitlines():
        key, *numbers = line.split()
        out[key] = np.array([np.nan if n in ("NA", "NaN") else float(n) for n in numbers])
    return out


def responses(reference, key):
    table = matrix(reference, key)
    return Responses.from_wide(table[:, np.nanmax(table, axis=0) > np.nanmin(table, axis=0)])


def matrix(reference, key):
    return reference[f"{key}.data"].reshape(reference[f"{key}.dim"].astype(int))


PSYCHOTOOLS = [
    ("rasch", "VerbalAggression"),
    ("pcm", "VerbalAggression"),
    ("rsm", "VerbalAggression"),
    ("rasch", "MathExam14W"),
    ("pcm", "MathExam14W"),
    ("pcm", "ConspiracistBeliefs"),
    ("rsm", "ConspiracistBeliefs"),
    ("rasch", "raschdat1"),
    ("rasch", "raschdat3"),
    ("rasch", "xmpl"),
]


@pytest.mark.parametrize(("model", "name"), PSYCHOTOOLS)
def test_psychotools_agrees(reference, model, name):
    key = f"psychotools.{model}.{name}"
    ours = CML(model=model).fit(responses(reference, key))
    size = len(ours.threshold)
    assert ours.loglik == pytest.approx(reference[f"{key}.loglik"][0], rel=1e-10)
    np.testing.assert_allclose(ours.threshold, reference[f"{key}.threshold"], atol=2e-6)
    np.testing.assert_allclose(
        ours.vcov, reference[f"{key}.vcov"].reshape(size, size), atol=2e-6 * ours.vcov.max() + 1e-9
    )


ERM = [
    ("rasch", "raschdat1"),
    ("rasch", "raschdat2"),
    ("rasch", "raschdat3"),
    ("rasch", "raschdat4"),
    ("rasch", "xmpl"),
    ("pcm", "pcmdat"),
    ("pcm", "pcmdat2"),
    ("rsm", "rsmdat"),
    ("rsm", "pcmdat2"),
]


@pytest.mark.parametrize(("model", "name"), ERM)
def test_erm_agrees(reference, model, name):
    key = f"erm.{model}.{name}"
    ours = CML(model=model).fit(responses(reference, key))
    beta, se = cumulative(ours, first_steps=model == "rsm")
    assert ours.loglik == pytest.approx(reference[f"{key}.loglik"][0], rel=1e-8)
    # eRm's optimiser stops within 1e-4 of the optimum, its Hessian is numerical
    np.testing.assert_allclose(beta, reference[f"{key}.beta"], atol=2e-4)
    np.testing.assert_allclose(se, reference[f"{key}.se"], rtol=1e-3)


def cumulative(cal, *, first_steps):
    """Cumulative thresholds as eRm reports them: all, or those of first steps, sum to zero."""
    item, h = cal.item_of, cal.step_of.astype(float)
    sums = np.tril(item[:, None] == item).astype(float)
    summed = (h == 1) if first_steps else np.ones(len(h))
    centre = np.eye(len(h)) - np.outer(h, summed) / (h @ summed)
    change = centre @ sums
    return change @ cal.threshold, np.sqrt(np.diag(change @ cal.vcov @ change.T))


def test_erm_item_fit_and_tests_agree(reference):
    key = "erm.rasch.raschdat3"
    data = responses(reference, key)
    fit = item_fit(CML().fit(data), data, residuals="person")
    for ours, theirs in (
        (fit.outfit, "outfit"),
        (fit.infit, "infit"),
        (fit.outfit_t, "outfit_t"),
        (fit.infit_t, "infit_t"),
    ):
        np.testing.assert_allclose(ours, reference[f"{key}.{theirs}"], atol=1e-3)
    for split in ("median", "mean"):
        test = andersen_test(CML(), data, split=split)
        np.testing.assert_allclose(
            [test.statistic, test.df], reference[f"{key}.lr_{split}"], rtol=1e-5
        )
    test = martin_loef_test(CML(), data)
    np.testing.assert_allclose([test.statistic, test.df], reference[f"{key}.mloef"], rtol=1e-5)


@pytest.mark.parametrize("name", ["LLTM", "LPCM", "LRSM"])
def test_erm_linear_models_agree(reference, name):
    key = f"erm.linear.{name}"
    data = responses(reference, key)
    h = np.concatenate([np.arange(m) for m in data.max_score])
    # eRm: minus the cumulative thresholds = W eta; ours: thresholds = design eta
    w = matrix(reference, f"{key}.W")
    design = -(w - np.where((h > 0)[:, None], np.roll(w, 1, axis=0), 0.0))
    ours = CML(model="pcm", design=design).fit(data)
    assert ours.loglik == pytest.approx(reference[f"{key}.loglik"][0], rel=1e-8)
    np.testing.assert_allclose(ours.eta, reference[f"{key}.eta"], atol=5e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.eta_vcov)), reference[f"{key}.se"], rtol=1e-3)


def test_anchored_covariance_of_psychotools(reference):
    key = "psychotools.rasch.raschdat3"
    ours = CML(reference=["I1"]).fit(responses(reference, key))
    first = np.eye(len(ours.threshold))[0]
    theirs = shifted_covariance(reference[f"{key}.vcov"].reshape(ours.vcov.shape), first)
    np.testing.assert_allclose(ours.vcov, theirs, atol=1e-7)
