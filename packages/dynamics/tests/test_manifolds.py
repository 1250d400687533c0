from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from meristem_dynamics import (
    Flow,
    Map,
    certify_graph,
    certify_manifold,
    check_degenerate_saddle,
    degenerate_graph,
    finite_shadowing_bound,
    fixed_point,
    grow,
    invariant_manifold,
    is_positive_definite,
    iterate,
    jacobians,
    zoo,
)
from meristem_dynamics._forms import normal_form
from meristem_dynamics._parabolic import divisor

HENON = zoo.henon()
FIXED = HENON.exact["fixed_point"]
SHEARED = Map(  # axes invariant under G, then sheared: W^s is y = x^2 / 2
    f=lambda z, p: _sheared(z[0], z[1] - z[0] * z[0] / 2), dim=2, name="sheared definite saddle"
)


def _sheared(x, y):
    x, y = x - x * x * x - x * y * y / 2, y + y * y * y + x * x * y
    return x, y + x * x / 2


coefficients = st.lists(st.integers(-6, 6), min_size=1, max_size=7).map(
    lambda c: c if len(c) % 2 else [*c, 1]
)


@given(form=coefficients)
def test_definiteness_equals_dense_sampling(form):
    report = is_positive_definite(form)
    t = np.linspace(-1, 1, 20001)
    low = min(np.polyval(form[::-1], t).min(), np.polyval(form, t).min())
    if abs(low) > 1e-6 * max(map(abs, form), default=1):
        assert report.definite == (low > 0), report
    x, y = report.witness
    n = len(form) - 1
    at = sum(c * x ** (n - j) * y**j for j, c in enumerate(form))
    assert at >= report.margin - 1e-9
    if report.definite:
        assert 0 < report.margin <= low + 1e-12
        scaled = is_positive_definite([3 * c for c in form])
        assert scaled.margin == pytest.approx(3 * report.margin)
    else:
        assert at <= 1e-9


def test_planted_boundaries_are_not_definite():
    for form in ([1, -2, 1], [1, 0, 0], [0, 0, 1], [1, 0, -2, 0, 1], [4, -4, 1]):
        assert not is_positive_definite(form).definite
    assert is_positive_definite([Fraction(1), Fraction(-2), 1 + Fraction(1, 10**20)]).definite
    with pytest.raises(ValueError, match="odd degree 1"):
        is_positive_definite([1, 2])


def saddle(rng, k, k2):
    """Return P and Q with a dominant diagonal, plus random terms."""
    P = {(2 * k + 1, 0): 1, (1, 2 * k): 1}
    Q = {(0, 2 * k2 + 1): 1, (2 * k2, 1): 1}
    for form, degree in ((P, 2 * k + 1), (Q, 2 * k2 + 1)):
        for i in range(degree + 1):
            key = (i, degree - i)
            form[key] = form.get(key, 0) + Fraction(int(rng.integers(-15, 16)), 100)
    X = {(2 * k + 2, 0): Fraction(int(rng.integers(-3, 4)), 10), (2 * k, 2): "0.1"}
    Y = {(0, 2 * k2 + 2): Fraction(int(rng.integers(-3, 4)), 10), (2 * k2 + 1, 1): "-0.2"}
    return zoo.degenerate_saddle(P, Q, X, Y)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 2), k2=st.integers(1, 2))
@settings(max_examples=3)
def test_under_the_six_conditions(seed, k, k2):
    """One slope in [-1, 1], divisors of one sign, graphs, wedges and mirrored reports."""
    f = saddle(np.random.default_rng(seed), k, k2)
    report = check_degenerate_saddle(f)
    assume(report.ok)
    assert (report.k, report.k2) == (k, k2)
    assert max(abs(report.slope_stable), abs(report.slope_unstable)) < 1
    normal = normal_form(f)
    p, q = [float(c) for c in normal.p], [float(c) for c in normal.q]
    assert min(divisor(p, q, report.slope_stable, m) for m in range(2, 40)) > 0
    mirrored = Map(f=lambda z, s: f.f(z[::-1], s)[::-1], dim=2, params=f.params)
    other = check_degenerate_saddle(mirrored)
    assert other.swapped
    assert (other.margin_p, other.radius) == (report.margin_p, report.radius)
    for kind in ("stable", "unstable"):
        graph = degenerate_graph(f, kind, order=16)
        t = np.array([-0.02, 0.01, 0.02])
        assert graph.residual_at(t).max() < 1e-13
        wedge = certify_graph(graph, order=6, reach=min(report.radius, 0.005))
        assert wedge.ok, wedge
        s = 0.9 * wedge.reach
        assert abs(graph.height(s) - np.polyval(wedge.centre[::-1], s)) <= wedge.width(s) + 1e-17


