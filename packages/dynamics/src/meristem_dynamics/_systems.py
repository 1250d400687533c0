"""Maps and flows: one definition in plain Python for every arithmetic.

- f(z, p) takes a sequence of components and the parameters, returns a tuple of components, and
  uses + - * / ** and `meristem_dynamics.ops` only
- a parameter is an exact number: "1.4" is 14/10, 1.4 is the binary64 number next to it
"""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._ball import Ball
from meristem_dynamics._dual import value_and_jacobian

Function = Callable[[Sequence[Any], Any], Sequence[Any]]
Number = str | int | float | Fraction


@dataclass(frozen=True, kw_only=True)
class _System:
    f: Function
    dim: int
    params: Mapping[str, Number] = field(default_factory=dict[str, Number])
    name: str = "user system"
    exact: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"dim is {self.dim}; a system has at least one variable")
        for key, value in self.params.items():
            _fraction(key, value)

    def parameters(self, arithmetic: Callable[[Fraction], Any] = float) -> SimpleNamespace:
        """Return the parameters as attributes, each converted from its exact fraction."""
        exact = {key: _fraction(key, value) for key, value in self.params.items()}
        return SimpleNamespace(**{key: arithmetic(value) for key, value in exact.items()})

    def exact_parameters(self) -> dict[str, str]:
        """Return each parameter as the exact fraction that it stands for, such as "7/5"."""
        return {key: str(_fraction(key, value)) for key, value in self.params.items()}

    def with_parameters(self, **changes: Number) -> Any:
        """Return the same system with some parameters changed.

        Raises
        ------
        ValueError
            If a name is unknown or a value no number.
        """
        for key in changes:
            if key not in self.params:
                known = ", ".join(self.params) or "none"
                raise ValueError(f"{self.name} has no parameter {key}; its parameters are {known}")
        return replace(self, params={**self.params, **changes})


@dataclass(frozen=True, kw_only=True)
class Map(_System):
    """A map z -> f(z, p).

    Parameters
    ----------
    f
        ``f(z, p)`` returns a tuple of `dim` components.
    dim
        Number of components.
    params
        Parameters; str and Fraction are exact, a float is that binary64 number.
    name
        What reports call it.
    exact
        Facts known in closed form, for tests and reports.
    jacobian
        ``jacobian(z, p)`` as rows, for maps that series and balls cannot enter (floats only).
    inverse
        ``inverse(z, p)`` if there is one in closed form.
    torus
        Whether points are taken modulo 1 in every component.
    boundary_distance
        ``w(z)``: distance of z, shape (..., dim), to the set where hyperbolicity degenerates.

    Examples
    --------
    >>> double = Map(f=lambda z, p: (p.k * z[0],), dim=1, params={"k": "2.5"})
    >>> iterate(double, [1.0], 2).tolist()
    [[1.0], [2.5], [6.25]]
    """

    jacobian: Function | None = None
    inverse: Function | None = None
    torus: bool = False
    boundary_distance: Callable[[Any], Any] | None = None

    def __call__(self, z: Float[np.ndarray, "*batch d"]) -> Float[np.ndarray, "*batch d"]:
        """Return the image of each point of a batch in float64, modulo 1 on a torus."""
        p = self.parameters()
        parts = components(np.asarray(z, dtype=float))
        image = _stacked(self.f(parts, p), parts[0].shape)
        return image % 1.0 if self.torus else image


@dataclass(frozen=True, kw_only=True)
class Flow(_System):
    """A flow dz/dt = f(z, p); parameters as for `Map`.

    Examples
    --------
    >>> decay = Flow(f=lambda z, p: (-z[0],), dim=1)
    >>> decay.dim
    1
    """


System = Map | Flow


def iterate(system: Map, z0: Sequence[float] | Float[np.ndarray, " d"], n: int) -> Any:
    """Return the float64 orbit z_0, ..., z_n of a map, shape (n + 1, d).

    Raises
    ------
    ValueError
        If `z0` has the wrong length, or a point is not finite: names the step.
    """
    p, f = system.parameters(), system.f
    z: Sequence[float] = checked_start(system, z0)
    orbit = np.empty((n + 1, system.dim))
    orbit[0] = z
    rows: list[Sequence[float]] = []
    done = 0
    for step in range(1, n + 1):
        try:
            z = f(z, p)
        except (OverflowError, ZeroDivisionError, ValueError) as error:
            raise ValueError(
                f"{system.name} fails at step {step} from {list(z)}: {error}; "
                "start nearer to the attractor or iterate fewer steps"
            ) from error
        if system.torus:
            z = [x - math.floor(x) for x in z]
        rows.append(z)
        if len(rows) == 65536 or step == n:
            orbit[done + 1 : step + 1] = rows
            rows, done = [], step
            check_finite(orbit[: step + 1], system.name)
    return orbit


def checked_start(system: System, z0: Any) -> list[float]:
    """Return z0 as floats, after a first call of f there.

    Raises
    ------
    ValueError
        If `z0` or the image has the wrong length, or f cannot be evaluated at all.
    """
    z = [float(x) for x in z0]
    if len(z) != system.dim:
        raise ValueError(f"z0 has {len(z)} components; {system.name} has {system.dim}")
    try:
        size = len(system.f(z, system.parameters()))
    except (ArithmeticError, ValueError):
        return z  # outside of the domain: the caller names the step
    except Exception as error:  # the user's code, in which anything may go wrong
        raise ValueError(
            f"{system.name} cannot be evaluated at {z}: {type(error).__name__}: {error}; mend f"
        ) from error
    if size != system.dim:
        raise ValueError(f"f of {system.name} returns {size} components; dim is {system.dim}")
    return z


