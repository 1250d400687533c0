"""The trusted kernel: re-check a saved certificate in Arb, step by step.

It shares no code with the part that makes certificates. It takes points, frames and widths as
untrusted numbers and the map's function f, computes Df over each box by its own derivative type,
and checks the two inequalities of every step. Anything that is not certainly true is a rejection.
For a flow the map of a step is that between two sections, by the verifier's own Taylor series.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flint
import numpy as np

from meristem_dynamics._crossings import poincare
from meristem_dynamics._systems import Flow, Map

FLOW_BITS = 96
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, EOFError)
BITS = 192  # a refined orbit has residuals of 1e-32, with errors below 1e-57 here
arb: Any = flint.arb
arb_mat: Any = flint.arb_mat


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the verifier found; `radius_max` is proved by it, not read from the file."""

    ok: bool
    n_steps: int
    radius_max: float
    failed_at: int | None
    reason: str
    time_shift: float | None = None  # of a flow, proved like the radius


def verify(system: Map | Flow, path: Path | str) -> Verdict:
    """Return whether the certificate file, or folder of files, proves what it claims.

    Parameters
    ----------
    system
        The map or flow, with the parameters that the theorem is to be about.
    path
        A file written by `Certificate.save`, or the folder of `certify_long`.

    Returns
    -------
    Verdict
        Of the whole chain; a folder's blocks must join exactly.

    Raises
    ------
    ValueError
        If a file is no certificate at all.
    """
    path = Path(path)
    files = sorted(path.glob("block-*.npz")) if path.is_dir() else [path]
    if not files:
        return _rejected(0, f"{path} holds no block-*.npz", None)
    total, largest, last, verdict = 0, 0.0, None, None
    for file in files:
        header, arrays = _read(file)
        verdict = _verify_one(system, header, arrays)
        if not verdict.ok:
            return verdict
        seam = [arrays[name][0].tobytes() for name in sorted(arrays)]
        if last is not None and seam != last:
            return _rejected(total, f"{file.name} does not join the block before it", total)
        last = [arrays[name][-1].tobytes() for name in sorted(arrays)]
        total, largest = total + verdict.n_steps, max(largest, verdict.radius_max)
    shift = verdict.time_shift if verdict is not None and len(files) == 1 else None
    return _proved(total, largest, shift)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    wrong = f"{file} is no shadowing certificate"
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (*MALFORMED, zipfile.BadZipFile) as error:
        raise ValueError(f"{wrong}; give a file that Certificate.save wrote") from error
    try:
        header = json.loads(arrays.pop("header").tobytes())
        for name, number in (("n_unstable", int), ("n_steps", int), ("radius_max", float)):
            header[name] = number(header[name])
        for name in ("step", "time_shift"):  # of flows
            header[name] = float(header.get(name) or 0.0)
        for name in ("points", "frames", "widths"):
            arrays[name] = np.asarray(arrays[name], dtype=float)
        header["params"]
    except MALFORMED as error:
        raise ValueError(f"{wrong}: {type(error).__name__} {error} in its header") from error
    return header, arrays


