import numpy as np
import pytest

from meristem_dynamics import (
    Map,
    cone_check,
    expansivity,
    pointwise_rates,
    topological_conjugacy,
    zoo,
)
from meristem_dynamics._slowdown import EIGENVECTORS

CAT = zoo.cat()


def test_cat_map_has_no_boundary():
    with pytest.raises(ValueError, match="must be planar and have a boundary_distance"):
        pointwise_rates(CAT, np.zeros((500, 2)))
    flat = Map(f=CAT.f, dim=2, torus=True, boundary_distance=lambda z: np.ones(len(z)))
    orbit = np.array([[0.1, 0.2]])
    for _ in range(420):
        orbit = np.concatenate([orbit, flat(orbit[-1:])])
    rates = pointwise_rates(flat, orbit)
    growth = (3 + np.sqrt(5)) / 2
    assert rates.unstable == pytest.approx(growth)
    assert rates.stable == pytest.approx(growth)
    assert rates.angle == pytest.approx(np.pi / 2)


def test_cones_are_proved_where_they_hold():
    report = cone_check(CAT, np.random.default_rng(0).random((50, 2)), 0.1, EIGENVECTORS)
    assert report.ok
    assert report.expansion == pytest.approx((3 + np.sqrt(5)) / 2)
    f = zoo.demo_saddle()
    swapped = np.array([[0.0, 1.0], [1.0, 0.0]])
    centres = np.array([[0.02, 0.05], [0.01, -0.04]])
    assert cone_check(f, centres, 1e-3, swapped).ok
    at_zero = cone_check(f, np.zeros((1, 2)), 1e-3, swapped)
    assert not at_zero.ok, "no expansion at the neutral point"
    mixed = cone_check(f, np.array([[0.02, 0.05], [0.0, 0.0], [0.01, -0.04]]), 1e-3, swapped)
    assert mixed.worst == 1, "the report says where the cone condition fails"
    assert 0.99 < mixed.expansion[1] <= 1, "and by how much"


def test_stability_of_the_cat_map():
    eps = 0.01
    g = Map(
        f=lambda z, p: CAT.f((z[0], z[1] + eps * np.sin(2 * np.pi * np.asarray(z[0]))), p),
        inverse=lambda z, p: _unkicked(CAT.inverse(z, p)),
        dim=2, torus=True,
    )  # fmt: skip

    def _unkicked(w):
        return w[0], w[1] - eps * np.sin(2 * np.pi * np.asarray(w[0]))

    t = np.linspace(0.1, 0.9, 3)
    points = np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2)
    report = topological_conjugacy(CAT, g, points, window=25)
    assert report.residual < 1e-10
    assert 0 < report.displacement.max() < 2 * eps
    assert report.separation > 0
    same = topological_conjugacy(CAT, CAT, points, window=20)
    assert same.displacement.max() < 1e-10
    with pytest.raises(ValueError, match="has no inverse"):
        topological_conjugacy(CAT, zoo.logistic(), points)


def test_expansivity():
    points = np.random.default_rng(1).random((20, 2))
    found = expansivity(CAT, points, exponent=1, n_max=10)
    assert 0.05 < found.kappa < 0.8
    smaller = expansivity(CAT, points, exponent=1, n_max=3)
    assert smaller.kappa <= found.kappa, "longer orbits separate pairs further"
    with pytest.raises(ValueError, match="has no inverse"):
        expansivity(zoo.tent(), points, exponent=1)
