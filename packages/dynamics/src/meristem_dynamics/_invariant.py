"""Invariant manifolds of hyperbolic points by the parameterization method.

- maps: F(K(t)) = K(R t), (lambda^a - DF) K_a = [F o K_<a]_a; flows: f(K) = DK R, with a . lambda in
  place of lambda^a (Cabre, Fontich and de la Llave); R is linear
- one dimension: K has real coefficients; two: complex ones, homogeneous parts by degree, and for a
  complex pair the second parameter is the conjugate of the first
- the eigenvectors are scaled so that the last coefficient is about 1e-16: the domain is |t| <= 1
"""

# NumPy types linear algebra and integer arithmetic in part only
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from meristem_dynamics._fixed_points import NEUTRAL, FixedPoint, fixed_point, strength
from meristem_dynamics._systems import Flow, Map, System, components, jacobians
from meristem_dynamics._tape import Expansion, Tape

Kind = Literal["stable", "unstable"]
RESONANCE = 1e-8
DEFECTIVE = 1e10  # condition number of the eigenvectors
LARGEST = 10.0  # no term exceeds this times 1 + |point| on the domain
BLOCK = 4  # fewer calls of NumPy than Horner's scheme, as many operations
SAMPLES = np.linspace(-1.0, 1.0, 33)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifold:
    """A local invariant manifold K on |t| <= 1 (the disc |t| <= 1 in two dimensions)."""

    system: System
    kind: Kind
    multipliers: Any  # complex: of the linear inner dynamics: lambda for maps, exponents for flows
    coefficients: list[Any]  # by degree: (d,), then (d,) or (d, degree + 1)
    residual: float  # largest defect of the invariance equation on |t| <= 1
    growth: float  # size of the last coefficient

    @property
    def dim(self) -> int:
        """Dimension of the manifold, 1 or 2."""
        return len(self.multipliers)

    def __call__(self, t: Any) -> Float[np.ndarray, "*n d"]:
        """Return points K(t); t has shape (n,) in one dimension, (n, 2) in two.

        In two dimensions a complex pair takes t[:, 0] + i t[:, 1], a real pair its two parameters.
        """
        t = np.asarray(t, dtype=float)
        if self.dim == 1:
            return _polynomial(np.array(self.coefficients), t.ravel()).T.reshape(*t.shape, -1)
        a, b = self._pair(t)
        total: Any = np.zeros((*a.shape, len(self.coefficients[0])), dtype=complex)
        for k, c in enumerate(self.coefficients):
            powers = np.stack([a ** (k - j) * b**j for j in range(k + 1)], axis=-1)
            total += powers @ np.reshape(c, (-1, k + 1)).T
        return total.real

    def inner(self, t: Any) -> Any:
        """Return R t, the image of a parameter under the map; for flows the velocity."""
        return self._times(t, self.multipliers)

    def _times(self, t: Any, factors: Any) -> Any:
        t = np.asarray(t, dtype=float)
        if self.dim == 1:
            return t * factors[0].real
        a, b = self._pair(t)
        a, b = a * factors[0], b * factors[1]
        return np.stack([a.real, a.imag] if self._complex else [a.real, b.real], axis=-1)

    @property
    def _complex(self) -> bool:
        return bool(abs(self.multipliers[0].imag) > 0)

    def _pair(self, t: Any) -> tuple[Any, Any]:
        first, second = t[..., 0], t[..., 1]
        if not self._complex:
            return first + 0j, second + 0j
        return first + 1j * second, first - 1j * second

    def residual_at(self, t: Any) -> Float[np.ndarray, " n"]:
        """Return the sup-norm defect of the invariance equation at parameters t.

        Both sides stay in |t| <= 1: of an unstable manifold of a map it is that of
        F(K(R^-1 t)) = K(t), else of F(K(t)) = K(R t) or f(K(t)) = DK(t) R t.
        """
        system, start, end = self.system, np.asarray(t, dtype=float), self.inner(t)
        if isinstance(system, Map) and self.kind == "unstable":
            start, end = self._times(t, 1 / self.multipliers), start
        parts = system.f(components(self(start)), system.parameters())
        image = np.stack(np.broadcast_arrays(*parts), axis=-1)
        gap = image - (self(end) if isinstance(system, Map) else self._velocity(start))
        if isinstance(system, Map) and system.torus:
            gap = gap - np.rint(gap)
        return np.abs(gap).max(axis=-1)

    def _velocity(self, t: Any) -> Any:
        t, lambdas = np.asarray(t, dtype=float), self.multipliers
        if self.dim == 1:
            powers = [k * lambdas[0].real * t[..., None] ** k * c
                      for k, c in enumerate(self.coefficients)]  # fmt: skip
            return sum(powers)
        a, b = self._pair(t)
        total = 0
        for k, c in enumerate(self.coefficients):
            for j in range(k + 1):
                rate = (k - j) * lambdas[0] + j * lambdas[1]
                monomial = (a ** (k - j) * b**j)[..., None]
                total = total + rate * monomial * np.reshape(c, (-1, k + 1))[:, j]
        return np.real(total)


