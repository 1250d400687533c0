"""The verdicts on features: what each rule says of results that are made for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from meristem.reproduce._activation_claims import activations, rebuilding
from meristem.reproduce._baselines import _components, _explained
from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._feature_claims import Claim, components, dimensions, judge, pythia, quality
from meristem.reproduce._order_claims import order
from meristem.reproduce._pythia import Trajectory, read_trajectories
from meristem.reproduce._sensitivity_claims import held_out, seeds, spacing, warmup
from meristem_core import Interval
from meristem_core.command import UsageError
from meristem_crosscoders import TRIGGERS, Crosscoder, CrosscoderConfig
from meristem_evolution._measure import Learning, Measured, Turning


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
    crosscoder = Crosscoder(CrosscoderConfig(d_model=2, n_features=2, steps=tuple(range(S))))
    return Trained(seed=0, measured=measured, crosscoder=crosscoder, arrays={})


def turning(steps: list[int], place: int) -> Trained:
    """Return a crosscoder whose 20 features turn before the snapshot at a place."""
    run = trained([0.5] * len(steps))
    late = np.arange(len(steps)) >= place
    cosines = np.where(late[:, None] == late[None, :], 1.0, 0.0)
    step = steps[place]
    measured = replace(
        run.measured,
        steps=steps,
        turning=Turning(step=step, low=step, high=step, contrast=1.0),
    )
    return replace(
        run,
        measured=measured,
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


def ordered(places: dict[str, int], count: int = 8):
    """Return a crosscoder with `count` features of each kind, which emerge at these snapshots."""
    emergence = np.repeat(list(places.values()), count)
    run = replace(
        trained([0.5] * 3), arrays={"emergence": emergence, "kind": np.zeros(len(emergence), int)}
    )
    return run, np.repeat([TRIGGERS.index(name) for name in places], count)


@pytest.mark.parametrize(
    ("places", "verdicts"),
    [
        ((0, 1, 2), ["reproduced"] * 3),
        ((2, 1, 0), ["refuted"] * 3),
        ((1, 1, 1), ["partly"] * 3),
        ((0, 2, 2), ["reproduced", "reproduced", "partly"]),
    ],
)
def test_kinds_emerge_in_order_or_not(places, verdicts):
    run, kind = ordered(dict(zip(("previous", "induction", "context"), places, strict=True)))
    assert [claim.verdict for claim in order([run] * 3, [kind] * 3, seed=0)] == verdicts


def test_kinds_without_features_are_not_judged():
    run, kind = ordered({"previous": 0, "context": 2}, count=4)
    claims = order([run] * 3, [kind] * 3, seed=0)
    assert {claim.verdict for claim in claims} == {"not testable here"}
    assert "4 and 0; 4 and 0; 4 and 0" in claims[0].note


def activation(*, l0: float, explained: float, shrunk: float):
    """Return a crosscoder of 40 features that emerge one half early, one late."""
    run = emerging(0, (0, 10, 100), late=2)
    measured = replace(
        run.measured,
        alive=40,
        kinds={"0.5": {"initial": 20, "emergent": 20}},
        l0=[l0] * 3,
        explained_variance=[explained] * 3,
        shrunk=[shrunk] * 3,
    )
    return replace(run, measured=measured)


@pytest.mark.parametrize(
    ("opened", "explained", "verdict"),
    [
        (8.0, 0.8, "reproduced"),
        (8.0, 0.83, "partly"),
        (8.0, 0.9, "refuted"),
        (20.0, 0.9, "not testable here"),
    ],
)
def test_activations_are_compared_at_equal_open_features(opened, explained, verdict):
    jumprelu = activation(l0=8.0, explained=0.81, shrunk=0.0)
    batchtopk = activation(l0=opened, explained=explained, shrunk=0.0)
    assert rebuilding([jumprelu] * 3, [batchtopk] * 3).verdict == verdict


def test_activations_are_laid_side_by_side():
    run, relu = (activation(l0=8.0, explained=0.8, shrunk=share) for share in (0.0, 0.5))
    claims = activations({"jumprelu": [run], "batchtopk": [run], "relu": [relu]}, seed=0)
    assert [claim.verdict for claim in claims] == ["reproduced"] * 8  # the same features
    assert claims[-1].found[0].estimate == 0.5
    assert claims[-1].found[0].low > 0


@pytest.mark.parametrize(("gap", "verdict"), [(0.1, "reproduced"), (-0.1, "refuted")])
def test_a_crosscoder_is_compared_with_as_many_components(gap, verdict):
    run = trained([0.5, 0.7])
    run = replace(run, measured=replace(run.measured, l0_union=3.4))
    claim = components([run] * 3, {3: [0.5 - gap, 0.7 - gap]})
    assert claim.verdict == verdict
    assert claim.found[0].estimate == pytest.approx(100 * gap)


def test_components_explain_what_a_singular_value_decomposition_says():
    x = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, columns = _components(iter(x.split(16)))
    centred = x.flatten(1) - x.flatten(1).mean(0)
    sizes = torch.linalg.svdvals(centred).square()
    for k in (1, 3, 6):
        left = 1 - _explained(x, mean, columns[:, -k:])
        total = centred.square().view_as(x).sum((0, 2))
        assert float((left * total).sum()) == pytest.approx(float(sizes[k:].sum()), abs=1e-9)
