"""Laws that hold for every system, across modules."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_dynamics import (
    Map,
    certify,
    certify_manifold,
    conjugacy,
    fatou_coordinate,
    fixed_point,
    grow,
    invariant_manifold,
    iterate,
    koenigs,
    ops,
    pseudo_orbit,
    runge_kutta,
    shadowing_gradient,
    zoo,
)
from meristem_dynamics.verifier import verify

HENON = zoo.henon()
FIXED = np.array(HENON.exact["fixed_point"])
LOCAL = invariant_manifold(HENON, FIXED)
ORBIT = iterate(HENON, [0.0, 0.0], 120)
angles = st.floats(0.1, 3.0)
seeds = st.integers(0, 2**32 - 1)


def turned(system, angle):
    """Return the map in coordinates turned by an angle."""
    c, s = np.cos(angle), np.sin(angle)

    def around(f):
        def g(z, p):
            x, y = f((c * z[0] - s * z[1], s * z[0] + c * z[1]), p)
            return c * x + s * y, c * y - s * x

        return g

    inverse = system.inverse and around(system.inverse)
    return replace(system, f=around(system.f), inverse=inverse), np.array([[c, s], [-s, c]])


@given(angle=angles)
@settings(max_examples=5)
def test_turning_the_coordinates_turns_manifolds_and_keeps_radii(angle):
    system, R = turned(HENON, angle)
    curve = invariant_manifold(system, R @ FIXED)
    t = np.linspace(-1, 1, 21)
    scale = np.linalg.norm(LOCAL.coefficients[1]) / np.linalg.norm(curve.coefficients[1])
    sense = np.sign(curve.coefficients[1] @ (R @ LOCAL.coefficients[1]))
    s = t[np.abs(t / scale) <= 1]
    gap = curve(s) - LOCAL(sense * s / scale) @ R.T
    assert np.abs(gap).max() < 1e-12, f"off by {np.abs(gap).max():.2g}"
    radius = certify(system, ORBIT @ R.T).radius
    plain = certify(HENON, ORBIT).radius
    # another sup norm: sqrt 2 each for point and frame; other roundings of the step: bounded by 10
    inside = slice(20, -20)
    ratio = radius[inside] / plain[inside]
    assert (ratio < 20).all(), f"radii grew by {ratio.max():.2g}"
    assert (ratio > 1 / 20).all(), f"radii shrank to {ratio.min():.2g}"


@pytest.mark.parametrize("system", [HENON, zoo.standard("1.5")], ids=lambda m: m.name)
def test_time_reversal_swaps_stable_and_unstable(system):
    back = replace(system, f=system.inverse, inverse=system.f)
    point = fixed_point(system, system.exact["fixed_point"]).point
    for kind, other in (("stable", "unstable"), ("unstable", "stable")):
        one, two = invariant_manifold(system, point, kind), invariant_manifold(back, point, other)
        assert one.multipliers[0] * two.multipliers[0] == pytest.approx(1)
        for a, b in zip(one.coefficients, two.coefficients, strict=True):
            assert np.abs(a - b).max() < 1e-12


@given(order=st.integers(3, 12), t=st.floats(0.2, 0.4))
@settings(max_examples=15)
def test_a_cut_series_has_a_residual_of_its_order(order, t):
    """Halving t divides the defect of F K = K R by 2^(M + 1)."""
    cut = replace(LOCAL, coefficients=LOCAL.coefficients[: order + 1])
    whole, half = cut.residual_at(np.array([t, t / 2]))
    if half > 1e-14:
        assert np.log2(whole / half) == pytest.approx(order + 1, abs=1.0)


def test_enclosures_hold_the_value_at_fifty_digits():
    mp = pytest.importorskip("mpmath").mp
    radius = certify_manifold(LOCAL).radius
    with mp.workdps(50):
        a, b = mp.mpf(7) / 5, mp.mpf(3) / 10
        x = (b - 1 + mp.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
        rate = -a * x - mp.sqrt((a * x) ** 2 + b)
        X = [x, mp.mpf(float(LOCAL.coefficients[1][0]))]
        for m in range(2, 61):
            mixed = -a * sum(X[i] * X[m - i] for i in range(1, m))
            X.append(mixed / (rate**m + 2 * a * x - b / rate**m))
        Y = [b * c / rate**m for m, c in enumerate(X)]
        for t in (-1.0, -0.3, 0.4, 1.0):
            for i, row in enumerate((X, Y)):
                series = sum(mp.mpf(float(c[i])) * mp.mpf(t) ** m
                             for m, c in enumerate(LOCAL.coefficients))  # fmt: skip
                gap = abs(mp.polyval(row[::-1], mp.mpf(t)) - series)
                assert gap <= radius, f"component {i} at {t} is off by {float(gap):.3g}"
                point = mp.mpf(float(LOCAL(np.array([t]))[0, i]))
                assert abs(point - series) < 1e-15 * 40, "the floats are those of the series"


@given(seed=seeds)
@settings(max_examples=5)
def test_an_exact_orbit_shadows_itself(seed):
    """Dyadic points are doubled without rounding: nothing is left but the bound's floor."""
    double = Map(f=lambda z, p: (2 * z[0], z[1] / 2), dim=2)
    x, y = np.random.default_rng(seed).integers(1, 1000, 2) / 1024
    orbit = iterate(double, [x * 2.0**-40, y], 40)
    assert certify(double, orbit).radius_max < 1e-15


