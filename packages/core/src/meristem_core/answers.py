"""Final answers: found in a text, read as exact numbers, and given keys that define equality.

- equality is equality of keys, so it is reflexive, symmetric and transitive by construction
- numbers are exact fractions; a key rounds them once, so no tolerance is applied between two
- formulas are compared by their values at fixed points (60 digits, 20 kept), never expanded
- every function is pure, bounded and thread-safe
"""

import re
from fractions import Fraction
from typing import Literal

from meristem_core._formulas import NoFormulaError, formula_values, relation_key, rounded_digits

MAX_CHARACTERS = 4096  # longer answers are compared as text
MAX_DIGITS = 2000  # of a number, written out: 1e2000 is read, 1e2001 is text
MAX_DEPTH = 8  # of nested brackets
MAX_BOXES = 64  # read from the end of a text until one is balanced

Kind = Literal["math", "number", "choice"]
Percent = Literal["number", "fraction"]

_CLAUSE = re.compile(r"(?i)\banswer(?:[ \t]+is[ \t]*:?|[ \t]*[:=])[ \t]*(\S[^\n]*)")
_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?|[-−]?\.\d+")
_CHOICE = re.compile(r"[\s(\[{$*]*(?:\\text\{)?([A-J])[\s)\]}.,:$*]*")
_LONE = re.compile(r"(?<![A-Za-z])\(?([A-J])\)?(?![A-Za-z'])")
_REWRITES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"[−–]", "-"),
        (r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])", ""),
        (r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\?\$", ""),
        (r"\\%", "%"),
        (r"(?<=[^.\s])\s*\.\s*$", ""),
        (r"(?<=[\d}%])\s*\^?\s*(?:\\circ(?![A-Za-z])|\{\\circ\}|°)", ""),
        (r"(?<=[\d}])\s*\\(?:text|mathrm|textrm)\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?$", ""),
        (r"\\(?:text|mathrm|textrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}", r"\1"),
        (r"[€£]", ""),
        (r"\\(?:dots|ldots|cdots)(?![A-Za-z])", "..."),
        (r"^\s*\\?[A-Za-z]\s*=(?!=)", ""),
        (r"\s+", " "),
    )
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_REAL = re.compile(
    rf"(?P<whole>{_DIGITS})?(?:\.(?P<part>\d*))?"
    r"(?:[eE](?P<e>[+-]?\d+)|\s*(?:\\times|\\cdot|\*|×)\s*10\s*\^\s*(?:\{(?P<b>[+-]?\d+)\}|(?P<t>[+-]?\d+)))?"
)
_FRACTION = re.compile(
    rf"(?:(?P<unit>\d+)\s*(?=\\frac)|(?P<mixed>\d+)\s+)?"
    rf"(?:\\frac\s*(?:\{{\s*(?P<a>-?{_DIGITS})\s*\}}|(?P<a1>\d))\s*(?:\{{\s*(?P<b>-?{_DIGITS})\s*\}}|(?P<b1>\d))"
    rf"|(?P<c>{_DIGITS})\s*/\s*(?P<d>-?{_DIGITS}))"
)
_OPEN, _CLOSE = "([{", ")]}"


def extract_answer(text: str, kind: Kind = "math") -> str | None:
    r"""Return the final answer that `text` states, or None.

    Parameters
    ----------
    text
        A whole solution.
    kind
        What counts: the last balanced `\boxed{...}`, else the last clause "answer is ..." or
        "answer: ..."; for "number" else the last number; for "choice" a lone letter A to J.

    Raises
    ------
    ValueError
        If the kind is unknown.

    Examples
    --------
    >>> extract_answer(r"so \boxed{\frac{1}{2}} holds")
    '\\frac{1}{2}'
    >>> extract_answer("It costs 3 or 4 dollars", "number")
    '4'
    >>> extract_answer("I do not know") is None
    True
    """
    if kind not in ("math", "number", "choice"):
        raise ValueError(f"kind is {kind!r}; choose 'math', 'number' or 'choice'")
    stated = _boxed(text)
    if stated is None:
        clauses = _CLAUSE.findall(text)
        stated = _sentence(clauses[-1]) if clauses else None
    if kind == "math":
        return stated
    if kind == "number":
        found = _NUMBER.findall(stated if stated is not None else text)
        return stated if stated is not None and parse_number(stated) is not None else _last(found)
    if stated is not None:
        return _letter(stated)
    return _letter(text)


