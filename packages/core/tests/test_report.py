"""Reports: axes that place and label values, text that cannot break out, a page that opens."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_core.report import (
    Check,
    Checks,
    Details,
    Drawing,
    HorizontalLine,
    LineChart,
    Link,
    Page,
    Samples,
    Section,
    Series,
    Table,
    Text,
    Tile,
    Tiles,
    document,
    fragments,
    render,
    render_svg,
)
from meristem_core.report._axes import label, linear_axis, log_axis

VOID = {"meta", "input", "br"}
heights = st.floats(-1e6, 1e6, allow_subnormal=False)
places = st.integers(0, 10**6).map(float)
steps = st.lists(places, min_size=1, max_size=12, unique=True).map(sorted)


class Outline(HTMLParser):
    """Checks that tags close in order and collects tags and text."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, f"unclosed {self.stack}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack, f"{tag} closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page_of(*blocks):
    return Page(title="T", subtitle="S", sections=[Section(title="A", blocks=list(blocks))])


def chart(xs, ys, **more):
    series = [Series(name="loss", x=xs, y=ys)]
    return LineChart(title="Loss", x_label="step", y_label="nats", series=series, **more)


@given(values=st.lists(heights, min_size=1, max_size=20))
def test_a_linear_axis_keeps_order_and_room(values):
    axis = linear_axis(values)
    found = [axis.place(value) for value in sorted(values)]
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in found), (axis, found)
    assert found == sorted(found)
    assert len(axis.ticks) >= 2, "a scale needs two labels"


@given(values=steps)
def test_a_logarithmic_axis_keeps_order_and_gives_zero_its_own_place(values):
    axis = log_axis(values)
    found = [axis.place(value) for value in values]
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in found), (axis, found)
    assert all(a < b for a, b in pairwise(found)), (axis, found)
    if axis.zero:
        assert axis.place(0) == 0
        assert axis.place(min(value for value in values if value)) > 0.05


@given(low=st.floats(1e-3, 1e3), ratio=st.floats(1.5, 1e6), share=st.floats(0.01, 0.99))
def test_equal_ratios_take_equal_room_on_a_logarithmic_axis(low, ratio, share):
    axis = log_axis([low, low * ratio])
    assert math.isclose(axis.place(low * ratio**share), share, abs_tol=1e-9)


@given(value=st.floats(-1e12, 1e12))
def test_a_label_reads_back_to_four_digits(value):
    text = label(value).replace(",", "")
    units = {"M": 1e6, "G": 1e9}
    read = float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)
    assert math.isclose(read, value, rel_tol=6e-4, abs_tol=1e-9), (value, text)


def outline_with(text):
    blocks = [
        Text(text),
        Tiles([Tile(label=text, value=text, note=text)]),
        Table(columns=[text], rows=[[text], [1], [0.5], [None]], caption=text),
        Checks([Check(claim=text, verdict=text, holds=None, detail=text)]),
        Samples([(text, text)]),
        Details(summary=text, blocks=[Text(text)]),
        chart([0.0, 1.0], [1.0, 2.0], note=text),
    ]
    return Outline(render(page_of(*blocks)).split("<main>")[1].split("</main>")[0])


PLAIN = outline_with("x")


@given(text=st.text(st.characters(codec=None), min_size=1, max_size=40))
def test_any_text_stays_text(text):
    found = outline_with(text)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in PLAIN.tags]


@given(xs=steps, seed=st.integers(0, 2**32 - 1))
def test_a_chart_draws_every_point_twice_and_reads_it_out(xs, seed):
    ys = [float((seed * (place + 1)) % 97) for place in range(len(xs))]
    outline = Outline(render(page_of(chart(xs, ys))))
    drawings = [found for tag, found in outline.tags if tag == "svg" and "data-points" in found]
    assert len(drawings) == 2, "one with a logarithmic, one with a linear axis"
    for drawing in drawings:
        _, rows = json.loads(drawing["data-points"])
        assert [row[1] for row in rows] == [label(x) for x in xs]
        assert [row[2] for row in rows] == [f"loss {y:.4g}" for y in ys]
    assert sum(tag == "circle" for tag, _ in outline.tags) == 2 * len(xs)


