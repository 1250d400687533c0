r"""Formulas as values: equal formulas get equal keys, without any algebra system.

- a formula is read by recursive descent and evaluated in decimal arithmetic of 60 digits
- with symbols it is evaluated at three fixed points, a function of the symbols' names
- keys hold 20 significant digits, far from the last one, so two ways of writing one value agree
- nothing is expanded: a tower of powers overflows at once and is no formula
"""

import re
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, Inexact, Overflow, localcontext
from hashlib import blake2b
from math import comb

PRECISION = 60  # digits that are computed
KEPT = 20  # significant digits of a key
POINTS = 3
LARGEST = 10_000  # decimal exponent at which a value overflows
MAX_DEPTH = 48
MAX_TOKENS = 1024

PI = Decimal("3.1415926535897932384626433832795028841971693993751058209749445923078164062862")
# fmt: off
GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "iota",
    "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi",
    "omega", "Gamma", "Delta", "Theta", "Lambda", "Sigma", "Phi", "Psi", "Omega",
))
FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "ln", "log", "exp", "sqrt", "abs", "arctan",
))
# fmt: on
RELATIONS = {"le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "lt": "<", "gt": ">"}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|\\(?P<command>[A-Za-z]+)|(?P<word>[A-Za-z]+)"
    r"|(?P<sign>[-+*/^_(){}\[\]|=<>]|π|≤|≥|×|÷|·|\\[{}]))"
)
Point = Callable[[str], Decimal]
Tokens = list[tuple[str, str]]


class NoFormulaError(ValueError):
    """The text is no formula that can be evaluated."""


def formula_values(text: str) -> tuple[Decimal, ...]:
    """Return the value of a formula, or its values at three points if it depends on symbols.

    Raises
    ------
    NoFormulaError
        If the text is no formula, or a value is undefined or overflows.
    """
    tokens = _tokens(text)
    with _arithmetic():
        values = tuple(_Reader(tokens, _point(i)).whole() for i in range(POINTS))
    return values if len(set(map(rounded_digits, values))) > 1 else values[:1]


def relation_key(text: str) -> str | None:
    """Return the key of an equation or inequality, None if it is none; constant factors are free.

    Raises
    ------
    NoFormulaError
        If a side is no formula, or the two sides never differ.
    """
    body = re.sub(r"\\(leq?|geq?|lt|gt)(?![A-Za-z])", lambda found: RELATIONS[found[1]], text)
    signs = re.findall(r"<=|>=|[=<>≤≥]", body)
    if len(signs) != 1:
        return None
    left, right = body.split(signs[0])
    values = formula_values(f"({left})-({right})")
    if len(values) < POINTS or values[0] == 0:
        raise NoFormulaError(text)
    with _arithmetic():
        ratios = "|".join(rounded_digits(value / values[0]) for value in values[1:])
    kind = {"<": "<", ">": "<", "=": "="}.get(signs[0], "<=")
    side = "" if kind == "=" else "+" if (values[0] > 0) == (signs[0][0] in ">≥") else "-"
    return f"{kind}{side}:{ratios}"


def rounded_digits(value: Decimal) -> str:
    """Return the value to 20 significant digits, as text without a sign of zero."""
    with localcontext(Context(prec=KEPT)):
        kept = +value
        return "0" if kept == 0 or abs(value) < Decimal(10) ** -30 else str(kept.normalize())


def _arithmetic():
    context = Context(prec=PRECISION, Emax=LARGEST, Emin=-LARGEST)
    context.traps[Inexact] = False
    context.traps[Overflow] = True
    return localcontext(context)


def _point(number: int) -> Point:
    """Return the map from names of symbols to generic numbers between 1 and 2."""

    def value(name: str) -> Decimal:
        digits = int.from_bytes(blake2b(f"{number}:{name}".encode(), digest_size=8).digest(), "big")
        return 1 + Decimal(digits) / 2**64

    return value


def _tokens(text: str) -> Tokens:
    found: Tokens = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or len(found) == MAX_TOKENS:
            raise NoFormulaError(text)
        place = match.end()
        kind = str(match.lastgroup)
        found += _words(match[kind]) if kind == "word" else [(kind, match[kind])]
    return found


def _words(word: str) -> Tokens:
    """Return a plain word as a function, as pi, or as the symbols that are its letters."""
    if word in FUNCTIONS or word == "pi":
        return [("command", word)]
    if len(word) > 3:
        raise NoFormulaError(word)
    return [("symbol", letter) for letter in word]


