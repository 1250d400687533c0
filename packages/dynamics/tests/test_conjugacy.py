import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_dynamics import Map, conjugacy, degenerate_graph, zoo
from meristem_dynamics._lie import jumps

DEMO = zoo.demo_saddle()
MATCHED = conjugacy(DEMO, edge=0.12)
HENON = zoo.henon()


def points(seed, n=12, size=0.11):
    return np.random.default_rng(seed).uniform(-size, size, (n, 2))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_times_count_steps_and_h_conjugates(seed):
    z = points(seed, 3)
    stable, unstable = MATCHED.exit_times(z)
    image = DEMO(z)
    inside = np.abs(image).max(axis=1) < MATCHED.edge
    stable_1, unstable_1 = MATCHED.exit_times(image[inside])
    assert np.allclose(unstable_1, unstable[inside] - 1, rtol=1e-11)
    assert np.allclose(stable_1, stable[inside] + 1, rtol=1e-11)
    assert MATCHED.residual(z) <= 1e-14


@pytest.mark.slow
def test_linear_target():
    linear = conjugacy(DEMO, edge=0.12, target="linear")
    assert (
        linear.residual(np.clip(points(0, 6) * 0.3 + np.array([0.0, 0.06]), -0.11, 0.11)) <= 1e-11
    )  # an error of T counts fully


@pytest.mark.parametrize("seed", [0])
def test_unstable_time_falls_along_unstable_cones(seed):
    rng = np.random.default_rng(seed)
    start = np.array([rng.uniform(-0.02, 0.02), 0.0])
    direction = np.array([rng.uniform(-0.9, 0.9), 1.0])
    z = start + np.linspace(-0.1, 0.1, 9)[:, None] * direction
    h = MATCHED(z)
    assert (np.diff(h[:, 1]) > 0).all()


def test_jumps_and_plain_iteration_give_the_same_time():
    z = points(3, 6)
    times = MATCHED.exit_times(z)[1]
    for w, time in zip(z, times, strict=True):
        if time > 600:
            continue
        n = 0
        while abs(w[1]) < 0.12:
            before, w, n = w, DEMO(w), n + 1
        above, below = abs(w[1]) - 0.12, 0.12 - abs(before[1])
        assert time == pytest.approx(n - above / (above + below), rel=1e-12)


def test_the_manifolds_are_the_axes():
    stable, unstable = degenerate_graph(DEMO), degenerate_graph(DEMO, "unstable")
    t = np.array([-0.1, 0.05, 0.1])
    assert np.abs(MATCHED(stable(t))[:, 1]).max() < 1e-6
    assert np.abs(MATCHED(unstable(t))[:, 0]).max() < 1e-6
    assert np.isinf(MATCHED.exit_times(np.zeros((1, 2)))).all()
    assert (MATCHED(np.zeros((1, 2))) == 0).all()


@given(seed=st.integers(0, 2**32 - 1), s=st.integers(-40, 40))
@settings(max_examples=10)
def test_jumps_are_iterates(seed, s):
    jump = jumps(DEMO, degree=15)
    z = points(seed, 4, 0.02)
    w = jump(z, np.full(4, float(s)))
    for _ in range(abs(s)):
        z, w = (DEMO(z), w) if s > 0 else (z, DEMO(w))
    assert np.allclose(z, w, rtol=1e-12, atol=1e-16)


def test_hyperbolic_saddles():
    for f, base in ((HENON, HENON.exact["fixed_point"]), (zoo.standard("0.5"), (0.0, 0.0))):
        c = conjugacy(f, base)
        z = c._base + points(5, 40, 0.8 * c.edge) @ c._frame.T
        assert c.residual(z) < 1e-13


@pytest.mark.slow
def test_exchanged_axes():
    f = zoo.almost_anosov()
    c = conjugacy(f)
    z = points(2, 10, 0.6 * c.edge)
    assert c.residual(z) < 1e-14
    assert np.abs(c(z) - c(z * [1, -1]) * [-1, 1]).max() < 1e-12, "the map is even in y"


def test_refusals():
    with pytest.raises(ValueError, match="has coordinates"):
        MATCHED(np.array([[0.5, 0.0]]))
    bad = zoo.degenerate_saddle({(3, 0): 1, (0, 3): 2}, {(0, 3): 1, (2, 1): 1})
    with pytest.raises(ValueError, match="P_x - P_y"):
        conjugacy(bad)
    with pytest.raises(ValueError, match="a sink; exit times need a saddle"):
        conjugacy(Map(f=lambda z, p: (z[0] / 2, z[1] / 3), dim=2))