def test_equal_pages_are_equal_bytes_and_nothing_is_loaded():
    page = page_of(chart([0.0, 10.0], [2.0, 1.0], lines=[HorizontalLine(name="floor", y=0.5)]))
    text = render(page)
    assert text == render(page)
    assert not re.search(r"src=|href=|url\(|@import", text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series(name="a", x=[1.0], y=[1.0, 2.0]), "series a: y has 2 values, x has 1"),
        (lambda: Series(name="a", x=[1.0], y=[math.nan]), r"series a: y\[0\] is nan; leave"),
        (lambda: chart([], []), "chart Loss has no points"),
        (lambda: chart([-1.0], [0.0]), r"chart Loss: x \(-1.0\) must be >= 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_opens_fits_and_answers_the_keyboard(tmp_path, open_page, width, dark):
    wide = Table(columns=[f"column {n}" for n in range(20)], rows=[list(range(20))])
    long = Table(columns=["setting", "value"], rows=[["checkpoints", "snapshots/" * 20]])
    path = tmp_path / "report.html"
    steps = [0.0, 1.0, 10.0, 100.0]
    path.write_text(
        render(page_of(wide, long, chart(steps, [4.0, 3.0, 2.0, 1.5]))), encoding="utf-8"
    )
    with open_page(path, width=width, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        assert page.locator("table").last.bounding_box()["width"] <= width, "a path does not break"
        log, linear = page.locator(".plot > svg").all()
        assert log.is_visible()
        assert not linear.is_visible()
        log.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("output").text_content() == "step 0:  loss 4"
        page.keyboard.press("ArrowRight")
        assert page.locator("output").text_content() == "step 1:  loss 3"
        page.locator("label", has_text="linear").click()
        assert linear.is_visible()
        assert not log.is_visible()


@pytest.mark.browser
def test_a_figure_is_one_file_that_a_browser_draws(tmp_path, open_page):
    drawn = [chart([0.0, 1.0], [2.0, 1.0], lines=[HorizontalLine(name="floor", y=0.5)])] * 2
    path = tmp_path / "figure.svg"
    path.write_text(render_svg(drawn), encoding="utf-8")
    ElementTree.parse(path)
    with open_page(path) as page:
        texts = page.locator("text").all_text_contents()
        assert texts.count("floor (0.5)") == texts.count("loss") == 2
        assert page.locator("circle").count() == 4
    with pytest.raises(ValueError, match="charts is empty; give"):
        render_svg([])


def test_a_page_of_ones_own_has_the_look_of_a_report():
    parts = fragments([[chart([0, 1], [1, 2])], [chart([0, 1], [2, 1])]])
    text = document("A < B", "".join(parts), style="b { color: red }", script="const x = 1;")
    outline = Outline(text)
    ids = [attributes["id"] for tag, attributes in outline.tags if tag == "input"]
    assert len(ids) == len(set(ids)) == 4, "charts of all fragments have ids of their own"
    assert "<title>A &lt; B</title>" in text
    assert "--paper" in text
    assert text.index("--paper") < text.index("b { color: red }")


@pytest.mark.parametrize("name", ["style", "script"])
def test_a_text_that_would_end_its_element_is_refused(name):
    with pytest.raises(ValueError, match="would end it"):
        document("A", "", **{name: f"x </{name.upper()}>"})


def test_a_link_leads_to_a_file_beside_the_report():
    text = render(page_of(Link(text="All <features>", file="features/explorer.html")))
    assert '<a href="features/explorer.html">All &lt;features&gt;</a>' in text


@pytest.mark.parametrize(
    "file", ["", "http://a.b", "/etc", "../a.html", "a/../../b", "javascript:x"]
)
def test_a_link_that_leads_elsewhere_is_refused(file):
    with pytest.raises(ValueError, match="must be a relative path"):
        Link(text="x", file=file)


def test_a_drawing_stands_in_the_row_of_its_neighbours():
    svg = '<svg viewBox="0 0 9 9"><circle class="c0" cx="1" cy="2" r="3"/></svg>'
    drawing = Drawing(title="A < B", svg=svg, note="n", legend=[("c0", "x & y")])
    text = render(Page(title="", subtitle="", sections=[Section(title="", blocks=[drawing] * 2)]))
    assert text.count(svg) == 2
    assert text.count('<div class="charts">') == 1
    assert "A &lt; B" in text
    assert "x &amp; y" in text


@pytest.mark.parametrize(
    "svg",
    [
        "<svg><script/></svg>",
        "<svg onload='x()'/>",
        "<svg><a href='x'/></svg>",
        "<p/>",
        "<svg>",
        "<svg><svg/></svg>",
    ],
)
def test_a_drawing_that_could_act_is_refused(svg):
    with pytest.raises(ValueError, match="drawing A"):
        Drawing(title="A", svg=svg)


def test_a_heading_stands_over_its_numbers():
    table = Table(columns=["item", "n", "mixed"], rows=[["a", 1, "-"], ["b", None, 2]])
    (html,) = fragments([[table]])
    plain, number = '<th scope="col">', '<th scope="col" class="number">'
    assert f"{plain}item</th>{number}n</th>{plain}mixed</th>" in html
