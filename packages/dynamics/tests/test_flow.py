from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from meristem_dynamics import (
    Flow,
    certify_flow,
    fixed_point,
    integrate,
    iterate,
    load_certificate,
    lyapunov,
    ops,
    time_map,
    zoo,
)
from meristem_dynamics._ball import Ball
from meristem_dynamics._flow import across
from meristem_dynamics._systems import ball_parameters
from meristem_dynamics._tape import Tape
from meristem_dynamics._taylor import ORDER, step_box, tube, with_tangents
from meristem_dynamics.verifier import verify

LORENZ = zoo.lorenz()
STEP = 1 / 64
START = integrate(LORENZ, [1.0, 1.0, 20.0], 320, step=STEP)[-1]
ORBIT = integrate(LORENZ, START, 200, step=STEP)
PENDULUM = Flow(f=lambda z, p: (z[1], -ops.sin(z[0])), dim=2, name="pendulum")


@pytest.fixture(scope="module")
def certificate():
    return certify_flow(LORENZ, ORBIT, step=STEP)


def check(system, certificate, path):
    certificate.save(path)
    return verify(system, path)


def test_lorenz_is_shadowed_and_verified(tmp_path):
    certificate = certify_flow(LORENZ, ORBIT[:61], step=STEP, n_unstable=1)
    assert certificate.ok
    assert certificate.radius_max < 1e-11
    assert certificate.time_shift < 1e-11
    verdict = check(LORENZ, certificate, tmp_path / "c.npz")
    assert verdict.ok, verdict
    assert verdict.n_steps == 60
    assert verdict.radius_max == pytest.approx(certificate.radius_max, rel=1e-10)
    assert 0 < verdict.time_shift <= certificate.time_shift
    loaded = load_certificate(tmp_path / "c.npz")
    assert loaded.step == STEP
    assert np.array_equal(loaded.radius, certificate.radius)


def test_the_verifier_rejects_what_does_not_hold(tmp_path):
    good = certify_flow(LORENZ, ORBIT[:9], step=STEP)

    def rejected(reason, **changes):
        verdict = check(LORENZ, replace(good, **changes), tmp_path / "t.npz")
        assert not verdict.ok
        assert reason in verdict.reason, verdict

    def changed(name, n, factor):
        array = getattr(good, name).copy()
        array[n] *= factor
        return {name: array}

    rejected("inequalities of step 4", **changed("widths", 4, np.array([0.5, 1.0])))
    rejected("inequalities of step 3", **changed("widths", 4, np.array([1.0, 0.01])))
    rejected("inequalities of step 4", **changed("points", 5, 1 + 1e-9))
    rejected("inequalities of step 2", **changed("frames", 3, 0.0))
    rejected("inequalities of step 0", step=1 / 65)
    rejected("inequalities of step 0", step=0.5)
    rejected("has a step", step=None)
    rejected("it claims radius", radius_max=good.radius_max / 2)
    rejected("it claims time shift", time_shift=good.time_shift / 100)
    rejected("it is about", params={"sigma": "10", "rho": "29", "beta": "8/3"})
    other = check(zoo.lorenz(rho="28.000001"), good, tmp_path / "t.npz")
    assert not other.ok


@pytest.mark.slow
def test_a_longer_certificate_verifies(certificate, tmp_path):
    assert check(LORENZ, certificate, tmp_path / "c.npz").ok


def test_a_certificate_is_local():
    """Longer orbits keep the radii of their middle: nothing drifts along the flow."""
    short, long = (certify_flow(LORENZ, ORBIT[:n], step=STEP, n_unstable=1) for n in (101, 201))
    assert long.radius[:40] == pytest.approx(short.radius[:40], rel=0.5, abs=0)
    assert long.radius_max < 30 * short.radius_max


