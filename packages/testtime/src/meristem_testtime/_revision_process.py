"""A process for `FakeEngine` that errs, notices and repairs at known rates, and its exact value.

- to the prompt 314= belong the running sums modulo BASE, a line each: 4, 3
- a line continues the one before: it is wrong with chance `error`, each wrong digit alike
- a wrong line is noticed with chance `notice`: a W and another digit follow, which is right with
  chance `repair`, and if not may be noticed again
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

BASE = 5
DIGIT = f"[0-{BASE - 1}]"
REDONE = f"W?(?:{DIGIT}W)*"
TEXT = re.compile(rf"(?P<lines>(?:{REDONE}{DIGIT}\n)*){REDONE}(?P<digit>{DIGIT}?)(?P<end>\.?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a text stands.

    Attributes
    ----------
    right
        The digit that continues the line before.
    offset
        What the lines before are off by, modulo BASE.
    wrong
        What the last digit of this line is off by, given those; None without a digit.
    again
        Whether a W asks for a digit.
    left
        Lines after this one.
    ended
        Whether the text has ended.
    """

    right: int
    offset: int
    wrong: int | None
    again: bool
    left: int
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionProcess:
    r"""Next-token probabilities of chained sums with self-correction.

    Attributes
    ----------
    error, notice, repair
        Chances in [0, 1]; not both ``notice=1`` and ``repair=0``, which would never end.

    Raises
    ------
    ValueError
        If a chance is out of range, or a text is none that the process could write.

    Examples
    --------
    >>> process = RevisionProcess(error=0.2, notice=0.5, repair=0.8)
    >>> round(process.value("314=", "4\n"), 4), round(process.value("314=", "2\n"), 4)
    (0.8889, 0.0278)
    """

    error: float
    notice: float
    repair: float
    alphabet: ClassVar[str] = f"{''.join(map(str, range(BASE)))}=\nW."

    def __post_init__(self) -> None:
        for name in ("error", "notice", "repair"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must lie in [0, 1]")
        if self.notice == 1 and self.repair == 0:
            raise ValueError("notice 1 and repair 0 give texts without an end; lower notice")

    def __call__(self, ids: tuple[int, ...]) -> Float[np.ndarray, " v"]:
        """Return the probabilities of the token after `ids`, prompt included."""
        prompt, equals, text = "".join(self.alphabet[i] for i in ids).partition("=")
        place = _place(prompt + equals, text)
        found = np.zeros(len(self.alphabet))
        if place.wrong is None:
            hit = self.repair if place.again else 1 - self.error
            found[:BASE] = (1 - hit) / (BASE - 1)
            found[place.right] = hit
            return found
        noticed = self.notice if place.wrong else 0.0
        found[self.alphabet.index("W")] = noticed
        found[self.alphabet.index("\n" if place.left else ".")] = 1 - noticed
        return found

    def value(self, prompt: str, text: str) -> float:
        """Return the chance that the last line will be the right sum, after `text`.

        Notes
        -----
        A wrong line is mended with chance R = q r / (1 - q (1 - r)), so a line ends right with
        chance s = 1 - e + e R, else off by each other amount alike; after n lines an offset is 0
        with chance 1/B + ([it is 0 now] - 1/B) (s - (1 - s) / (B - 1))^n.
        """
        return min(max(self._value(_place(prompt, text)), 0.0), 1.0)  # of rounding

    def _value(self, place: Place) -> float:
        if place.wrong is None:
            if place.again:
                return self._redone(place.offset, place.left)
            return self._settled(place.offset, place.left + 1)
        kept = self._settled(place.offset + place.wrong, place.left)
        if place.wrong == 0 or place.ended:
            return kept
        return (1 - self.notice) * kept + self.notice * self._redone(place.offset, place.left)

    def _settled(self, offset: int, lines: int) -> float:
        """Return the chance of no offset after so many more lines."""
        mended = self.notice * self.repair / (1 - self.notice * (1 - self.repair))
        right = 1 - self.error + self.error * mended
        keeps = right - (1 - right) / (BASE - 1)
        return 1 / BASE + ((offset % BASE == 0) - 1 / BASE) * keeps**lines

    def _redone(self, offset: int, lines: int) -> float:
        """Return the value after a W: x = r f + (1 - r) ((1 - q) g + q x), g with a wrong digit."""
        right = self._settled(offset, lines)
        wrong = (1 - right) / (BASE - 1)
        missed = 1 - self.repair
        return (self.repair * right + missed * (1 - self.notice) * wrong) / (
            1 - missed * self.notice
        )


def _place(prompt: str, text: str) -> Place:
    """Return where the last line of `text` stands."""
    if not re.fullmatch(f"{DIGIT}{DIGIT}+=", prompt):
        raise ValueError(f"the prompt is {prompt!r}; give two or more digits below {BASE}, and =")
    digits, found = [int(digit) for digit in prompt[:-1]], TEXT.fullmatch(text)
    lines = found["lines"].splitlines() if found else []
    left = len(digits) - 2 - len(lines)
    if found is None or left < 0 or (found["end"] and (left or not found["digit"])):
        raise ValueError(f"{text!r} is no text of this process after {prompt!r}")
    before = int(lines[-1][-1]) if lines else digits[0]
    right = (before + digits[len(lines) + 1]) % BASE
    return Place(
        right=right,
        offset=(before - sum(digits[: len(lines) + 1])) % BASE,
        wrong=(int(found["digit"]) - right) % BASE if found["digit"] else None,
        again=text.endswith("W"),
        left=left,
        ended=bool(found["end"]),
    )
