"""The README's commands exist, and the cheap ones run."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/*/README.md")), *sorted(ROOT.glob("docs/*.md"))]
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def commands():
    for page in PAGES:
        for block in SHELL.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                yield page.relative_to(ROOT).as_posix(), line.split("#")[0].strip()


MERISTEM = sorted({(page, line) for page, line in commands() if "meristem " in f"{line} "})


def test_the_two_commands_stand_in_the_readme_and_the_makefile():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("grow", "test"):
        assert f"make {command}" in readme
        assert f"\n{command}: " in makefile


@pytest.mark.parametrize(("page", "line"), MERISTEM, ids=[line for _, line in MERISTEM])
def test_every_meristem_command_of_the_pages_is_understood(page, line):
    """Ask each command for its help: a flag that does not exist makes that fail."""
    words = re.sub(r"^.*?\bmeristem ", "", line).split()
    if not words or "install" in line:
        return
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    sub = words[1:2] if words[1:] and words[1].isalpha() else []  # such as `shadow orbit`
    done = help_of(words[0], *sub)
    assert done.returncode == 0, f"{page}: {line}: {done.stderr}"
    missing = {flag for flag in flags - {"--help"} if flag not in done.stdout}
    assert not missing, f"{page}: {line}: {missing}"


@functools.cache
def help_of(*words):
    return subprocess.run(
        [sys.executable, "-m", "meristem", *words, "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_make_help_names_the_targets():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"grow", "test", "lint", "docs"} <= {
        line.split()[0] for line in done.stdout.splitlines()
    }
