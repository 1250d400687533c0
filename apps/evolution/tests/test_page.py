"""The explorer in a real Chromium: it opens, finds, sorts, filters, links, and stays silent."""

import re

import numpy as np
import pytest

pytestmark = pytest.mark.browser
READY = "html[data-ready=yes]"


def count(page) -> int:
    """Return how many features the list holds."""
    return int(page.locator(".list").get_attribute("aria-rowcount")) - 1


def shown_ids(page) -> list[int]:
    """Return the ids of the rows that exist, from top to bottom."""
    rows = page.locator(".row:not([hidden])").evaluate_all(
        "rows => rows.map(row => [Number(row.getAttribute('aria-rowindex')), row.id])"
    )
    return [int(name.removeprefix("row-")) for _, name in sorted(rows)]


def texts_of(explorer, feature: int) -> list[str]:
    """Return the contexts of a feature as text."""
    contexts = explorer.features.contexts
    return [
        b"".join(contexts.vocabulary[token] for token in row if token >= 0).decode(errors="replace")
        for row in contexts.tokens[feature]
    ]


def finds(explorer, query: str) -> set[int]:
    """Return the features whose contexts hold the query."""
    F = len(explorer.features.kind)
    wanted = query.lower().replace("\n", " ")
    texts = {f: [t.lower().replace("\n", " ") for t in texts_of(explorer, f)] for f in range(F)}
    return {f for f in range(F) if any(wanted in text for text in texts[f])}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_view_opens_without_scrolling_sideways(page_path, open_page, width, dark):
    with open_page(page_path, width=width, dark=dark) as page:
        page.wait_for_selector(READY)
        tabs = page.locator("[role=tab]:visible")
        assert tabs.all_text_contents() == ["Overview", "Features", "About"], "no tasks, no tab"
        for name in ("Overview", "Features", "About"):
            page.get_by_role("tab", name=name).click()
            assert page.get_by_role("tabpanel", name=name).is_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_the_overview_counts_the_features(page_path, explorer, open_page):
    with open_page(page_path) as page:
        page.wait_for_selector(READY)
        assert page.locator("#counts button").all_text_contents() == ["15"] * 4
        assert "step 4" in page.locator("#counts").text_content()
        assert page.locator("#rotation .cells rect").count() == len(explorer.steps) ** 2
        bars = page.locator("#histogram .bar")
        for place, step in enumerate(explorer.steps):
            number = int((explorer.features.emergence == place).sum())
            said = bars.nth(place).get_attribute("aria-label")
            assert said.startswith(f"step {step}: ")
            assert sum(map(int, re.findall(r"(\d+) [a-z]", said))) == number
        before = bars.nth(2).bounding_box()["width"]
        page.get_by_label("linear", exact=True).first.check()
        assert bars.nth(2).bounding_box()["width"] != before
        bars.nth(4).click()
        assert count(page) == int((explorer.features.emergence == 4).sum())
        assert "step=64" in page.url


def test_search_finds_what_the_texts_hold(page_path, explorer, open_page):
    rng = np.random.default_rng(0)
    queries = ["the cat", "THE", "mat.", "</script> a", "€", "s€", "zebra", "ings on the"]
    queries += ["the cats"[:end] for end in range(1, 9)]  # typing on narrows the last finds
    for _ in range(25):
        text = texts_of(explorer, int(rng.integers(60)))[0]
        start = int(rng.integers(max(1, len(text) - 9)))
        queries.append(text[start : start + int(rng.integers(1, 9))])
    with open_page(page_path) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("/")
        box = page.locator("#query")
        for query in queries:
            box.fill(query.replace("\n", " "))
            ids = finds(explorer, query)
            assert count(page) == len(ids), repr(query)
            rows = shown_ids(page)
            assert set(rows) <= ids, repr(query)
            marks = page.locator(".row:not([hidden]) mark.sought").all_text_contents()
            line = re.sub(r"\s+", " ", query.lower())
            assert [text.lower() for text in marks] == [line] * len(rows), repr(query)


