"""Print the members of the workspace, one a line: name, folder, whether it may import torch.

    python .ci/members.py [--torch-free] [TOPIC]

A member is torch-free if neither its dependencies nor those of the members it needs name torch.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def members() -> dict[str, dict]:
    """Return the `[project]` table of every member by its folder."""
    folders = sorted([*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")])
    return {
        path.parent.relative_to(ROOT).as_posix(): tomllib.loads(path.read_text())["project"]
        for path in folders
    }


def needs_torch(project: dict) -> bool:
    """Tell whether the base dependencies name torch or an extra `torch`."""
    return any(need.startswith("torch") or "[torch" in need for need in project["dependencies"])


def main() -> None:
    """Print the members that were asked for."""
    words = sys.argv[1:]
    torch_free = "--torch-free" in words
    topics = [word for word in words if not word.startswith("--")]
    for folder, project in members().items():
        if topics and Path(folder).name not in topics:
            continue
        if not (torch_free and needs_torch(project)):
            print(project["name"], folder)


if __name__ == "__main__":
    main()