def test_the_cone_conditions_hold_on_the_radius():
    report = check_degenerate_saddle(zoo.demo_saddle())
    assert report.margin_p == pytest.approx(0.1166667, rel=1e-5)
    assert report.margin_q == pytest.approx(0.03, rel=1e-9)
    rng = np.random.default_rng(0)
    z = rng.uniform(-report.radius, report.radius, (2000, 2))
    J = jacobians(zoo.demo_saddle(), z) - np.eye(2)
    size = np.abs(z).max(axis=1) ** 2
    assert (-J[:, 0, 0] - np.abs(J[:, 0, 1]) >= report.margin_p / 2 * size * (1 - 1e-9)).all()
    assert (J[:, 1, 1] - np.abs(J[:, 1, 0]) >= report.margin_q / 2 * size * (1 - 1e-9)).all()


def test_maps_outside_the_class_are_told_why():
    with pytest.raises(ValueError, match="is no fixed point"):
        check_degenerate_saddle(Map(f=lambda z, p: (z[0] + 1, z[1]), dim=2))
    with pytest.raises(ValueError, match="linear part"):
        check_degenerate_saddle(zoo.cat())
    with pytest.raises(ValueError, match="odd degrees"):
        check_degenerate_saddle(zoo.degenerate_saddle({(2, 0): 1}, {(0, 3): 1}))
    with pytest.raises(ValueError, match="no polynomial"):
        check_degenerate_saddle(zoo.standard())
    bad = zoo.degenerate_saddle({(3, 0): 1, (0, 3): 2}, {(0, 3): 1, (2, 1): 1})
    report = check_degenerate_saddle(bad)
    assert not report.ok
    assert not report.forms["P_x - P_y"].definite
    with pytest.raises(ValueError, match="six conditions fail"):
        finite_shadowing_bound(report, 1e-6)
    with pytest.raises(ValueError, match="P_x - P_y"):
        certify_graph(degenerate_graph(bad))


def test_constants_enter_the_forms_exactly():
    f = Map(
        f=lambda z, p: (z[0] - z[0] ** 3 * 0.1 * 0.3, z[1] + z[1] ** 3 / 3 * (p.c * 0.1)),
        dim=2,
        params={"c": "1/7"},
    )
    normal = normal_form(f)
    assert normal.p[0] == Fraction(0.1) * Fraction(0.3)
    assert normal.q[-1] == Fraction(0.1) / 21


def test_exact_degenerate_graphs():
    assert check_degenerate_saddle(SHEARED).ok
    graph = degenerate_graph(SHEARED)
    t = np.linspace(-0.3, 0.3, 13)
    assert np.abs(graph.height(t) - t**2 / 2).max() < 1e-15
    wedge = certify_graph(graph, order=4)
    assert wedge.ok
    assert wedge.centre == pytest.approx([0, 0, 0.5, 0, 0])
    f = zoo.sheared_saddle()
    graph = degenerate_graph(f)
    s = np.linspace(-0.2, 0.2, 9)
    x, y = f.exact["stable"](s)
    assert np.abs(graph.height(x) - y).max() < 1e-14


def test_flow_graphs_follow_the_flow():
    flow = Flow(
        f=lambda z, p: (-z[0] ** 3 - z[0] * z[1] ** 2 / 2, z[1] ** 3 + z[0] ** 2 * z[1]
                        + z[0] ** 4),
        dim=2,
    )  # fmt: skip
    graph = degenerate_graph(flow)
    start = graph(0.2)
    path = solve_ivp(lambda t, z: flow.f(z, None), (0, 20), start, method="DOP853",
                     rtol=1e-12, atol=1e-14)  # fmt: skip
    end = path.y[:, -1]
    assert abs(graph.height(end[0]) - end[1]) < 1e-10