def _polynomial(rows: Any, t: Any) -> Any:
    """Return sum_k rows[k] t^k, shape (d, n): BLOCK Horner schemes in t^BLOCK at once."""
    blocks = -(-len(rows) // BLOCK)
    padded = np.zeros((blocks * BLOCK, rows.shape[1], 1))
    padded[: len(rows), :, 0] = rows
    square = t * t
    step, parts = square * square, padded.reshape(blocks, BLOCK, -1, 1)
    total = np.zeros((*parts.shape[1:3], t.size)) + parts[-1]
    for part in parts[-2::-1]:
        total *= step
        total += part
    return (total[0] + total[1] * t) + (total[2] + total[3] * t) * square


def invariant_manifold(
    system: System, point: Any, kind: Kind = "unstable", *, dim: int = 1, order: int | None = None
) -> Manifold:
    """Return the stable or unstable manifold of a hyperbolic point as a power series.

    Parameters
    ----------
    system
        A map or flow, of any dimension, that series can enter.
    point
        A guess of the fixed point.
    kind
        Which manifold.
    dim
        1: the strongest direction of its kind. 2: the two strongest.
    order
        Highest degree; 40 for a curve and 15 for a surface by default.

    Raises
    ------
    ValueError
        If there is no fixed point, a multiplier is neutral (see `degenerate_graph`), there are too
        few directions, or a resonance makes the series impossible.

    Examples
    --------
    >>> from meristem_dynamics import zoo
    >>> henon = zoo.henon()
    >>> curve = invariant_manifold(henon, henon.exact["fixed_point"], "unstable")
    >>> round(float(curve.multipliers[0].real), 5), curve.residual < 1e-13
    (-1.92374, True)
    """
    if dim not in (1, 2):
        raise ValueError(f"dim is {dim}; curves (1) and surfaces (2) are computed")
    base = fixed_point(system, point)
    J = jacobians(system, base.point[None])[0]
    eigenvalues, vectors = np.linalg.eig(J)
    if np.linalg.cond(vectors) > DEFECTIVE:
        raise ValueError(
            f"the derivative at {base.point.tolist()} has no basis of eigenvectors: multipliers "
            f"{', '.join(map(_shown, eigenvalues))} repeat and share one; change a parameter"
        )
    chosen = _chosen(system, eigenvalues.astype(complex), kind, dim, base)
    order = order or (40 if dim == 1 else 15)
    lambdas = eigenvalues.astype(complex)[chosen]
    _check_resonance(system, eigenvalues, lambdas, order)
    first = vectors[:, chosen].astype(complex)
    make = _curve if dim == 1 else _surface
    coefficients = make(system, base.point, eigenvalues, vectors, lambdas, first, order)
    manifold = Manifold(
        system=system, kind=kind, multipliers=lambdas, coefficients=coefficients,
        residual=0.0, growth=float(np.abs(coefficients[-1]).max()),
    )  # fmt: skip
    t = SAMPLES if dim == 1 else _disc()
    return replace(manifold, residual=float(manifold.residual_at(t).max()))


def _disc() -> Any:
    angle = np.linspace(0, 2 * np.pi, 25)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([ring, 0.5 * ring])


def _chosen(system: System, eigenvalues: Any, kind: Kind, dim: int, base: FixedPoint) -> list[int]:
    rates = strength(system, eigenvalues) * (1 if kind == "unstable" else -1)
    if base.kind == "degenerate" and system.dim == 2:
        raise ValueError(
            f"every multiplier at {base.point.tolist()} is neutral; use degenerate_graph"
        )
    order = [int(i) for i in np.argsort(-rates) if rates[i] > NEUTRAL]
    if len(order) < dim:
        raise ValueError(
            f"the point has {len(order)} {kind} directions (multipliers "
            f"{np.round(eigenvalues, 6).tolist()}), dim is {dim}; lower dim or take the other kind"
        )
    chosen = order[:dim]
    split = dim < len(order) and abs(rates[order[dim - 1]] - rates[order[dim]]) < 1e-12
    if split or (dim == 1 and abs(eigenvalues[chosen[0]].imag) > 0):
        raise ValueError(
            f"the strongest {kind} multipliers {eigenvalues[order].tolist()} come as a pair; "
            "use dim=2"
        )
    return chosen


def _divisors(system: System, lambdas: Any, degree: int) -> np.ndarray:
    """Return lambda^a (maps) or a . lambda (flows) for the monomials of a degree."""
    if len(lambdas) == 1:
        return np.array([degree * lambdas[0] if isinstance(system, Flow) else lambdas[0] ** degree])
    j = np.arange(degree + 1)
    if isinstance(system, Flow):
        return (degree - j) * lambdas[0] + j * lambdas[1]
    return lambdas[0] ** (degree - j) * lambdas[1] ** j


def _check_resonance(system: System, eigenvalues: Any, lambdas: Any, order: int) -> None:
    top = float(np.abs(eigenvalues).max())
    for degree in range(2, order + 1):
        products = _divisors(system, lambdas, degree)
        if isinstance(system, Map) and (np.abs(products) > 4 * top).all():
            return
        gaps = np.abs(products[:, None] - eigenvalues[None])
        if gaps.min() < RESONANCE:
            i, j = (int(x) for x in np.unravel_index(int(np.argmin(gaps)), gaps.shape))
            lower = f"lower order below {degree} or " if degree > 2 else ""
            raise ValueError(
                f"resonance at degree {degree}: {_product(system, lambdas, degree, i)} equals the "
                f"multiplier {_shown(eigenvalues[j])} within {gaps.min():.1g}; {lower}change a "
                "parameter"
            )


def _product(system: System, lambdas: Any, degree: int, j: int) -> str:
    """Return which product of multipliers, or sum of exponents of a flow, monomial j has."""
    powers = [(x, n) for x, n in zip(lambdas, (degree - j, j), strict=False) if n]
    if isinstance(system, Flow):
        return " + ".join(f"{n} ({_shown(x)})" for x, n in powers)
    return " ".join(f"({_shown(x)})^{n}" for x, n in powers)


def _shown(x: Any) -> str:
    return f"{x:.6g}" if x.imag else f"{x.real:.6g}"


def _curve(
    system: System, point: Any, eigenvalues: Any, vectors: Any, lambdas: Any, first: Any, order: int
) -> list[Any]:
    expansion = Expansion(Tape(system.f, system.dim, system.parameters()))
    expansion.push(0, point.tolist())
    direction = first[:, 0].real
    direction = direction * np.sign(direction[np.argmax(np.abs(direction))])
    expansion.push(1, direction.tolist())
    out, back = [point, direction], np.linalg.inv(vectors)
    zero = [0.0] * system.dim
    for m in range(2, order + 1):
        rest = np.array(expansion.push(m, zero))
        solved = vectors @ ((back @ rest) / (_divisors(system, lambdas, m)[0] - eigenvalues))
        out.append(solved.real)
        expansion.push(m, out[-1].tolist())
    return _scaled(out)


def _surface(
    system: System, point: Any, eigenvalues: Any, vectors: Any, lambdas: Any, first: Any, order: int
) -> list[Any]:
    tape = Tape(system.f, system.dim, system.parameters())
    expansion = Expansion(tape, product=np.convolve)
    expansion.push(0, [np.array([x], dtype=complex) for x in point])
    if abs(lambdas[0].imag) > 0:
        first = np.stack([first[:, 0], first[:, 0].conj()], axis=1)
    expansion.push(1, list(first))
    out: list[Any] = [point.astype(complex), first]
    back = np.linalg.inv(vectors)
    for m in range(2, order + 1):
        rest = np.array(expansion.push(m, [np.zeros(m + 1, dtype=complex)] * system.dim))
        gaps = _divisors(system, lambdas, m)[None, :] - eigenvalues[:, None]
        out.append(vectors @ ((back @ rest) / gaps))
        expansion.push(m, list(out[-1]))
    return _scaled(out)


def _scaled(coefficients: list[Any]) -> list[Any]:
    """Return the coefficients with t scaled: the last about 1e-16, none large."""
    sizes = [float(np.abs(c).max()) for c in coefficients]
    last = [(k, s) for k, s in enumerate(sizes) if k > len(sizes) // 2 and s > 0]
    reach = min(((1e-16 / s) ** (1 / k) for k, s in last), default=1.0)
    room = LARGEST * (1 + sizes[0])
    reach = min([reach, *((room / s) ** (1 / k) for k, s in enumerate(sizes) if k and s > 0)])
    return [c * reach**k for k, c in enumerate(coefficients)]
