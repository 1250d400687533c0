import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meristem_core.testing import kill_and_resume
from meristem_dynamics import (
    Map,
    certify,
    certify_long,
    certify_uniform,
    gains,
    iterate,
    jacobians,
    load_certificate,
    pseudo_orbit,
    refine,
    zoo,
)
from meristem_dynamics._archive import packed
from meristem_dynamics._refine import right_inverse
from meristem_dynamics._splitting import frames_along
from meristem_dynamics.verifier import verify

HENON = zoo.henon()
ORBIT = iterate(HENON, [0.0, 0.0], 400)
TORUS3 = Map(
    f=lambda z, p: (3 * z[0] + z[1], z[0] + 2 * z[1] + z[2], z[1] + z[2]), dim=3, torus=True,
    name="three dimensions",
)  # fmt: skip


@pytest.fixture(scope="module")
def certificate():
    return certify(HENON, ORBIT)


def test_henon_is_shadowed(certificate, tmp_path):
    assert certificate.ok
    assert certificate.radius_max < 1e-11
    assert np.median(certificate.radius) < 3e-15
    certificate.save(tmp_path / "c.npz")
    verdict = verify(HENON, tmp_path / "c.npz")
    assert verdict.ok, verdict
    assert verdict.radius_max == pytest.approx(certificate.radius_max, rel=1e-10)
    loaded = load_certificate(tmp_path / "c.npz")
    assert np.array_equal(loaded.radius, certificate.radius)
    assert loaded.params == {"a": "7/5", "b": "3/10"}


def test_the_verifier_rejects_what_does_not_hold(certificate, tmp_path):
    def check(reason, at, **changes):
        replace(certificate, **changes).save(tmp_path / "t.npz")
        verdict = verify(HENON, tmp_path / "t.npz")
        assert not verdict.ok
        assert reason in verdict.reason
        assert at is None or abs(verdict.failed_at - at) <= 1, verdict

    widths, points = certificate.widths.copy(), certificate.points.copy()
    widths[200, 0] *= 0.5
    check("inequalities", 200, widths=widths)
    widths = certificate.widths.copy()
    widths[300, 1] *= 0.01
    check("inequalities", 299, widths=widths)
    points[123] += 3 * certificate.radius[123]
    check("inequalities", 123, points=points)
    frames = certificate.frames.copy()
    frames[77] = np.array([[0.0, 1.0], [1.0, 0.0]])
    check("inequalities", 77, frames=frames)
    frames = certificate.frames.copy()
    frames[77] = 0.0
    check("inequalities", 77, frames=frames)
    check("it claims radius", None, radius_max=certificate.radius_max / 2)
    check("it is about", None, params={"a": "141/100", "b": "3/10"})
    check("claims 399 steps", None, n_steps=399)
    arrays = {name: getattr(certificate, name) for name in ("points", "frames")}
    header = {"params": certificate.params, "n_unstable": 1, "n_steps": 400, "radius_max": 1.0}
    short = packed(header, {**arrays, "widths": certificate.widths[:-1]})
    (tmp_path / "t.npz").write_bytes(short)
    assert "shapes" in verify(HENON, tmp_path / "t.npz").reason
    check("negative", 5, widths=np.where(np.arange(401)[:, None] == 5, -1.0, certificate.widths))
    check("not finite", None, points=np.where(points == points[3], np.nan, points))
    check("inequalities", None, n_unstable=2)
    check("inequalities", None, n_unstable=0)