@given(seed=seeds, exponent=st.integers(-11, -7))
@settings(max_examples=8)
def test_radii_grow_with_the_noise_and_batches_of_them_verify(seed, exponent, tmp_path_factory):
    cat, path = zoo.cat(), tmp_path_factory.mktemp("c") / "c.npz"
    small, large = (
        certify(cat, pseudo_orbit(cat, [0.2, 0.3], 40, noise=noise, rng=seed))
        for noise in (10.0**exponent, 8 * 10.0**exponent)
    )
    assert small.ok
    assert large.ok
    assert np.median(large.radius) > 4 * np.median(small.radius)
    wider = replace(small, widths=8 * small.widths, radius_max=9 * small.radius_max)
    wider.save(path)
    assert verify(cat, path).ok, "linear inequalities keep their room when all widths grow"


@given(seed=seeds, n=st.integers(2, 9))
@settings(max_examples=10)
def test_a_batch_is_its_points(seed, n):
    rng = np.random.default_rng(seed)
    z, order = rng.uniform(-0.3, 0.3, (n, 2)), rng.permutation(n)
    for f in (HENON, zoo.demo_saddle()):
        image = f(z)
        assert np.array_equal(image, np.stack([f(point) for point in z]))
        assert np.array_equal(image[order], f(z[order]))
    slow = zoo.slowdown_cat()  # its powers depend in their last bit on where NumPy's vectors begin
    gap = slow(z) - np.stack([slow(point) for point in z])
    assert np.abs(gap - np.rint(gap)).max() < 1e-14
    t = rng.uniform(-1, 1, n)
    assert np.array_equal(LOCAL(t), np.stack([LOCAL(s) for s in t]))
    again = grow(LOCAL, length=4)
    assert grow(LOCAL, length=4).points.tobytes() == again.points.tobytes()


@given(scale=st.floats(0.3, 3), shift=st.floats(-0.1, 0.1))
@settings(max_examples=5)
def test_gradients_obey_the_chain_rule_and_add(scale, shift):
    orbit = iterate(HENON, [0.1, 0.1], 600)
    other = Map(
        f=lambda z, p: (1 - (p.s * scale + p.c) * z[0] * z[0] + z[1], p.b * z[0]),
        dim=2, params={"s": (1.4 - shift) / scale, "c": shift, "b": "0.3"},
    )  # fmt: skip
    x = shadowing_gradient(HENON, orbit, lambda z, p: z[0], ["a"]).value["a"]
    y = shadowing_gradient(HENON, orbit, lambda z, p: z[1] * z[1], ["a"]).value["a"]
    both = shadowing_gradient(HENON, orbit, lambda z, p: z[0] + 2 * z[1] * z[1], ["a"])
    assert both.value["a"] == pytest.approx(x + 2 * y, rel=1e-9, abs=1e-9)
    by_s = shadowing_gradient(other, orbit, lambda z, p: z[0], ["s"]).value["s"]
    assert by_s == pytest.approx(scale * x, rel=1e-6, abs=1e-6)


def test_targets_of_conjugacies_are_interchangeable():
    """Both h keep exit times, so matched places are a function of linear ones on each axis."""
    f = zoo.demo_saddle()
    z = np.array([[0.05, 0.08], [0.09, -0.07], [-0.06, 0.1]])
    matched, linear = (conjugacy(f, edge=0.12, target=t) for t in ("matched", "linear"))
    for one, two in zip(matched.exit_times(z), linear.exit_times(z), strict=True):
        assert one == pytest.approx(two, rel=1e-12)
    stable, unstable = linear.exit_times(z)
    assert np.abs(linear(z)) == pytest.approx(
        0.12 * 2.0 ** -np.stack([stable, unstable], axis=1), rel=1e-9, abs=1e-300
    )
    assert np.array_equal(np.sign(matched(z)), np.sign(linear(z)))


