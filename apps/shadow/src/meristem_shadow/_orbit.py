"""Compute an orbit, certify that a true one is near, verify the certificate, report."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import meristem_dynamics as md
from meristem_core import open_run
from meristem_core.command import UsageError, progress_bar
from meristem_dynamics.verifier import Verdict, verify
from meristem_shadow._config import OrbitConfig
from meristem_shadow._finish import tell, write
from meristem_shadow._profile import Profile, profile_of, profile_of_blocks
from meristem_shadow._report import orbit_page, sentence
from meristem_shadow._systems import find_system, numbers

SCHEMA = "meristem-shadow-orbit/1"
SETTLE = 100  # steps from the default start, which need not be on the attractor
SETTLE_FLOW = 1000
STEP = 1 / 64  # of a flow, in time: its series of order 18 then ends at rounding for Lorenz
RATES = 10_000  # steps that tell the number of expanding directions of a run in blocks
AROUND = 300  # steps before and after a failure whose gains are shown
GAIN_LEVELS = (0.5, 0.9, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What is known of the orbit when the command ends."""

    system: str
    params: Mapping[str, str]
    start: tuple[float, ...]
    steps: int
    step: float | None  # of a flow: time between points
    noise: float
    ok: bool
    reason: str
    first: int
    certified_steps: int
    failed_at: int | None
    radius_max: float
    radius_median: float
    residual_max: float
    time_shift: float | None  # of a flow: the true solution is this late or early at most
    moved: float | None  # distance of the refined orbit to the computed one, sup norm
    n_unstable: int
    gains: Mapping[str, float] | None
    verdict: Verdict | None
    profile: Profile
    points: Float[np.ndarray, "n d"]  # for the figure
    around: tuple[int, list[float]] | None  # first step and gains around the failure
    seconds: Mapping[str, float]


def run(config: OrbitConfig) -> int:
    """Run or resume, write the folder, print the sentence, and return the exit code."""
    system = find_system(config.system, config.params)
    _check(config, system)
    step = None
    if isinstance(system, md.Flow):
        step = STEP if config.step is None else config.step
    start = _start(system, config.start, step)
    stored = {
        "system": system.name,
        "params": system.exact_parameters(),
        "start": list(start),
        **{name: getattr(config, name) for name in ("steps", "noise", "refine", "blocks", "seed")},
        "step": step,
        "n_unstable": config.n_unstable,
    }
    with open_run(
        config.out, stored, name="meristem shadow orbit", version=version("meristem-shadow")
    ):
        if isinstance(system, md.Flow):
            shadow = _of_flow(config, system, start, step or STEP)
        else:
            shadow = (_in_blocks if config.blocks else _in_memory)(config, system, start)
        result = {"schema": SCHEMA, **_plain(shadow)}
        write(config, result, orbit_page(shadow))
    tell(config, sentence(shadow))
    proved = shadow.ok and (shadow.verdict is None or shadow.verdict.ok)
    return 0 if proved else 1


def _check(config: OrbitConfig, system: md.Map | md.Flow) -> None:
    for name, least in (("steps", 1), ("blocks", 0)):
        if getattr(config, name) < least:
            raise UsageError(f"--{name} {getattr(config, name)}: it must be at least {least}")
    if not 0 <= config.noise < float("inf"):
        raise UsageError(f"--noise {config.noise}: it must be finite and at least 0")
    if config.step is not None and not 0 < config.step < float("inf"):
        raise UsageError(f"--step {config.step}: it must be finite and above 0")
    if config.blocks and (config.noise or config.refine):
        raise UsageError("--blocks makes the orbit piece by piece; leave --noise and --refine out")
    if isinstance(system, md.Map) and config.step is not None:
        raise UsageError(f"--step {config.step}: {system.name} is a map; leave --step out")
    if isinstance(system, md.Flow):
        for name in ("noise", "refine", "blocks"):
            if getattr(config, name):
                raise UsageError(f"--{name}: {system.name} is a flow; --{name} is for maps")


def _start(system: md.Map | md.Flow, text: str, step: float | None) -> tuple[float, ...]:
    if text:
        return numbers("--start", text, system)
    origin = [0.1] * system.dim
    if isinstance(system, md.Flow):
        settled = md.integrate(system, origin, SETTLE_FLOW, step=step or STEP)[-1]
    else:
        settled = md.iterate(system, origin, SETTLE)[-1]
    return tuple(float(x) for x in settled)


def _of_flow(config: OrbitConfig, flow: md.Flow, start: tuple[float, ...], step: float) -> Shadow:
    clock = _Clock()
    orbit = md.integrate(flow, start, config.steps, step=step)
    clock.lap("orbit")
    certificate = md.certify_flow(flow, orbit, step=step, n_unstable=config.n_unstable)
    certificate.save(config.out / "certificate.npz")
    clock.lap("certify")
    verdict = _verified(config, flow, config.out / "certificate.npz", clock)
    failed_at = certificate.failed_at
    return Shadow(
        **_common(config, flow, start),
        **_certified(certificate),
        step=step,
        moved=None,
        gains=None,
        verdict=verdict,
        around=None if failed_at is None else (failed_at, []),
        seconds=clock.seconds,
    )


