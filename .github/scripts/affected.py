"""Print the members that a change affects: those it touches and all that need them.

    python .github/scripts/affected.py BASE             JSON for a job matrix
    python .github/scripts/affected.py --changed BASE   folders that the change itself touches

A change of the lock, the root settings or the shared scripts and tests affects every member.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ("uv.lock", "pyproject.toml", "Makefile", ".github/", ".ci/", "tests/")


def main() -> None:
    """Print what was asked for."""
    *options, base = sys.argv[1:]
    members = read_members(ROOT)
    files = changed_files(base)
    if "--changed" in options:
        print(*sorted(touched(files, members)), sep="\n")
        return
    chosen = affected(files, members)
    print(json.dumps([{"name": members[path]["name"], "path": path} for path in sorted(chosen)]))


def read_members(root: Path) -> dict[str, dict]:
    """Return name and needs (dependencies and extras) of each member by its folder."""
    members: dict[str, dict] = {}
    for file in [*root.glob("packages/*/pyproject.toml"), *root.glob("apps/*/pyproject.toml")]:
        project = tomllib.loads(file.read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        needs = [*project["dependencies"], *(need for extra in extras for need in extra)]
        names = {re.split(r"[\[<>=!~; ]", need, maxsplit=1)[0] for need in needs}
        members[file.parent.relative_to(root).as_posix()] = {
            "name": project["name"],
            "needs": names,
        }
    return members


def changed_files(base: str) -> list[str]:
    """Return the files that differ from BASE; all of them where BASE is unknown (a new branch)."""
    command = ["git", "diff", "--name-only", base]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else [SHARED[0]]


def touched(files: list[str], members: dict[str, dict]) -> set[str]:
    """Return the folders of members that hold a changed file."""
    return {path for path in members if any(file.startswith(f"{path}/") for file in files)}


def affected(files: list[str], members: dict[str, dict]) -> set[str]:
    """Return the touched members and, again and again, those that need one of them."""
    if any(file.startswith(SHARED) for file in files):
        return set(members)
    found = touched(files, members)
    while True:
        names = {members[path]["name"] for path in found}
        more = {path for path in members if members[path]["needs"] & names} - found
        if not more:
            return found
        found |= more


if __name__ == "__main__":
    main()
