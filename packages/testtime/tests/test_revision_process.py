"""The process that errs and repairs: its value is exact."""

import asyncio
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import meristem_testtime as tt
from meristem_core import stream

chances = st.floats(0, 1)
prompts = st.text("01234", min_size=2, max_size=5).map(lambda digits: f"{digits}=")


@st.composite
def processes(draw):
    error, notice, repair = draw(chances), draw(chances), draw(chances)
    assume(notice * (1 - repair) < 0.99)
    return tt.RevisionProcess(error=error, notice=notice, repair=repair)


def written(process, prompt, seed, most=30):
    """A text that the process writes, or its beginning."""
    engine, ids = tt.FakeEngine(process, process.alphabet), []
    rng = stream(seed, "text")
    while len(ids) < most and (not ids or ids[-1] != engine.end):
        ids.append(rng.choice(len(process.alphabet), p=process((*engine.encode(prompt), *ids))))
    return engine.decode(ids)


@given(processes(), prompts, st.integers(0, 2**32), st.floats(0, 1))
def test_the_value_is_the_mean_of_the_values_one_token_on(process, prompt, seed, cut):
    """With the values of ended texts, this determines it."""
    text = written(process, prompt, seed)
    text = text[: int(cut * len(text))]
    engine = tt.FakeEngine(process, process.alphabet)
    following = process(engine.encode(prompt + text))
    assert following.sum() == pytest.approx(1)
    later = sum(
        chance * process.value(prompt, text + process.alphabet[i])
        for i, chance in enumerate(following)
        if chance > 0
    )
    assert process.value(prompt, text) == pytest.approx(later, abs=1e-12)
    assert 0 <= process.value(prompt, text) <= 1


@given(processes(), prompts, st.integers(0, 2**32))
def test_an_ended_text_is_worth_its_last_line(process, prompt, seed):
    text = written(process, prompt, seed)
    assume(text.endswith("."))
    right = str(sum(int(digit) for digit in prompt[:-1]) % 5)
    assert process.value(prompt, text) == pytest.approx(float(text[-2] == right), abs=1e-12)
    assert text.count("\n") == len(prompt) - 3


def test_samples_are_right_as_often_as_it_says():
    process, prompt, n = tt.RevisionProcess(error=0.3, notice=0.6, repair=0.7), "3142=", 1000
    engine = tt.FakeEngine(cache(process), process.alphabet)
    asked = tt.Request(prompt=engine.encode(prompt), seed=2, n=n, max_tokens=60)
    (samples,) = asyncio.run(engine.generate([asked]))
    share = np.mean([process.value(prompt, engine.decode(each.ids)) for each in samples])
    value = process.value(prompt, "")
    assert abs(share - value) < 4 * np.sqrt(value * (1 - value) / n)


def test_a_forced_w_is_repaired_as_often_as_a_noticed_one():
    process = tt.RevisionProcess(error=0.3, notice=0.2, repair=0.9)
    assert process.value("31=", "W") == process.value("31=", "2W") > process.value("31=", "")


@pytest.mark.parametrize(
    ("prompt", "text"),
    [("3=", ""), ("31", ""), ("35=", ""), ("31=", "34"), ("31=", "4\n"), ("314=", "4."),
     ("31=", "."), ("31=", "WW"), ("31=", "4.0")],
)  # fmt: skip
def test_what_it_could_not_write_is_refused(prompt, text):
    process = tt.RevisionProcess(error=0.3, notice=0.2, repair=0.9)
    with pytest.raises(ValueError, match=r"prompt is '3|is no text of this process after"):
        process.value(prompt, text)


@pytest.mark.parametrize("wrong", [{"error": 1.5}, {"notice": -0.1}, {"repair": float("nan")}])
def test_chances_are_chances(wrong):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        tt.RevisionProcess(**{"error": 0.1, "notice": 0.2, "repair": 0.3} | wrong)
    with pytest.raises(ValueError, match="without an end"):
        tt.RevisionProcess(error=0.1, notice=1.0, repair=0.0)