def normalize_answer(text: str) -> str:
    r"""Return `text` without the typography that carries no meaning.

    Unicode minus, `\left`, `\right`, spacing, `\dfrac`, currency and degree signs, a unit in
    `\text{}` after a number, the final period and a leading `x =` go; the rest stays.

    Examples
    --------
    >>> normalize_answer(r"$x = \dfrac{1}{2}\,\text{cm}.$")
    '\\frac{1}{2}'
    """
    result = text
    for pattern, new in _REWRITES:
        result = pattern.sub(new, result).strip()
    return result


def parse_number(text: str, *, percent: Percent = "number") -> Fraction | None:
    r"""Return the exact number that `text` writes, or None.

    Integers, decimals, a/b, `\frac{a}{b}`, mixed numbers, 1.2e3 and `1.2\times10^{3}`; thousands
    commas only in groups of three.

    Parameters
    ----------
    percent
        Whether 50% is the number 50 or the fraction 1/2.

    Raises
    ------
    ValueError
        If percent is neither.

    Examples
    --------
    >>> parse_number("1,234.50"), parse_number(r"1\frac{1}{2}"), parse_number("12,34")
    (Fraction(2469, 2), Fraction(3, 2), None)
    >>> parse_number("9^{9^{9}}") is None and parse_number("1e99999999") is None
    True
    """
    if percent not in ("number", "fraction"):
        raise ValueError(f"percent is {percent!r}; choose 'number' or 'fraction'")
    if len(text) > MAX_CHARACTERS:
        return None
    body = normalize_answer(text)
    scale = Fraction(1)
    if body.endswith("%"):
        body, scale = body[:-1].rstrip(), Fraction(1, 100 if percent == "fraction" else 1)
    sign = 1
    if body[:1] in ("-", "+"):
        sign, body = (-1 if body[0] == "-" else 1), body[1:].lstrip()
    value = _real(body)
    if value is None:
        value = _ratio(body)
    return None if value is None else sign * scale * value


def answer_key(text: str, *, digits: int | None = 6, percent: Percent = "number") -> str:
    r"""Return the key of an answer: two answers are equal exactly when their keys are.

    Parameters
    ----------
    digits
        Decimals to which a number that is not an integer is rounded (significant digits below
        10**-3); None keeps it exact.
    percent
        As for `parse_number`.

    Raises
    ------
    ValueError
        If digits is below 1.

    Notes
    -----
    `(a,b)` and `[a,b]` keep their order and brackets, `{a,b}` and a bare `a,b` are sets. Numbers
    on both sides of a rounding edge differ: a tolerance could not be transitive. A formula without
    symbols is its number; with symbols its values at three fixed points; an equation or inequality
    is free of constant factors. What cannot be evaluated (complex roots, towers of powers, words)
    is text.

    Examples
    --------
    >>> answer_key("1/3") == answer_key("0.333333"), answer_key("1e-7") == answer_key("2e-7")
    (True, False)
    >>> answer_key("(x+1)^2") == answer_key("1 + 2x + x^2"), answer_key(r"\frac{\pi}{4}")
    (True, 'number:392699/500000')
    >>> answer_key(r"\{2, 1\}") == answer_key("1,2"), answer_key("(1,2)") == answer_key("(2,1)")
    (True, False)
    """
    if digits is not None and digits < 1:
        raise ValueError(f"digits ({digits}) must be at least 1, or None for exact numbers")
    if len(text) > MAX_CHARACTERS:
        return f"text:{text}"
    return _key(text, digits, percent, 0)


def _key(text: str, digits: int | None, percent: Percent, depth: int) -> str:
    number = parse_number(text, percent=percent)
    if number is not None:
        return f"number:{number if digits is None else _rounded(number, digits)}"
    body = normalize_answer(text).replace(r"\{", "{").replace(r"\}", "}")
    if depth < MAX_DEPTH:
        wrapped = len(body) > 1 and body[0] in _OPEN and _closes(body) == len(body) - 1
        parts = _split(body[1:-1] if wrapped else body)
        if len(parts) > 1:
            keys = [_key(part, digits, percent, depth + 1) for part in parts]
            if wrapped and body[0] != "{":
                return f"{body[0]}{'|'.join(keys)}{body[-1]}"
            return "{" + "|".join(sorted(set(keys))) + "}"
        if wrapped and body[0] == "{" and parts[0].strip():
            return "{" + _key(parts[0], digits, percent, depth + 1) + "}"
    if not _is_number(body) and _is_formula(body):  # a number too long to write out is text
        return _formula_key(body, digits) or f"text:{''.join(body.split())}"
    return f"text:{body.casefold()}"


