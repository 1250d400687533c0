"""Bad input is named; nothing is dropped or passed on in silence."""

import mpmath
import numpy as np
import pytest

from meristem_rasch import (
    CML,
    JML,
    MML,
    Calibration,
    DataError,
    ExistenceError,
    Fractional,
    IdentificationError,
    Pairwise,
    Responses,
    andersen_test,
    conditional_probabilities,
    design_repeated,
    isr,
    length_as_difficulty,
    log_esf,
    martin_loef_test,
    overdispersion,
    read_lm_eval,
    score_persons,
    score_table,
)

GOOD = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        ([[0, 0.5]], {}, "person 1, item I2: score 0.5 is not a non-negative integer"),
        ([[0, -1]], {}, "score -1.0 is not"),
        ([[0, np.inf]], {}, "score inf is not"),
        ([0, 1], {}, "give persons x items"),
        ([[0, np.nan]], {}, "item I2 has no answer"),
        ([[0, 3]], {"max_score": [1, 2]}, "score 3 is above max_score 2"),
        ([[0, 1]], {"items": ["a", "a"]}, "the label 'a' names two items"),
        ([[0, 1]], {"items": ["a"]}, "1 labels for 2 items"),
        ([[0, 1]], {"weight": [-1.0]}, "person 1: weight -1.0"),
        ([[0, 1]], {"weight": [1.0, 1.0]}, "2 weights for 1 persons"),
    ],
)
def test_tables(table, settings, message):
    with pytest.raises(DataError, match=message):
        Responses.from_wide(table, **settings)


def test_a_repeated_answer_is_named():
    with pytest.raises(DataError, match="person a answers item x more than once"):
        Responses.from_long(["a", "a"], ["x", "x"], [0, 1])


def test_models_and_designs():
    data = Responses.from_wide([[0, 2], [1, 0], [1, 1]])
    with pytest.raises(DataError, match="item I2 has scores up to 2"):
        CML().fit(data)
    with pytest.raises(DataError, match="equal max_score"):
        CML(model="rsm").fit(Responses.from_wide([[0, 2], [1, 0], [1, 1], [0, 1]]))
    good = Responses.from_wide(GOOD)
    with pytest.raises(IdentificationError, match="depend linearly"):
        CML(design=np.ones((3, 2))).fit(good)
    with pytest.raises(DataError, match="anchor 'x' is not an item"):
        CML(anchors={"x": 0.0}).fit(good)
    with pytest.raises(DataError, match="one per threshold, 3"):
        CML(design=np.ones((2, 1))).fit(good)
    with pytest.raises(ValueError, match="at least 2 occasions"):
        design_repeated([1, 1], 1)


def test_infinite_estimates_are_named():
    with pytest.raises(ExistenceError, match="no conditional information"):
        CML().fit(Responses.from_wide([[0, 0], [1, 1]]))
    with pytest.raises(ExistenceError, match=r"item I3: no informative person scores \[1\]"):
        CML().fit(Responses.from_wide([[1, 0, 0], [0, 1, 0], [1, 1, 1]]))
    blocks = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    with pytest.raises(ExistenceError, match=r"I1, I2 \| I3, I4|I3, I4 \| I1, I2"):
        CML().fit(Responses.from_wide(blocks))


def test_tests_say_what_they_need():
    gaps = Responses.from_wide([[1, 0, np.nan], [0, 1, 1], [1, 1, 0]])
    with pytest.raises(DataError, match="complete data"):
        martin_loef_test(CML(), gaps)
    with pytest.raises(DataError, match="2 split labels for 6 persons"):
        andersen_test(CML(), Responses.from_wide(GOOD), split=[0, 1])


def test_measures_say_what_they_need():
    data = Responses.from_wide(GOOD)
    other = Responses.from_wide(GOOD, items=["a", "b", "c"])
    with pytest.raises(DataError, match="are not the calibration's"):
        score_persons(CML().fit(data), other)
    with pytest.raises(ExistenceError, match="variance is estimated as 0"):
        MML().fit(data)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 1)) - rng.normal(size=4)
    free = Responses.from_wide((rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float))
    assert score_table(MML().fit(free)).theta.shape == (5,)
    with pytest.raises(ValueError, match="does not determine the measure"):
        score_table(MML(model="2pl").fit(free))
    with pytest.raises(DataError, match="give at least 3"):
        MML(n_nodes=2).fit(data)


def test_extreme_and_absent_persons_are_flagged():
    data = Responses.from_wide([*GOOD, [1, 1, 1], [np.nan] * 3])
    cal = CML().fit(data)
    assert cal.extreme_persons == ("7", "8")
    scores = score_persons(cal, data, method="mle")
    assert scores.theta[6] == np.inf
    assert np.isnan(scores.theta[7])
    assert scores.extreme[6:].all()


def test_scores_out_of_range():
    with pytest.raises(ValueError, match="run from 0 to 2"):
        conditional_probabilities([[0.0], [0.0]], np.array([3]))
    with pytest.raises(ValueError, match="must be finite"):
        log_esf([[np.inf]])


