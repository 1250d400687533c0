"""Paper 2507.00018: the task, the exact part, one cell, the rules, and the command's resume."""

import numpy as np
import pytest

from meristem._running_sums import (
    Alphabet,
    demonstrations,
    draw_problems,
    preferences,
    write_answers,
)
from meristem.reproduce import _implicit_reward as claims
from meristem.reproduce import _implicit_reward_cells as cells
from meristem.reproduce._implicit_reward_bandits import solve_bandits
from meristem_core import stream

ALPHABET = Alphabet(digits=tuple(range(10)), equals=(10,), end=11)


def test_answers_are_running_sums_and_slips_are_carried_on():
    digits = np.array([[3, 9, 4], [1, 0, 9]])
    right = write_answers(stream(0, "x"), digits)
    assert right.tolist() == [[3, 2, 6], [1, 1, 0]]
    rng = stream(1, "x")
    many = draw_problems(rng, 4000, 3)
    noisy = write_answers(rng, many, noise=0.3)
    before = np.concatenate([np.zeros((4000, 1), int), noisy[:, :-1]], 1)
    slips = (noisy != (before + many) % 10).mean()
    assert slips == pytest.approx(0.27, abs=0.02)  # a tenth of the random digits is right


def test_pairs_set_the_right_answer_before_a_wrong_one():
    rng = stream(2, "x")
    digits = draw_problems(rng, 300, 3)
    right = write_answers(rng, digits)
    found = preferences(ALPHABET, rng, digits, noise=0.2)
    for example, r in zip(found, right.tolist(), strict=True):
        assert example.responses[0] == [*r, 11]
        assert example.responses[1] != example.responses[0]


def test_the_duality_holds_on_bandits():
    found = solve_bandits(0, bandits=1, betas=(0.3, 3.0))
    assert found.gap < 1e-8
    assert found.total_variation < 1e-4
    assert max(found.most_kl, found.rise) < 0


def test_area_under_the_curve():
    positive = np.array([True, False, True, False])
    assert cells.area(np.array([2.0, 1.0, 3.0, 0.0]), positive) == 1.0
    assert cells.area(np.array([1.0, 1.0, 1.0, 1.0]), positive) == 0.5
    assert cells.area(np.array([0.0, 1.0, 2.0, 3.0]), positive) == 0.25


def test_a_cell_learns_from_few_demonstrations(monkeypatch):
    small = {"PRETRAIN_STEPS": 20, "SFT_STEPS": 12, "DPO_STEPS": 2, "HELD_OUT": 32}
    for name, value in small.items():
        monkeypatch.setattr(cells, name, value)
    world = cells.make_world(3, 3)
    found = cells.run_cell(world, "total variation", 2e-3, 3)
    assert found["kl"] > 0
    nll, kl = np.array(found["curve"]).T
    assert nll[-1] < nll[0]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert len(found["curve"]) == 4
    assert 0 <= found["readout"]["relative"] <= 1
    again = cells.run_cell(world, "total variation", 2e-3, 3)
    assert again == found  # a function of its seed


def test_a_joint_cell_learns_from_both_losses(monkeypatch):
    small = {"PRETRAIN_STEPS": 60, "HELD_OUT": 64}
    for name, value in small.items():
        monkeypatch.setattr(cells, name, value)
    world = cells.make_world(3, 3)
    found = [cells.run_joint_cell(world, name, 2e-3, 3) for name in cells.JOINT]
    assert found[0]["after_dpo"] > 2 * found[0]["before"]
    assert found[2]["kl"] > 2 * found[0]["kl"]  # the weight counts
    assert cells.run_joint_cell(world, "joint, weight 1", 2e-3, 3) == found[1]


def test_drawn_answers_belong_to_the_problems_of_the_single_ones(monkeypatch):
    monkeypatch.setattr(cells, "PRETRAIN_STEPS", 1)
    world = cells.make_world(3, 3)
    once, eight = world.drawn[1], world.drawn[8]
    assert [e.prompt for e in once] == [e.prompt for e in world.train]
    assert [e.prompt for e in eight[::8]] == [e.prompt for e in world.train]
    assert len(eight) == 8 * len(world.train)
    right = [e.responses for e in world.train for _ in range(8)]
    slips = np.mean([e.responses != r for e, r in zip(eight, right, strict=True)])
    assert slips == pytest.approx(1 - (1 - 0.9 * 0.15) ** 3, abs=0.06)  # three digits, 768 answers


def fake_cells(gain):
    """Scores in which the smaller rate wins after DPO by `gain`, and chi-squared by twice that."""
    seeds, found = [1, 2, 3, 4, 5], []
    areas = dict.fromkeys(("relative", "raw", "logprob", "head"), 0.5 + gain)
    readout = {"readout": areas}
    for seed in seeds:
        for name in ("total variation", "chi-squared"):
            for i, rate in enumerate(cells.RATES):
                found.append({
                    "seed": seed, "loss": name, "rate": rate, "after_sft": 0.5 - 0.01 * i,
                    "after_dpo": 0.5 + gain * (i == 2) * (1 + (name != "total variation"))
                    + 0.001 * (seed % 2),
                    "curve": [[2.0, 0.0], [1.0, 0.1 - gain * (name != "total variation")]],
                    **(readout if i == 1 and name == "total variation" else {}),
                })  # fmt: skip
        found += [
            {"seed": seed, "loss": name, "rate": rate, "after_dpo": 0.5 - gain}
            for name in cells.JOINT
            for rate in cells.RATES
        ]
        found += [
            {
                "seed": seed, "loss": name, "rate": rate,
                "after_dpo": 0.5 + gain * (plain != "total variation") * (answers == 8),
            }
            for name, (plain, answers) in cells.DRAWN.items()
            for rate in cells.RATES
        ]  # fmt: skip
    return found, seeds


@pytest.mark.parametrize(("gain", "verdict"), [(0.05, "reproduced"), (-0.05, "refuted")])
def test_the_rules_give_the_verdicts_they_state(gain, verdict):
    found, seeds = fake_cells(gain)
    names = ["total variation", "chi-squared"]
    for rule in (claims._rate, claims._divergences, claims._values, claims._trust_region):
        row = rule(found, seeds, names, 0, 1.0)
        assert row.verdict == verdict, row
        assert row.low is not None
        assert row.low <= row.measured <= row.high
    drawn = claims._drawn(found, seeds, list(cells.DRAWN), 0, 1.0)
    assert (drawn.verdict, drawn.measured) == (verdict, pytest.approx(gain))
    assert "one drawn answer 0 [0, 0]" in drawn.note
    joint = claims._joint(found, seeds, list(cells.JOINT), 0, 1.0)
    assert (joint.verdict, joint.measured < 0) == (verdict, gain > 0)


def test_demonstrations_hold_prompt_and_answer():
    digits = np.array([[3, 9, 4]])
    (only,) = demonstrations(ALPHABET, digits, write_answers(stream(0, "x"), digits))
    assert only.prompt == [3, 9, 4, 10]
    assert only.responses == ([3, 2, 6, 11],)
