"""What arXiv 2502.17151 and 2502.16497 are about, in numbers.

The papers' texts were not at hand: hypotheses follow summaries; exponents and bounds are derived in
the package's docstrings. `meristem reproduce` runs the same claims at full size.
"""

import numpy as np
import pytest

from meristem_dynamics import (
    certify,
    certify_graph,
    certify_uniform,
    check_degenerate_saddle,
    check_pointwise,
    conjugacy,
    degenerate_graph,
    finite_shadowing,
    gains,
    iterate,
    pointwise_rates,
    zoo,
)
from meristem_dynamics._slowdown import EIGENVECTORS

pytestmark = pytest.mark.paper
ROUND = {  # forms of each pair (k, k')
    (1, 1): ({(3, 0): 1, (1, 2): 1}, {(0, 3): 1, (2, 1): 1}),
    (2, 1): ({(5, 0): 1, (3, 2): 2, (1, 4): 1}, {(0, 3): 1, (2, 1): 1}),
    (1, 2): ({(3, 0): 1, (1, 2): 1}, {(0, 5): 1, (2, 3): 2, (4, 1): 1}),
}


@pytest.mark.parametrize("degrees", list(ROUND))
def test_2502_17151_stable_manifold_theorem(degrees):
    """Under the six conditions all four branches are graphs, each in a proved wedge."""
    f = zoo.degenerate_saddle(*ROUND[degrees], X={(2 * degrees[0] + 2, 0): "0.3"})
    report = check_degenerate_saddle(f)
    assert report.ok
    assert (report.k, report.k2) == degrees
    for kind, slope in (("stable", report.slope_stable), ("unstable", report.slope_unstable)):
        graph = degenerate_graph(f, kind, order=12)
        assert graph.coefficients[1] == pytest.approx(slope, abs=1e-12)
        assert abs(slope) <= 1
        for side in (1, -1):
            wedge = certify_graph(graph, order=6, reach=min(report.radius, 0.005), side=side)
            assert wedge.ok, (kind, side, wedge.reason)


def test_2502_17151_degenerate_hartman_theorem():
    """h F = G h with a decoupled G, to rounding; h keeps the order along both axes."""
    h = conjugacy(zoo.demo_saddle(), edge=0.12)
    z = np.random.default_rng(0).uniform(-0.11, 0.11, (8, 2))
    assert h.residual(z) < 1e-14
    line = np.linspace(0.02, 0.11, 4)
    x = h(np.stack([line, np.full(4, 0.05)], axis=1))[:, 0]
    y = h(np.stack([np.full(4, 0.05), line], axis=1))[:, 1]
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()


@pytest.mark.parametrize("violated", ["P_x - P_y", "P_x + P_y", "Q_y - Q_x", "Q_y + Q_x"])
def test_2502_17151_each_condition_is_found(violated):
    """2 P_x = (P_x + P_y) + (P_x - P_y): four of the six conditions say all."""
    form, cross = violated[0], 2 if " - " in violated else -2
    P, Q = (dict(part) for part in ROUND[1, 1])
    if form == "P":
        P[0, 3] = cross
    else:
        Q[3, 0] = cross
    report = check_degenerate_saddle(zoo.degenerate_saddle(P, Q))
    assert not report.ok
    assert not report.forms[violated].definite
    assert report.forms["P_x"].definite
    assert report.forms["Q_y"].definite


def test_2502_17151_worked_example():
    """The worked example; coefficients confirmed in Arb by certify_graph."""
    graph = degenerate_graph(zoo.demo_saddle())
    found = graph.coefficients[1:6]
    expected = [0.104359620381912, 0.00875202, -0.09991129, -0.01400856, -0.05517591]
    assert found == pytest.approx(expected, abs=1e-8)
    assert graph.residual_at(np.array([0.1, 0.2])).max() < 1e-17
    # halving t divides the residual of a cut series by 2^(M + 1 + 2k)
    cut = type(graph)(system=graph.system, kind="stable", transposed=False,
                      coefficients=graph.coefficients[:5])  # fmt: skip
    ratio = cut.residual_at(np.array([0.1]))[0] / cut.residual_at(np.array([0.05]))[0]
    assert np.log2(ratio) == pytest.approx(7, abs=0.3)
    coarse, fine = certify_graph(graph, order=6), certify_graph(graph, order=20)
    t = 0.007
    gap = abs(np.polyval(coarse.centre[::-1], t) - np.polyval(fine.centre[::-1], t))
    assert gap <= coarse.width(t) + fine.width(t)
    with pytest.raises(ValueError, match="reach is"):
        certify_graph(graph, reach=1.0)
    with pytest.raises(ValueError, match="the wedge is proved on"):
        fine.width(1.0)


def test_2502_17151_finite_shadowing():
    """eps(d) ~ d^(1 / (2 max(k, k') + 1)), between a planted orbit and the proved bound."""
    for (k, k2), (P, Q) in list(ROUND.items())[:2]:
        found = finite_shadowing(zoo.degenerate_saddle(P, Q), [1e-6, 1e-7, 1e-8])
        assert found.predicted == 1 / (2 * max(k, k2) + 1)
        assert found.exponent == pytest.approx(found.predicted, abs=1e-6)
        assert (found.lower <= found.upper).all()
        assert (found.lower >= found.errors**found.predicted * 0.5).all()
    with pytest.raises(ValueError, match="at least two positive"):
        finite_shadowing(zoo.demo_saddle(), [1e-3])


def test_2502_17151_law_on_the_line():
    """d^(1/p) <= eps <= (4^k d)^(1/p): the orbit pushed by d each step, and the true one."""
    for k in (1, 2):
        p, d = 2 * k + 1, 10.0 ** (-4 / k)
        x = y = d ** (1 / p)
        worst = 0.0
        for _ in range(100_000):
            x, y = x - x**p, y - y**p + d
            worst = max(worst, abs(x - y))
        assert 0.9 * d ** (1 / p) <= worst <= (4**k * d) ** (1 / p)


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


def test_2502_16497_exponents_and_the_readings_of_relation_r():
    """beta = 2 a, gamma = 1 + 2 a on the slowed-down cat map, whose derivative has alpha = 2 a."""
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


def test_2502_16497_no_constant_serves_all_points():
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


def test_pointwise_against_uniform_bounds_on_henon():
    """10^4 steps: large gains at tangencies make the worst point 10^4 times worse than most."""
    henon = zoo.henon()
    orbit = iterate(henon, [0.0, 0.0], 10_000)
    uniform, pointwise = certify_uniform(henon, orbit), certify(henon, orbit)
    assert 3e4 < gains(henon, orbit).gain.max() < 1.2e5
    assert uniform.radius < 3e-10
    assert pointwise.radius_max < 2e-11
    assert np.median(pointwise.radius) < 2e-15, "a typical point is far better than the worst"
