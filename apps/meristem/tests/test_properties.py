"""Laws of the app: batches, snapshots, rates, cost."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem.grow._batches import plan_batches
from meristem.grow._config import SCALES, snapshot_steps
from meristem.grow._cost import estimate_cost
from meristem.grow._model import build_model
from meristem.grow._pretrain import learning_rate
from meristem_core.testing import seeds

shares = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(
    lambda parts: [part / sum(parts) for part in parts]
)


def plan(weights, *, steps, batch, seed, context=4, tokens=200):
    ids = {f"d{n}": np.arange(tokens) + 1000 * n for n in range(len(weights))}
    by_name = dict(zip(ids, weights, strict=True))
    return plan_batches(ids, by_name, steps=steps, batch=batch, context=context, seed=seed)


@given(weights=shares, steps=st.integers(1, 12), batch=st.integers(1, 9), seed=seeds())
def test_batches_hold_the_domains_in_their_shares(weights, steps, batch, seed):
    batches = plan(weights, steps=steps, batch=batch, seed=seed)
    for step in range(1, steps + 1):
        used = batches.used[step]
        assert used.sum() == step * batch
        assert np.abs(used - np.array(weights) * step * batch).max() < len(weights), f"{used}"
        assert (used >= batches.used[step - 1]).all()


@given(steps=st.integers(1, 30), seed=seeds())
def test_a_pass_reads_every_row_once(steps, seed):
    batches = plan([1.0], steps=steps, batch=7, seed=seed)  # 49 rows: 7 steps are a pass
    rows = np.concatenate([batches.at(step) for step in range(steps)])
    whole = (len(rows) // 49) * 49
    starts, times = np.unique(rows[:whole, 0], return_counts=True)
    assert len(set(times)) <= 1, f"{dict(zip(starts, times, strict=True))}"
    assert (rows[:, 1:] == rows[:, :-1] + 1).all(), "a row is consecutive tokens"


@given(weights=shares, step=st.integers(0, 9), seed=seeds())
def test_a_batch_is_a_function_of_seed_and_step(weights, step, seed):
    one, other = (plan(weights, steps=10, batch=5, seed=seed) for _ in range(2))
    for earlier in range(step):
        one.at(earlier)
    assert np.array_equal(one.at(step), other.at(step))


@given(steps=st.integers(1, 10**6), linear=st.integers(1, 40))
def test_snapshots_are_log_then_linear(steps, linear):
    found = snapshot_steps(steps, linear)
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == steps
    gaps = np.diff(found)
    assert gaps.max() <= max(1, steps // linear), "no stretch is watched less closely"
    assert len(found) <= 2 * linear + steps.bit_length() + 2


@given(steps=st.integers(1, 3000), warmup=st.integers(1, 500))
def test_the_rate_rises_then_falls_to_a_tenth(steps, warmup):
    scale = replace(SCALES["micro"], warmup=warmup, learning_rate=1.0)
    rates = np.array([learning_rate(step, steps, scale) for step in range(steps)])
    top = int(rates.argmax())
    assert rates.min() > 0
    assert rates.max() <= 1
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) <= 0).all()


@pytest.mark.parametrize("name", ["micro", "tiny", "small"])
def test_the_estimate_counts_the_parameters(name):
    scale = SCALES[name]
    model = build_model(scale, seed=0, end=0)
    counted = sum(each.numel() for each in model.parameters())
    assert estimate_cost(scale).parameters == pytest.approx(counted, rel=0.01)
