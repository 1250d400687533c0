import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.command import UsageError
from meristem_shadow.__main__ import main
from meristem_shadow._profile import profile_of

MAP = """
from meristem_dynamics import Map
tilted = Map(f=lambda z, p: (2 * z[0] + p.c, z[1] / 3), dim=2, params={"c": "0.1"})
other = Map(f=lambda z, p: (z[0] / 2,), dim=1)
"""


def orbit(tmp_path, *words):
    code = main(["orbit", *words, "--out", str(tmp_path / "run")])
    return code, json.loads((tmp_path / "run/result.json").read_text())


def test_a_computed_orbit_is_certified_and_verified(tmp_path, capsys):
    code, result = orbit(tmp_path, "henon", "-n", "2000")
    assert code == 0
    assert result["ok"]
    assert result["verdict"]["ok"]
    assert result["certified_steps"] == 2000
    assert 1e-16 < result["radius_max"] < 1e-10
    assert "a true orbit of henon with a = 7/5, b = 3/10 stays within" in capsys.readouterr().out
    again = ["verify", str(tmp_path / "run/certificate.npz"), "henon"]
    assert main(again) == 0
    assert "all 2,001 points" in capsys.readouterr().out
    assert main([*again, "-p", "a=1.39"]) == 1
    assert "not proved" in capsys.readouterr().out


def test_a_solution_of_a_flow_is_certified_and_verified(tmp_path, capsys):
    code, result = orbit(tmp_path, "lorenz", "-n", "40", "--start=-8,-8,27.5")
    assert code == 0
    assert result["step"] == 1 / 64
    assert result["verdict"]["n_steps"] == 40
    assert 0 < result["radius_max"] < 1e-10
    assert 0 < result["verdict"]["time_shift"] <= result["time_shift"] < 1e-11
    assert "a true solution of lorenz with sigma = 10, rho = 28" in capsys.readouterr().out
    assert "a section across the flow" in (tmp_path / "run/report.html").read_text()
    path = tmp_path / "run/certificate.npz"
    assert main(["verify", str(path), "lorenz"]) == 0
    assert "a true solution of lorenz passes within" in capsys.readouterr().out
    with np.load(path) as file:
        arrays = dict(file)
    arrays["points"][20, 0] += 1e-8
    np.savez(path, **arrays)
    assert main(["verify", str(path), "lorenz"]) == 1
    assert "step 19" in capsys.readouterr().out


def test_a_solution_that_no_true_one_follows_is_refused_at_its_step(tmp_path, capsys):
    """With two expanding directions, where there is one, boxes do not close for long."""
    words = ["lorenz", "-n", "150", "--start=-8,-8,27.5", "--n-unstable", "2"]
    code, result = orbit(tmp_path, *words)
    assert code == 1
    assert not result["ok"]
    assert 0 < result["certified_steps"] < 150
    assert result["verdict"]["ok"], "what is certified is true"
    assert "no true solution of lorenz" in capsys.readouterr().out
    assert "Where it fails" in (tmp_path / "run/report.html").read_text()


def test_a_tampered_certificate_is_rejected(tmp_path):
    orbit(tmp_path, "henon", "-n", "300")
    path = tmp_path / "run/certificate.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["points"][150, 0] += 1e-6
    np.savez(path, **arrays)
    assert main(["verify", str(path), "henon"]) == 1


def test_an_orbit_that_no_true_one_follows_is_refused_at_its_step(tmp_path, capsys):
    code, result = orbit(
        tmp_path, "standard", "-n", "3000", "--noise", "1e-6", "--start", "0.5,0.5"
    )
    assert code == 1
    assert not result["ok"]
    assert result["failed_at"] is not None
    assert result["certified_steps"] < 2000
    assert f"fails at step {result['failed_at']:,}" in capsys.readouterr().out
    page = (tmp_path / "run/report.html").read_text()
    assert "Where it fails" in page


def test_refining_brings_the_radius_below_rounding(tmp_path):
    code, result = orbit(tmp_path, "henon", "-n", "300", "--refine", "--noise", "1e-10")
    assert code == 0
    assert result["radius_max"] < 1e-25
    assert 1e-12 < result["moved"] < 1e-6


