"""Topological stability and expansivity, measured: evidence, not proof.

- orbits of a map g near f are pseudo-orbits of f; h(x) is the time-0 point of the shadow of the
  g-orbit of x, so that h o g = f o h up to the window's ends
- expansivity with radius kappa w^gamma: a pair is a counterexample if its orbits stay within that
  radius for |n| <= n_max; the largest kappa without one is the minimum over pairs of
  max_n d(f^n x, f^n y) / w(f^n x)^gamma
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from meristem_dynamics._refine import right_inverse
from meristem_dynamics._splitting import frames_along
from meristem_dynamics._systems import Map, components, jacobians

NEWTON_STEPS = 12

Points = Float[np.ndarray, "n d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityReport:
    """A candidate conjugacy h from g to f at points, with its defects."""

    image: Points  # h(x)
    residual: float  # max |h(g x) - f(h x)|
    displacement: Float[np.ndarray, " n"]  # |h(x) - x| / w(x); plain distance without w
    separation: float  # min |h(x) - h(y)| / |x - y| over neighbouring points of the list


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansivity:
    """The largest kappa that no sampled pair contradicts, and the pair that limits it."""

    kappa: float
    pair: tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]
    n_pairs: int


def topological_conjugacy(
    f: Map, g: Map, points: Points, *, window: int = 60, n_unstable: int = 1
) -> StabilityReport:
    """Return h with h o g = f o h at points, by shadowing orbits of g with orbits of f.

    Parameters
    ----------
    f, g
        Maps of one space; g has an `inverse`.
    points
        Where h is evaluated; neighbours in the list are compared for the separation.
    window
        Steps of the g-orbit before and after each point.
    n_unstable
        Number of expanding directions of f.

    Raises
    ------
    ValueError
        If g has no inverse, or a g-orbit has no shadow near it: names the point.
    """
    if g.inverse is None:
        raise ValueError(f"{g.name} has no inverse; give one, since h needs two-sided orbits")
    orbits = _two_sided(g, points, window)
    shadows = [_shadow(f, orbit, window, n_unstable, i) for i, orbit in enumerate(orbits)]
    image, following = (np.array(part) for part in zip(*shadows, strict=True))
    again = _two_sided(g, g(points), window)
    moved = np.array([_shadow(f, o, window, n_unstable, i)[0] for i, o in enumerate(again)])
    gap = _difference(f, moved, following)
    shift = np.linalg.norm(_difference(f, image, points), axis=1)
    near = np.linalg.norm(_difference(f, image[1:], image[:-1]), axis=1)
    base = np.linalg.norm(_difference(f, points[1:], points[:-1]), axis=1)
    w = f.boundary_distance(points) if f.boundary_distance else np.ones(len(points))
    return StabilityReport(
        image=image,
        residual=float(np.abs(gap).max()),
        displacement=shift / np.asarray(w),
        separation=float((near[base > 0] / base[base > 0]).min(initial=np.inf)),
    )


def expansivity(
    system: Map,
    points: Points,
    *,
    exponent: float | int,
    n_max: int = 40,
    size: float = 1e-3,
    pairs: int = 8,
    rng: np.random.Generator | int = 0,
) -> Expansivity:
    """Return the largest kappa for which r(x) = kappa w(x)^exponent separates all sampled pairs.

    Parameters
    ----------
    system
        A map with `inverse`; w is its `boundary_distance`, or 1.
    points
        First points of the pairs.
    exponent
        Exponent of w.
    n_max
        Steps in both directions of time.
    size
        Distance of the second points, in units of w.
    pairs
        Second points for each first one.
    rng
        Draws their directions.
    """
    if system.inverse is None:
        raise ValueError(f"{system.name} has no inverse; expansivity looks at both times")
    rng = np.random.default_rng(rng)
    x = np.repeat(points, pairs, axis=0)
    weight = system.boundary_distance or (lambda z: np.ones(len(z)))
    direction = rng.normal(size=x.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    y = x + direction * size * np.asarray(weight(x))[:, None]
    top = np.zeros(len(x))
    for step in (system, _inverse(system)):
        a, b = x, y
        for _ in range(n_max + 1):
            distance = np.linalg.norm(_difference(system, a, b), axis=1)
            top = np.maximum(top, distance / np.maximum(weight(a), 1e-300) ** exponent)
            a, b = step(a), step(b)
    worst = int(np.argmin(top))
    return Expansivity(kappa=float(top[worst]), pair=(x[worst], y[worst]), n_pairs=len(x))


def _inverse(system: Map) -> Any:
    inverse, p = system.inverse, system.parameters()

    def step(z: Any) -> Any:
        assert inverse is not None
        image = np.stack(np.broadcast_arrays(*inverse(components(z), p)), axis=-1)
        return image % 1.0 if system.torus else image

    return step


def _two_sided(g: Map, points: Points, window: int) -> Any:
    back, rows = _inverse(g), [points]
    for _ in range(window):
        rows.insert(0, back(rows[0]))
    for _ in range(window):
        rows.append(g(rows[-1]))
    return np.swapaxes(np.array(rows), 0, 1)


def _difference(system: Map, a: Any, b: Any) -> Any:
    gap = a - b
    return gap - np.rint(gap) if system.torus else gap


def _shadow(f: Map, orbit: Any, window: int, k: int, index: int) -> tuple[Any, Any]:
    """Return the points of the shadow at times 0 and 1, by Newton's method."""
    x, size = orbit.copy(), np.inf
    for _ in range(NEWTON_STEPS):
        gap = _difference(f, x[1:], f(x[:-1]))
        J = jacobians(f, x[:-1])
        step = right_inverse(J, frames_along(J), k, gap)
        x = x - step
        size = float(np.abs(step).max())
        if not size < 1:
            break
        if size < 1e-13:
            return x[window], x[window + 1]
    if not size < 1e-9:
        raise ValueError(
            f"the orbit of point {index} has no shadow near it (Newton's last step is {size:.3g}); "
            "take a smaller perturbation or a point further from the boundary"
        )
    return x[window], x[window + 1]