@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-11, -8))
@example(seed=0, exponent=-8)
@settings(max_examples=5)
def test_radii_follow_the_noise(seed, exponent):
    """A solution seen with noise is shadowed at a distance between a part and a multiple of it."""
    noise = 10.0**exponent
    rng = np.random.default_rng(seed)
    rough = ORBIT[:101] + rng.uniform(-noise, noise, (101, 3))
    found = certify_flow(LORENZ, rough, step=STEP)
    assert found.ok
    assert noise / 20 < np.median(found.radius)
    assert found.radius_max < 1e3 * noise
    assert found.residual_max < 10 * noise


def test_steps_enclose_what_solve_ivp_finds():
    rng = np.random.default_rng(0)
    p = ball_parameters(LORENZ)
    centres, width = ORBIT[::50], 1e-3
    z = [Ball(centres[:, i], width) for i in range(3)]
    image = step_box(Tape(LORENZ.f, 3, p), z, tube(LORENZ.f, z, p, STEP), STEP, ORDER)
    for n, centre in enumerate(centres):
        for _ in range(5):
            start = centre + rng.uniform(-width, width, 3)
            end = solve_ivp(
                lambda t, y: LORENZ.f(y, LORENZ.parameters()), (0, STEP), start,
                method="DOP853", rtol=1e-12, atol=1e-12,
            ).y[:, -1]  # fmt: skip
            for i in range(3):
                assert abs(end[i] - image[i].mid[n]) <= image[i].rad[n] + 1e-9


def test_tangents_are_derivatives_of_the_step():
    p = LORENZ.parameters()
    f = with_tangents(LORENZ, 1)
    z, xi, eps = START, np.array([0.3, -0.2, 0.5]), 1e-6
    ends = [integrate(LORENZ, z + s * eps * xi, 1, step=STEP)[1] for s in (-1, 1)]
    joint = Flow(f=lambda y, q: f(y, p), dim=6)
    found = integrate(joint, [*z, *xi], 1, step=STEP)[1]
    assert found[:3] == pytest.approx(integrate(LORENZ, z, 1, step=STEP)[1])
    assert found[3:] == pytest.approx((ends[1] - ends[0]) / (2 * eps), rel=1e-7)


def test_sections_are_across_the_flow():
    S = across(LORENZ, ORBIT)
    f = np.stack(LORENZ.f(list(ORBIT.T), LORENZ.parameters()), axis=1)
    assert np.abs(np.einsum("ni,nij->nj", f, S)).max() < 1e-12
    assert np.allclose(np.einsum("nij,nik->njk", S, S), np.eye(2))


def test_exact_solutions():
    """A decaying spiral: the certificate holds with no expanding direction, also in Arb."""
    spiral = Flow(
        f=lambda z, p: (-p.a * z[0] - z[1], z[0] - p.a * z[1]), dim=2, params={"a": "0.1"}
    )
    t = np.arange(41) / 8
    true = np.exp(-0.1 * t)[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)
    assert integrate(spiral, [1.0, 0.0], 40, step=0.125) == pytest.approx(true, abs=1e-14)
    found = certify_flow(spiral, true, step=0.125)
    assert found.ok
    assert found.n_unstable == 0
    assert found.radius_max < 1e-13


def test_elementary_functions(tmp_path):
    """The pendulum's flow goes through Arb's sine; across the flow it neither grows nor shrinks."""
    orbit = integrate(PENDULUM, [1.0, 0.0], 20, step=0.0625)
    found = certify_flow(PENDULUM, orbit, step=0.0625, n_unstable=0)
    assert found.ok
    assert found.radius_max < 1e-12
    assert check(PENDULUM, found, tmp_path / "c.npz").ok


def test_a_jump_is_found_and_the_longest_segment_verifies(tmp_path):
    orbit = ORBIT[60:80].copy()
    orbit[10:] = integrate(LORENZ, [2.0, 3.0, 21.0], 9, step=STEP)
    found = certify_flow(LORENZ, orbit, step=STEP, n_unstable=1)
    assert not found.ok
    assert abs(found.failed_at - 9) <= 2
    assert "longest segment" in found.reason
    assert found.first in (0, 10)
    assert found.n_steps >= 8
    assert check(LORENZ, found, tmp_path / "c.npz").ok


