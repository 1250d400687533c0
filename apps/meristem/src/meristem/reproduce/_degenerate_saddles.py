"""Paper 2502.17151: manifolds, conjugacy and finite shadowing at degenerate saddles.

The text was not at hand; the six conditions follow summaries. Rules, written before the runs:

- manifolds: on random maps that fulfil the six conditions every stable and unstable branch has a
  proved wedge, and its slope at 0 lies within [-1, 1]
- conjugacy: h F = G h within 1e-13 at points of the square, and h keeps the order along cones
- finite shadowing: for all degrees k, k' <= 2 the fitted exponent is 1 / (2 max(k, k') + 1) within
  0.03, and the error that constant pseudo-orbits force stays below the proved bound
- one dimension, x - x^p: from an orbit that is pushed by d at every step, until a free one has
  fallen below 0.08 d^(1/p), the free one ends between 0.9 d^(1/p) and (4^k d)^(1/p)
- controls: maps that violate one condition are refused with a direction
- necessity: a map that violates the conditions and has its stable manifold in closed form
"""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np

import meristem_dynamics as md
from meristem._rows import Row, Verdict
from meristem.reproduce._parts import Claim, run_parts
from meristem_core import stream

DEGREES = {True: [(1, 1), (2, 1)], False: [(1, 1), (1, 2), (2, 1), (2, 2)]}
WEDGE_ORDER, WEDGE_REACH = 6, 0.02
ERRORS = (1e-6, 1e-7, 1e-8)
EDGE = 0.12
SOURCE = "2502.17151 abstract"
Form = dict[tuple[int, int], Fraction]


def reproduce(out: Path, quick: bool, seed: int) -> list[Row]:
    """Run every part; nothing is kept in `out`."""
    return run_parts(
        (_manifolds, _conjugacy, _shadowing, _line, _controls, _necessity), quick, seed
    )


def round_forms(k: int, k2: int) -> tuple[Form, Form]:
    """Return x (x^2 + y^2)^k and y (x^2 + y^2)^k', which fulfil the conditions for k, k' <= 2."""
    P = {(2 * i + 1, 2 * (k - i)): Fraction(math.comb(k, i)) for i in range(k + 1)}
    Q = {(2 * i, 2 * (k2 - i) + 1): Fraction(math.comb(k2, i)) for i in range(k2 + 1)}
    return P, Q


def random_saddle(rng: np.random.Generator, k: int, k2: int) -> md.Map:
    """Return a map of the class with small random terms; most fulfil the conditions."""
    P, Q = round_forms(k, k2)
    for form, degree in ((P, 2 * k + 1), (Q, 2 * k2 + 1)):
        for i in range(degree + 1):
            drawn = Fraction(int(rng.integers(-15, 16)), 100)
            form[(i, degree - i)] = form.get((i, degree - i), Fraction(0)) + drawn
    X = {(2 * k + 2, 0): Fraction(int(rng.integers(-3, 4)), 10)}
    Y = {(0, 2 * k2 + 2): Fraction(int(rng.integers(-3, 4)), 10)}
    return md.zoo.degenerate_saddle(P, Q, X, Y)


def _saddles(quick: bool, seed: int) -> list[md.Map]:
    rng, found = stream(seed, "saddles"), [md.zoo.demo_saddle()]
    for k, k2 in DEGREES[quick]:
        drawn = random_saddle(rng, k, k2)
        while not md.check_degenerate_saddle(drawn).ok:
            drawn = random_saddle(rng, k, k2)
        found.append(drawn)
    return found


def _manifolds(quick: bool, seed: int) -> Claim:
    proved, total, steepest = 0, 0, 0.0
    for f in _saddles(quick, seed):
        report = md.check_degenerate_saddle(f)
        steepest = max(steepest, abs(report.slope_stable), abs(report.slope_unstable))
        for kind in ("stable", "unstable"):
            graph = md.degenerate_graph(f, kind, order=16)
            for side in (1, -1):
                reach = min(report.radius, WEDGE_REACH)
                wedge = md.certify_graph(graph, order=WEDGE_ORDER, reach=reach, side=side)
                proved, total = proved + wedge.ok, total + 1
    holds = proved == total and steepest <= 1
    return (
        "stable and unstable manifolds exist as graphs under the six conditions", SOURCE,
        "all", f"{proved} of {total} branches proved", total,
        "reproduced" if holds else "partly" if proved else "refuted",
        f"steepest slope {steepest:.3f}; wedges in Arb, on (0, r]",
    )  # fmt: skip