def test_an_open_feature_marks_what_was_sought(page_path, explorer, open_page):
    with open_page(page_path) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("/")
        page.locator("#query").fill("the cat")
        page.keyboard.press("Enter")
        held = [text.lower().count("the cat") for text in texts_of(explorer, shown_ids(page)[0])]
        items = page.locator(".contexts li")
        marked = [items.nth(n).locator(".sought").all_text_contents() for n in range(len(held))]
        assert [len(each) for each in marked] == [2 * n for n in held], "two tokens each"
        assert {text for each in marked for text in each} == {" the", " cat"}
        page.keyboard.press("Escape")
        page.locator("#query").fill("")
        assert page.get_by_role("columnheader", name="strongest context").is_visible()
        assert page.locator("mark.sought").count() == 0


def test_an_id_is_found_and_opened_by_keyboard(page_path, open_page):
    with open_page(page_path) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("/")
        page.keyboard.type("#41")
        assert count(page) == 1
        page.keyboard.press("Enter")
        assert page.locator("#pane h2").text_content() == "Feature 41"
        assert "id=41" in page.url
        page.keyboard.press("Escape")
        assert page.locator("#pane").is_hidden()
        page.keyboard.press("Escape")
        assert count(page) == 60, "a second Escape clears the search"


def test_an_open_feature_stands_beside_the_list_with_its_contexts_in_sight(page_path, open_page):
    with open_page(page_path, width=1280) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("2")
        page.keyboard.press("j")
        list_box, pane = (page.locator(name).bounding_box() for name in (".list", "#pane"))
        assert pane["x"] >= list_box["x"] + list_box["width"]
        assert pane["width"] < 700, "its chart is no larger than it must be"
        assert abs(pane["y"] - list_box["y"]) < 2


def test_every_column_sorts_both_ways(page_path, explorer, open_page):
    features = explorer.features
    steps = np.asarray(explorer.steps)
    values = {
        "id": np.arange(60),
        "norm": features.norms.max(1),
        "peak": np.where(features.peak < 0, np.nan, steps[features.peak]),
        "lifetime": features.lifetime,
        "fires": features.frequency,
        "dim.": features.dimensionality,
        "task": features.columns[0].values,
        "turn": features.turn(),
    }
    with open_page(page_path, width=1900) as page:
        page.wait_for_selector(READY)
        page.get_by_role("tab", name="Features").click()
        for name, column in values.items():
            single = column.astype(np.float32)
            for _ in range(2):
                page.get_by_role("columnheader", name=name).get_by_role("button").click()
                ids = shown_ids(page)
                head = page.get_by_role("columnheader", name=name)
                down = head.get_attribute("aria-sort") == "descending"
                kept = single[~np.isnan(single)]
                best = np.sort(kept)[::-1] if down else np.sort(kept)
                np.testing.assert_array_equal(single[ids], best[: len(ids)], err_msg=name)


def test_kinds_filter_and_clear(page_path, explorer, open_page):
    with open_page(page_path) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("2")
        page.locator(".kinds label", has_text="transient").click()
        assert count(page) == 15
        assert {explorer.features.kind[i] for i in shown_ids(page)} == {2}
        page.locator(".kinds label", has_text="dead").click()
        assert count(page) == 30
        assert "kind=transient%2Cdead" in page.url
        page.locator("#query").fill("zebra")
        assert page.get_by_text("No feature fits.").is_visible()
        page.locator("#clear").click()
        assert count(page) == 60


def test_the_keyboard_walks_the_list(page_path, open_page):
    with open_page(page_path) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("2")
        order = shown_ids(page)
        for key, place in (("j", 0), ("j", 1), ("ArrowDown", 2), ("k", 1), ("Home", 0)):
            page.keyboard.press(key)
            assert page.locator(".row[aria-selected=true]").get_attribute("id") == (
                f"row-{order[place]}"
            )
        page.keyboard.press("End")
        assert page.locator(".row[aria-selected=true]").is_visible(), "it scrolls with the choice"
        last = page.locator("#pane h2").text_content()
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowDown")
        assert page.locator("#pane h2").text_content() == last, "there is nothing below"
        page.keyboard.press("Escape")
        assert page.locator("#pane").is_hidden()


