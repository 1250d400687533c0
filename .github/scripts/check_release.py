"""Check that a member may be released: nothing is uploaded, no network is needed.

    python .github/scripts/check_release.py core [--tag core-v0.1.0]

Leaves the wheel and the sdist in dist/release/ when everything holds.
"""

import argparse
import os
import re
import secrets
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / "dist" / "release"


def main() -> None:
    """Run the checks in order and stop at the first that fails."""
    parser = argparse.ArgumentParser(description="Check that a member may be released.")
    parser.add_argument("topic", help="folder name under packages/ or apps/")
    parser.add_argument("--tag", help="the tag that is being released")
    options = parser.parse_args()
    folder = find(options.topic)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    check_notes(folder, project, options.tag, options.topic)
    run("make", "lint")
    run_tests(folder)
    run(".ci/isolated", options.topic)
    run(".ci/floors", options.topic)
    run(".ci/wheels")
    check_metadata(project)
    check_api(folder, project, options.topic)
    keep_files(project)
    print(f"{project['name']} {project['version']} may be released")


def find(topic: str) -> Path:
    """Return the folder of a member."""
    folders = [ROOT / kind / topic for kind in ("packages", "apps")]
    found = [folder for folder in folders if (folder / "pyproject.toml").exists()]
    if not found:
        fail(f"{topic} is no member; give the name of a folder under packages/ or apps/")
    return found[0]


def check_notes(folder: Path, project: dict, tag: str | None, topic: str) -> None:
    """Hold tag, version and change log together."""
    version = project["version"]
    if tag is not None and tag != f"{topic}-v{version}":
        fail(f"tag {tag} does not fit version {version}; it must be {topic}-v{version}")
    headings = re.findall(r"^## (\S+)", (folder / "CHANGELOG.md").read_text(), re.MULTILINE)
    if tag is None:
        return
    if not headings or headings[0] != version:
        fail(f"{folder.name}/CHANGELOG.md does not begin with {version}; run towncrier build")
    left = [path.name for path in (folder / "changes").glob("*.md")]
    if left:
        fail(f"change notes {left} are not in the change log; run towncrier build")


def run_tests(folder: Path) -> None:
    """Run the laws at length, then everything else that needs no GPU."""
    seed = secrets.randbits(32)
    print(f"seed {seed}", flush=True)
    rest = "not (gpu or network or vllm)"
    laws = ["-m", f"hypothesis and not slow and {rest}", f"--hypothesis-seed={seed}"]
    run("pytest", "-q", *laws, str(folder), HYPOTHESIS_PROFILE="release")
    run("pytest", "-q", "-m", f"slow and {rest}", "--timeout", "1800", str(folder), empty=True)


def check_metadata(project: dict) -> None:
    """Refuse a wheel whose metadata names a path or a source of the workspace."""
    (wheel,) = files_of(project, ".whl")
    command = [sys.executable, "-m", "zipfile", "-e", str(wheel), str(ROOT / "dist" / "unpacked")]
    run(*command)
    (text,) = (ROOT / "dist" / "unpacked").glob(f"{wheel.name.split('-')[0]}-*.dist-info/METADATA")
    needs = [line for line in text.read_text().splitlines() if line.startswith("Requires-Dist")]
    shutil.rmtree(ROOT / "dist" / "unpacked")
    for line in needs:
        if "file:" in line or " @ " in line:
            fail(f"the wheel says {line!r}; published metadata names versions, not places")


def check_api(folder: Path, project: dict, topic: str) -> None:
    """Compare the public names with the last release's; a break needs a new minor version."""
    tags = subprocess.run(
        ["git", "tag", "--list", f"{topic}-v*", "--sort=-v:refname"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout.split()  # fmt: skip
    earlier = [tag for tag in tags if tag != f"{topic}-v{project['version']}"]
    if not earlier:
        print("no earlier release to compare the public names with")
        return
    module = next(path.name for path in (folder / "src").iterdir() if path.is_dir())
    last = earlier[0].rsplit("-v", 1)[1]
    if last.split(".")[:2] != project["version"].split(".")[:2]:
        print(f"a new minor version after {last}: breaks are allowed")
        return
    run("griffe", "check", module, "--search", str(folder / "src"), "--against", earlier[0])


def keep_files(project: dict) -> None:
    """Copy the checked files to where the publishing job takes them."""
    shutil.rmtree(RELEASE, ignore_errors=True)
    RELEASE.mkdir(parents=True)
    for ending in (".whl", ".tar.gz"):
        for file in files_of(project, ending):
            shutil.copy2(file, RELEASE)


def files_of(project: dict, ending: str) -> list[Path]:
    """Return the built files of this version."""
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    return list((ROOT / "dist").glob(f"{stem}*{ending}"))


def run(*command: str, empty: bool = False, **environment: str) -> None:
    """Run a command at the root; `empty` allows a test run without tests."""
    print(f"==> {' '.join(command)}", flush=True)
    done = subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, **environment})
    if done.returncode and not (empty and done.returncode == 5):
        fail(f"{command[0]} failed with {done.returncode}")


def fail(reason: str) -> NoReturn:
    """End with the reason."""
    sys.exit(f"release check: {reason}")


if __name__ == "__main__":
    main()
