"""Which members a change affects."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location(
    "affected", ROOT / ".github" / "scripts" / "affected.py"
)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

MEMBERS = {
    "packages/core": {"name": "meristem-core", "needs": {"numpy"}},
    "packages/rasch": {"name": "meristem-rasch", "needs": {"meristem-core"}},
    "packages/losses": {"name": "meristem-losses", "needs": {"meristem-core", "torch"}},
    "apps/exam": {"name": "meristem-exam", "needs": {"meristem-rasch"}},
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], set()),
        (["README.md", "docs/index.md"], set()),
        (["apps/exam/README.md"], {"apps/exam"}),
        (["packages/rasch/src/x.py"], {"packages/rasch", "apps/exam"}),
        (["packages/core/src/x.py"], set(MEMBERS)),
        (["uv.lock"], set(MEMBERS)),
        ([".ci/run"], set(MEMBERS)),
    ],
)
def test_a_change_affects_what_it_touches_and_what_needs_that(files, expected):
    assert script.affected(files, MEMBERS) == expected


def test_the_members_are_read_from_their_own_files():
    found = script.read_members(ROOT)
    assert found["packages/core"]["name"] == "meristem-core"
    assert "meristem-core" in found["apps/meristem"]["needs"]
    assert "datasets" in found["apps/meristem"]["needs"], "extras count as needs"
