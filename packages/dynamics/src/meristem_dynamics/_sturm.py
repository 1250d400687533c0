"""Real roots of polynomials with rational coefficients, exactly, by Sturm chains.

A polynomial is a list of Fractions, lowest degree first.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

Polynomial = Sequence[Fraction]


def value(p: Polynomial, x: Fraction) -> Fraction:
    """Return p(x)."""
    total = Fraction(0)
    for c in reversed(p):
        total = total * x + c
    return total


def real_roots(p: Polynomial, low: Fraction | None = None, high: Fraction | None = None) -> int:
    """Return the number of distinct real roots in (low, high], or on the whole line.

    A zero polynomial is an error; `low` and `high` must be no roots unless they are counted.
    """
    chain = [_trimmed(p)]
    if not chain[0]:
        raise ValueError("the zero polynomial vanishes everywhere; it has no number of roots")
    following = _trimmed([k * c for k, c in enumerate(p)][1:])
    while following:
        chain.append(following)
        following = [-c for c in _remainder(chain[-2], chain[-1])]
    return _variations(chain, low, -1) - _variations(chain, high, 1)


def positive_on(p: Polynomial, low: Fraction, high: Fraction) -> bool:
    """Return whether p > 0 on the closed interval [low, high]."""
    if not _trimmed(p) or value(p, low) <= 0 or value(p, high) <= 0:
        return False
    return real_roots(p, low, high) == 0


def _variations(chain: list[list[Fraction]], x: Fraction | None, end: int) -> int:
    if x is None:
        signs = [q[-1] * (end if len(q) % 2 == 0 else 1) for q in chain]
    else:
        signs = [value(q, x) for q in chain]
    kept = [s > 0 for s in signs if s != 0]
    return sum(a != b for a, b in pairwise(kept))


def _trimmed(p: Polynomial) -> list[Fraction]:
    out = list(p)
    while out and out[-1] == 0:
        out.pop()
    return out


def _remainder(a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
    rest = list(a)
    while len(rest) >= len(b):
        factor = rest[-1] / b[-1]
        shift = len(rest) - len(b)
        for i, c in enumerate(b):
            rest[shift + i] -= factor * c
        rest.pop()
        rest = _trimmed(rest)
    return rest