def test_a_thousand_wide_items_neither_overflow_nor_cancel():
    b = 3 * np.random.default_rng(0).normal(size=1000)
    ours = log_esf([[x] for x in b])
    with mpmath.workdps(40):
        gamma = [mpmath.mpf(1)]
        for weight in [mpmath.exp(-mpmath.mpf(x)) for x in b[:150]]:
            gamma = [
                (gamma[r] if r < len(gamma) else 0) + (weight * gamma[r - 1] if r else 0)
                for r in range(len(gamma) + 1)
            ]
        wanted = np.array([float(mpmath.log(value)) for value in gamma])
    np.testing.assert_allclose(log_esf([[x] for x in b[:150]]), wanted, atol=1e-11)
    assert np.isfinite(ours).all()
    assert ours[-1] == pytest.approx(-b.sum(), abs=1e-9)
    # ends are known in closed form, and neighbours obey Newton's inequalities
    assert ours[1] == pytest.approx(np.logaddexp.reduce(-b), abs=1e-10)
    assert (np.diff(ours, 2) < 0).all()


def test_unordered_thresholds_are_flagged_or_refused():
    """Under partial credit they are a finding, under the graded model a negative probability."""
    table = np.repeat([[0, 0], [2, 1], [2, 0], [0, 1], [1, 0], [1, 1]], [9, 9, 5, 5, 1, 1], axis=0)
    cal = CML(model="pcm").fit(Responses.from_wide(table, items=["essay", "sum"]))
    assert cal.disordered == ("essay",)
    assert cal.summary().endswith("thresholds out of order: essay")
    with pytest.raises(ValueError, match=r"item I1: thresholds \[1.0, -1.0\] of a graded item"):
        Calibration.from_parameters("grm", [[1.0, -1.0]])
    assert Calibration.from_parameters("grm", [[1.0, -1.0]], slope=[-1.0]).disordered == ()


@pytest.mark.parametrize(
    "estimator", [CML(), JML(), MML(), Pairwise()], ids=["CML", "JML", "MML", "Pairwise"]
)
def test_constant_items_are_named_by_every_estimator(estimator):
    solved = [[*row, 1] for row in GOOD]
    with pytest.raises(ExistenceError, match="I4"):
        estimator.fit(Responses.from_wide(solved))


@pytest.mark.parametrize(
    "estimator", [CML(), JML(), MML(), MML(model="2pl"), Pairwise()], ids=lambda e: repr(e)[:12]
)
def test_polytomous_scores_are_refused_by_dichotomous_models(estimator):
    with pytest.raises(DataError, match="item I2 has scores up to 2"):
        estimator.fit(Responses.from_wide([[0, 2], [1, 0], [1, 1], [0, 1]]))


@pytest.mark.parametrize(
    "estimator", [CML(), JML(correction="none"), MML(), Pairwise()], ids=lambda e: repr(e)[:8]
)
def test_weights_and_gaps_mean_the_same_to_every_estimator(estimator):
    """Weight 2 is the row twice, weight 0 no row, and answers may be missing."""
    rng = np.random.default_rng(7)
    logits = 1.5 * rng.normal(size=(400, 1)) - np.array([-0.5, 0.0, 0.5, 0.2])
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    table[rng.random(table.shape) < 0.2] = np.nan
    weight = rng.integers(0, 3, size=400)
    weighted = estimator.fit(Responses.from_wide(table, weight=weight))
    repeated = estimator.fit(Responses.from_wide(np.repeat(table, weight, axis=0)))
    np.testing.assert_allclose(weighted.threshold, repeated.threshold, atol=1e-5)
    np.testing.assert_allclose(weighted.threshold_se, repeated.threshold_se, rtol=1e-4)
    assert weighted.loglik == pytest.approx(repeated.loglik, rel=1e-8)


SCORES = np.random.default_rng(0).uniform(0.1, 0.9, size=(3, 8))
LENGTHS = np.random.default_rng(1).uniform(10, 90, size=(3, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: overdispersion(SCORES, weight=10, bins=0), r"bins \(0\)"),
        (lambda: overdispersion(SCORES, weight=10, bootstrap=0), r"bootstrap \(0\)"),
        (lambda: overdispersion(SCORES, weight=10, ridge=np.nan), r"ridge \(nan\)"),
        (lambda: Fractional(ridge=np.nan).fit(SCORES), r"ridge \(nan\)"),
        (lambda: length_as_difficulty(SCORES, LENGTHS, points=[1] * 7 + [0]), r"points \[0.0\]"),
        (lambda: length_as_difficulty(SCORES, LENGTHS, points=[1] * 7 + [np.nan]), r"points"),
        (lambda: length_as_difficulty(SCORES, LENGTHS, subject=["a"] * 7), r"subject has shape"),
        (lambda: length_as_difficulty(SCORES, LENGTHS, answered=[True] * 8), r"answered has shape"),
        (lambda: length_as_difficulty(SCORES, LENGTHS, systems=["a"]), r"systems has shape \(1,\)"),
        (lambda: inconsistent(draws=0), r"draws \(0\)"),
        (lambda: inconsistent(grid=np.array([])), r"grid \[\]"),
        (lambda: inconsistent(grid=np.array([0.0, np.nan])), r"finite scores"),
    ],
)
def test_a_bad_argument_of_a_diagnostic_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def inconsistent(grid=SCORES[0], draws=10):
    return isr(SCORES[0], ["a"] * 8, grid=grid, draws=draws, rng=np.random.default_rng(0))


def test_two_folders_of_one_name_are_not_one_system(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "m").mkdir(parents=True)
        line = '{"doc_id": 0, "metrics": ["acc"], "acc": 1.0}\n'
        (tmp_path / folder / "m" / f"samples_{folder}.jsonl").write_text(line)
    with pytest.raises(DataError, match="would both be system 'm'"):
        read_lm_eval([tmp_path])