def test_what_no_boxes_follow_is_refused_not_an_error():
    """Errors grow by e^60: boxes that large leave the domain of every bound."""
    swings = Flow(f=lambda z, p: (1 + 0 * z[0], 45 * (1 - z[0] * z[0]) * z[1]), dim=2)
    orbit = integrate(swings, [-1.0, 1e-9], 100, step=STEP)
    found = certify_flow(swings, orbit, step=STEP, n_unstable=0)
    assert not found.ok
    assert 10 < found.n_steps < 100
    root = Flow(f=lambda z, p: (1 + 0 * z[0], ops.sqrt(z[1])), dim=2)
    with pytest.raises(ValueError, match="cannot be bounded along steps 0 to 1 of the orbit: sqrt"):
        certify_flow(root, np.array([[0.0, 1e-4], [0.5, 0.2]]), step=0.5, n_unstable=0)


def test_refusals():
    with pytest.raises(ValueError, match=r"orbit has shape \(1, 3\); lorenz needs"):
        certify_flow(LORENZ, ORBIT[:1], step=STEP)
    with pytest.raises(ValueError, match=r"step is 0\.0"):
        certify_flow(LORENZ, ORBIT, step=0.0)
    with pytest.raises(ValueError, match=r"no tube holds the solutions for a step of 0\.25"):
        certify_flow(LORENZ, ORBIT[:3], step=0.25)
    with pytest.raises(ValueError, match="must be finite and not 0 there"):
        certify_flow(LORENZ, np.zeros((3, 3)), step=STEP)
    with pytest.raises(ValueError, match="orbit of lorenz is"):
        certify_flow(LORENZ, np.full((3, 3), np.nan), step=STEP)
    with pytest.raises(ValueError, match="sections need 2 variables"):
        certify_flow(Flow(f=lambda z, p: (z[0],), dim=1), np.ones((3, 1)), step=STEP)
    with pytest.raises(ValueError, match="z0 has 2 components"):
        integrate(LORENZ, [1.0, 2.0], 3, step=STEP)
    with pytest.raises(ValueError, match=r"at step \d+; .* so take a step below 0"):
        integrate(LORENZ, START, 100, step=0.25)
    blow_up = Flow(f=lambda z, p: (z[0] * z[0], z[1]), dim=2, name="blow-up")
    with pytest.raises(ValueError, match=r"blow-up fails at step|orbit of blow-up is"):
        integrate(blow_up, [1.0, 1.0], 200, step=0.1)


def test_the_time_map_is_the_flow():
    """Orbits, exponents and multipliers of the flow are those of its map after a time."""
    step = 1 / 32
    after, back = time_map(LORENZ, step), time_map(LORENZ, -step)
    same = iterate(time_map(LORENZ, STEP, order=ORDER), ORBIT[0], 20)
    assert np.array_equal(same, ORBIT[:21])
    assert np.abs(after(ORBIT[:-2]) - ORBIT[2:]).max() < 1e-11
    assert np.abs(back(after(ORBIT)) - ORBIT).max() < 1e-12
    spectrum = lyapunov(after, ORBIT[::2])
    assert spectrum.exponents.sum() / step == pytest.approx(LORENZ.exact["exponent_sum"], abs=1e-9)
    point = [8.0, 8.0, 27.0]
    rates = fixed_point(LORENZ, point).multipliers
    assert np.sort_complex(fixed_point(after, point).multipliers) == pytest.approx(
        np.sort_complex(np.exp(rates * step)), abs=1e-12
    )
    for wrong, match in ((0, "step is 0"), (float("nan"), "step is nan")):
        with pytest.raises(ValueError, match=match):
            time_map(LORENZ, wrong)
    with pytest.raises(ValueError, match="order is 0"):
        time_map(LORENZ, step, order=0)
