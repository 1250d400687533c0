"""Answers: examples, laws of the keys, hostile input."""

import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meristem_core.answers import answer_key, extract_answer, normalize_answer, parse_number

rationals = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**4)
WORDS = r"1 2 - / . , ( ) { } \frac e % \boxed{ x ^ 10 \times = $ answer is"
pieces = st.sampled_from([*WORDS.split(" "), " "])
texts = st.lists(pieces, max_size=25).map("".join) | st.text(max_size=40)


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        (r"first \boxed{1} then \boxed{\frac{2}{3}}", "math", r"\frac{2}{3}"),
        (r"whole \boxed{7} and cut off \boxed{\frac{2", "math", "7"),
        (r"\boxed{\{1, 2\}}", "math", r"\{1, 2\}"),
        ("The answer is 12. Done.", "math", "12"),
        ("Final answer: 3.5", "math", "3.5"),
        ("no idea", "math", None),
        ("it costs $1,200 today", "number", "1,200"),
        ("so the answer is 5 apples, not 6", "number", "6"),
        ("no digits", "number", None),
        (r"\boxed{\text{C}}", "choice", "C"),
        ("Therefore (B).", "choice", "B"),
        ("Answer: D", "choice", "D"),
        ("nothing", "choice", None),
    ],
)
def test_finds_the_final_answer(text, kind, wanted):
    assert extract_answer(text, kind) == wanted


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\dfrac{1}{2}", "0.5"),
        (r"$\frac12$", "1/2"),
        (r"x = 3", "3"),
        ("1,000", "1000"),
        (r"90^\circ", "90"),
        (r"12\,\text{cm}^2", "12"),
        (r"50\%", "50"),
        (r"\$5.00", "5"),
        ("−7", "-7"),
        (r"1.2\times10^{3}", "1200"),
        ("2 1/2", "2.5"),
        ("1.", "1"),
        (r"\left(1, \frac{1}{2}\right)", "(1,0.5)"),
        (r"\{3, 1\}", "1, 3"),
        (r"\text{Yes}", "yes"),
    ],
)
def test_writings_of_one_answer_share_a_key(a, b):
    assert answer_key(a) == answer_key(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(1,2]", "(1,2)"), ("1e-7", "2e-7"), ("x", "X^2"),
     ("12,34", "1234"), ("(1,2)", "1,2"), ("3", "-3"), ("x^2", "X^2")],
)  # fmt: skip
def test_different_answers_have_different_keys(a, b):
    assert answer_key(a) != answer_key(b)


@given(value=rationals, factor=st.integers(1, 50))
def test_a_fraction_may_be_expanded_and_wrapped(value, factor):
    above, below = value.numerator * factor, value.denominator * factor
    sign = "-" if above < 0 else ""
    written = rf"$\left.{sign}\frac{{{abs(above)}}}{{{below}}}\right.$".replace(r"\left.", "")
    written = written.replace(r"\right.", "")
    assert parse_number(written) == value
    assert answer_key(written, digits=None) == answer_key(f"{above}/{below}", digits=None)
    assert answer_key(str(value + 1)) != answer_key(str(value))


@given(value=rationals | st.fractions(min_value=Fraction(-1, 500), max_value=Fraction(1, 500)),
       digits=st.integers(1, 9))  # fmt: skip
@example(value=Fraction(9999999, 10**10), digits=6)
def test_the_key_of_a_key_is_the_key(value, digits):
    key = answer_key(str(value), digits=digits)
    assert answer_key(key.removeprefix("number:"), digits=digits) == key
    rounded = Fraction(key.removeprefix("number:"))
    assert abs(rounded - value) <= max(Fraction(1, 10**digits), abs(value) / 10 ** (digits - 1))


@given(text=texts)
def test_normalising_and_keys_are_total(text):
    assert isinstance(answer_key(text), str)
    for kind in ("math", "number", "choice"):
        assert extract_answer(text, kind) is None or isinstance(extract_answer(text, kind), str)
    assert isinstance(normalize_answer(text), str)


@given(parts=st.lists(st.integers(-9, 9), min_size=2, max_size=5), data=st.data())
def test_sets_forget_order_and_repetition_and_tuples_do_not(parts, data):
    turned = data.draw(st.permutations(parts))
    a, b = ", ".join(map(str, parts)), ", ".join(map(str, [*turned, turned[0]]))
    assert answer_key(rf"\{{{a}\}}") == answer_key(rf"\{{{b}\}}")
    same = answer_key(f"({a})") == answer_key("(" + ", ".join(map(str, turned)) + ")")
    assert same == (turned == parts)


@pytest.mark.parametrize("text", ["1e999999999", "-2.5e99999", "1e4001%"])
def test_a_number_too_long_to_write_out_is_text_and_never_a_product_with_e(text):
    assert answer_key(text) == f"text:{text}"


@pytest.mark.parametrize(
    "text",
    ["9^{9^{9}}", "1e999999999999", "(" * 4000, "{" * 4096, "1," * 2048, "\\boxed{" * 500,
     "9" * 4096, "answer is " * 400, " " * 4000 + "x", "\\text{" * 700, "1.2\\times" * 400,
     "a" * 1_000_000, "\\boxed{" * 100_000, "$" * 4096, "answer is 9^" * 90_000,
     "\\boxed{" + "9^{" * 300_000 + "}" * 300_000 + "}", "1/" * 500_000],
    ids=range(17),
)  # fmt: skip
def test_hostile_text_is_bounded(text):
    start = time.process_time()
    answer_key(text)
    extract_answer(text)
    extract_answer(text, "number")
    extract_answer(text, "choice")
    assert time.process_time() - start < 10


def test_threads_agree_with_one():
    several = [f"{i}/{i % 7 + 1}" for i in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer_key, several)) == list(map(answer_key, several))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"digits \(0\) must be at least 1"):
        answer_key("1", digits=0)
    assert parse_number("50%", percent="fraction") == Fraction(1, 2)
    assert parse_number("1/0") is None
