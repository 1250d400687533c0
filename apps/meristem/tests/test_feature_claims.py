"""The verdicts on features: what each rule says of results that are made for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from meristem.reproduce._activation_claims import activations, rebuilding
from meristem.reproduce._baselines import _components, _explained
from meristem.reproduce._claims import Claim, bounds, judge, over_seeds
from meristem.reproduce._crosscoders import Trained
from meristem.reproduce._feature_claims import complexity, directions, norms
from meristem.reproduce._order_claims import order
from meristem.reproduce._phase_claims import dimensions, pythia
from meristem.reproduce._pythia import Trajectory, read_trajectories
from meristem.reproduce._quality_claims import components, held_out, separate
from meristem.reproduce._sensitivity_claims import seeds, spacing, warmup
from meristem.reproduce._task_claims import tasks
from meristem_core.command import UsageError
from meristem_crosscoders import TRIGGERS, Crosscoder, CrosscoderConfig
from meristem_evolution._attribute import Attributed, Shares, Task
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
        ([], "not testable here"),
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
    claim = separate([trained([0.8, 0.8])] * 3, [{0: own, 1: own}] * 3)
    assert claim.verdict == verdict
    assert [each.estimate for each in claim.found] == pytest.approx([100 * (0.8 - own)] * 3)


def test_one_seed_that_rebuilds_worse_is_not_hidden_by_the_others():
    claim = separate([trained([0.8, 0.8])] * 3, [{0: own} for own in (0.5, 0.6, 0.9)])
    assert claim.verdict == "partly"
    assert [each.estimate for each in claim.found] == pytest.approx([30, 20, -10])


@pytest.mark.parametrize(
    ("untrained", "verdict"),
    [
        ([0.76, 0.78, 0.79], "reproduced"),
        ([0.1, 0.76, 0.79], "partly"),
        ([0.1, 0.2, 0.79], "refuted"),
    ],
)
def test_a_held_out_snapshot_is_rebuilt_or_not(untrained, verdict):
    unknown = dict(enumerate(untrained, start=1))
    claim = held_out([trained([0.8] * 5)] * 3, [unknown] * 3)
    assert claim.verdict == verdict
    assert [each.estimate for each in claim.found] == pytest.approx([untrained[1] / 0.8] * 3)
    assert f"1: {untrained[0] / 0.8:.2f}, " in claim.note


@pytest.mark.parametrize(("place", "verdict"), [(2, "reproduced"), (3, "refuted")])
def test_a_turning_point_that_moves_with_the_warmup_follows_it(place, verdict):
    steps = [0, 10, 40, 400, 4000]
    claim = warmup([{10: turning(steps, 2), 100: turning(steps, place)}] * 3, seed=0)
    assert claim.verdict == verdict
    assert [each.estimate for each in claim.found] == pytest.approx([0 if place == 2 else 1] * 3)


@pytest.mark.parametrize(
    ("place", "later", "verdict"), [(4, 0, "reproduced"), (8, 4, "refuted"), (1, -3, "refuted")]
)
def test_half_of_the_snapshots_turn_at_the_same_place(place, later, verdict):
    steps = [0, *(2**k for k in range(9))]
    whole = replace(turning(steps, 4), crosscoder=emerging(0, (0, 1)).crosscoder)
    other = replace(turning(steps, place), crosscoder=whole.crosscoder)
    whole, other = (replace(run, arrays={"kind": np.zeros(40, int)}) for run in (whole, other))
    claim = spacing([whole] * 3, [other] * 3, seed=0)[0]
    assert claim.verdict == verdict
    assert [each.estimate for each in claim.found] == [later] * 3


def test_seeds_share_all_features_or_none_and_say_when_they_emerge():
    steps = (0, 10, 100)
    first = emerging(0, steps, late=2)
    same, order = seeds([first, first], 0)
    assert (same.verdict, same.found[0].estimate) == ("reproduced", 1)
    assert (order.verdict, order.found[0].estimate) == ("reproduced", 1)
    other, order = seeds([first, emerging(1, steps, late=2)], 0)
    assert other.verdict == "refuted"
    assert order.verdict == "not testable here"
    assert order.note.startswith("no value: 0 features are matched")


def test_all_pairs_of_seeds_are_compared():
    same, _ = seeds([emerging(seed, (0, 10, 100), late=2) for seed in (0, 0, 1)], 0)
    assert same.pairs
    assert [each.estimate for each in same.found] == [1, 0, 0]


def test_a_row_has_the_mean_of_the_seeds_and_says_each():
    found = [bounds(x, low=x - 1, high=x + 1) for x in (3.0, 1.0, 2.0)]
    row = Claim(claim="a", claimed="b", found=found, verdict="partly", note="c").row(
        seconds=1.0, seed=0
    )
    half = 4.302653 / np.sqrt(3)  # Student's quantile with 2 degrees of freedom
    assert (row.measured, row.low, row.high) == pytest.approx((2.0, 2 - half, 2 + half))
    assert row.n == 3
    assert row.note.startswith("c; seeds: 3 [2, 4], 1 [0, 2], 2 [1, 3]; mean and Student's")


def test_seeds_that_agree_have_their_outermost_bounds():
    one = over_seeds([bounds(0.0, low=low, high=0.1) for low in (-0.2, 0.0, -0.1)])
    assert (one.estimate, one.low, one.high) == (0.0, -0.2, 0.1)


def test_pairs_of_seeds_have_the_error_of_a_jackknife_over_seeds():
    values = np.array([0.2, 0.5, 0.3])
    pairs = over_seeds([bounds(x) for x in values], pairs=True)
    left_out = values[::-1]  # without a seed, one pair is left
    error = np.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum())
    assert pairs.high - pairs.estimate == pytest.approx(4.302653 * error)


def test_a_claim_without_a_measurement_says_why():
    run = replace(turning([0, 1, 10], 2), arrays=turning([0, 1, 10], 2).arrays)
    late = directions([run] * 3, seed=0)[1]
    agreement = norms([run] * 3)[0]
    for claim in (late, complexity([run] * 3), agreement):
        row = claim.row(seconds=0.0, seed=0)
        assert (row.measured, row.low, row.high, row.n) == (None, None, None, 0)
        assert row.verdict == "not testable here"
        assert row.note.startswith("no value: ")


def doing(accuracy: float, *, faithfulness: float = 0.9, random: float = 0.1):
    """Return a crosscoder of a model that does a task with some accuracy."""
    shares = Shares(features=[0, 64, 256], faithfulness=[0.0, faithfulness, 1.0],
                    low=[0.0] * 3, high=[random] * 3)  # fmt: skip
    task = Task(name="sva", pairs=32, dropped=0, accuracy=[0.5, accuracy], difference=[],
                carried=[], restore=shares, ablate=None)  # fmt: skip
    tried = Attributed(tasks=[task], without={"ioi": "no single-token answers"})
    return replace(trained([0.5]), attributed=tried)


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (doing(0.9), "reproduced"),
        (doing(0.9, random=0.8), "partly"),
        (doing(0.9, faithfulness=0.05), "refuted"),
        (doing(0.6), "not testable here"),
    ],
)
def test_features_carry_a_task_or_not(run, verdict):
    ioi, sva = tasks([run] * 3)
    assert sva.verdict == verdict
    assert ("does not do it" in sva.note) == (verdict == "not testable here")
    assert (ioi.verdict, list(ioi.found)) == ("not testable here", [])
    assert "no single-token answers" in ioi.note


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
    assert claims[0].note.startswith("no value and no interval: no seed has 5 features")
    assert "4 [0.215, 0.785] and 0 [0.000, 0.324]" in claims[0].note  # Wilson, of 8


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