@given(x=st.floats(0.05, 0.4), t=st.floats(0.2, 3))
@settings(max_examples=15)
def test_exact_coordinates_on_the_line(x, t):
    """x / sqrt(1 + 2 t x^2) is the time-t map of x' = -x^3, whose time is 1 / (2 x^2)."""
    f = Map(f=lambda z, p: (z[0] / ops.sqrt(1 + 2 * p.t * z[0] * z[0]),), dim=1, params={"t": t})
    alpha = fatou_coordinate(f)
    assert alpha([x])[0] == pytest.approx(1 / (2 * t * x * x), rel=1e-10)
    assert alpha.inverse(alpha([x]))[0] == pytest.approx(x, rel=1e-9)
    two, four = koenigs(zoo.logistic(2)), koenigs(zoo.logistic(4))
    assert two([x])[0] == pytest.approx(-np.log(1 - 2 * x) / 2, rel=1e-12)
    assert four([x])[0] == pytest.approx(np.arcsin(np.sqrt(x)) ** 2, rel=1e-12)
    assert four.inverse(four([x]))[0] == pytest.approx(x, rel=1e-10)


@given(
    x=st.floats(0.1, 0.3),
    a=st.floats(0.5, 2),
    b=st.floats(-0.5, 0.5),
    side=st.sampled_from([1, -1]),
)
@settings(max_examples=2)
def test_coordinates_on_the_line_conjugate_and_compose(x, a, b, side):
    """h = alpha_g^-1 alpha_f satisfies h f = g h, and h_fk = h_gk h_fg."""
    f, g, k = (
        Map(f=lambda z, p: (z[0] - p.a * z[0] * z[0] + p.b * z[0] * z[0] * z[0],), dim=1,
            params={"a": c, "b": d})
        for c, d in ((a, b), (1, 0), (a, 0.0))
    )  # fmt: skip
    alpha, beta, gamma = (fatou_coordinate(m, side=side) for m in (f, g, k))
    x = np.array([side * x])
    assert alpha.residual(x) < 1e-10, "of the series, near 0"
    phi = koenigs(Map(f=lambda z, p: (p.a * z[0] / 3 + p.b * z[0] ** 2,), dim=1, params=f.params))
    assert phi.residual(x / 4) < 1e-12
    assert beta.inverse(alpha(f(x[None].T)[:, 0])) == pytest.approx(
        g(beta.inverse(alpha(x))[None].T)[:, 0], rel=1e-8
    )
    through = gamma.inverse(beta(beta.inverse(alpha(x))))
    assert through == pytest.approx(gamma.inverse(alpha(x)), rel=1e-8)


def test_coordinates_refuse_what_they_are_not_for():
    square = Map(f=lambda z, p: (z[0] - z[0] * z[0],), dim=1, name="square")
    with pytest.raises(ValueError, match=r"square has multiplier 1 at 0; .* see fatou_coordinate"):
        koenigs(square)
    with pytest.raises(ValueError, match=r"logistic has multiplier 4 at 0 .* see koenigs"):
        fatou_coordinate(zoo.logistic())
    with pytest.raises(ValueError, match="sends 0 to 1; the fixed point must be 0"):
        koenigs(Map(f=lambda z, p: (z[0] / 2 + 1,), dim=1))
    with pytest.raises(ValueError, match="has 2 variables"):
        koenigs(HENON)
    with pytest.raises(ValueError, match=r"x is -0\.1; the coordinate is for x > 0"):
        fatou_coordinate(square)([-0.1])
    with pytest.raises(ValueError, match="does not lead from 3 to its fixed point"):
        fatou_coordinate(square)([3.0])
    with pytest.raises(ValueError, match="side is 0"):
        fatou_coordinate(square, side=0)


@given(h=st.floats(0.005, 0.02))
@settings(max_examples=5)
def test_schemes_of_flows_converge_with_order_four(h):
    """Halving the step divides the error of a Runge-Kutta step's decay by 2^4 over a fixed time."""
    decay = zoo.lorenz(sigma=1, rho=0, beta=1)
    errors = []
    for step in (h, h / 2):
        z = iterate(runge_kutta(decay, step), [0.0, 0.0, 1.0], round(0.2 / step))[-1]
        errors.append(abs(z[2] - np.exp(-step * round(0.2 / step))))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)
