"""A checkable task with written steps: the sums modulo 10 of a growing part of some digits.

To 3 9 4 = belongs 3 2 6: every answer is checked digit by digit, and one wrong step spoils the
rest. A writer with noise makes mistakes at a known rate and carries on with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from meristem_posttrain import Encoded

Digits = Int[np.ndarray, "problems terms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alphabet:
    """Token ids of the ten digits, of the sign between problem and answer, and of the end."""

    digits: tuple[int, ...]
    equals: tuple[int, ...]
    end: int

    def prompt(self, digits: Sequence[int]) -> list[int]:
        """Return the tokens of a problem."""
        return [*(self.digits[d] for d in digits), *self.equals]

    def response(self, sums: Sequence[int]) -> list[int]:
        """Return the tokens of an answer."""
        return [*(self.digits[s] for s in sums), self.end]


def draw_problems(rng: np.random.Generator, n: int, terms: int) -> Digits:
    """Return n problems."""
    return rng.integers(0, 10, (n, terms))


def write_answers(rng: np.random.Generator, digits: Digits, *, noise: float = 0.0) -> Digits:
    """Return answers of a writer who takes a random digit instead of a sum at the rate `noise`."""
    sums = np.zeros_like(digits)
    before = np.zeros(len(digits), dtype=digits.dtype)
    slips = rng.random(digits.shape) < noise
    slipped = rng.integers(0, 10, digits.shape)
    for t in range(digits.shape[1]):
        before = np.where(slips[:, t], slipped[:, t], (before + digits[:, t]) % 10)
        sums[:, t] = before
    return sums


def demonstrations(alphabet: Alphabet, digits: Digits, sums: Digits) -> list[Encoded]:
    """Return problems with one answer each."""
    rows = zip(digits.tolist(), sums.tolist(), strict=True)
    return [Encoded(prompt=alphabet.prompt(d), responses=(alphabet.response(s),)) for d, s in rows]


def preferences(
    alphabet: Alphabet, rng: np.random.Generator, digits: Digits, *, noise: float
) -> list[Encoded]:
    """Return the right answer of each problem before one of a noisy writer that is not right."""
    right = write_answers(rng, digits)
    wrong = write_answers(rng, digits, noise=noise)
    lucky = (wrong == right).all(1)
    place = rng.integers(0, digits.shape[1], len(digits))
    shift = np.where(np.arange(digits.shape[1]) == place[:, None], rng.integers(1, 10), 0)
    wrong = np.where(lucky[:, None], (wrong + shift) % 10, wrong)
    rows = zip(digits.tolist(), right.tolist(), wrong.tolist(), strict=True)
    return [
        Encoded(prompt=alphabet.prompt(d), responses=(alphabet.response(w), alphabet.response(l)))
        for d, w, l in rows
    ]