def check_finite(
    orbit: Float[np.ndarray, "n d"],
    name: str,
    mend: str = "iterate fewer steps or start elsewhere",
) -> None:
    """Raise a ValueError that names the first step of an orbit which is not finite."""
    if not math.isfinite(float(np.sum(orbit))):
        bad = np.flatnonzero(~np.isfinite(orbit).all(axis=1))
        if bad.size:
            raise ValueError(
                f"the orbit of {name} is {orbit[bad[0]].tolist()} at step {bad[0]}; it must stay "
                f"finite, so {mend}"
            )


def jacobians(system: System, points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d d"]:
    """Return Df at each point in float64, by the given `jacobian` or by forward derivatives."""
    p = system.parameters()
    parts = components(np.asarray(points, dtype=float))
    own = system.jacobian if isinstance(system, Map) else None
    rows = own(parts, p) if own else _rows(system, parts, p)
    out = np.empty((*parts[0].shape, system.dim, system.dim))
    for i, row in enumerate(rows):
        for j, entry in enumerate(row):
            out[..., i, j] = entry
    if not np.isfinite(out).all():
        bad = np.argwhere(~np.isfinite(out))[0]
        raise ValueError(
            f"the Jacobian of {system.name} at point {bad[0]} is {out[bad[0]].tolist()}; "
            "f must be differentiable along the orbit"
        )
    return out


def _rows(system: System, parts: Sequence[Any], p: Any) -> list[list[Any]]:
    try:
        return value_and_jacobian(system.f, parts, p)[1]
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{system.name} cannot be differentiated: {error}; write it with + - * / ** and "
            "meristem_dynamics.ops, or give jacobian="
        ) from error


def pseudo_orbit(
    system: Map,
    z0: Sequence[float],
    n: int,
    *,
    noise: float | int,
    rng: np.random.Generator | int,
    weight: Callable[[Any], float] | None = None,
) -> Float[np.ndarray, "m d"]:
    """Return z_{k+1} = f(z_k) + noise weight(f(z_k)) e_k, with e_k uniform in [-1, 1]^d.

    Parameters
    ----------
    system, z0, n
        As for `iterate`.
    noise
        Size of the error of a step, >= 0.
    rng
        A generator or a seed.
    weight
        Pointwise tolerance: a function of the point, 1 by default.
    """
    rng = np.random.default_rng(rng)
    p, z = system.parameters(), np.asarray(z0, dtype=float)
    orbit = np.empty((n + 1, system.dim))
    orbit[0] = z
    kicks = rng.uniform(-1.0, 1.0, (n, system.dim)) * noise
    for step in range(n):
        z = np.array([float(x) for x in system.f(z.tolist(), p)])
        z = z + kicks[step] * (1.0 if weight is None else weight(z))
        orbit[step + 1] = z = z % 1.0 if system.torus else z
    check_finite(orbit, system.name)
    return orbit


def load_system(path: Path | str, name: str | None = None, **params: Number) -> System:
    """Return the system that a Python file defines; the file is run.

    Parameters
    ----------
    path
        The file.
    name
        Which variable, if the file defines several systems.
    params
        Parameters to change.

    Raises
    ------
    ValueError
        If the file holds no such system, or several and no name is given.
    """
    spec = importlib.util.spec_from_file_location("user_system", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"{path} is not a Python file; give the path of one that defines a Map")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Map | Flow)}
    if name is None and len(found) == 1:
        name = next(iter(found))
    if name not in found:
        raise ValueError(
            f"{path} defines {', '.join(found) or 'no Map or Flow'}; name one of them, got {name}"
        )
    system = found[name]
    return system.with_parameters(**params) if params else system


def components(points: Any) -> list[Any]:
    """Return the components of points, shape (..., d), as a list of d arrays of floats."""
    return list(np.moveaxis(np.asarray(points, dtype=float), -1, 0))


def ball_parameters(system: System) -> SimpleNamespace:
    """Return the parameters as balls that contain the exact numbers."""
    return system.parameters(Ball.of)


def arb_parameters(system: System) -> SimpleNamespace:
    """Return the parameters as Arb balls at the current precision of python-flint."""
    flint: Any = require_flint()
    return system.parameters(lambda q: flint.arb(flint.fmpq(q.numerator, q.denominator)))


def require_flint() -> Any:
    """Return python-flint, or raise an ImportError that says how to install it."""
    try:
        import flint  # noqa: PLC0415 an extra
    except ImportError as error:
        raise ImportError(
            "Arb arithmetic needs python-flint; install it with: "
            "pip install 'meristem-dynamics[rigorous]'"
        ) from error
    return flint


def _fraction(key: str, value: Number) -> Fraction:
    try:
        return Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"parameter {key} is {value!r}; give a finite number") from error


def _stacked(parts: Sequence[Any], shape: tuple[int, ...]) -> Float[np.ndarray, "*batch d"]:
    out = np.empty((*shape, len(parts)))
    for i, part in enumerate(parts):
        out[..., i] = part
    return out
