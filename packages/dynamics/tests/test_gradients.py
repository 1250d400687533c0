import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_dynamics import (
    Map,
    covariant_vectors,
    finite_time_exponents,
    iterate,
    jacobians,
    lyapunov,
    ops,
    runge_kutta,
    shadowing_gradient,
    zoo,
)

HENON = zoo.henon()
ORBIT = iterate(HENON, [0.0, 0.0], 3000)
LORENZ = zoo.lorenz()
SCHEME = runge_kutta(LORENZ, 0.02)
START = iterate(SCHEME, [1.0, 1.0, 20.0], 500)[-1]


@given(a=st.floats(-0.8, 0.8), s=st.floats(-2, 2), b=st.floats(-2, 2))
@settings(max_examples=15)
def test_contractions_are_exact(a, s, b):
    """x' = a x + s b has the fixed point s b / (1 - a)."""
    f = Map(f=lambda z, p: (p.a * z[0] + p.s * b,), dim=1, params={"a": a, "s": s})
    x = s * b / (1 - a)
    orbit = np.full((400, 1), x)
    found = shadowing_gradient(f, orbit, lambda z, p: z[0] * z[0] + p.s, ["s", "a"], n_unstable=0)
    assert found.value["s"] == pytest.approx(2 * x * b / (1 - a) + 1, rel=1e-3, abs=1e-5)
    assert found.value["a"] == pytest.approx(2 * x * x / (1 - a), rel=1e-3, abs=1e-5)
    assert found.average == pytest.approx(x * x + s)


@pytest.mark.parametrize("method", ["split", "least_squares", "segments"])
def test_cat_map_coordinates(method):
    """Conjugating by a shift of size s moves the mean of J(x) = sin by its mean derivative."""
    cat = np.array([[2.0, 1.0], [1.0, 1.0]])
    f = Map(
        f=lambda z, p: (2 * (z[0] - p.s) + z[1] + p.s, (z[0] - p.s) + z[1]),
        dim=2,
        params={"s": 0},
        torus=True,
    )
    orbit = iterate(f, [0.1234567, 0.3456789], 2000)
    assert np.allclose(jacobians(f, orbit[:1])[0], cat)
    mean = (2 * np.sin(np.pi * np.arange(2001) / 2000) ** 2 * np.cos(orbit[:, 0])).mean()
    found = shadowing_gradient(f, orbit, lambda z, p: ops.sin(z[0]), ["s"], method=method)
    assert found.value["s"] == pytest.approx(mean, abs=2e-3)


def test_three_methods_agree_on_lorenz():
    orbit = iterate(SCHEME, START, 2000)
    names = ["rho", "sigma", "beta"]
    found = [
        shadowing_gradient(LORENZ, orbit, lambda z, p: z[2], names, step=0.02, method=method)
        for method in ("split", "least_squares", "segments")
    ]
    for other in found[1:]:
        for name in names:
            assert other.value[name] == pytest.approx(found[0].value[name], abs=0.05)  # O(1 / T)
    assert found[0].value["rho"] == pytest.approx(1.017, abs=0.06)
    assert 0 < found[0].error["rho"] < 0.05
    single = shadowing_gradient(LORENZ, orbit, lambda z, p: z[2], ["beta"], step=0.02)
    assert single.value["beta"] == pytest.approx(found[0].value["beta"], rel=1e-12)
    double = shadowing_gradient(LORENZ, orbit, lambda z, p: 2 * z[2] + p.rho, ["rho"], step=0.02)
    assert double.value["rho"] == pytest.approx(2 * found[0].value["rho"] + 1, rel=1e-9)


def test_exponents_of_henon_and_lorenz():
    spectrum = lyapunov(HENON, ORBIT)
    assert spectrum.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-10)
    assert spectrum.exponents[0] == pytest.approx(0.419, abs=4 * spectrum.errors[0])
    flow = lyapunov(SCHEME, iterate(SCHEME, START, 2500)).exponents / 0.02
    assert flow.sum() == pytest.approx(LORENZ.exact["exponent_sum"], abs=2e-3)
    assert flow[1] == pytest.approx(0, abs=0.1)
    with pytest.raises(ValueError, match="errors need at least 41"):
        lyapunov(HENON, ORBIT[:20])


def test_finite_time_exponents_average_to_the_whole_and_change_sign_without_hyperbolicity():
    whole = lyapunov(HENON, ORBIT).exponents
    assert finite_time_exponents(HENON, ORBIT, 3000)[0] == pytest.approx(whole)
    parts = finite_time_exponents(HENON, ORBIT, 100)
    assert parts[::100].mean(axis=0) == pytest.approx(whole, abs=1e-12)
    assert (parts[:, 0] > 0.1).all()
    skew = zoo.skew_variable_dimension(mean="0.2", size="1.5")
    fibre = finite_time_exponents(skew, iterate(skew, [0.3, 0.0], 2000), 20)[:, 1]
    assert fibre.min() < -0.05 < 0.05 < fibre.max()
    with pytest.raises(ValueError, match=r"window is 3001; it must lie in 1\.\.\.3000"):
        finite_time_exponents(HENON, ORBIT, 3001)


def test_area_preserving_maps_pair_their_exponents():
    f = zoo.standard("3")
    spectrum = lyapunov(f, iterate(f, [0.1, 0.2], 2000))
    assert spectrum.exponents.sum() == pytest.approx(0, abs=1e-12)


def test_covariant_vectors_are_covariant():
    for f, orbit in ((HENON, ORBIT), (SCHEME, iterate(SCHEME, START, 2000))):
        found = covariant_vectors(f, orbit, settle=200)
        J = jacobians(f, orbit[found.first : found.first + len(found.growth)])
        pushed = J @ found.vectors[:-1]
        pushed /= np.linalg.norm(pushed, axis=1, keepdims=True)
        alike = np.abs((pushed * found.vectors[1:]).sum(axis=1))
        assert alike.min() > 1 - 1e-9
        assert found.growth.mean(axis=0)[0] == pytest.approx(
            lyapunov(f, orbit).exponents[0], rel=0.1
        )
    linear = Map(f=lambda z, p: (2 * z[0] + z[1], z[1] / 2), dim=2)
    found = covariant_vectors(linear, np.zeros((500, 2)))
    eigenvector = np.array([1.0, -1.5]) / np.hypot(1, 1.5)
    assert np.abs(found.vectors[:, :, 1] @ eigenvector) == pytest.approx(1)
    assert found.angle(0, 1) == pytest.approx(np.arccos(1 / np.hypot(1, 1.5)))
    with pytest.raises(ValueError, match="to settle"):
        covariant_vectors(linear, np.zeros((100, 2)))


def test_refusals():
    with pytest.raises(ValueError, match="has no parameter c"):
        shadowing_gradient(HENON, ORBIT, lambda z, p: z[0], ["c"])
    with pytest.raises(ValueError, match="give step"):
        shadowing_gradient(LORENZ, np.zeros((10, 3)), lambda z, p: z[2], ["rho"])
