import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_dynamics import (
    Flow,
    Map,
    integrate,
    iterate,
    jacobians,
    load_system,
    pseudo_orbit,
    zoo,
)
from meristem_dynamics._slowdown import EIGENVECTORS, GROWTH, _shift

points = st.tuples(st.floats(-0.49, 0.49), st.floats(-0.49, 0.49)).map(np.array)
MAPS = [zoo.henon(), zoo.standard(), zoo.cat(), zoo.demo_saddle(), zoo.almost_anosov(),
        zoo.sheared_saddle(), zoo.slowdown_cat()]  # fmt: skip


@pytest.mark.parametrize("system", MAPS, ids=lambda m: m.name)
def test_fixed_points_are_fixed(system):
    z = np.array(system.exact["fixed_point"])
    image = system(z)
    gap = image - z
    assert np.abs(gap - np.rint(gap) * system.torus).max() < 1e-15


@pytest.mark.parametrize("system", [m for m in MAPS if m.inverse], ids=lambda m: m.name)
@given(z=points)
def test_inverse_undoes_the_map(system, z):
    back = np.array(system.inverse(system(z), system.parameters()))
    gap = back - z
    assert np.abs(gap - np.rint(gap) * system.torus).max() < 1e-12


@given(z=points, a=st.sampled_from(["0.2", "0.3", "0.45"]))
def test_slowdown_determinant_and_differences(z, a):
    f = zoo.slowdown_cat(a=a)
    s = EIGENVECTORS.T @ z
    J = jacobians(f, z[None])[0]

    def psi(u):
        return min(1.0, (u / 0.04) ** float(a))

    D, _ = _shift(s[:1], s[1:], float(a), 0.04)
    image = np.array([s[0] * math.exp(D[0]), s[1] * math.exp(-D[0])])
    if s @ s > 1e-8:
        assert np.linalg.det(J) == pytest.approx(psi(image @ image) / psi(s @ s), rel=1e-10)
        assert image[0] * image[1] == pytest.approx(s[0] * s[1], rel=1e-14, abs=1e-30)
    if s @ s > 1e-4:
        h = 1e-6
        for j in range(2):
            e = h * np.eye(2)[j]
            up, down = (np.array(f.f(z + d, f.parameters())) for d in (e, -e))
            assert np.allclose((up - down) / (2 * h), J[:, j], atol=1e-4)


def test_slowdown_closed_forms():
    """D17: the derivative in closed form inside the disc; the orbit on an axis."""
    a, r0 = 0.3, 0.04
    s = np.array([[0.05], [0.08]])
    D, dD = _shift(s[0], s[1], a, r0)
    before = float(((s**2).sum() / r0) ** a)
    after = float((((s[0] * np.exp(D)) ** 2 + (s[1] * np.exp(-D)) ** 2) / r0)[0] ** a)
    half = 0.5 * (1 / after - 1 / before)
    closed = [after * (a * GROWTH - half) / s[0], after * (a * GROWTH + half) / s[1]]
    assert np.allclose(dD, closed, rtol=1e-12)
    x = 0.03
    D, _ = _shift(np.array([x]), np.array([0.0]), a, r0)
    assert x * np.exp(D[0]) == pytest.approx(
        (x ** (-2 * a) - 2 * a * GROWTH * r0**-a) ** (-0.5 / a)
    )


def test_slowdown_equals_the_cat_map_outside():
    z = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 2))
    s = z @ EIGENVECTORS
    far = (np.abs(s[:, 0]) > 0.2) & (np.abs(s[:, 1]) > 0.2)
    gap = zoo.slowdown_cat()(z[far]) - zoo.cat()(z[far])
    assert np.abs(gap - np.rint(gap)).max() < 1e-14


@given(t=st.floats(-0.4, 0.4))
def test_sheared_saddle_keeps_its_manifold(t):
    f = zoo.sheared_saddle()
    image = f(np.array(f.exact["stable"](t)))
    assert image == pytest.approx(f.exact["stable"](t - t**3), abs=1e-14)


def test_parameters_are_exact():
    assert zoo.henon().exact_parameters() == {"a": "7/5", "b": "3/10"}
    assert zoo.henon(a=1.4).exact_parameters()["a"] == "3152519739159347/2251799813685248"
    with pytest.raises(ValueError, match="has no parameter c; its parameters are a, b"):
        zoo.henon().with_parameters(c=1)
    with pytest.raises(ValueError, match="parameter a is 'x'; give a finite number"):
        zoo.henon().with_parameters(a="x")


