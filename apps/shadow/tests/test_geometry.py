"""The commands `manifold`, `conjugacy` and `hyperbolicity`."""

import json

import numpy as np
import pytest

from meristem_core.command import UsageError
from meristem_dynamics import zoo
from meristem_shadow.__main__ import main

FILE = """
import math
from meristem_dynamics import Map, ops
mine = Map(f=lambda z, p: (z[0] / 2, 3 * z[1] + z[0] * z[0]), dim=2)
nan = Map(f=lambda z, p: (z[0] * float("nan"), z[1]), dim=2)
rough = Map(f=lambda z, p: (math.sin(z[0]) / 2, 3 * z[1]), dim=2)
shift = Map(f=lambda z, p: (z[0] + 1, z[1]), dim=2)
resonant = Map(f=lambda z, p: (4 * z[0] + z[1] * z[1], 2 * z[1]), dim=2)
sink = Map(f=lambda z, p: (z[0] / 2, z[1] / 3), dim=2)
bends = Map(f=lambda z, p: (z[0] / 2, 3 * z[1] - 40 * z[1] * z[1] * z[1]), dim=2)
definite = Map(f=lambda z, p: (z[0] - z[0] ** 3 - 2 * z[1] ** 3, z[1] + z[1] ** 3), dim=2)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def run(tmp_path, *words):
    code = main([*words, "--out", str(tmp_path / "run")])
    return code, json.loads((tmp_path / "run/result.json").read_text())


def test_a_hyperbolic_manifold_is_proved_and_grown(tmp_path, capsys):
    code, result = run(tmp_path, "manifold", "henon", "--length", "2")
    assert code == 0
    assert "proved" in capsys.readouterr().out
    assert result["proofs"][0]["bound"] < 1e-13
    with np.load(tmp_path / "run/manifold.npz") as file:
        for side in (1, -1):
            curve = file[f"branch_{side}"]
            size = np.linalg.norm(np.diff(curve, axis=0), axis=1)
            assert size.max() <= 0.01
            assert 2 <= size.sum() < 2.02


def test_the_manifold_of_a_file_is_the_known_one(tmp_path, file):
    """(x / 2, 3 y + x^2) has the stable manifold y = -4 x^2 / 11."""
    words = ["manifold", f"{file}:mine", "--kind", "stable", "--length", "0", "--no-certify"]
    code, result = run(tmp_path, *words)
    assert code == 0
    x, y = np.array(result["coefficients"]).T
    assert y[2] == pytest.approx(-4 / 11 * x[1] ** 2, rel=1e-12)
    assert abs(y[3:]).max() < 1e-15


def test_a_parabolic_manifold_has_a_wedge_on_both_sides(tmp_path):
    words = ["manifold", "demo-saddle", "--kind", "stable", "--length", "0"]
    code, result = run(tmp_path, *words)
    assert code == 0
    assert result["coefficients"][1:3] == pytest.approx([0.104359620, 0.00875202], abs=1e-7)
    assert result["coefficients"][5] == pytest.approx(-0.05517591, abs=1e-8)
    assert [proof["side"] for proof in result["proofs"]] == [1, -1]


def test_a_branch_that_ends_is_drawn_as_far_as_it_goes(tmp_path, capsys):
    """The stable branches end where the map folds: no inverse leads on."""
    code, result = run(tmp_path, "manifold", "demo-saddle", "--kind", "stable", "--length", "1")
    assert code == 1
    assert "; branch +1 ends at length 0.67; branch -1 ends at length 0.52" in (
        capsys.readouterr().out
    )
    assert ["the map folds" in branch["reason"] for branch in result["branches"]] == [True, True]
    with np.load(tmp_path / "run/manifold.npz") as file:
        assert 0.6 < file["branch_1"][-1, 0] < 0.7
    assert main(["manifold", "demo-saddle", "--length", "1", "--out", str(tmp_path / "u")]) == 0


def test_a_surface_of_a_flow(tmp_path):
    code, result = run(tmp_path, "manifold", "lorenz", "--kind", "stable", "--dim", "2")
    assert code == 1, "no proof for surfaces"
    assert "is a surface" in result["proofs"][0]["reason"]
    assert result["residual"] < 1e-8


def test_curves_of_flows_and_of_analytic_maps_are_proved(tmp_path, capsys):
    for number, words in enumerate((["lorenz"], ["standard", "--length", "0"])):
        code, result = run(tmp_path / str(number), "manifold", *words)
        assert code == 0
        assert result["proofs"][0]["reach"] == 1
        assert 0 < result["proofs"][0]["bound"] < 1e-14
        assert ", proved" in capsys.readouterr().out


def test_a_conjugacy_on_a_grid(tmp_path, capsys):
    code, result = run(tmp_path, "conjugacy", "cat", "--grid", "8")
    assert code == 0
    assert result["residual"] < 1e-13
    assert "measured, not proved" in capsys.readouterr().out
    with np.load(tmp_path / "run/conjugacy.npz") as file:
        assert file["image"].shape == (8, 8, 2)
        assert (np.diff(file["image"][..., 0], axis=0) > 0).all()


def test_cones_that_hold_and_cones_that_fail(tmp_path, file, capsys):
    code, result = run(tmp_path, "hyperbolicity", "cat", "--boxes", "4")
    assert code == 0
    assert result["cones"]["least_expansion"] == pytest.approx((3 + 5**0.5) / 2)
    words = ["hyperbolicity", f"{file}:bends", "--reach", "0.2", "--boxes", "8"]
    assert main([*words, "--out", str(tmp_path / "bends")]) == 1
    assert "worst around" in capsys.readouterr().out  # 3 - 120 y^2 expands for |y| < 0.129
    found = json.loads((tmp_path / "bends/result.json").read_text())["cones"]
    assert 0 < found["failing"] < 64
    assert 0.1 < abs(found["worst"][1]) < 0.2


def test_the_six_conditions(tmp_path, file):
    code, result = run(tmp_path, "hyperbolicity", "demo-saddle", "--boxes", "6")
    assert code == 0
    assert result["forms"]["margin_q"] == pytest.approx(0.03)
    assert main(["hyperbolicity", f"{file}:definite", "--out", str(tmp_path / "bad")]) == 1
    found = json.loads((tmp_path / "bad/result.json").read_text())
    assert not found["forms"]["forms"]["P_x - P_y"]["definite"]


def test_rates_towards_a_boundary(tmp_path):
    code, result = run(tmp_path, "hyperbolicity", "slowdown-cat", "--orbits", "8")
    assert code == 0
    assert not result["pointwise"]["as_reported"]
    assert result["pointwise"]["unstable"]["gamma"] == pytest.approx(1.6, abs=0.15)
    assert result["alpha"] == zoo.slowdown_cat().exact["beta"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["manifold", "FILE:shift"], "not near a fixed point"),
        (["manifold", "FILE:nan"], "nan"),
        (["manifold", "FILE:rough"], "cannot be differentiated"),
        (["manifold", "FILE:resonant", "--dim", "2"], "resonance at degree 2"),
        (["manifold", "FILE:sink"], "0 unstable directions"),
        (["manifold", "FILE:definite"], r"P_x - P_y is -\S+ at"),
        (["manifold", "henon", "--length", "nan"], "finite"),
        (["manifold", "henon", "--order", "1"], "at least 2"),
        (["manifold", "henon", "--at", "1"], "2 variables"),
        (["conjugacy", "FILE:sink"], "need a saddle"),
        (["conjugacy", "henon", "--edge", "0"], "above 0"),
        (["conjugacy", "lorenz"], "takes a map"),
        (["hyperbolicity", "logistic"], "takes the plane"),
        (["hyperbolicity", "FILE:sink"], "tested in no way"),
        (["hyperbolicity", "henon", "--boxes", "1"], "at least 2"),
    ],
)
def test_a_bad_value_is_named(tmp_path, file, words, complaint):
    words = [word.replace("FILE", str(file)) for word in words]
    with pytest.raises(UsageError, match=complaint):
        main([*words, "--out", str(tmp_path / "run")])


def test_a_file_that_does_not_run_is_named(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import nothing_of_this_name\n")
    with pytest.raises(UsageError, match=r"bad\.py cannot be run: ModuleNotFoundError"):
        main(["manifold", str(path), "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "words", [["manifold", "henon", "--length", "1"], ["hyperbolicity", "cat", "--boxes", "4"]]
)
def test_the_reports_open(tmp_path, open_page, words):
    run(tmp_path, *words)
    for width in (1280, 390):
        with open_page(tmp_path / "run/report.html", width=width) as page:
            assert "proved" in page.inner_text("header")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
