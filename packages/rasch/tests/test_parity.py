"""Agreement with eRm and psychotools, started live on the data sets that they ship."""

import functools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from meristem_rasch import (
    CML,
    Responses,
    andersen_test,
    collapse_null,
    drop_extreme,
    information,
    item_fit,
    martin_loef_test,
    person_fit,
    score_persons,
    wald_test,
)
from meristem_rasch._calibration import shifted_covariance

HAVE_R = shutil.which("Rscript") is not None
pytestmark = pytest.mark.skipif(
    not HAVE_R, reason="Rscript is absent; install r-base-core, r-cran-erm, r-cran-psychotools"
)


def run(part):
    done = subprocess.run(
        ["Rscript", "--vanilla", str(Path(__file__).with_name("reference.R")), part],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = {}
    for line in done.stdout.splitlines():
        key, *numbers = line.split()
        out[key] = np.array([np.nan if n in ("NA", "NaN") else float(n) for n in numbers])
    return out


@functools.cache
def results(part):
    return run(part)


@pytest.fixture
def reference(request):
    """Results of R on the data sets of a quick or, for tests marked slow, a slow fit."""
    return results("slow" if request.node.get_closest_marker("slow") else "quick")


def responses(reference, key):
    """Return the data as R took it, without the items and categories that it leaves out itself."""
    return collapse_null(drop_extreme(Responses.from_wide(matrix(reference, key)))[0])[0]


def matrix(reference, key):
    return reference[f"{key}.data"].reshape(reference[f"{key}.dim"].astype(int))


def cases(fast, slow):
    return [*fast, *(pytest.param(*case, marks=pytest.mark.slow) for case in slow)]


PSYCHOTOOLS = cases(
    [
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
        ("rasch", "lltmdat1"),
        ("rasch", "lltmdat2"),
        ("rasch", "Sim3PL_resp"),
        ("rasch", "Sim3PL_resp2"),
        ("pcm", "pcmdat"),
        ("pcm", "pcmdat2"),
        ("rsm", "rsmdat"),
        ("rsm", "pcmdat2"),
        ("pcm", "YouthGratitude_gq6"),
        ("pcm", "YouthGratitude_gac"),
        ("pcm", "YouthGratitude_losd"),
        ("pcm", "YouthGratitude_sa"),
        ("pcm", "YouthGratitude_ao"),
    ],
    [("rasch", "xmplbig")],
)


@pytest.mark.parametrize(("model", "name"), PSYCHOTOOLS)
def test_psychotools_agrees(reference, model, name):
    key = f"psychotools.{model}.{name}"
    ours = CML(model=model).fit(responses(reference, key))
    size = len(ours.threshold)
    assert ours.loglik == pytest.approx(reference[f"{key}.loglik"][0], rel=1e-10)
    # psychotools centres the thresholds, not the items' locations
    centre = np.full(size, 1 / size)
    tau = ours.threshold - ours.threshold.mean()
    vcov = shifted_covariance(ours.vcov, centre)
    np.testing.assert_allclose(tau, reference[f"{key}.threshold"], atol=2e-6)
    np.testing.assert_allclose(
        vcov, reference[f"{key}.vcov"].reshape(size, size), atol=2e-6 * ours.vcov.max() + 1e-9
    )


ERM = cases(
    [
        ("rasch", "raschdat2"),
        ("rasch", "raschdat3"),
        ("rasch", "raschdat4"),
        ("rasch", "lltmdat2"),
        ("pcm", "pcmdat"),
        ("pcm", "pcmdat2"),
        ("rsm", "rsmdat"),
        ("rsm", "pcmdat2"),
    ],
    [
        ("rasch", "raschdat1"),
        ("rasch", "xmpl"),
        ("rasch", "lltmdat1"),
        ("rasch", "VerbalAggression"),
        ("rasch", "MathExam14W"),
    ],
)


@pytest.mark.parametrize(("model", "name"), ERM)
def test_erm_agrees(reference, model, name):
    key = f"erm.{model}.{name}"
    ours = CML(model=model).fit(responses(reference, key))
    beta, se = cumulative(ours, first_steps=model == "rsm")
    theirs = reference[f"{key}.loglik"][0]
    assert ours.loglik == pytest.approx(theirs, rel=1e-12)
    np.testing.assert_allclose(beta, reference[f"{key}.beta"], atol=1e-6)
    np.testing.assert_allclose(se, reference[f"{key}.se"], rtol=1e-5)  # central differences


def cumulative(cal, *, first_steps):
    """Cumulative thresholds as eRm reports them: all, or those of first steps, sum to zero."""
    item, h = cal.item_of, cal.step_of.astype(float)
    sums = np.tril(item[:, None] == item).astype(float)
    summed = (h == 1) if first_steps else np.ones(len(h))
    centre = np.eye(len(h)) - np.outer(h, summed) / (h @ summed)
    change = centre @ sums
    return change @ cal.threshold, np.sqrt(np.diag(change @ cal.vcov @ change.T))


TESTED = cases([("rasch", "raschdat3"), ("pcm", "pcmdat2")], [("rasch", "xmpl")])


@pytest.mark.parametrize(("model", "name"), TESTED)
def test_erm_persons_fit_and_information_agree(reference, model, name):
    key = f"erm.{model}.{name}"
    data = responses(reference, key)
    cal = CML(model=model).fit(data)
    beta, _ = cumulative(cal, first_steps=False)
    shift = _shift(cal, beta)
    persons = score_persons(cal, data, method="mle")
    rows = reference[f"{key}.person"].astype(int) - 1
    theta = persons.theta[rows] - shift
    np.testing.assert_allclose(theta, reference[f"{key}.theta"], atol=1e-4)
    np.testing.assert_allclose(persons.se[rows], reference[f"{key}.theta_se"], rtol=0, atol=1e-4)
    assert persons.reliability == pytest.approx(reference[f"{key}.separation"][0], abs=1e-4)
    for table, prefix, keep in (
        (item_fit(cal, data, residuals="person"), "", slice(None)),
        (person_fit(cal, data, residuals="person"), "p_", np.isfinite(persons.theta)),
    ):
        for ours in ("outfit", "infit", "outfit_t", "infit_t"):
            theirs = reference[f"{key}.{prefix}{ours}"]
            np.testing.assert_allclose(getattr(table, ours)[keep], theirs, atol=1e-4)
    theirs = reference[f"{key}.information"].reshape(len(cal.items), 5)
    np.testing.assert_allclose(information(cal, np.arange(-2.0, 3.0) + shift).T, theirs, atol=1e-6)


def _shift(cal, beta):
    """Our scale minus eRm's: both first thresholds are the same number of logits away."""
    return float(cal.threshold[0] - beta[0])


@pytest.mark.parametrize(("model", "name"), TESTED)
def test_erm_tests_agree(reference, model, name):
    key = f"erm.{model}.{name}"
    data, estimator = responses(reference, key), CML(model=model)
    for split in ("median", "mean"):
        test = andersen_test(estimator, data, split=split)
        wanted = reference[f"{key}.lr_{split}"]
        np.testing.assert_allclose([test.statistic, test.df], wanted, rtol=1e-5)
    test = martin_loef_test(estimator, data)
    np.testing.assert_allclose([test.statistic, test.df], reference[f"{key}.mloef"], rtol=1e-5)
    first, second = wald_test(estimator, data).groups
    (b1, se1), (b2, se2) = (cumulative(cal, first_steps=False) for cal in (first, second))
    # eRm's difference is of easinesses, first group minus second
    z = (b2 - b1) / np.sqrt(se1**2 + se2**2)
    np.testing.assert_allclose(z, reference[f"{key}.wald"], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "LPCM",
        "LRSM",
        "LLRA3",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("LLTM", "LLRA1", "LLRA2")),
    ],
)
def test_erm_linear_models_agree(reference, name):
    """Estimates and errors equal eRm's once its optimiser has reached the top of its likelihood.

    As it comes, eRm's nlm stops up to 4e-4 away (LLRA2; 3e-4 in LLRA1, 4e-5 or less elsewhere),
    where eRm's own likelihood is lower than at our estimates. Two Newton steps on that likelihood,
    made by reference.R, bring eRm's estimates within 1e-7 of ours.
    """
    key = f"erm.linear.{name}"
    # eRm: minus the cumulative thresholds = W eta; ours: thresholds = design eta
    table, w = matrix(reference, key), matrix(reference, f"{key}.W")
    top = np.full(table.shape[1], len(w) // table.shape[1])
    data = Responses.from_wide(table, max_score=top)
    h = np.concatenate([np.arange(m) for m in top])
    design = -(w - np.where((h > 0)[:, None], np.roll(w, 1, axis=0), 0.0))
    ours = CML(model="pcm", design=design).fit(data)
    assert ours.loglik == pytest.approx(reference[f"{key}.loglik"][0], rel=1e-12)
    np.testing.assert_allclose(ours.eta, reference[f"{key}.eta"], atol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.eta_vcov)), reference[f"{key}.se"], rtol=1e-5)
    loglik, *eta = reference[f"{key}.stopped"]  # where nlm stops: below the optimum, and near it
    assert ours.loglik > loglik
    assert 1e-6 < np.abs(ours.eta - eta).max() < 5e-4


def test_anchored_covariance_of_psychotools(reference):
    key = "psychotools.rasch.raschdat3"
    ours = CML(reference=["I1"]).fit(responses(reference, key))
    first = np.eye(len(ours.threshold))[0]
    theirs = shifted_covariance(reference[f"{key}.vcov"].reshape(ours.vcov.shape), first)
    np.testing.assert_allclose(ours.vcov, theirs, atol=1e-7)
