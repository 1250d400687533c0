"""The workspace holds together: every member is named wherever members are named."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(
    path.parent for kind in ("packages", "apps") for path in ROOT.glob(f"{kind}/*/pyproject.toml")
)
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def module(folder):
    return next(path.name for path in (folder / "src").iterdir() if path.is_dir())


VERSIONS = {project(folder)["name"]: project(folder)["version"] for folder in FOLDERS}
members = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@members
def test_the_root_knows_the_member(folder):
    name, package = project(folder)["name"], module(folder)
    assert name in {Requirement(need).name for need in SETTINGS["project"]["dependencies"]}
    assert SETTINGS["tool"]["uv"]["sources"][name] == {"workspace": True}
    assert package in SETTINGS["tool"]["importlinter"]["root_packages"]
    layers = SETTINGS["tool"]["importlinter"]["contracts"][0]["layers"]
    assert package in re.split(r"[ |]+", " | ".join(layers))
    (checked,) = (
        option.partition("=")[2].split(",")
        for option in SETTINGS["tool"]["pytest"]["ini_options"]["addopts"]
        if option.startswith("--jaxtyping-packages=")
    )
    assert package in checked
    assert f"{folder.name}.md" in (ROOT / "mkdocs.yml").read_text()


@members
def test_the_member_has_what_a_distribution_needs(folder):
    package = folder / "src" / module(folder)
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "changes", "tests", "benchmarks"):
        assert (folder / name).exists(), f"{folder.name} has no {name}"
    assert (package / "py.typed").exists()
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert project(folder)["requires-python"] == SETTINGS["project"]["requires-python"]


@members
def test_ranges_between_members_admit_the_present_versions(folder):
    table = project(folder)
    extras = table.get("optional-dependencies", {}).values()
    needs = [*table["dependencies"], *(need for extra in extras for need in extra)]
    for need in map(Requirement, needs):
        if need.name in VERSIONS:
            assert need.specifier.contains(VERSIONS[need.name]), f"{need}"
            assert "<" in str(need.specifier), f"{need} must exclude the next breaking version"
        else:
            assert "<" not in str(need.specifier), f"{need} has a cap"
            assert ">=" in str(need.specifier), f"{need} has no floor"


def test_nothing_names_a_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    paths = re.compile(r"(?<![\w.])/(root|work|home/[a-z]+)/\w")
    for name in listed:
        path = ROOT / name
        if name == "uv.lock" or not path.is_file():
            continue
        found = paths.search(path.read_text(encoding="utf-8", errors="ignore"))
        assert not found, f"{name} names {found.group() if found else ''}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "command", "complaint"),
    [
        (
            "packages/core/src/meristem_core/_order.py",
            "import meristem",
            [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
            "meristem_core is not allowed to import meristem",
        ),
        (
            "packages/core/src/meristem_core/_order.py",
            "import torch",
            [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
            "meristem_core is not allowed to import torch",
        ),
        (
            "packages/core/src/meristem_core/_order.py",
            "import markdown",
            [sys.executable, "-m", "deptry", "src"],
            "DEP003",
        ),
    ],
)
def test_a_planted_violation_is_caught(tmp_path, file, line, command, complaint):
    names = ["git", "ls-files", "-z", "packages", "apps", "pyproject.toml"]
    listed = subprocess.run(names, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    planted = tmp_path / file
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    where = tmp_path / "packages" / "core" if "deptry" in command else tmp_path
    sources = ":".join(str(path) for path in tmp_path.glob("*/*/src"))
    done = subprocess.run(
        command, cwd=where, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": sources, "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    assert complaint in done.stdout + done.stderr, done.stdout + done.stderr
