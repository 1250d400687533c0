"""Peers in environments of their own, made by uv in the temporary folder."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REQUIREMENTS = {
    "girth": ["girth==0.8.0", "raschpy==1.4.0"],
    "girth-2pl": ["girth==0.8.0", "raschpy==1.4.0"],
    "py-irt": ["py-irt==0.7.1"],
    "irtorch": ["irtorch==0.5.6"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a peer took and found."""

    name: str
    seconds: float
    difficulty: np.ndarray
    slope: np.ndarray


def python_peers(path: Path, task: str, *arguments: str) -> tuple[list[Row], str]:
    """Return a peer's rows and versions; no row, and why, where it does not run."""
    uv = shutil.which("uv")
    if uv is None:
        return [], f"{task}: no row, uv is not on the path"
    folder = Path(tempfile.gettempdir(), "meristem-rasch-" + "-".join(REQUIREMENTS[task]))
    python = folder / "bin/python"
    script = str(Path(__file__).with_name("_peers.py"))
    try:
        if not python.exists():
            _run([uv, "venv", "-q", "--python", "3.11", str(folder)])
            _run([uv, "pip", "install", "-q", "--python", str(python), *REQUIREMENTS[task]])
        out = _run([str(python), script, str(path), task, *arguments])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "no message").strip().splitlines()[-1]
        print(f"{task} does not run: {error.stderr}", file=sys.stderr)
        return [], f"{task}: no row, {reason}"
    found = json.loads(out.splitlines()[-1])
    rows = [
        Row(name=name, seconds=seconds, difficulty=np.array(b), slope=np.array(a))
        for name, (seconds, b, a) in found["rows"].items()
    ]
    return rows, ", ".join(f"{name} {version}" for name, version in found["versions"].items())


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
