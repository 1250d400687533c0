"""Certificates of orbits too long for the memory: two sweeps over blocks, resumable.

- forward: each block of the orbit is iterated, framed and bounded over boxes of one half-width,
  and its stable widths are scanned; only the state at the block's border is kept
- backward: each block is made again from its border state, bit for bit, and its unstable widths
  are scanned from the block behind it; the block's certificate is written
- a step whose widths leave the boxes is a break: the certificate holds on each side of it
- every file is written atomically, so a killed run goes on at the first block that is missing
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_core import read_json, write_atomic, write_json
from meristem_dynamics._archive import packed
from meristem_dynamics._bounds import Bounds, coupling, residuals
from meristem_dynamics._splitting import apply, backward_scan, frames_along, scan
from meristem_dynamics._systems import Map, iterate, jacobians
from meristem_dynamics._widths import GROW, SLACK, STEP, UNDERFLOW, settle

Progress = Callable[[int, int, Mapping[str, float]], None]
BORDER = "border-{:06d}.npz"
BLOCK = "block-{:06d}.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class LongCertificate:
    """Summary of a certificate that lies in a folder, block by block."""

    ok: bool
    n_steps: int  # of the longest certified segment
    first: int
    radius_max: float
    radius_median: float  # median over blocks of the blocks' medians
    residual_max: float
    breaks: tuple[int, ...]  # steps n whose inequality n -> n + 1 does not close
    reason: str


@dataclass(frozen=True, slots=True)
class _Run:
    system: Map
    n: int
    block: int
    box: float
    k: int
    folder: Path

    @property
    def blocks(self) -> int:
        return -(-self.n // self.block)

    def steps(self, b: int) -> int:
        return min(self.block, self.n - b * self.block)


def certify_long(
    system: Map,
    z0: Any,
    n: int,
    folder: Path | str,
    *,
    n_unstable: int,
    box: float = 4e-9,
    block: int = 2**17,
    progress: Progress | None = None,
) -> LongCertificate:
    """Certify the float64 orbit of `z0` over `n` steps in bounded memory; resume if begun.

    Parameters
    ----------
    system, n_unstable
        As for `certify`.
    z0, n
        Start and number of steps; the orbit is made by `iterate`.
    folder
        Where borders and blocks are written, made if missing; `verify` takes it.
    box
        Half-width of the boxes over which the map is bounded, in frame coordinates; widths above
        it are breaks. Larger boxes admit larger gains and give slightly larger radii.
    block
        Steps of a block.
    progress
        Called with blocks done, blocks in all (both sweeps) and no metrics.

    Raises
    ------
    ValueError
        If the folder holds another run, or the orbit leaves its domain.
    """
    run = _Run(system, n, block, box, n_unstable, Path(folder))
    _open(run, z0)
    forward_breaks: list[int] = []
    state = _first_state(run, z0)
    for b in range(run.blocks):
        path = run.folder / BORDER.format(b + 1)
        if path.exists():
            state = _load(path)
        else:
            state = _forward(run, b, state)
            write_atomic(path, packed({}, state))
        forward_breaks += state["breaks"].tolist()
        if progress:
            progress(b + 1, 2 * run.blocks, {})
    breaks, summaries = set(forward_breaks), list[dict[str, Any]]()
    end = np.zeros(n_unstable)
    for done, b in enumerate(reversed(range(run.blocks))):
        path = run.folder / f"summary-{b:06d}.json"
        if not path.exists():
            _backward(run, b, end)
        summary = read_json(path)
        end = np.array([float.fromhex(x) for x in summary["start"]])
        breaks |= set(summary["breaks"])
        summaries.append(summary)
        if progress:
            progress(run.blocks + done + 1, 2 * run.blocks, {})
    return _summary(run, sorted(breaks), summaries)


def _open(run: _Run, z0: Any) -> None:
    settings = {
        "system": run.system.name,
        "params": run.system.exact_parameters(),
        "z0": [float(x).hex() for x in z0],
        "n": run.n,
        "block": run.block,
        "box": run.box,
        "n_unstable": run.k,
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / "run.json"
    if not path.exists():
        write_json(path, settings)
    held = read_json(path)
    if held != json.loads(json.dumps(settings)):
        differing = [key for key in settings if held.get(key) != settings[key]]
        raise ValueError(
            f"{run.folder} holds a run with another {', '.join(differing)}; give another folder"
        )


def _first_state(run: _Run, z0: Any) -> dict[str, Any]:
    d = run.system.dim
    return {
        "point": np.array([float(x) for x in z0]),
        "frame": frames_along(np.zeros((0, d, d))),
        "stable": np.zeros(d - run.k),
    }


def _load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != "header"}


def _pieces(run: _Run, b: int, state: Mapping[str, Any]) -> tuple[Any, Any, Bounds, Any]:
    """Return points, frames, bounds over the boxes and errors of block b."""
    points = iterate(run.system, state["point"], run.steps(b))
    J = jacobians(run.system, points[:-1])
    frames = frames_along(J, state["frame"].reshape(run.system.dim, run.system.dim))
    box = np.full((len(J), run.system.dim), run.box)
    bounds = coupling(run.system, points, frames, box, run.k)
    return points, frames, bounds, residuals(run.system, points, frames, None)


def _stable(
    run: _Run, bounds: Bounds, errors: Any, start: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, "n m"], list[int]]:
    """Return stable widths with u <= box granted, and the steps where they restart from 0."""
    room = apply(bounds.su, np.full((len(errors), run.k), run.box)) * SLACK
    source = GROW * (errors[:, run.k :] + room)
    v, breaks, a = np.empty((len(errors) + 1, run.system.dim - run.k)), list[int](), 0
    x = start
    while True:
        v[a:] = scan(bounds.ss[a:] * STEP, source[a:], x)
        over = np.flatnonzero(~(v[a + 1 :] <= run.box).all(axis=1))
        if not over.size:
            return v, breaks
        a += int(over[0]) + 1
        breaks.append(a - 1)
        x = np.zeros_like(start)
        if a == len(errors):
            v[a] = x
            return v, breaks


def _forward(run: _Run, b: int, state: Mapping[str, Any]) -> dict[str, Any]:
    points, frames, bounds, errors = _pieces(run, b, state)
    v, breaks = _stable(run, bounds, errors, state["stable"])
    first = b * run.block
    return {
        "point": points[-1],
        "frame": frames[-1],
        "stable": v[-1],
        "breaks": np.array([first + n for n in breaks], dtype=np.int64),
    }


def _backward(run: _Run, b: int, end: Float[np.ndarray, " k"]) -> None:
    state = (
        _load(run.folder / BORDER.format(b))
        if b
        else _first_state(run, [float.fromhex(x) for x in read_json(run.folder / "run.json")["z0"]])
    )
    points, frames, bounds, errors = _pieces(run, b, state)
    v, cuts = _stable(run, bounds, errors, state["stable"])
    source = GROW * errors[:, : run.k] + apply(bounds.us, v[:-1])
    u, stop, x = np.zeros((len(errors) + 1, run.k)), len(errors), end
    while True:
        u[: stop + 1] = backward_scan(bounds.inverse[:stop] * STEP, source[:stop], x)
        over = np.flatnonzero(~(u[:stop] <= run.box).all(axis=1))
        if not over.size:
            break
        stop = int(over[-1])
        cuts.append(stop)
        x = np.zeros(run.k)
        u[stop] = x
        if stop == 0:
            break
    widths = np.concatenate([u, v], axis=1)
    _write(run, b, points, frames, errors, _confirmed(bounds, errors, widths, run.k, cuts))


def _confirmed(
    bounds: Bounds, errors: Any, widths: Any, k: int, cuts: list[int]
) -> tuple[Any, list[int]]:
    """Return widths, and all steps whose inequality is not certain, known cuts included."""
    checked = settle(bounds, errors, widths, k)
    bad = ~np.isfinite(checked[:-1, :k]).all(axis=1) | ~np.isfinite(checked[1:, k:]).all(axis=1)
    return widths, sorted(set(cuts) | set(np.flatnonzero(bad).tolist()))


def _write(
    run: _Run, b: int, points: Any, frames: Any, errors: Any, checked: tuple[Any, list[int]]
) -> None:
    widths, cuts = checked
    radius = apply(np.abs(frames), widths).max(axis=1) * SLACK + UNDERFLOW
    header = {
        "ok": not cuts,
        "system": run.system.name,
        "params": run.system.exact_parameters(),
        "n_unstable": run.k,
        "first": b * run.block,
        "n_steps": len(points) - 1,
        "radius_max": float(radius.max()),
        "residual_max": float(errors.max()),
        "failed_at": None if not cuts else b * run.block + cuts[0],
        "reason": "a block of a long certificate",
    }
    arrays = {"points": points, "frames": frames, "widths": widths}
    write_atomic(run.folder / BLOCK.format(b), packed(header, arrays))
    write_json(
        run.folder / f"summary-{b:06d}.json",
        {
            "start": [float(x).hex() for x in widths[0, : run.k]],
            "breaks": [b * run.block + n for n in cuts],
            "radius_max": float(radius.max()),
            "radius_median": float(np.median(radius)),
            "residual_max": float(errors.max()),
        },
    )


def _summary(run: _Run, breaks: list[int], summaries: list[dict[str, Any]]) -> LongCertificate:
    edges = [-1, *breaks, run.n]
    longest = max(range(len(edges) - 1), key=lambda i: edges[i + 1] - edges[i])
    first = edges[longest] + 1
    return LongCertificate(
        ok=not breaks,
        n_steps=edges[longest + 1] - first,
        first=first,
        radius_max=max(s["radius_max"] for s in summaries),
        radius_median=float(np.median([s["radius_median"] for s in summaries])),
        residual_max=max(s["residual_max"] for s in summaries),
        breaks=tuple(breaks),
        reason="a true orbit stays within the radius of every point"
        if not breaks
        else f"{len(breaks)} steps do not close, the first at {breaks[0]}; enlarge box, or take "
        "the longest segment",
    )
