"""How quickly the explorer opens, answers and scrolls in a real Chromium.

    uv run python apps/evolution/benchmarks/explorer.py [--features 16384] [--keep page.html]

The features are drawn: words of a Zipf vocabulary cut into tokens, norms that rise, fall or stay.
Needs an installed Chromium.
"""

import argparse
import platform
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from meristem_core.report import HorizontalLine, LineChart, Series, Table, Text
from meristem_evolution import Column, Contexts, Explorer, Features, render_explorer

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 400, 600, 900, 1300, 1800, 2400)
CONTEXTS, WIDTH, VOCABULARY = 10, 32, 4096
QUERIES = ("t", "th", "the", "the ", "the c", "zq", "e", "in the ")
FRAMES = """async () => {
  const list = document.querySelector(".list"), gaps = [];
  let last = performance.now();
  for (let frame = 0; frame < 120; frame += 1) {
    list.scrollTop += 700;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - last);
    last = now;
  }
  return gaps;
}"""
KEYSTROKE = """(query) => {
  const box = document.querySelector("#query");
  box.value = query;
  const start = performance.now();
  box.dispatchEvent(new Event("input"));
  document.querySelector(".list").offsetHeight;
  return performance.now() - start;
}"""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def drawn_explorer(F: int, *, seed: int = 0) -> Explorer:
    """Return an explorer of `F` drawn features."""
    rng = np.random.default_rng(seed)
    S = len(STEPS)
    kind = rng.choice(4, F, p=(0.18, 0.55, 0.19, 0.08))
    rise = np.where(kind == 0, -3, rng.integers(3, S - 2, F))
    fall = np.where(kind == 2, rise + rng.integers(1, 4, F), 3 * S)
    place = np.arange(S)
    slope = rng.uniform(0.7, 3, F)[:, None]
    norms = 1 / (1 + np.exp(-slope * (place - rise[:, None])))
    norms *= 1 / (1 + np.exp(slope * (place - fall[:, None])))
    norms *= rng.uniform(0.4, 1.6, F)[:, None] * rng.uniform(0.93, 1.07, (F, S))
    present = norms >= 0.5 * norms.max(1, keepdims=True)
    emergence = np.where(kind == 3, -1, present.argmax(1))
    turn = np.abs(place[:, None] - place[None, :]) * rng.uniform(0.01, 0.2, F)[:, None, None]
    late = (place[:, None] < 9) != (place[None, :] < 9)
    cosines = np.exp(-turn) * np.where(late, 0.35, 1)
    attribution = rng.standard_t(2, F) * 0.02
    features = Features(
        norms=norms,
        threshold=np.repeat(rng.uniform(0.05, 0.4, (F, 1)), S, 1),
        kind=kind,
        emergence=emergence,
        peak=np.where(kind == 3, -1, norms.argmax(1)),
        lifetime=np.where(kind == 3, 0, present.mean(1)),
        frequency=np.where(kind == 3, 0, rng.lognormal(-5, 1.5, F).clip(1e-5, 0.9)),
        dimensionality=rng.beta(2, 4, F),
        cosines=cosines,
        neighbours=rng.integers(0, F, (F, 5)),
        similarity=np.sort(rng.uniform(0.2, 0.8, (F, 5)), 1)[:, ::-1],
        contexts=drawn_contexts(rng, F),
        columns=[Column(name="induction", values=attribution, note="attribution at the last step")],
    )
    return Explorer(
        title="Evolution of features",
        subtitle=f"{F:,} drawn features over {S} snapshots of a run of {STEPS[-1]:,} steps",
        steps=STEPS,
        features=features,
        rotation=cosines.mean(0),
        turning=(STEPS[9], STEPS[8], STEPS[10]),
        overview=[*curves(rng)],
        tasks=[curve("Restoring induction", "features", "faithfulness", rng)],
        about=[Text("Drawn numbers: they show the page, not a model."),
               Table(columns=["setting", "value"], rows=[["features", F], ["seed", seed]])],
    )  # fmt: skip


