"""What an estimator gives back when its search ends too early."""

from dataclasses import replace

import numpy as np
import pytest

from meristem_rasch import (
    CML,
    JML,
    MML,
    Calibration,
    ConvergenceError,
    Facets,
    Pairwise,
    Ratings,
    Responses,
    simulate,
)

ESTIMATORS = [
    CML(),
    CML(model="pcm"),
    Pairwise(),
    JML(),
    JML(correction="jackknife"),
    MML(),
    MML(model="2pl"),
    Facets(),
    Facets(correction="jackknife"),
    Facets(method="mml"),
]


@pytest.fixture(scope="module")
def data() -> Responses:
    known = Calibration.from_parameters("rasch", [[-1.5], [-0.5], [0.2], [0.8], [1.6]])
    theta = np.random.default_rng(0).normal(size=200)
    return simulate(known, theta, seed=1)


def given(estimator, data: Responses):
    if not isinstance(estimator, Facets):
        return data
    person, item = np.nonzero(data.mask)
    return Ratings.from_long(
        data.scores[person, item],
        {"person": [data.persons[p] for p in person], "item": [data.items[i] for i in item]},
    )


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_the_last_state_is_raised_or_given_back_and_lies_on_the_way(estimator, data):
    table, hurried = given(estimator, data), replace(estimator, max_steps=1)
    with pytest.raises(ConvergenceError, match=r"within 1 steps.*strict=False") as caught:
        hurried.fit(table)
    state, whole = caught.value.state, estimator.fit(table)
    given_back = hurried.fit(table, strict=False)
    assert state.status == given_back.status == "max_steps"
    assert whole.status == "converged"
    assert given_back.to_dict() == state.to_dict()
    assert given_back.n_iter < whole.n_iter
    assert given_back.loglik < whole.loglik
    assert estimator.fit(table, strict=False).to_dict() == whole.to_dict()