def _in_memory(config: OrbitConfig, system: md.Map, start: tuple[float, ...]) -> Shadow:
    clock = _Clock()
    if config.noise:
        orbit = md.pseudo_orbit(system, start, config.steps, noise=config.noise, rng=config.seed)
    else:
        orbit = md.iterate(system, start, config.steps)
    clock.lap("orbit")
    low, moved = None, None
    points = orbit
    if config.refine:
        refined = md.refine(system, orbit, n_unstable=config.n_unstable)
        points, low, moved = refined.points, refined.low, float(refined.moved.max())
        clock.lap("refine")
    certificate = md.certify(system, points, low=low, n_unstable=config.n_unstable)
    certificate.save(config.out / "certificate.npz")
    clock.lap("certify")
    gains = md.gains(system, certificate.points) if certificate.n_steps else None
    clock.lap("gains")
    verdict = _verified(config, system, config.out / "certificate.npz", clock)
    levels = [f"{level:g}" for level in GAIN_LEVELS]
    return Shadow(
        **_common(config, system, start),
        **_certified(certificate),
        step=None,
        moved=moved,
        gains=dict(zip(levels, gains.quantiles(GAIN_LEVELS), strict=True)) if gains else None,
        verdict=verdict,
        around=_around(system, points, certificate.failed_at),
        seconds=clock.seconds,
    )


def _in_blocks(config: OrbitConfig, system: md.Map, start: tuple[float, ...]) -> Shadow:
    clock = _Clock()
    beginning = md.iterate(system, start, min(config.steps, RATES))
    k = config.n_unstable
    k = md.gains(system, beginning).n_unstable if k is None else k
    folder = config.out / "blocks"
    with progress_bar("certify") as show:
        found = md.certify_long(
            system, start, config.steps, folder,
            n_unstable=k, block=config.blocks, progress=show,
        )  # fmt: skip
    clock.lap("certify")
    verdict = _verified(config, system, folder, clock) if found.ok else None
    return Shadow(
        **_common(config, system, start),
        ok=found.ok,
        reason=found.reason,
        first=found.first,
        certified_steps=found.n_steps,
        failed_at=found.breaks[0] if found.breaks else None,
        radius_max=found.radius_max,
        radius_median=found.radius_median,
        residual_max=found.residual_max,
        step=None,
        time_shift=None,
        moved=None,
        n_unstable=k,
        gains=None,
        verdict=verdict,
        profile=profile_of_blocks(folder, config.blocks),
        points=beginning,
        around=None,
        seconds=clock.seconds,
    )


def _certified(certificate: md.Certificate) -> dict[str, Any]:
    return {
        "ok": certificate.ok,
        "reason": certificate.reason,
        "first": certificate.first,
        "certified_steps": certificate.n_steps,
        "failed_at": certificate.failed_at,
        "radius_max": certificate.radius_max,
        "radius_median": float(np.median(certificate.radius)),
        "residual_max": certificate.residual_max,
        "time_shift": certificate.time_shift,
        "n_unstable": certificate.n_unstable,
        "profile": profile_of(certificate.radius, certificate.first),
        "points": certificate.points,
    }


def _common(
    config: OrbitConfig, system: md.Map | md.Flow, start: tuple[float, ...]
) -> dict[str, Any]:
    return {
        "system": system.name,
        "params": system.exact_parameters(),
        "start": start,
        "steps": config.steps,
        "noise": config.noise,
    }


def _verified(
    config: OrbitConfig, system: md.Map | md.Flow, path: Path, clock: "_Clock"
) -> Verdict | None:
    if not config.verify:
        return None
    verdict = verify(system, path)
    clock.lap("verify")
    return verdict


def _around(
    system: md.Map, points: Float[np.ndarray, "n d"], failed_at: int | None
) -> tuple[int, list[float]] | None:
    if failed_at is None:
        return None
    first = max(failed_at - AROUND, 0)
    here = points[first : failed_at + AROUND]
    gain = md.gains(system, here).gain if len(here) > 1 else np.zeros(0)
    return first, [float(x) if np.isfinite(x) and x > 0 else np.inf for x in gain]


def _plain(shadow: Shadow) -> dict[str, Any]:
    names = [name for name in Shadow.__slots__ if name not in ("points", "profile", "around")]
    plain = {name: getattr(shadow, name) for name in names}
    verdict = shadow.verdict
    if verdict is not None and not verdict.ok:
        verdict = replace(verdict, radius_max=0.0)
    return plain | {"verdict": verdict}


class _Clock:
    """Seconds of each stage, told on stderr as it ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now
        print(f"{name}: {self.seconds[name]:.2f} s", file=sys.stderr, flush=True)