def drawn_contexts(rng: np.random.Generator, F: int) -> Contexts:
    """Return contexts of pieces of words, with a few tokens that fire."""
    parts = [
        "th",
        "e",
        "in",
        "er",
        "an",
        "c",
        "at",
        "on",
        "or",
        "es",
        "ar",
        "st",
        "al",
        "ing",
        "ou",
    ]
    words = [f" {''.join(rng.choice(parts, rng.integers(1, 4)))}" for _ in range(VOCABULARY - 20)]
    words += [",", ".", " the", " of", " and", " to", " a", "\n", " is", " was", " it", " for",
              "ed", "s", "ly", "é", "✓", "-", "'", " —"]  # fmt: skip
    shares = 1 / np.arange(1, VOCABULARY + 1)
    order = rng.permutation(VOCABULARY)
    tokens = order[rng.choice(VOCABULARY, (F, CONTEXTS, WIDTH), p=shares / shares.sum())]
    fires = rng.random((F, CONTEXTS, WIDTH), dtype=np.float32) < 0.06
    fires[..., WIDTH * 3 // 4] = True
    strength = rng.gamma(3, 1, (F, CONTEXTS, WIDTH)) * fires
    strength[..., WIDTH * 3 // 4] += 4
    return Contexts(
        tokens=tokens, activation=strength, vocabulary=[word.encode() for word in words]
    )


def curve(title: str, x: str, y: str, rng: np.random.Generator) -> LineChart:
    """Return a rising curve with its band."""
    xs = list(STEPS)
    ys = [1 - 1 / (1 + step / 100) + rng.normal(0, 0.01) for step in xs]
    low, high = [v - 0.04 for v in ys], [v + 0.04 for v in ys]
    return LineChart(title=title, x_label=x, y_label=y,
                     series=[Series(name=title.lower(), x=xs, y=ys, low=low, high=high)],
                     lines=[HorizontalLine(name="all", y=1.0)])  # fmt: skip


def curves(rng: np.random.Generator) -> list[LineChart]:
    """Return the further curves of the overview."""
    return [curve("Dimensionality", "step", "share of the width", rng),
            curve("Explained variance", "step", "share", rng)]  # fmt: skip


def measure(page: Page, path: Path, repeats: int) -> dict[str, float]:
    """Return the medians (and worst) of what a reader feels, milliseconds."""
    loads: list[float] = []
    for _ in range(repeats):
        page.goto(path.as_uri() + "#features")
        page.reload()
        page.wait_for_selector("html[data-ready=yes]")
        loads.append(page.evaluate("performance.now()"))
    strokes = [page.evaluate(KEYSTROKE, query) for query in QUERIES]
    page.evaluate(KEYSTROKE, "")
    sorts = [
        page.evaluate(
            """() => { const start = performance.now();
            document.querySelectorAll(".head button")[6].click();
            return performance.now() - start; }"""
        )
        for _ in range(4)
    ]
    gaps = page.evaluate(FRAMES)
    return {
        "load, median": statistics.median(loads),
        "load, worst": max(loads),
        "keystroke, median": statistics.median(strokes),
        "keystroke, worst": max(strokes),
        "sort, worst": max(sorts),
        "frame while scrolling, median": statistics.median(gaps),
        "frame while scrolling, worst": max(gaps),
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="also write the page here")
    chosen = parser.parse_args()
    start = time.perf_counter()
    text = render_explorer(drawn_explorer(chosen.features))
    built = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = (chosen.keep or Path(folder) / "explorer.html").resolve()
        path.write_text(text, encoding="utf-8")
        program = next(filter(None, map(shutil.which, PROGRAMS)))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        found = measure(page, path, chosen.repeats)
        print(f"{datetime.now(UTC):%Y-%m-%d}; meristem-evolution {version('meristem-evolution')}, "
              f"Chromium {browser.version}, Python {platform.python_version()}")  # fmt: skip
        print(f"{chosen.features:,} features, {len(STEPS)} snapshots, {CONTEXTS} contexts of "
              f"{WIDTH} tokens: {len(text) / 1e6:.1f} MB, built in {built:.1f} s\n")  # fmt: skip
        print("| what | ms |\n|---|---|")
        for name, value in found.items():
            print(f"| {name} | {value:.0f} |")
        browser.close()


if __name__ == "__main__":
    main()
