"""Paper 2502.16497: rates, gains and stability where hyperbolicity degenerates at a point.

The text was not at hand; the conditions follow summaries. The example is the cat map slowed down at
its fixed point (Katok): w is the distance to it, beta = 2a. Rules, written before the runs but for
that of stability, which was written after a coarser run had shown steeper slopes:

- rates: beta is 2a and gamma 1 + 2a within 0.05 in both directions; partly within 0.1
- gains: K of a passage at distance d grows like d^-beta: fitted within 0.05; partly within 0.1
- relation R: the form reported, alpha > beta gamma, admits the examples; refuted if it admits none
- the other reading, alpha > beta / gamma, admits all of them
- stability: with a perturbation eps w^q the displacement |h - id| / w goes like w^(q - 1 - beta):
  bounded for q = 1 + beta. Reproduced if the slopes for q = 1 + beta and 1 + beta/2 are within 0.1
  of that, partly if the smaller q grows faster; h g = f h within 1e-10 in any case
- expansivity: pairs at distance 1e-3 w part to 0.05 w^(1 + beta) within 40 steps
"""

from pathlib import Path
from typing import Any

import numpy as np

import meristem_dynamics as md
from meristem._rows import Row, Verdict
from meristem.reproduce._parts import Claim, run_parts
from meristem_core import stream

EXPONENTS = {True: ("0.3",), False: ("0.2", "0.3", "0.45")}  # a
SOURCE = "2502.16497 abstract"
ENTRY = 0.3  # where passages begin, along the contracting direction
KICK = 1e-3
SETTLE = 30
BELOW = 0.08


def reproduce(out: Path, quick: bool, seed: int) -> list[Row]:
    """Run every part; nothing is kept in `out`."""
    return run_parts((_rates, _gains, _relation, _ratio, _stability, _expansivity), quick, seed)


def passages(f: md.Map, nearest: Any, *, before: int, after: int) -> Any:
    """Return orbits that pass the fixed point at about the distances `nearest`."""
    stretch: Any = np.linalg.eigh(np.array([[2.0, 1.0], [1.0, 1.0]]))[1]  # contracting first
    s = np.array([np.full(len(nearest), ENTRY), nearest**2 / (2 * ENTRY)])
    rows = [(stretch @ s).T % 1.0]
    inverse, p = f.inverse, f.parameters()
    assert inverse is not None
    for _ in range(before):
        rows.insert(0, np.stack(inverse([rows[0][:, 0], rows[0][:, 1]], p), axis=1) % 1.0)
    for _ in range(after):
        rows.append(np.asarray(f(rows[-1])))
    return np.swapaxes(np.array(rows), 0, 1)


def _report(a: str, quick: bool) -> md.PointwiseReport:
    f = md.zoo.slowdown_cat(a=a)
    nearest = np.geomspace(2e-4, 1e-2, 6 if quick else 12)
    after = 450 if float(a) <= 0.3 else 2500
    orbits = passages(f, nearest, before=40, after=after)
    rates = [md.pointwise_rates(f, orbit, settle=SETTLE) for orbit in orbits]
    return md.check_pointwise(rates, alpha=2 * float(a), below=BELOW)


def _rates(quick: bool, seed: int) -> Claim:
    off, told = 0.0, []
    for a in EXPONENTS[quick]:
        report = _report(a, quick)
        for side in (report.unstable, report.stable):
            off = max(off, abs(side.beta - 2 * float(a)), abs(side.gamma - 1 - 2 * float(a)))
        u = report.unstable
        told.append(f"a = {a}: beta {u.beta:.3f}, gamma {u.gamma:.3f}")
    verdict: Verdict = "reproduced" if off <= 0.05 else "partly" if off <= 0.1 else "refuted"
    return (
        "the slowed-down cat map is pointwise hyperbolic: rates 1 + w^beta near its fixed point",
        SOURCE, "off by 0", off, len(EXPONENTS[quick]), verdict,
        f"largest gap to beta = 2a, gamma = 1 + 2a; {'; '.join(told)}",
    )  # fmt: skip


def _gains(quick: bool, seed: int) -> Claim:
    off, told = 0.0, []
    for a in EXPONENTS[quick]:
        f = md.zoo.slowdown_cat(a=a)
        nearest = np.geomspace(3e-4, 3e-3, 3) if quick else np.geomspace(1e-4, 1e-3, 5)
        after = 450 if float(a) <= 0.3 else 2500
        top = [
            md.gains(f, _passage(f, orbit), n_unstable=1).gain.max()
            for orbit in passages(f, nearest, before=SETTLE, after=after)
        ]
        slope = float(np.polyfit(np.log(nearest), np.log(top), 1)[0])
        off = max(off, abs(slope + 2 * float(a)))
        told.append(f"a = {a}: {slope:.3f}")
    verdict: Verdict = "reproduced" if off <= 0.05 else "partly" if off <= 0.1 else "refuted"
    return (
        "no shadowing constant serves all points: gains grow like d^-beta",
        "derived from 2502.16497",
        "off by 0", off, len(EXPONENTS[quick]), verdict,
        f"largest gap of the fitted exponent; {'; '.join(told)}",
    )  # fmt: skip


def _passage(f: md.Map, orbit: Any) -> Any:
    """Return the orbit until it has left the neighbourhood of the fixed point for SETTLE steps."""
    assert f.boundary_distance is not None
    w = np.asarray(f.boundary_distance(orbit))
    middle = int(np.argmin(w[: SETTLE + 400 if len(w) < 1000 else len(w)]))
    left = np.flatnonzero(w[middle:] > ENTRY)
    stop = middle + (int(left[0]) if left.size else len(w)) + SETTLE
    return orbit[:stop]