@given(lam=st.floats(0.2, 0.8), mu=st.floats(1.3, 3), c=st.floats(-1, 1))
@settings(max_examples=15)
def test_exact_hyperbolic_manifolds(lam, mu, c):
    """(lam x, mu y + c x^2) has the stable manifold y = c x^2 / (lam^2 - mu)."""
    f = Map(f=lambda z, p: (p.l * z[0], p.m * z[1] + p.c * z[0] * z[0]), dim=2,
            params={"l": lam, "m": mu, "c": c})  # fmt: skip
    z = invariant_manifold(f, [0.0, 0.0], "stable")(np.linspace(-1, 1, 9))
    assert np.allclose(z[:, 1], c / (lam**2 - mu) * z[:, 0] ** 2, rtol=1e-12, atol=1e-13)


def test_flow_manifolds():
    flow = Flow(f=lambda z, p: (-z[0], z[1] + z[0] ** 2), dim=2)
    z = invariant_manifold(flow, [0.0, 0.0], "stable")(np.linspace(-0.5, 0.5, 5))
    assert np.allclose(z[:, 1], -(z[:, 0] ** 2) / 3, atol=1e-13)
    lorenz = zoo.lorenz()
    curve = invariant_manifold(lorenz, [0.0, 0.0, 0.0], "unstable")
    assert curve.residual < 1e-11
    t0, t1 = 0.05, 0.9
    time = np.log(t1 / t0) / curve.multipliers[0].real
    path = solve_ivp(lambda t, z: lorenz.f(z, lorenz.parameters()), (0, time), curve(t0),
                     method="DOP853", rtol=1e-12, atol=1e-13)  # fmt: skip
    assert path.y[:, -1] == pytest.approx(curve(t1), abs=1e-9)
    surface = invariant_manifold(lorenz, [0.0, 0.0, 0.0], "stable", dim=2)
    assert surface.residual < 1e-11
    focus = invariant_manifold(lorenz, [8.0, 8.0, 27.0], "unstable", dim=2)
    assert focus.multipliers[0].imag != 0
    assert focus.residual < 1e-10
    again = focus(focus.inner(np.array([[0.1, 0.2]])) * 0 + 0.3)
    assert np.isfinite(again).all()


def test_surfaces_of_maps():
    f = Map(f=lambda z, p: (z[0] / 2, z[1] / 3 + z[0] ** 2, 2 * z[2] + z[0] * z[1]), dim=3)
    surface = invariant_manifold(f, [0.0, 0.0, 0.0], "stable", dim=2)
    t = np.random.default_rng(0).uniform(-0.7, 0.7, (20, 2))
    assert np.abs(f(surface(t)) - surface(surface.inner(t))).max() < 1e-13
    assert surface.residual_at(t).max() < 1e-13


@pytest.mark.parametrize("kind", ["stable", "unstable"])
def test_henon_is_enclosed(kind):
    curve = invariant_manifold(HENON, FIXED, kind)
    enclosure = certify_manifold(curve)
    assert enclosure.ok
    assert enclosure.radius < 1e-12
    longer = invariant_manifold(HENON, FIXED, kind, order=60)
    ratio = longer.coefficients[1][0] / curve.coefficients[1][0]
    t = np.linspace(-1, 1, 41)
    gap = np.abs(longer(np.clip(t / ratio, -1, 1)) - curve(np.clip(t / ratio, -1, 1) * ratio)).max()
    assert gap <= enclosure.radius + certify_manifold(longer).radius + 1e-13
    moved = [c + 1e-6 * (k == 3) for k, c in enumerate(curve.coefficients)]
    assert certify_manifold(replace(curve, coefficients=moved)).radius >= 1e-6


def test_fixed_points_and_refusals():
    assert fixed_point(HENON, [0.6, 0.2]).kind == "saddle"
    assert fixed_point(zoo.demo_saddle(), [0.0, 0.0]).kind == "degenerate"
    assert fixed_point(HENON, [0.6, 0.2]).point == pytest.approx(FIXED, abs=1e-15)
    with pytest.raises(ValueError, match="not near a fixed point"):
        fixed_point(Map(f=lambda z, p: (z[0] + 1 + z[0] ** 2,), dim=1), [0.3])
    with pytest.raises(ValueError, match="use degenerate_graph"):
        invariant_manifold(zoo.demo_saddle(), [0.0, 0.0])
    resonant = Map(f=lambda z, p: (2 * z[0], 4 * z[1] + z[0] ** 2, z[2] / 3), dim=3)
    with pytest.raises(ValueError, match=r"resonance at degree 2: \(2\)\^2 equals .* 4 within 0;"):
        invariant_manifold(resonant, [0.0, 0.0, 0.0], dim=2)
    fast = Flow(f=lambda z, p: (-2 * z[0], -6 * z[1] + z[0] ** 3), dim=2)
    with pytest.raises(ValueError, match=r"degree 3: 3 \(-2\) equals .* -6 .* lower order below 3"):
        invariant_manifold(fast, [0.0, 0.0], "stable", dim=2)
    twisted = Map(f=lambda z, p: (2 * z[0] + z[1], 2 * z[1] + z[0] ** 2), dim=2)
    with pytest.raises(ValueError, match="multipliers 2, 2 repeat and share one; change a"):
        invariant_manifold(twisted, [0.0, 0.0], dim=2)
    with pytest.raises(ValueError, match="come as a pair; use dim=2"):
        invariant_manifold(zoo.lorenz(), [8.0, 8.0, 27.0])
    with pytest.raises(ValueError, match="has 1 unstable directions"):
        invariant_manifold(HENON, FIXED, dim=2)


