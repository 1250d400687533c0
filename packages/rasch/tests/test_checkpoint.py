"""Fits that are killed and go on: bit-equal to whole ones, and only with their own checkpoint."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meristem_rasch import MML, DataError, Facets, Ratings, Responses
from meristem_rasch import _checkpoint as checkpoints

KILLED = """
import os, signal, sys
import numpy as np
from meristem_rasch import _checkpoint
from test_checkpoint import fit
_checkpoint.EVERY = 0.0
def end(n_iter, change):
    if n_iter == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
fit(sys.argv[1], checkpoint=sys.argv[2], progress=end)
"""


def fit(kind, **settings):
    """Fit drawn data; return all estimates as one array, and the number of steps."""
    rng = np.random.default_rng(4)
    logits = 1.5 * rng.normal(size=(300, 1)) - rng.normal(size=8)
    table = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    if kind.startswith("facets"):
        who, item = np.divmod(np.arange(table.size), 8)
        rater = rng.integers(0, 6, size=table.size)
        data = Ratings.from_long(
            table.ravel().astype(int), {"person": who, "item": item, "rater": rater}
        )
        config = {
            "facets": Facets(interactions=(("item", "rater"),)),
            "facets, mml": Facets(method="mml"),
            "facets, jackknife": Facets(correction="jackknife"),
        }
        cal = config[kind].fit(data, **settings)
        return np.concatenate([[cal.loglik], *(t.measure for t in cal.facets.values())]), cal.n_iter
    table[rng.random(table.shape) < 0.2] = np.nan
    groups = rng.choice(["a", "b"], size=300)
    cal = MML(model=kind).fit(Responses.from_wide(table), groups, **settings)
    return np.concatenate([[cal.loglik], cal.threshold, cal.vcov.ravel(), cal.slope]), cal.n_iter


class Stopped(Exception):
    """Raised by a fit's progress to end it."""


def stop_at(step):
    def progress(n_iter, _):
        if n_iter == step:
            raise Stopped

    return progress


@pytest.mark.parametrize(
    ("kind", "step"),
    [("facets", 2), ("facets, mml", 3), ("facets, jackknife", 1), ("rasch", 3), ("2pl", 4)],
)
def test_a_stopped_fit_goes_on_bit_for_bit(tmp_path, monkeypatch, kind, step):
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    path = tmp_path / "fit.npz"
    with pytest.raises(Stopped):
        fit(kind, checkpoint=path, progress=stop_at(step))
    whole, n_iter = fit(kind)
    written, save = [], checkpoints.Checkpoint.save
    monkeypatch.setattr(
        checkpoints.Checkpoint, "save", lambda self, **a: written.append(a) or save(self, **a)
    )
    resumed, same = fit(kind, checkpoint=path)
    np.testing.assert_array_equal(resumed, whole)
    assert n_iter == same
    first, again = len(written), fit(kind, checkpoint=path)[0]
    assert first >= n_iter - step  # the rest was computed,
    assert len(written) == first  # and nothing twice
    np.testing.assert_array_equal(again, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["facets", "rasch"])
def test_a_killed_fit_goes_on_bit_for_bit(tmp_path, kind):
    path = tmp_path / "fit.npz"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, kind, str(path), "2"],
        cwd=Path(__file__).parent,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert path.exists()
    np.testing.assert_array_equal(fit(kind, checkpoint=path)[0], fit(kind)[0])


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    path = tmp_path / "fit.npz"
    fit("rasch", checkpoint=path)
    with pytest.raises(DataError, match="other data or settings"):
        fit("2pl", checkpoint=path)
    path.write_text("something else")
    with pytest.raises(DataError, match="no checkpoint"):
        fit("rasch", checkpoint=path)