def _verify_one(
    system: Map | Flow, header: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Verdict:
    exact = {key: str(Fraction(value)) for key, value in system.params.items()}
    if header["params"] != exact:
        return _rejected(0, f"it is about {header['params']}, the map has {exact}", None)
    points, frames, widths = (arrays[name] for name in ("points", "frames", "widths"))
    low = arrays.get("low", np.zeros_like(points))
    n, d, k = len(points) - 1, system.dim, header["n_unstable"]
    m = d - 1 if isinstance(system, Flow) else d
    shapes = [a.shape for a in (points, frames, widths, low)]
    if shapes != [(n + 1, d), (n + 1, d, m), (n + 1, m), (n + 1, d)] or not 0 <= k <= m:
        return _rejected(0, f"the arrays have shapes {shapes}, which do not fit", None)
    if not all(np.isfinite(a).all() for a in (points, frames, widths, low)):
        return _rejected(0, "a number is not finite", None)
    if (widths < 0).any():
        return _rejected(0, "a width is negative", int(np.argmax((widths < 0).any(axis=1))))
    if header["n_steps"] != n:
        return _rejected(0, f"it claims {header['n_steps']} steps and holds {n}", None)
    if isinstance(system, Flow) and ("low" in arrays or not 0 < header["step"] < 1e9):
        return _rejected(0, f"a flow's certificate has a step and no low: {header['step']}", None)
    before, flint.ctx.prec = flint.ctx.prec, FLOW_BITS if isinstance(system, Flow) else BITS
    try:
        return _walk(system, header, [points, low, frames, widths], k)
    finally:
        flint.ctx.prec = before


def _walk(system: Map | Flow, header: Mapping[str, Any], arrays: list[Any], k: int) -> Verdict:
    p = SimpleNamespace(
        **{
            key: arb(flint.fmpq(Fraction(value).numerator, Fraction(value).denominator))
            for key, value in system.params.items()
        }
    )
    rows = zip(*(array.tolist() for array in arrays), strict=True)
    here, shift = next(rows), arb(0)
    for n, after in enumerate(rows):
        late = (
            _step_of_map(system, p, here, after, k)
            if isinstance(system, Map)
            else _step_of_flow(system, p, header["step"], here, after, k)
        )
        if late is None:
            return _rejected(n, f"the inequalities of step {n} do not hold", n)
        here, shift = after, shift + late
    radius = (np.abs(arrays[2]) * arrays[3][:, None, :]).sum(axis=2)
    largest = float(radius.max()) * (1 + 2.0**-40)  # d products and sums of non-negative floats
    steps = len(arrays[0]) - 1
    if not header["radius_max"] * (1 + 2.0**-40) >= float(radius.max()):
        return _rejected(
            steps, f"it claims radius {header['radius_max']}, its boxes {largest}", None
        )
    if isinstance(system, Map):
        return _proved(steps, largest, None)
    found = float(shift.upper()) * (1 + 2.0**-40)
    if not header["time_shift"] * (1 + 2.0**-40) >= float(shift.upper()):
        return _rejected(steps, f"it claims time shift {header['time_shift']}, not {found}", None)
    return _proved(steps, largest, found)


def _step_of_map(system: Map, p: Any, here: Any, after: Any, k: int) -> Any:
    """Return 0 if the inequalities of a step hold, else None."""
    (point, low, Q, w), (target, target_low, Q_next, w_next) = here, after
    d = len(point)
    centre = [arb(x) + arb(y) for x, y in zip(point, low, strict=True)]
    aim = [arb(x) + arb(y) for x, y in zip(target, target_low, strict=True)]
    box = [
        _Tangent(
            c + arb(0, 1) * sum((arb(abs(q)) * x for q, x in zip(row, w, strict=True)), arb(0)),
            [arb(q) for q in row],
        )
        for c, row in zip(centre, Q, strict=True)
    ]
    image = system.f(box, p)
    gap = [a - b for a, b in zip(aim, system.f(centre, p), strict=True)]
    if system.torus:
        gap = [g - round(float(g.mid())) for g in gap]
    right = [
        [*(y.slopes if isinstance(y, _Tangent) else [arb(0)] * d), g]
        for y, g in zip(image, gap, strict=True)
    ]
    try:
        solved = arb_mat(Q_next).solve(arb_mat(right)).tolist()
    except ZeroDivisionError:
        return None
    return arb(0) if _inequalities_hold(solved, w, w_next, k) else None


def _step_of_flow(system: Flow, p: Any, h: float, here: Any, after: Any, k: int) -> Any:
    """Return a bound of the change of the step's time if its inequalities hold, else None."""
    (point, _, F, w), (target, _, F_next, w_next) = here, after
    found = poincare(
        lambda z: system.f(z, p), _Tangent, arb(h), (point, F, w), (target, F_next, w_next)
    )
    if found is None:
        return None
    C, e, late = found
    joined = [[*row, x] for row, x in zip(C, e, strict=True)]
    return late if _inequalities_hold(joined, w, w_next, k) else None


def _inequalities_hold(solved: list[list[Any]], w: Any, w_next: Any, k: int) -> bool:
    """Return whether the rows (C, e) of a step fulfil both inequalities for the widths."""
    d = len(solved)
    size = [[abs(x) for x in row] for row in solved]
    for i in range(k, d):
        total = sum((size[i][j] * w[j] for j in range(d)), size[i][d])
        if not total <= w_next[i]:
            return False
    pull = [sum((size[i][j] * w[j] for j in range(k, d)), size[i][d] + w_next[i]) for i in range(k)]
    if k == 1:
        return bool(pull[0] <= size[0][0] * w[0])
    try:
        inverse: list[list[Any]] = (
            arb_mat([row[:k] for row in solved[:k]]).inv().tolist() if k else []
        )
    except ZeroDivisionError:
        return False
    return all(
        sum((abs(x) * y for x, y in zip(row, pull, strict=True)), arb(0)) <= w[i]
        for i, row in enumerate(inverse)
    )


class _Tangent:
    """A value and its derivatives along a frame: Arb balls or series, never floats."""

    __slots__ = ("slopes", "value")

    def __init__(self, value: Any, slopes: Sequence[Any]) -> None:
        self.value, self.slopes = value, slopes

    def __neg__(self) -> "_Tangent":
        return _Tangent(-self.value, [-a for a in self.slopes])

    def __add__(self, other: Any) -> "_Tangent":
        if isinstance(other, _Tangent):
            slopes = [a + b for a, b in zip(self.slopes, other.slopes, strict=True)]
            return _Tangent(self.value + other.value, slopes)
        return _Tangent(self.value + other, self.slopes)

    def __sub__(self, other: Any) -> "_Tangent":
        return self + (-other)

    def __rsub__(self, other: Any) -> "_Tangent":
        return (-self) + other

    def __mul__(self, other: Any) -> "_Tangent":
        if isinstance(other, _Tangent):
            x, y = self.value, other.value
            slopes = [y * a + x * b for a, b in zip(self.slopes, other.slopes, strict=True)]
            return _Tangent(x * y, slopes)
        return _Tangent(other * self.value, [other * a for a in self.slopes])

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "_Tangent":
        if isinstance(other, _Tangent):
            return self * (1 / other)
        return _Tangent(self.value / other, [a / other for a in self.slopes])

    def __rtruediv__(self, other: Any) -> "_Tangent":
        value = 1 / self.value
        return other * _Tangent(value, [-value * value * a for a in self.slopes])

    def __pow__(self, power: int) -> "_Tangent":
        if power < 0:
            return 1 / self ** (-power)
        result: Any = _Tangent(arb(1), [arb(0)] * len(self.slopes))
        for _ in range(power):
            result = result * self
        return result

    def _chain(self, value: Any, slope: Any) -> "_Tangent":
        return _Tangent(value, [slope * a for a in self.slopes])

    def sin(self) -> "_Tangent":
        return self._chain(self.value.sin(), self.value.cos())

    def cos(self) -> "_Tangent":
        return self._chain(self.value.cos(), -self.value.sin())

    def exp(self) -> "_Tangent":
        return self._chain(self.value.exp(), self.value.exp())

    def log(self) -> "_Tangent":
        return self._chain(self.value.log(), 1 / self.value)

    def sqrt(self) -> "_Tangent":
        return self._chain(self.value.sqrt(), 1 / (2 * self.value.sqrt()))


def _proved(n_steps: int, radius_max: float, time_shift: float | None) -> Verdict:
    return Verdict(
        ok=True,
        n_steps=n_steps,
        radius_max=radius_max,
        failed_at=None,
        reason="every step is proved",
        time_shift=time_shift,
    )


def _rejected(n_steps: int, reason: str, failed_at: int | None) -> Verdict:
    return Verdict(
        ok=False, n_steps=n_steps, radius_max=float("inf"), failed_at=failed_at, reason=reason
    )