def _formula_key(body: str, digits: int | None) -> str | None:
    """Return the key of a formula or relation, None if it cannot be evaluated."""
    try:
        relation = relation_key(body)
        if relation is not None:
            return relation
        value, *more = formula_values(body)
    except NoFormulaError:
        return None
    if more:
        return f"formula:{'|'.join(map(rounded_digits, [value, *more]))}"
    if digits is not None:
        return f"number:{_rounded(Fraction(value), digits)}"
    return f"constant:{rounded_digits(value)}"


def _rounded(value: Fraction, digits: int) -> Fraction:
    if value.denominator == 1:
        return value
    places = digits
    if abs(value) < Fraction(1, 1000):  # significant digits: count the zeros after the point
        size = len(str(abs(value.denominator))) - len(str(abs(value.numerator)))
        places = digits + size - (abs(value) * 10**size >= 1)
    unit = 10**places
    return Fraction(round(value * unit), unit)


def _real(body: str) -> Fraction | None:
    found = _REAL.fullmatch(body)
    if not found or not (found["whole"] or found["part"]):
        return None
    whole, part = (found["whole"] or "").replace(",", ""), found["part"] or ""
    exponent = found["e"] or found["b"] or found["t"] or "0"
    if len(exponent) > 6 or len(whole) + len(part) + abs(int(exponent)) > MAX_DIGITS:
        return None
    return Fraction(int(whole + part)) * Fraction(10) ** (int(exponent) - len(part))


def _is_number(body: str) -> bool:
    found = _REAL.fullmatch(body.removesuffix("%").strip(" +-"))
    return found is not None and bool(found["whole"] or found["part"])


def _ratio(body: str) -> Fraction | None:
    found = _FRACTION.fullmatch(body)
    if not found or len(body) > MAX_DIGITS:
        return None
    above = int((found["a"] or found["a1"] or found["c"]).replace(",", ""))
    below = int((found["b"] or found["b1"] or found["d"]).replace(",", ""))
    if below == 0:
        return None
    return int(found["unit"] or found["mixed"] or 0) + Fraction(above, below)


def _boxed(text: str) -> str | None:
    end = len(text)
    for _ in range(MAX_BOXES):
        if (start := max(text.rfind(r"\boxed{", 0, end), text.rfind(r"\fbox{", 0, end))) < 0:
            return None
        brace = text.index("{", start)
        close = _closes(text[brace : brace + MAX_CHARACTERS + 2])
        if close > 0:
            return text[brace + 1 : brace + close].strip()
        end = start
    return None


def _closes(text: str) -> int:
    """Return where the bracket that opens `text` is closed, or -1; escaped braces are skipped."""
    depth, escaped = 0, False
    opening, closing = text[0], _CLOSE[_OPEN.index(text[0])]
    for place, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif opening != "{" and depth == 1 and character in _CLOSE:
            return place  # half-open intervals close with the other bracket
        elif character == opening or (opening != "{" and character in _OPEN):
            depth += 1
        elif character == closing or (opening != "{" and character in _CLOSE):
            depth -= 1
            if depth == 0:
                return place
    return -1


def _split(body: str) -> list[str]:
    parts: list[str] = []
    depth, start = 0, 0
    for place, character in enumerate(body):
        depth += (character in _OPEN) - (character in _CLOSE)
        if character == "," and depth == 0:
            parts.append(body[start:place])
            start = place + 1
    return [*parts, body[start:]]


def _sentence(clause: str) -> str | None:
    stated = re.split(r"\.(?:\s|$)|;", clause, maxsplit=1)[0].strip().strip("*").strip()
    return stated or None


def _letter(text: str) -> str | None:
    alone = _CHOICE.fullmatch(text)
    if alone:
        return alone[1]
    letters = _LONE.findall(text)
    return letters[-1] if letters else None


def _last(found: list[str]) -> str | None:
    return found[-1] if found else None


def _is_formula(body: str) -> bool:
    return any(character in body for character in "\\^_=+*/<>") or not re.search(
        r"(?<!\d)[A-Za-z]{2}", body
    )