@given(index=st.integers(1, 399), side=st.integers(0, 1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_any_moved_point_is_found(certificate, tmp_path_factory, index, side, seed):
    rng = np.random.default_rng(seed)
    points = certificate.points.copy()
    points[index, side] += rng.choice([-1, 1]) * (20 + rng.random()) * 1e-10
    path = tmp_path_factory.mktemp("moved") / "c.npz"
    replace(certificate, points=points).save(path)
    assert not verify(HENON, path).ok


def test_files_that_are_no_certificates(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nothing")
    for read in (load_certificate, lambda path: verify(HENON, path)):
        with pytest.raises(ValueError, match=r"x\.npz is no shadowing certificate"):
            read(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", points=ORBIT)
    with pytest.raises(ValueError, match=r"is no shadowing certificate: KeyError 'header'"):
        verify(HENON, tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(packed({"n_unstable": "one"}, {}))
    with pytest.raises(ValueError, match=r"is no shadowing certificate: .*'one'"):
        verify(HENON, tmp_path / "x.npz")
    assert not verify(HENON, tmp_path).ok


@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-12, -5))
@settings(max_examples=8)
def test_a_refined_orbit_lies_in_every_box(seed, exponent):
    """The Newton limit has the certificate's boundary conditions, so it must lie in the boxes."""
    orbit = pseudo_orbit(HENON, [0.1, 0.1], 60, noise=10.0**exponent, rng=seed)
    certificate = certify(HENON, orbit)
    assume(certificate.ok)  # refused where the noise meets a tangency
    fine = refine(HENON, orbit, max_steps=12)
    assert fine.residuals[-1] < 1e-25
    moved = (fine.points - orbit) + fine.low
    room = 1e-20 + 10 * certificate.radius_max**2  # later rounds turn the frames by the radius
    eta = np.einsum("nji,nj->ni", certificate.frames, moved)
    assert (np.abs(eta) <= certificate.widths * (1 + 1e-6) + room).all()
    assert fine.moved.max() <= certificate.radius_max
    uniform = certify_uniform(HENON, orbit)
    assert not uniform.ok or uniform.radius >= fine.moved.max()
    again = refine(HENON, fine.points, max_steps=12)
    assert np.abs((again.points - fine.points) + (again.low - fine.low)).max() < 1e-9


def test_refined_orbits_have_tiny_radii(tmp_path):
    fine = refine(HENON, ORBIT)
    rounds = np.log(fine.residuals)
    assert rounds[1] < 1.5 * rounds[0], "the first round squares the residual"
    certificate = certify(HENON, fine.points, low=fine.low)
    assert certificate.ok
    assert certificate.radius_max < 1e-25
    certificate.save(tmp_path / "c.npz")
    assert verify(HENON, tmp_path / "c.npz").ok
    replace(certificate, low=fine.low * (1 + 1e-9)).save(tmp_path / "c.npz")
    assert not verify(HENON, tmp_path / "c.npz").ok


def test_a_certificate_holds_on_every_part(certificate, tmp_path):
    part = slice(50, 121)
    names = ("points", "frames", "widths", "radius")
    cut = {name: getattr(certificate, name)[part] for name in names}
    replace(certificate, n_steps=70, first=50, **cut).save(tmp_path / "c.npz")
    assert verify(HENON, tmp_path / "c.npz").ok


@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(1e-12, 1e-4))
@settings(max_examples=15)
def test_the_cat_map_is_shadowed_at_its_exact_distance(seed, noise):
    """Linear: the shadow is the Green's function sum, and lies within the certified radius."""
    cat = zoo.cat()
    orbit = pseudo_orbit(cat, [0.2, 0.3], 80, noise=noise, rng=seed)
    certificate = certify(cat, orbit)
    assert certificate.ok
    assert certificate.n_unstable == 1
    gap = orbit[1:] - cat(orbit[:-1])
    gap -= np.rint(gap)
    J = jacobians(cat, orbit[:-1])
    shadow = right_inverse(J, certificate.frames, 1, gap)
    back = shadow[1:] - np.einsum("nij,nj->ni", J, shadow[:-1])
    assert np.allclose(back, gap, atol=1e-11 * noise + 1e-16), "L A g = g"
    assert (np.abs(shadow).max(axis=1) <= certificate.radius * (1 + 1e-9)).all()
    golden = (1 + np.sqrt(5)) / 2
    assert certificate.radius_max <= 2.2 * golden * noise


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_right_inverse_and_gains(seed):
    rng = np.random.default_rng(seed)
    g = rng.uniform(-1, 1, (400, 2))
    J = jacobians(HENON, ORBIT[:-1])
    measured = gains(HENON, ORBIT)
    xi = right_inverse(J, measured.frames, 1, g)
    back = xi[1:] - np.einsum("nij,nj->ni", J, xi[:-1])
    scale = np.abs(xi).max()
    assert np.abs(back - g).max() < 1e-13 * scale
    assert (np.abs(xi).max(axis=1) <= measured.gain * (1 + 1e-9)).all()
    assert measured.n_unstable == 1
    assert measured.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-9)


@given(n=st.integers(1, 700), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_frames_triangularise(n, seed):
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(n, 3, 3)) + 2 * np.diag([2.0, 1.0, 0.1])
    Q = frames_along(J)
    assert np.allclose(np.einsum("nki,nkj->nij", Q, Q), np.eye(3), atol=1e-12)
    C = np.einsum("nki,nkl,nlj->nij", Q[1:], J, Q[:-1])
    lower = np.abs(C[:, [1, 2, 2], [0, 0, 1]])
    assert lower.max() < 1e-6 * np.abs(J).max()


def test_two_expanding_directions(tmp_path):
    orbit = pseudo_orbit(TORUS3, [0.1, 0.2, 0.3], 200, noise=1e-9, rng=1)
    certificate = certify(TORUS3, orbit)
    assert certificate.ok
    assert certificate.n_unstable == 2
    certificate.save(tmp_path / "c.npz")
    assert verify(TORUS3, tmp_path / "c.npz").ok
    widths = certificate.widths.copy()
    widths[100, 1] *= 0.3
    replace(certificate, widths=widths).save(tmp_path / "c.npz")
    assert not verify(TORUS3, tmp_path / "c.npz").ok


@given(at=st.integers(20, 180), size=st.floats(1e-6, 1e-3))
@settings(max_examples=10)
def test_a_push_past_the_peak_is_found(at, size):
    """No orbit of the logistic map at 4 follows a point pushed above its maximum."""
    f = zoo.logistic()
    orbit = iterate(f, [0.3], 200)
    orbit[at] = 0.5
    orbit[at + 1] = 1 + size
    for n in range(at + 2, 201):
        orbit[n] = f(orbit[n - 1] % 1.0) if n == at + 2 else f(orbit[n - 1])
    certificate = certify(f, np.clip(orbit, None, 1 + size), n_unstable=1)
    assert not certificate.ok
    assert abs(certificate.failed_at - at) <= 2
    assert certificate.n_steps >= max(at, 200 - at) - 4, "the longest segment is certified"
    assert certificate.first in (0, *range(at, at + 4))


def test_jumps_are_found_and_the_longest_segment_verifies(tmp_path):
    orbit = ORBIT.copy()
    orbit[150:] = iterate(HENON, [0.3, 0.1], 250)
    certificate = certify(HENON, orbit)
    assert not certificate.ok
    assert abs(certificate.failed_at - 149) <= 2
    assert certificate.n_steps >= 245
    certificate.save(tmp_path / "c.npz")
    verdict = verify(HENON, tmp_path / "c.npz")
    assert verdict.ok
    assert verdict.n_steps == certificate.n_steps


def test_a_wrong_number_of_directions_does_not_close():
    certificate = certify(HENON, ORBIT[:80], n_unstable=2)
    assert not certificate.ok
    with pytest.raises(ValueError, match="n_unstable is 3"):
        certify(HENON, ORBIT, n_unstable=3)


def test_variable_dimension_is_refused():
    """The fibre's exponent is near 0 on the whole and changes sign along the orbit."""
    f = zoo.skew_variable_dimension(mean="0.2", size="1.5")
    orbit = iterate(f, [0.3, 0.0], 2000)
    orbit[:, 1] = np.random.default_rng(0).uniform(-1e-7, 1e-7, 2001)
    rates = np.log(np.abs(jacobians(f, orbit[:-1])[:, 1, 1]))
    assert abs(rates.mean()) < 0.1 < rates.std()
    refused = certify(f, orbit)
    assert not refused.ok
    assert 0 < refused.n_steps < 2000


def test_bad_orbits_are_refused():
    with pytest.raises(ValueError, match="orbit has shape"):
        certify(HENON, ORBIT[:1])
    with pytest.raises(ValueError, match=r"orbit of henon is \[nan"):
        certify(HENON, np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="gives its own jacobian"):
        certify(zoo.tent(), np.zeros((3, 1)))
    hole = Map(f=lambda z, p: (z[0] + float("nan"), z[1]), dim=2, name="hole")
    with pytest.raises(ValueError, match="not finite"):
        certify(hole, ORBIT[:5])
    with pytest.raises(ValueError, match="too rough to refine"):
        refine(HENON, np.random.default_rng(0).normal(size=(50, 2)))


def test_uniform_refuses_a_rough_orbit():
    rough = pseudo_orbit(HENON, [0.0, 0.0], 300, noise=1e-5, rng=3)
    refused = certify_uniform(HENON, rough)
    assert not refused.ok
    assert "Newton number" in refused.reason
    assert refused.radius == np.inf


def test_blocks_agree_with_the_whole_and_verify(certificate, tmp_path):
    calls = []
    long = certify_long(
        HENON, [0.0, 0.0], 400, tmp_path / "run", n_unstable=1, block=90,
        progress=lambda done, total, metrics: calls.append((done, total)),
    )  # fmt: skip
    assert long.ok
    assert calls[-1] == (10, 10)
    assert long.n_steps == 400
    assert long.radius_max == pytest.approx(certificate.radius_max, rel=0.5)
    assert verify(HENON, tmp_path / "run").n_steps == 400
    first = load_certificate(tmp_path / "run/block-000000.npz")
    replace(first, widths=first.widths * 1.001).save(tmp_path / "run/block-000000.npz")
    assert not verify(HENON, tmp_path / "run").ok
    with pytest.raises(ValueError, match="another block"):
        certify_long(HENON, [0.0, 0.0], 400, tmp_path / "run", n_unstable=1, block=80)


def test_breaks_of_long_runs(tmp_path):
    long = certify_long(HENON, [0.0, 0.0], 3000, tmp_path, n_unstable=1, block=500, box=1e-13)
    assert not long.ok
    assert long.breaks
    assert 0 < long.n_steps < 3000
    assert long.first in (0, *(n + 1 for n in long.breaks))


SCRIPT = """
import json, sys
from pathlib import Path
from meristem_dynamics import certify_long, zoo
folder = Path(sys.argv[1])
c = certify_long(zoo.henon(), [0.0, 0.0], 20000, folder, n_unstable=1, block=1000)
blocks = sorted(folder.glob("block-*.npz"))
import hashlib
digest = hashlib.sha256(b"".join(b.read_bytes() for b in blocks)).hexdigest()
(folder / "result.json").write_text(json.dumps([c.radius_max, c.ok, digest]))
"""


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    script = tmp_path / "long.py"
    script.write_text(SCRIPT)
    run = tmp_path / "run"
    found = kill_and_resume([sys.executable, str(script), str(run)], run, at=0.8)
    assert found.whole == found.resumed
    assert json.loads(found.whole)[1] is True
