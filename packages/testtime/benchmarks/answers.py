"""Classes of answers: our keys against Math-Verify's pairwise verdicts, in time and agreement.

uv run --no-sync --with math-verify==0.9.0 python packages/testtime/benchmarks/answers.py

Generated answers of one question: equal values in two writings, and different ones; 1,250 questions
are 10,000 expressions. With `--data FILE`, answers of models instead: JSON lines, .zst too, with a
list `pred` of eight answers a question, as Qwen2.5-Math's evaluation of rewards writes. A pair
counts for agreement where Math-Verify is consistent: both parse, and verify(a, b) = verify(b, a).
"""

import argparse
import itertools
import json
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from math_verify import parse, verify

from meristem_core.answers import answer_key

SAMPLES = 8  # answers of a question


def question(rng: np.random.Generator) -> list[str]:
    """Return eight answers to one question, about half of them equal."""
    a, b, c = (int(value) for value in rng.integers(1, 30, 3))
    kinds = [
        [rf"\frac{{{a}}}{{{b}}}", f"{2 * a}/{2 * b}", rf"\dfrac{{{a}}}{{{b}}}", f"{a + 1}/{b}"],
        [f"{a}.5", rf"\frac{{{2 * a + 1}}}{{2}}", f"{a}.50", f"{a}.25"],
        [rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"\sqrt{{{b}}}\cdot {a}",
         rf"{a + 1}\sqrt{{{b}}}"],
        [f"{a}x+{b}", f"{b}+{a}x", rf"{a}\cdot x + {b}", f"{a}x-{b}"],
        [f"(x+{a})(x-{b})", rf"x^2+{a - b}x-{a * b}" if a >= b else rf"x^2-{b - a}x-{a * b}",
         f"(x-{b})(x+{a})", f"(x+{a})(x+{b})"],
        [f"({a},{b},{c})", rf"\left({a},{b},{c}\right)", f"({a}, {b}, {c})",
         f"({c},{b},{a + 99})"],
    ]  # fmt: skip
    forms = kinds[rng.integers(len(kinds))]
    return [forms[i] for i in rng.integers(len(forms), size=SAMPLES)]


def recorded(path: Path) -> list[list[str]]:
    """Return the answers of models in a file."""
    if path.suffix == ".zst":
        done = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True)
        text = done.stdout.decode()
    else:
        text = path.read_text("utf-8")
    return [json.loads(line)["pred"] for line in text.splitlines()]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    questions = (
        [question(np.random.default_rng(i)) for i in range(options.questions)]
        if options.data is None
        else recorded(options.data)
    )
    count = len(questions)
    start = time.perf_counter()
    ours = [[answer_key(text) for text in texts] for texts in questions]
    own = time.perf_counter() - start
    start = time.perf_counter()
    parsed = [[parse(f"${text}$") for text in texts] for texts in questions]
    theirs = [
        {(i, j): verify(row[i], row[j]) for i, j in itertools.permutations(range(SAMPLES), 2)}
        for row in parsed
    ]
    peer = time.perf_counter() - start
    agree, counted, differing = 0, 0, set[tuple[str, str]]()
    for texts, keys, row, verdicts in zip(questions, ours, parsed, theirs, strict=True):
        for i, j in itertools.combinations(range(SAMPLES), 2):
            if row[i] and row[j] and verdicts[i, j] == verdicts[j, i]:
                counted += 1
                same = (keys[i] == keys[j]) == verdicts[i, j]
                agree += same
                if not same:
                    differing.add((texts[i], texts[j]))
    print(f"{datetime.now(UTC):%Y-%m-%d}, math-verify {version('math-verify')}")
    print(f"{count} questions x {SAMPLES} answers: ours {own:.3f} s, Math-Verify {peer:.3f} s, "
          f"ratio {peer / own:.0f}")  # fmt: skip
    print(f"agreement {agree / counted:.4f} on {counted} pairs; {len(differing)} texts differ")
    for pair in sorted(differing)[:20]:
        print("  ", *pair)


if __name__ == "__main__":
    main()