def test_orbits_that_leave_are_refused_with_the_step():
    with pytest.raises(ValueError, match=r"henon (is|fails) .*at step|orbit of henon is"):
        iterate(zoo.henon(), [10.0, 0.0], 100)
    with pytest.raises(ValueError, match="z0 has 3 components"):
        iterate(zoo.henon(), [0.0, 0.0, 0.0], 1)


def test_code_that_cannot_be_differentiated_is_refused():
    bad = Map(f=lambda z, p: (math.floor(z[0]),), dim=1)
    with pytest.raises(ValueError, match="cannot be differentiated"):
        jacobians(bad, np.zeros((2, 1)))
    nan = Map(f=lambda z, p: (z[0] * float("nan"),), dim=1)
    with pytest.raises(ValueError, match="must be differentiable"):
        jacobians(nan, np.zeros((2, 1)))


@pytest.mark.parametrize(
    ("f", "complaint"),
    [
        (lambda z, p: (z[0],), "f of user system returns 1 components; dim is 2"),
        (lambda z, p: (z[0], z[7]), r"cannot be evaluated at \[0.5, 0.5\]: IndexError: .*; mend f"),
        (lambda z, p: (z[0], p.q), "cannot be evaluated .* has no attribute 'q'; mend f"),
    ],
)
def test_code_that_does_not_run_is_refused(f, complaint):
    with pytest.raises(ValueError, match=complaint):
        iterate(Map(f=f, dim=2), [0.5, 0.5], 3)
    with pytest.raises(ValueError, match=complaint):
        integrate(Flow(f=f, dim=2), [0.5, 0.5], 3, step=0.1)


def test_a_flow_that_no_series_enters_is_refused():
    rough = Flow(f=lambda z, p: (z[1], -math.sin(z[0])), dim=2)
    with pytest.raises(ValueError, match="cannot be expanded in a series: must be real number"):
        integrate(rough, [0.5, 0.5], 3, step=0.1)


def test_users_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from meristem_dynamics import Flow, Map\n"
        "one = Map(f=lambda z, p: (p.k * z[0],), dim=1, params={'k': '1/3'})\n"
    )
    assert load_system(path, k=2).exact_parameters() == {"k": "2"}
    path.write_text(path.read_text() + "two = Flow(f=lambda z, p: (-z[0],), dim=1)\n")
    with pytest.raises(ValueError, match="defines one, two; name one of them"):
        load_system(path)
    assert isinstance(load_system(path, "two"), Flow)
    with pytest.raises(ValueError, match="is not a Python file"):
        load_system(tmp_path / "none.py")


@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0, 1e-3))
def test_pseudo_orbits_keep_to_their_noise(seed, noise):
    f = zoo.cat()
    orbit = pseudo_orbit(f, [0.1, 0.2], 20, noise=noise, rng=seed)
    gap = orbit[1:] - f(orbit[:-1])
    assert np.abs(gap - np.rint(gap)).max() <= noise + 1e-15
    assert np.array_equal(orbit, pseudo_orbit(f, [0.1, 0.2], 20, noise=noise, rng=seed))


def test_every_zoo_system_is_made():
    for name, make in zoo.MAPS_AND_FLOWS.items():
        assert make().name.replace(" ", "-") == name
    with pytest.raises(ValueError, match="0 < a < 1/2"):
        zoo.slowdown_cat(a="0.7")
    with pytest.raises(ValueError, match="r0 is 1"):
        zoo.slowdown_cat(r0=1)
    with pytest.raises(ValueError, match="repeats the term"):
        zoo.degenerate_saddle({(3, 0): 1}, {(0, 3): 1}, X={(3, 0): 1})
    with pytest.raises(ValueError, match="degree must be at least 2"):
        zoo.degenerate_saddle({(1, 0): 1}, {(0, 3): 1})


@given(x=st.floats(0.01, 0.99))
def test_logistic_map_is_the_tent_map_in_other_coordinates(x):
    """x = sin^2(pi t / 2) turns 4x (1 - x) into the tent map."""
    t = 2 / math.pi * math.asin(math.sqrt(x))
    image = zoo.logistic()(np.array([x]))[0]
    folded = float(zoo.tent()(np.array([t]))[0])
    assert image == pytest.approx(math.sin(math.pi * folded / 2) ** 2, abs=1e-12)