def _examples(quick: bool) -> list[tuple[str, float, float, float]]:
    """Return name, alpha, beta, gamma of the papers' kind of examples, beta and gamma measured."""
    found: list[tuple[str, float, float, float]] = []
    for a in EXPONENTS[quick]:
        r = _report(a, quick)
        beta = max(r.unstable.beta, r.stable.beta)
        found.append((f"slow-down {a}", 2 * float(a), beta, min(r.unstable.gamma, r.stable.gamma)))
    local = md.check_degenerate_saddle(md.zoo.almost_anosov())
    if not local.ok:
        raise ValueError("the almost Anosov form fails the six conditions; its exponents need them")
    beta = 2.0 * max(local.k, local.k2)
    found.append(("almost Anosov", 1.0, beta, beta + 1))
    return found


def _relation(quick: bool, seed: int) -> Claim:
    admitted = [name for name, alpha, beta, gamma in _examples(quick) if alpha > beta * gamma]
    total = len(EXPONENTS[quick]) + 1
    return (
        "relation R, alpha > beta gamma, admits the examples", "2502.16497, as summarised", "all",
        f"{len(admitted)} of {total}", total,
        "reproduced" if len(admitted) == total else "partly" if admitted else "refuted",
        "probably a misprint: it would also make gamma > beta / alpha of U and S idle",
    )  # fmt: skip


def _ratio(quick: bool, seed: int) -> Claim:
    examples = _examples(quick)
    admitted = [name for name, alpha, beta, gamma in examples if alpha > beta / gamma]
    total = len(examples)
    return (
        "relation R read as alpha > beta / gamma admits the examples", "derived from 2502.16497",
        "all", f"{len(admitted)} of {total}", total,
        "reproduced" if len(admitted) == total else "partly" if admitted else "refuted",
        "; ".join(f"{name}: {al:.2f} > {be / ga:.2f}" for name, al, be, ga in examples),
    )  # fmt: skip


def kicked(f: md.Map, size: float, power: float) -> md.Map:
    """Return f followed by a smooth kick of size times w^power, with its inverse."""
    distance = f.boundary_distance
    inverse = f.inverse
    assert distance is not None
    assert inverse is not None

    def kick(z: Any) -> tuple[Any, Any]:
        x, y = (np.asarray(c, dtype=float) for c in z)
        scale = size * distance(np.stack(np.broadcast_arrays(x, y), axis=-1)) ** power
        u, v = 2 * np.pi * x, 2 * np.pi * y
        return x + scale * np.sin(u + 2 * v + 1), y + scale * np.cos(2 * u - v + 0.5)

    def back(z: Any, p: Any) -> Any:
        x, y = (np.asarray(c, dtype=float) for c in z)
        for _ in range(12):  # each round wins two digits
            u, v = kick((x, y))
            x, y = x - (u - z[0]), y - (v - z[1])
        return inverse((x, y), p)

    return md.Map(
        f=lambda z, p: kick(f.f(z, p)), inverse=back, dim=2, params=f.params, torus=True,
        name="kicked", boundary_distance=distance,
    )  # fmt: skip


def _stability(quick: bool, seed: int) -> Claim:
    a = 0.3
    f, beta = md.zoo.slowdown_cat(a=str(a)), 2 * a
    w = np.geomspace(3e-3, 1e-2, 2) if quick else np.geomspace(1e-3, 1e-2, 4)
    points = w[:, None] * np.array([np.cos(0.4), np.sin(0.4)])
    slopes, residual = [], 0.0
    for power in (1 + beta, 1 + beta / 2):
        g = kicked(f, KICK, power)
        found = md.topological_conjugacy(f, g, points, window=300 if quick else 600)
        slopes.append(float(np.polyfit(np.log(w), np.log(found.displacement), 1)[0]))
        residual = max(residual, found.residual)
    verdict: Verdict = "refuted"
    if residual <= 1e-10:
        near = abs(slopes[0]) <= 0.1 and abs(slopes[1] + beta / 2) <= 0.1
        verdict = "reproduced" if near else "partly" if slopes[1] < slopes[0] - 0.1 else "refuted"
    return (
        "stability: maps within a tolerance of w are conjugate, h = id at the boundary",
        SOURCE, f"slopes 0 and {-beta / 2:.2f}",
        f"slopes {slopes[0]:.2f} and {slopes[1]:.2f}", 2 * len(w), verdict,
        (
            f"of log |h - id| / w against log w for kicks w^(1 + beta) and w^(1 + beta/2), "
            f"a = {a}; |h g - f h| <= {residual:.1e}; h onto and one-to-one is not shown"
        ),
    )  # fmt: skip


def _expansivity(quick: bool, seed: int) -> Claim:
    least, n = np.inf, 0
    for a in EXPONENTS[quick]:
        f = md.zoo.slowdown_cat(a=a)
        points = stream(seed, "expansivity").random((20 if quick else 200, 2))
        found = md.expansivity(f, points, exponent=1 + 2 * float(a), n_max=40, rng=seed)
        least, n = min(least, found.kappa), n + found.n_pairs
    return (
        "pointwise expansivity with radius kappa w^gamma", SOURCE, "> 0.05", least, n,
        "reproduced" if least > 0.05 else "refuted",
        "smallest over sampled pairs of the largest distance in units of w^(1 + beta)",
    )  # fmt: skip
