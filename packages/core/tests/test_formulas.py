"""Formulas: laws of algebra keep the key, hostile texts are bounded, threads agree."""

import threading
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meristem_core.answers import answer_key

SMALL = st.integers(-9, 9)
LETTER = st.sampled_from(["x", "y", "a", r"\theta", "x_1"])
ATOM = SMALL.map(lambda n: f"({n})") | LETTER
FORMULA = st.recursive(
    ATOM,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda three: f"({three[0]}{three[1]}{three[2]})"
    ),
    max_leaves=8,
)


@settings(max_examples=30)
@given(a=FORMULA, b=FORMULA, c=FORMULA)
def test_laws_of_a_ring_keep_the_key(a, b, c):
    same = [
        (f"{a}+{b}", f"{b}+{a}"),
        (f"{a}*{b}", rf"{b} \cdot {a}"),
        (f"{a}*({b}+{c})", f"{a} {b}+{a} {c}"),
        (f"({a}+{b})^2", f"{a}^{{2}}+2{a} {b}+{b}^2"),
        (f"{a}-{a}+{b}+0", f"{b}*1"),
    ]
    for left, right in same:
        assert answer_key(left) == answer_key(right), (left, right)


@given(a=FORMULA, n=st.integers(1, 9))
def test_another_value_has_another_key(a, n):
    assert answer_key(f"{a}+0") != answer_key(f"{a}+{n}")


@settings(max_examples=30)
@given(a=FORMULA, n=st.integers(2, 9))
def test_relations_are_free_of_positive_factors_and_sides(a, n):
    assume(answer_key(a).startswith("formula:"))  # a relation of constants has no key of its own
    for sign, turned in (("<", ">"), (r"\le", r"\geq"), ("=", "=")):
        assert answer_key(f"{n}*{a}{sign} {n}") == answer_key(f"1 {turned} {a}")
    assert answer_key(f"{a}<1") != answer_key(f"{a}>1")
    assert answer_key(f"{a}<1") != answer_key(rf"{a}\le 1")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\frac{\sqrt{3}}{3}", r"\frac1{\sqrt3}"),
        (r"\frac{\pi}{4}", "0.785398"),
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"\log_2 8", "3"),
        (r"\ln(e^2)", "2"),
        (r"\sqrt[3]{-8}+0", "-2"),
        (r"\binom{5}{2}+0", "10"),
        (r"\tan x", r"\frac{\sin x}{\cos x}"),
        (r"\arctan 1+0", r"\pi/4"),
        ("2^{10}", "1024"),
        ("-x^2", "-(x^2)"),
        ("|x-1|", "|1-x|"),
        (r"\{\sqrt{4}, x+1\}", r"\{1+x, 2\}"),
    ],
)
def test_two_ways_of_writing_one_value(left, right):
    assert answer_key(left) == answer_key(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x+1", "x+2"), ("x^2", "x^3"), (r"\theta", r"\phi"), ("2^x", "x^2"), ("x_1", "x_2"),
        (r"(\sqrt{2}, 1)", r"(1, \sqrt{2})"), ("1/x", "x"), ("No", "On"), ("i^2", "-1"),
    ],
)  # fmt: skip
def test_different_values(left, right):
    assert answer_key(left) != answer_key(right)


HOSTILE = [
    "9^{9^{9}}", "9^" * 400 + "9", "(" * 2000 + "1" + ")" * 2000, "x^" * 1000 + "x", "1/0+1",
    r"\frac{" * 500, "2^{-9^{9^{9}}}+1", r"\sin(10^{500})", r"\exp(\exp(\exp(9)))",
    r"\sqrt{" * 45 + "2" + "}" * 45, "9" * 1900 + "^" + "9" * 100, "x+" * 2000 + "x", "x" * 10**6,
    r"\binom{10^{9}}{5}+0", "=" * 1000, r"\sqrt[10^{99}]{2}", "0^{0}+0", r"\ln(0)+1",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_texts_end_soon_and_equal_themselves(text):
    start = time.process_time()
    assert answer_key(text) == answer_key(text)
    assert time.process_time() - start < 5  # a bound that only a runaway misses


@given(text=st.text(alphabet=r"x12+-*/^_(){}[]|\,=<. sincosqrtfra", max_size=60))
def test_any_text_has_a_key(text):
    assert answer_key(text) == answer_key(text)


def test_threads_agree():
    texts = [rf"\frac{{{i}x+1}}{{\sqrt{{{i + 2}}}}}" for i in range(30)]
    expected = [answer_key(text) for text in texts]
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append([answer_key(text) for text in texts]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8
