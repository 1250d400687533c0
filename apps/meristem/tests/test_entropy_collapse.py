"""The policies of the entropy claim: graded problems, one round of each arm, the rule."""

import copy

import numpy as np
import pytest

from meristem.reproduce import _entropy_collapse as runs
from meristem.reproduce import _implicit_reward_cells as cells
from meristem_core import stream


def test_problems_are_graded():
    digits = runs.graded(stream(0, "x"), 300)
    assert np.bincount((digits > 0).sum(1)).tolist() == [0, 100, 100, 100]
    assert digits.max() == 9
    assert ((digits > 0).mean(0) > 0.5).all()  # at every place


def test_every_arm_learns_from_the_same_answers(monkeypatch, tmp_path):
    monkeypatch.setattr(cells, "PRETRAIN_STEPS", 25)
    for name, value in {"HELD_OUT": 30, "PROBLEMS": 4, "SAMPLES": 4, "UPDATES": 2}.items():
        monkeypatch.setattr(runs, name, value)
    seen = []
    found = runs.run_arms(tmp_path, list(runs.ARMS), [5], 2, lambda done, *_: seen.append(done))
    assert seen == [1, 2, 3, 4, 5, 6]
    starts = {(r["entropy_before"], r["right_before"]) for r in found}
    assert len(starts) == 1  # one base
    assert len({r["entropy"] for r in found}) >= 5  # different ends; the bonus may not yet count
    base = runs.pretrained(5)
    again = runs.run_arm(copy.deepcopy(base), runs.ARMS[runs.PLAIN], 5, 2)
    assert again == {k: v for k, v in found[0].items() if k not in ("seed", "arm")}
    kept = runs.run_arms(tmp_path, [runs.PLAIN], [5], 99, lambda *_: None)
    assert kept == found[:1]  # from the journal


@pytest.mark.parametrize(
    ("entropy", "right", "verdict"),
    [(0.6, 0.5, "reproduced"), (0.6, 0.3, "partly"), (0.4, 0.5, "refuted")],
)
def test_the_rule_gives_the_verdicts_it_states(entropy, right, verdict):
    arms = [runs.PLAIN, runs.STATED]
    found = [
        {
            "arm": arm, "seed": seed, "entropy": 0.25 + (entropy - 0.25) * (arm == runs.STATED),
            "right": 0.4 + (right - 0.4) * (arm == runs.STATED) + 0.01 * seed,
            "entropy_before": 1.0, "right_before": 0.3,
        }
        for arm in arms
        for seed in range(3)
    ]  # fmt: skip
    row = runs.judged(found, arms, 0, 1.0)
    assert (row.verdict, row.measured) == (verdict, pytest.approx(entropy / 0.25))