def test_a_link_opens_the_same_view(page_path, open_page):
    with open_page(page_path) as page:
        page.wait_for_selector(READY)
        page.keyboard.press("2")
        page.locator(".kinds label", has_text="emergent").click()
        page.get_by_role("columnheader", name="lifetime").get_by_role("button").click()
        page.locator(".row:visible").nth(1).click()
        seen = [page.locator(part).inner_text() for part in ("#pane h2", "#count")]
        rows = shown_ids(page)
        page.reload()
        page.wait_for_selector(READY)
        assert [page.locator(part).inner_text() for part in ("#pane h2", "#count")] == seen
        assert shown_ids(page) == rows
        page.locator(".near a").first.click()
        assert page.locator("#pane h2").inner_text() != seen[0]
        page.go_back()
        page.wait_for_function("text => document.querySelector('#pane h2').innerText === text",
                               arg=seen[0])  # fmt: skip


def test_a_wrong_address_shows_the_start(page_path, open_page):
    with open_page(page_path) as page:
        for address in ("#nonsense?id=x&sort=?&step=3", "#features?id=999&kind=none"):
            page.goto(page_path.resolve().as_uri() + address)
            page.reload()
            page.wait_for_selector(READY)
            page.keyboard.press("2")
            assert count(page) == 60
            assert page.locator("#pane").is_hidden()


def test_the_pane_shows_what_the_feature_does(page_path, explorer, open_page):
    features = explorer.features
    with open_page(page_path, width=1440) as page:
        page.goto(page_path.resolve().as_uri() + "#features?id=4")
        page.reload()
        page.wait_for_selector(READY)
        pane = page.locator("#pane")
        shown = pane.locator(".contexts li").all_text_contents()
        texts = [text.replace("\n", "⏎") for text in texts_of(explorer, 4)]
        assert shown == texts
        assert pane.locator(".facts").inner_text().count("\n") >= 8
        # the strongest token at the peak, where the gate is open
        norm = features.norms[4].max()
        place = int(features.contexts.activation[4, 0].argmax())
        token = pane.locator(".contexts li").first.locator("span.on").nth(0)
        tips = (
            pane.locator(".contexts li")
            .first.locator("span")
            .evaluate_all("spans => spans.map(span => span.dataset.tip)")
        )
        values = [float(tip.split()[-1]) if tip != "silent" else 0.0 for tip in tips]
        assert max(values) == pytest.approx(
            norm * features.contexts.activation[4, 0, place], rel=0.01
        )
        token.hover()
        assert page.locator("#tip").inner_text().startswith("activation ")
        # the gate: z times the norm of the snapshot against the threshold
        slider = pane.locator("input[type=range]")
        for snapshot in range(len(explorer.steps)):
            slider.fill(str(snapshot))
            strength = features.contexts.activation[4] * features.norms[4, snapshot]
            tokens = features.contexts.tokens[4]
            merged = np.where(tokens == 14, np.maximum(strength, np.roll(strength, 1, 1)), strength)
            open_now = int(((merged > 0.5) & (tokens != 13)).sum())
            assert pane.locator(".contexts .on").count() == pytest.approx(open_now, abs=1)
        pane.locator("summary").click()
        assert pane.locator(".cells rect").count() == len(explorer.steps) ** 2
        cell = pane.locator(".cells rect").nth(1)
        cell.hover()
        said = pane.locator(".turned output").inner_text().replace("−", "-")
        assert float(said.split()[-1]) == pytest.approx(features.cosines[4, 0, 1], abs=0.006)


def test_a_damaged_page_says_so(page_path, tmp_path, open_page):
    text = page_path.read_text(encoding="utf-8")
    start = text.index('id="packed">') + len('id="packed">')
    path = tmp_path / "damaged.html"
    path.write_text(text[:start] + "AAAA" + text[start + 4 :], encoding="utf-8")
    with open_page(path) as page:
        page.wait_for_function("document.querySelector('#loading').textContent.includes('damaged')")