def _conjugacy(quick: bool, seed: int) -> Claim:
    f = md.zoo.demo_saddle()
    h = md.conjugacy(f, edge=EDGE)
    z = stream(seed, "points").uniform(-0.9, 0.9, (40 if quick else 1000, 2)) * EDGE
    residual = h.residual(z)
    line = np.linspace(-0.9, 0.9, 21)[:, None] * EDGE
    upward = h(line * np.array([[0.5, 1.0]]))[:, 1]
    across = h(line * np.array([[1.0, -0.5]]))[:, 0]
    ordered = bool((np.diff(upward) > 0).all() and (np.diff(across) > 0).all())
    holds = residual <= 1e-13 and ordered
    return (
        "a degenerate Hartman theorem: F is conjugate to a decoupled saddle", SOURCE,
        "0", residual, len(z), "reproduced" if holds else "refuted",
        "largest |h F - G h| of the worked example; h keeps the order along both cones"
        if ordered else "h does not keep the order along the cones",
    )  # fmt: skip


def _shadowing(quick: bool, seed: int) -> Claim:
    worst, below = 0.0, True
    for k, k2 in DEGREES[quick]:
        found = md.finite_shadowing(md.zoo.degenerate_saddle(*round_forms(k, k2)), ERRORS)
        worst = max(worst, abs(found.exponent - found.predicted))
        below &= bool((found.lower <= found.upper).all())
    verdict: Verdict = "reproduced" if worst <= 0.03 and below else "refuted"
    return (
        "finite shadowing near the fixed point: eps ~ d^(1 / (2 max(k, k') + 1))",
        "2502.17151 abstract; the exponent is derived", "off by 0", worst,
        len(DEGREES[quick]), verdict,
        (
            "largest gap of the exponent; constant pseudo-orbits on nullclines force it, boxes "
            f"bound it from above: {'below the bound' if below else 'above the bound'} for all"
        ),
    )  # fmt: skip


def _line(quick: bool, seed: int) -> Claim:
    ratios, ok = [], True
    for k in (1, 2) if quick else (1, 2, 3):
        p, d = 2 * k + 1, 10.0 ** (-4 / k)
        pushed = x = d ** (1 / p)  # the pushed orbit rests: it loses y^p = d at every step
        while x > 0.08 * pushed:
            x -= x**p
        ratios.append((pushed - x) / pushed)
        ok &= 0.9 <= ratios[-1] <= 4 ** (k / p)
    return (
        "in one dimension d^(1/p) <= eps <= (4^k d)^(1/p)", "derived from 2502.17151",
        "1 to 4^(k/p)", ", ".join(f"{r:.3f}" for r in ratios), len(ratios),
        "reproduced" if ok else "refuted",
        (
            "eps / d^(1/p) for k = 1, 2, ...; d^(1/p) itself is reached only in the limit of long "
            "pseudo-orbits"
        ),
    )  # fmt: skip


def _controls(quick: bool, seed: int) -> Claim:
    good_p, good_q = {(3, 0): 1, (1, 2): 1}, {(0, 3): 1, (2, 1): 1}
    bad = {
        "P_x + P_y": ({(3, 0): 1, (1, 2): 1, (0, 3): -2}, good_q),
        "P_x - P_y": ({(3, 0): 1, (1, 2): 1, (0, 3): 2}, good_q),
        "Q_y + Q_x": (good_p, {(0, 3): 1, (2, 1): 1, (3, 0): -2}),
        "Q_y - Q_x": (good_p, {(0, 3): 1, (2, 1): 1, (3, 0): 2}),
    }
    named, idle = 0, 0
    for name, (P, Q) in bad.items():
        report = md.check_degenerate_saddle(md.zoo.degenerate_saddle(P, Q))
        failing = [key for key, form in report.forms.items() if not form.definite]
        named += failing == [name]
        idle += {"P_x", "Q_y"} & set(failing) != set()
    return (
        "each violated condition is found; the first two of the six follow from the others",
        "derived from 2502.17151", "4 of 4", f"{named} of {len(bad)}", len(bad),
        "reproduced" if named == len(bad) and not idle else "refuted",
        (
            "2 P_x = (P_x + P_y) + (P_x - P_y): positive definiteness of P_x and Q_y is no "
            "hypothesis of its own"
        ),
    )  # fmt: skip


def _necessity(quick: bool, seed: int) -> Claim:
    f = md.zoo.sheared_saddle()
    t = np.linspace(-0.2, 0.2, 41)
    curve = np.stack(f.exact["stable"](t), axis=1)
    image = np.stack(f.exact["stable"](t - t**3), axis=1)
    gap = float(np.abs(np.asarray(f(curve)) - image).max())
    fails = not md.check_degenerate_saddle(f).ok
    return (
        "the six conditions are sufficient, not necessary", "derived from 2502.17151", "a map",
        gap, 1, "reproduced" if fails and gap < 1e-14 else "refuted",
        (
            "defect of the closed-form stable manifold of a sheared (x - x^3, y + y^3), whose "
            "forms are only semi-definite"
        ),
    )  # fmt: skip