class _Reader:
    """Reads tokens once and evaluates as it goes."""

    def __init__(self, tokens: Tokens, point: Point) -> None:
        self.tokens, self.point = tokens, point
        self.place, self.depth = 0, 0

    def whole(self) -> Decimal:
        """Return the value of all tokens."""
        try:
            value = self.sum()
        except (DecimalException, RecursionError, ZeroDivisionError, OverflowError) as error:
            raise NoFormulaError(str(error)) from error
        if self.place < len(self.tokens) or not value.is_finite():
            raise NoFormulaError("not read to its end")
        return value

    def next_is(self, *texts: str) -> bool:
        """Return whether the next token is one of these, and step over it if so."""
        if self.place < len(self.tokens) and self.tokens[self.place][1] in texts:
            self.place += 1
            return True
        return False

    def peek(self) -> tuple[str, str]:
        """Return the next token."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")

    def sum(self) -> Decimal:
        """Return the value of terms joined by plus and minus."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NoFormulaError("too deep")
        negative = self.next_is("-")
        _ = negative or self.next_is("+")
        value = -self.term() if negative else self.term()
        while True:
            if self.next_is("+"):
                value += self.term()
            elif self.next_is("-"):
                value -= self.term()
            else:
                self.depth -= 1
                return value

    def term(self) -> Decimal:
        """Return the value of factors, joined by a sign or by nothing."""
        value = self.power()
        while True:
            kind, text = self.peek()
            if self.next_is("*", "cdot", "times", "×", "·"):
                value *= self.signed()
            elif self.next_is("/", "div", "÷"):
                value /= self.signed()
            elif kind in ("symbol", "command") or text in ("(", "{") or self.number_follows():
                value *= self.power()
            else:
                return value

    def number_follows(self) -> bool:
        """Return whether a number follows something other than a number."""
        return self.peek()[0] == "number" and self.tokens[self.place - 1][0] != "number"

    def signed(self) -> Decimal:
        """Return a factor that may have a sign of its own."""
        if self.next_is("-"):
            return -self.signed()
        return self.power()

    def power(self) -> Decimal:
        """Return a factor and its exponent; powers bind to the right."""
        value = self.atom()
        if not self.next_is("^"):
            return value
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NoFormulaError("too deep")
        exponent = -self.power() if self.next_is("-") else self.power()
        self.depth -= 1
        return _raised(value, exponent)

    def atom(self) -> Decimal:
        """Return a number, symbol, group or function value."""
        kind, text = self.peek()
        self.place += 1
        if kind == "number":
            return Decimal(text)
        if kind == "symbol" or (kind == "command" and text in GREEK):
            return self.symbol(text)
        if text in ("pi", "π"):
            return PI
        if text in ("(", "{", "[", "|"):
            value = self.sum()
            if not self.next_is({"(": ")", "{": "}", "[": "]", "|": "|"}[text]):
                raise NoFormulaError(text)
            return abs(value) if text == "|" else value
        if text == "frac":
            return self.argument() / self.argument()
        if text == "binom":
            return _binomial(self.argument(), self.argument())
        if text in FUNCTIONS:
            return self.function(text)
        raise NoFormulaError(text)

    def symbol(self, name: str) -> Decimal:
        """Return the value of a symbol; a subscript belongs to its name."""
        if self.next_is("_"):
            start = self.place
            self.argument()
            name += "_" + "".join(t for _, t in self.tokens[start : self.place] if t not in "{}")
        elif name == "e":
            return Decimal(1).exp()
        return self.point(name)

    def argument(self) -> Decimal:
        """Return what a command takes: a group, or one token; of a number the first digit."""
        kind, text = self.peek()
        if kind == "number" and len(text) > 1 and text.isdigit():
            self.tokens = [*self.tokens]
            self.tokens[self.place : self.place + 1] = [("number", text[0]), ("number", text[1:])]
        return self.atom()

    def function(self, name: str) -> Decimal:
        """Return a function's value: of a group, else of the factors that follow."""
        if name == "sqrt":
            degree = Decimal(2)
            if self.peek()[1] == "[":
                degree = self.atom()
            return _raised(self.argument(), 1 / degree)
        power = self.atom() if self.next_is("^") else Decimal(1)
        base = self.argument() if name == "log" and self.next_is("_") else None
        inner = self.atom() if self.peek()[1] in ("(", "{", "|") else self.power()
        value = inner.ln() / base.ln() if base is not None else _CALLS[name](inner)
        return _raised(value, power)


def _raised(value: Decimal, exponent: Decimal) -> Decimal:
    if value < 0 and exponent != exponent.to_integral_value():
        inverse = 1 / exponent
        nearest = inverse.to_integral_value()
        if abs(inverse - nearest) < Decimal(10) ** (10 - PRECISION) and nearest % 2 == 1:
            return -((-value) ** exponent)  # an odd root
        raise NoFormulaError("a root of a negative number")
    return value**exponent


def _sine(x: Decimal) -> Decimal:
    if abs(x) > 1000:
        raise NoFormulaError("too large an angle")
    x -= 2 * PI * (x / (2 * PI)).to_integral_value()
    term = total = x
    for n in range(1, 60):
        term *= -x * x / (2 * n * (2 * n + 1))
        total += term
    return total


def _cosine(x: Decimal) -> Decimal:
    return _sine(x + PI / 2)


def _arctangent(x: Decimal) -> Decimal:
    halvings = 0
    while abs(x) > Decimal("0.01"):
        x = x / (1 + (1 + x * x).sqrt())
        halvings += 1
    term = total = x
    for n in range(1, 20):
        term *= -x * x
        total += term / (2 * n + 1)
    return total * 2**halvings


def _binomial(n: Decimal, k: Decimal) -> Decimal:
    if n != int(n) or k != int(k) or not 0 <= k <= n <= 1000:
        raise NoFormulaError("a binomial of other than small whole numbers")
    return Decimal(comb(int(n), int(k)))


_CALLS: dict[str, Callable[[Decimal], Decimal]] = {
    "sin": _sine,
    "cos": _cosine,
    "tan": lambda x: _sine(x) / _cosine(x),
    "cot": lambda x: _cosine(x) / _sine(x),
    "sec": lambda x: 1 / _cosine(x),
    "csc": lambda x: 1 / _sine(x),
    "ln": lambda x: x.ln(),
    "log": lambda x: x.ln(),
    "exp": lambda x: x.exp(),
    "abs": abs,
    "arctan": _arctangent,
}
