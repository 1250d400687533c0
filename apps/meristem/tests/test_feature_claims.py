"""The verdicts on features: what each rule says of results that are made for it."""

from dataclasses import replace

import numpy as np
import pytest

from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._feature_claims import Claim, dimensions, judge, pythia, quality
from meristem.reproduce._pythia import Trajectory, read_trajectories
from meristem.reproduce._sensitivity_claims import held_out, seeds, spacing, warmup
from meristem_core import Interval
from meristem_core.command import UsageError
from meristem_crosscoders import Crosscoder, CrosscoderConfig
from meristem_evolution._attribute import Attributed
from meristem_evolution._fit import Fitted
from meristem_evolution._measure import Learning, Measured, Turning
from meristem_evolution.run import Evolved


def trained(curve: list[float]) -> Trained:
    """Return a crosscoder whose dimensionality and explained variance are the curve."""
    S = len(curve)
    measured = Measured(
        steps=list(range(S)),
        tokens=1,
        alive=1,
        kinds={},
        emergence={},
        median_lifetime=1.0,
        explained_variance=curve,
        l0=curve,
        l0_union=1.0,
        rotation=[],
        turning=Turning(step=1, low=1, high=1, contrast=0.5),
        dimensionality=curve,
        norm_agreement=[None] * S,
        shrunk=[0.0] * S,
        complexity=None,
        learning=Learning(
            loss=curve, from_unigram=curve, from_bigram=curve, of_bigram=curve, unigram_loss=1.0,
            bigram_loss=1.0, statistical_end=1,
        ),
    )  # fmt: skip
    evolved = Evolved(
        schema="",
        config={},
        site="",
        fitted=Fitted(steps=1, tokens=1, epochs=1.0, window_bytes=1, scale=[1.0] * S),
        measured=measured,
        attributed=Attributed(tasks=[], without={}),
        seconds={},
    )
    crosscoder = Crosscoder(CrosscoderConfig(d_model=2, n_features=2, steps=tuple(range(S))))
    return Trained(seed=0, evolved=evolved, crosscoder=crosscoder, arrays={})


def turning(steps: list[int], place: int) -> Trained:
    """Return a crosscoder whose 20 features turn before the snapshot at a place."""
    run = trained([0.5] * len(steps))
    late = np.arange(len(steps)) >= place
    cosines = np.where(late[:, None] == late[None, :], 1.0, 0.0)
    step = steps[place]
    measured = replace(
        run.evolved.measured,
        steps=steps,
        turning=Turning(step=step, low=step, high=step, contrast=1.0),
    )
    return replace(
        run,
        evolved=replace(run.evolved, measured=measured),
        arrays={"cosines": np.repeat(cosines[None], 20, 0), "kind": np.zeros(20, int)},
    )


def emerging(seed: int, steps: tuple[int, ...], late: int = 0) -> Trained:
    """Return 40 random directions; every second one emerges at the snapshot `late`."""
    run = turning(list(steps), 1)
    crosscoder = Crosscoder(CrosscoderConfig(d_model=32, n_features=40, steps=steps, seed=seed))
    crosscoder.W_dec.data[::2, :late] = 0
    return replace(run, seed=seed, crosscoder=crosscoder, arrays={"kind": np.zeros(40, int)})


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ([True, True, True], "reproduced"),
        ([True, None, True], "partly"),
        ([None, False, False], "partly"),
        ([False, False, False], "refuted"),
    ],
)
def test_seeds_are_judged_together(held, verdict):
    assert judge(held) == verdict


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        ([0.9, 0.2, 0.7], "reproduced"),
        ([0.9, 0.2, 0.5], "partly"),
        ([0.9, 0.5, 0.2], "refuted"),
        ([0.2, 0.5, 0.9], "refuted"),
    ],
)
def test_dimensionality_falls_and_rises(curve, verdict):
    assert dimensions([trained(curve)]).verdict == verdict


