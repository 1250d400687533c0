"""Warm's measure against its own definition."""

import numpy as np
from scipy.optimize import minimize_scalar

from meristem_rasch import CML, Responses, score_table


def test_warm_measures_maximise_the_likelihood_times_root_information():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 1)) - rng.normal(size=5)
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    cal = CML().fit(Responses.from_wide(table))
    scores = score_table(cal)
    for raw, theta in enumerate(scores.theta):

        def minus(t, raw=raw):
            p = 1 / (1 + np.exp(cal.threshold - t))
            return np.logaddexp(0, t - cal.threshold).sum() - raw * t - np.log(p @ (1 - p)) / 2

        found = minimize_scalar(minus, bounds=(-12, 12), method="bounded", options={"xatol": 1e-9})
        np.testing.assert_allclose(theta, found.x, atol=1e-6)