def test_a_map_of_the_users_own_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MAP)
    words = [f"{path}:tilted", "-p", "c=1/3", "-n", "40", "--start=-0.3333,0.5"]
    code, result = orbit(tmp_path, *words)
    assert code == 0
    assert result["params"] == {"c": "1/3"}
    assert result["n_unstable"] == 1
    with pytest.raises(UsageError, match="tilted, other"):
        main(["info", str(path)])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["orbit", "hennon"], "no system hennon"),
        (["orbit", "lorenz", "--noise", "1e-9"], "lorenz is a flow; --noise is for maps"),
        (["orbit", "lorenz", "--blocks", "9"], "lorenz is a flow; --blocks is for maps"),
        (["orbit", "lorenz", "--step", "0.2", "-n", "9", "--start=1,1,9"], "step (of|below) 0.2"),
        (["orbit", "lorenz", "--step", "nan"], "finite and above 0"),
        (["orbit", "henon", "--step", "0.1"], "henon is a map; leave --step out"),
        (["orbit", "henon", "-p", "c=1"], "no parameter c; it has a, b"),
        (["orbit", "henon", "-p", "a=one"], "give NAME=NUMBER"),
        (["orbit", "henon", "-n", "0"], "at least 1"),
        (["orbit", "henon", "--start", "1"], "2 variables"),
        (["orbit", "henon", "--start", "1,x"], "give numbers"),
        (["orbit", "henon", "--start", "9,9"], "henon fails at step|must stay finite"),
        (["orbit", "henon", "--noise", "nan"], "finite"),
        (["orbit", "henon", "--blocks", "9", "--refine"], "leave --noise and --refine out"),
        (["orbit", "tent"], "its own jacobian"),
        (["verify", "nowhere.npz", "henon"], "does not exist"),
        (["dance"], "no command dance"),
    ],
)
def test_a_bad_value_is_named(tmp_path, words, complaint):
    out = ["--out", str(tmp_path / "run")] if words[0] == "orbit" else []
    with pytest.raises(UsageError, match=complaint):
        main([*words, *out])


BLOCKS = ["-n", "6000", "--blocks", "256"]


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        pytest.param(BLOCKS, "border-000005.npz", marks=pytest.mark.slow),  # of the sweep forward
        (BLOCKS, "block-000015.npz"),  # of the sweep back, which begins at block 23
        # told on stderr as certification begins
        pytest.param(["-n", "300000"], "orbit: ", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_while_certifying_ends_like_a_whole_one(tmp_path, words, moment):
    words = ["henon", *words, "--no-verify"]
    code, whole = orbit(tmp_path, *words)
    assert code == 0
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "meristem_shadow", "orbit", *words, "--out", str(killed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    if moment.endswith(".npz"):
        while not (killed / "blocks" / moment).exists() and process.poll() is None:
            pass
    else:
        assert any(line.startswith(moment) for line in process.stderr)
    process.kill()
    process.wait()
    process.stderr.close()
    assert not (killed / "result.json").exists()
    assert main(["orbit", *words, "--out", str(killed)]) == 0
    other = json.loads((killed / "result.json").read_text())
    assert whole | {"seconds": 0} == other | {"seconds": 0}
    made = sorted(path.relative_to(killed) for path in killed.rglob("*.npz"))
    assert len(made) == (48 if words[3] == "--blocks" else 1)
    for path in made:
        assert (tmp_path / "run" / path).read_bytes() == (killed / path).read_bytes(), path


def test_the_report_opens(tmp_path, open_page):
    orbit(tmp_path, "henon", "-n", "500")
    for width in (1280, 390):
        with open_page(tmp_path / "run/report.html", width=width) as page:
            assert "stays within" in page.inner_text("header")
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_lists_and_facts(capsys):
    assert main([]) == 0
    assert "orbit" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert "henon" in capsys.readouterr().out
    assert main(["info", "lorenz"]) == 0
    assert "beta = 8/3" in capsys.readouterr().out


@settings(max_examples=50)
@given(st.lists(st.floats(1e-16, 1e-3), min_size=1, max_size=400), st.integers(0, 1000))
def test_a_profile_keeps_the_largest_radius_and_the_share_of_larger_ones(radii, first):
    radius = np.array(radii)
    profile = profile_of(radius, first)
    assert max(profile.largest) == radius.max()
    assert min(profile.step) >= first
    for value, share in zip(profile.radius, profile.exceeding, strict=True):
        assert share <= (radius >= value).mean() + 1e-12
        assert share >= (radius > value).mean()
