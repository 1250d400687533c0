import numpy as np
import pytest

from meristem_dynamics import (
    Map,
    check_pointwise,
    cone_check,
    expansivity,
    finite_shadowing,
    gains,
    pointwise_rates,
    topological_conjugacy,
    zoo,
)
from meristem_dynamics._slowdown import EIGENVECTORS

CAT = zoo.cat()


def passages(f, nearest, before=40, after=450):
    """Return orbits that pass the fixed point at distances `nearest`."""
    s = np.array([nearest**2 / 0.6, np.full(len(nearest), 0.3)])
    z, p = (EIGENVECTORS @ s).T, f.parameters()
    back = [z]
    for _ in range(before):
        back.insert(0, np.stack(f.inverse(list(back[0].T), p), axis=1) % 1.0)
    for _ in range(after):
        back.append(f(back[-1]))
    return np.swapaxes(np.array(back), 0, 1)


def test_finite_shadowing_exponents():
    cases = {
        (1, 1): ({(3, 0): 1, (1, 2): 1}, {(0, 3): 1, (2, 1): 1}),
        (2, 1): ({(5, 0): 1, (3, 2): 2, (1, 4): 1}, {(0, 3): 1, (2, 1): 1}),
    }
    for (k, k2), (P, Q) in cases.items():
        found = finite_shadowing(zoo.degenerate_saddle(P, Q), [1e-6, 1e-7, 1e-8])
        assert found.predicted == 1 / (2 * max(k, k2) + 1)
        assert found.exponent == pytest.approx(found.predicted, abs=1e-6)
        assert (found.lower <= found.upper).all()
        assert (found.lower >= found.errors**found.predicted * 0.5).all()
    with pytest.raises(ValueError, match="at least two positive"):
        finite_shadowing(zoo.demo_saddle(), [1e-3])


def test_one_dimensional_law():
    """d^(1/p) <= eps <= (4^k d)^(1/p): the orbit pushed by d each step, and the true one."""
    for k in (1, 2):
        p, d = 2 * k + 1, 10.0 ** (-4 / k)
        x = y = d ** (1 / p)
        worst = 0.0
        for _ in range(100_000):
            x, y = x - x**p, y - y**p + d
            worst = max(worst, abs(x - y))
        assert 0.9 * d ** (1 / p) <= worst <= (4**k * d) ** (1 / p)


def test_slowdown_exponents():
    a = 0.3
    f = zoo.slowdown_cat(a="0.3")
    orbits = passages(f, np.geomspace(2e-4, 1e-2, 6))
    rates = [pointwise_rates(f, orbit, settle=30) for orbit in orbits]
    report = check_pointwise(rates, alpha=2 * a, below=0.08)
    for side in (report.unstable, report.stable):
        assert side.beta == pytest.approx(2 * a, abs=0.1)
        assert side.gamma == pytest.approx(1 + 2 * a, abs=0.15)
        assert side.beta_interval[0] <= side.beta <= side.beta_interval[1] + 0.05
    assert not report.as_reported, "alpha = beta: the reported form excludes Katok's example"
    assert report.ratio
    assert report.separate
    with pytest.raises(ValueError, match="dyadic shells"):
        check_pointwise(rates, alpha=1, below=1e-3)


def test_gains_grow_like_the_passage_time():
    """K(d) ~ d^-beta near the neutral point."""
    f = zoo.slowdown_cat(a="0.3")
    nearest = np.geomspace(1e-4, 1e-3, 4)
    top = []
    for orbit, d in zip(passages(f, nearest, 30, 400), nearest, strict=True):
        w = f.boundary_distance(orbit)
        inside = np.flatnonzero(w < 0.3)
        stop = inside[-1] if (np.diff(inside) > 1).sum() == 0 else inside[
            np.flatnonzero(np.diff(inside) > 1)[0]]  # fmt: skip
        part = orbit[: max(stop, int(np.argmin(w)) + 20)]
        top.append(gains(f, part, n_unstable=1).gain.max())
        assert w.min() < 2 * d
    slope = np.polyfit(np.log(nearest), np.log(top), 1)[0]
    assert slope == pytest.approx(-0.6, abs=0.12)


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