@given(length=st.floats(3, 40), side=st.sampled_from([1, -1]))
@settings(max_examples=8)
def test_grown_curves_have_no_gap_and_stay_on_the_manifold(length, side):
    local = invariant_manifold(HENON, FIXED)
    curve = grow(local, length=length, side=side)
    assert curve.arc[-1] >= length
    assert curve.arc[-2] < length
    assert np.linalg.norm(np.diff(curve.points, axis=0), axis=1).max() <= 0.01
    d = np.diff(curve.points, axis=0)
    turn = np.abs(np.angle(np.exp(1j * np.diff(np.arctan2(d[:, 1], d[:, 0])))))
    long = np.maximum(*(np.linalg.norm(part, axis=1) for part in (d[1:], d[:-1]))) > 1e-6
    assert (turn[long] < 0.31).all()
    assert curve.points[0] == pytest.approx(FIXED, abs=1e-14)
    fine = grow(local, length=length, side=side, max_gap=0.003)
    assert fine.arc[-1] == pytest.approx(curve.arc[-1], rel=2e-3, abs=0.02)


def test_grown_points_are_images_of_the_local_manifold():
    local = invariant_manifold(HENON, FIXED)
    curve = grow(local, length=20)
    for i in np.linspace(0, len(curve.points) - 1, 20).astype(int):
        orbit = iterate(HENON, local(curve.parameter[i]), int(curve.steps[i]))
        assert orbit[-1] == pytest.approx(curve.points[i], abs=1e-12)


def test_degenerate_branches_grow():
    f = zoo.demo_saddle()
    for kind in ("stable", "unstable"):
        graph = degenerate_graph(f, kind)
        curve = grow(graph, length=0.2)
        inside = curve.points[np.abs(curve.points).max(axis=1) < 0.1]
        free = int(graph.transposed)
        assert np.abs(graph.height(inside[:, free]) - inside[:, 1 - free]).max() < 1e-14
        assert np.diff(curve.arc).max() <= 0.01, "joints of pieces too"
    with pytest.raises(ValueError, match="grow is for maps"):
        grow(invariant_manifold(zoo.lorenz(), [0.0, 0.0, 0.0]), length=1)


@pytest.mark.parametrize("side", [1, -1])
def test_a_branch_without_inverse_ends_at_the_fold(side):
    """Where det DF = 0 the map folds, and no point is sent beyond."""
    f = zoo.demo_saddle()
    with pytest.raises(ValueError, match=r"is 0\.\d+ long .* the map folds.* lower length \(1\)"):
        grow(degenerate_graph(f), length=1, side=side)
    curve = grow(degenerate_graph(f), length=1, side=side, throw=False)
    assert "no point follows there" in curve.reason
    determinant = np.linalg.det(jacobians(f, curve.points))
    assert (determinant > 0).all()
    assert determinant[-1] < 0.05 < 0.9 < determinant[0]
    image = f(curve.points[curve.steps > 1])
    assert np.abs(image[:, 1] - np.interp(image[:, 0], *sorted_by_x(curve.points))).max() < 1e-4


def sorted_by_x(points):
    return points[np.argsort(points[:, 0])].T


def test_growth_refuses_bad_values():
    local = invariant_manifold(HENON, FIXED)
    with pytest.raises(ValueError, match="length is nan; it must be finite and above 0"):
        grow(local, length=float("nan"))
    with pytest.raises(ValueError, match="max_gap is 0; it must"):
        grow(local, length=1, max_gap=0)
    with pytest.raises(ValueError, match="side is 2"):
        grow(local, length=1, side=2)