@pytest.mark.parametrize(
    ("own", "verdict"), [(0.79, "reproduced"), (0.82, "partly"), (0.9, "refuted")]
)
def test_one_dictionary_is_compared_with_many(own, verdict):
    claim = quality(trained([0.8, 0.8]), {0: own, 1: own})
    assert claim.verdict == verdict
    assert claim.found[0].estimate == pytest.approx(100 * (0.8 - own))


@pytest.mark.parametrize(
    ("untrained", "verdict"),
    [
        ([0.76, 0.78, 0.79], "reproduced"),
        ([0.1, 0.76, 0.79], "partly"),
        ([0.1, 0.2, 0.79], "refuted"),
    ],
)
def test_a_held_out_snapshot_is_rebuilt_or_not(untrained, verdict):
    steps = (1, 4, 16)
    claim = held_out(dict.fromkeys(steps, 0.8), dict(zip(steps, untrained, strict=True)))
    assert claim.verdict == verdict
    assert claim.found[0].estimate == pytest.approx(untrained[1] / 0.8)
    assert claim.found[0].low == pytest.approx(untrained[0] / 0.8)


@pytest.mark.parametrize(("place", "verdict"), [(2, "reproduced"), (3, "refuted")])
def test_a_turning_point_that_moves_with_the_warmup_follows_it(place, verdict):
    steps = [0, 10, 40, 400, 4000]
    claim = warmup({10: turning(steps, 2), 100: turning(steps, place)}, seed=0)
    assert claim.verdict == verdict
    assert claim.found[0].estimate == pytest.approx(0 if place == 2 else 1)


@pytest.mark.parametrize(("place", "verdict"), [(4, "reproduced"), (8, "refuted")])
def test_half_of_the_snapshots_turn_at_the_same_place(place, verdict):
    steps = [0, *(2**k for k in range(9))]
    whole = replace(turning(steps, 4), crosscoder=emerging(0, (0, 1)).crosscoder)
    other = replace(turning(steps, place), crosscoder=whole.crosscoder)
    whole, other = (replace(run, arrays={"kind": np.zeros(40, int)}) for run in (whole, other))
    assert spacing(whole, other, seed=0)[0].verdict == verdict


def test_seeds_share_all_features_or_none_and_say_when_they_emerge():
    steps = (0, 10, 100)
    first = emerging(0, steps, late=2)
    same, order = seeds([first, first], 0)
    assert (same.verdict, same.found[0].estimate) == ("reproduced", 1)
    assert (order.verdict, order.found[0].estimate) == ("reproduced", 1)
    other, order = seeds([first, emerging(1, steps, late=2)], 0)
    assert other.verdict == "refuted"
    assert order.verdict == "not testable here"
    assert order.note.startswith("0 features are matched")


def test_a_row_shows_the_seed_in_the_middle():
    found = [
        Interval(estimate=x, low=x - 1, high=x + 1, level=0.95, covers="") for x in (3.0, 1.0, 2.0)
    ]
    row = Claim(claim="a", claimed="b", found=found, verdict="partly", note="c").row(
        n=5, seconds=1.0, seed=0
    )
    assert (row.measured, row.low, row.high) == (2.0, 1.0, 3.0)
    assert row.note == "c; seeds: 3, 1, 2"


def test_a_trajectory_leaves_its_start_once():
    found = Trajectory(task="a", steps=[0, 1, 10, 100], accuracy=[0.1, 0.1, 0.3, 0.5])
    assert found.leaves(0.1) == 10
    assert found.leaves(0.6) == 100


def test_missing_public_data_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"pythia_evals_by_step.parquet not found; name"):
        read_trajectories(tmp_path)


@pytest.mark.data
def test_pythia_leaves_chance_about_step_1000(data_dir):
    found = {each.task: each for each in read_trajectories(data_dir)}
    lambada = found["lambada_openai"]
    assert lambada.steps[0] == 0
    assert lambada.steps[-1] == 143_000
    assert np.max(lambada.accuracy[: lambada.steps.index(512) + 1]) < 0.01
    assert pythia(list(found.values())).verdict == "reproduced"
