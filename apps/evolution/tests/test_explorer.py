"""What an explorer refuses, and that packing loses nothing that is shown."""

import base64
import json
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_evolution import render_explorer
from meristem_evolution._pack import TYPES, pack, pack_explorer


def unpack(table, data):
    """Return the arrays of a packed text."""
    raw = zlib.decompress(base64.b64decode(data))
    types = {js: name for name, js in TYPES.items()}
    return {
        name: np.frombuffer(raw, np.dtype(types[kind]).newbyteorder("<"), count=size, offset=at)
        for name, (kind, at, size) in table.items()
    }


@given(rng=rngs(), sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_arrays_come_back_and_lie_at_multiples_of_eight(rng, sizes):
    arrays = {
        f"a{i}": rng.integers(0, 100, size).astype(rng.choice(sorted(TYPES)))
        for i, size in enumerate(sizes)
    }
    table, data = pack(arrays)
    for name, found in unpack(table, data).items():
        np.testing.assert_array_equal(found, arrays[name])
        assert table[name][1] % 8 == 0, f"{name} is not aligned: {table[name]}"


def test_what_is_packed_is_what_was_given(explorer):
    header, data = pack_explorer(explorer)
    found = unpack(json.loads(header)["arrays"], data)
    features, contexts = explorer.features, explorer.features.contexts
    np.testing.assert_array_equal(found["kind"], features.kind)
    np.testing.assert_array_equal(found["emergence"], features.emergence)
    np.testing.assert_allclose(found["norms"].reshape(features.norms.shape), features.norms, 1e-6)
    shape = contexts.activation.shape
    strength = found["strength"].reshape(shape) / 255 * found["scale"][:, None, None]
    largest = contexts.activation.max((1, 2), keepdims=True)
    assert (np.abs(strength - contexts.activation) <= largest / 255).all()
    np.testing.assert_array_equal(strength > 0, contexts.activation > 0)
    words = np.append(found["ends"], found["ends"][-1])
    tokens = found["tokens"].reshape(shape)
    for place in np.ndindex(shape):
        token = contexts.tokens[place]
        start = words[tokens[place] - 1] if tokens[place] else 0
        text = found["words"][start : words[tokens[place]]].tobytes()
        assert text == (contexts.vocabulary[token] if token >= 0 else b"")


def test_equal_explorers_give_equal_pages_and_texts_cannot_break_out(make_explorer):
    text = render_explorer(make_explorer(3))
    assert text == render_explorer(make_explorer(3))

    class Finder(HTMLParser):
        scripts = 0
        asked: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attributes):
            self.scripts += tag == "script"
            self.asked += [value for name, value in attributes if name in ("src", "href")]

    finder = Finder()
    finder.feed(text)
    assert finder.scripts == 3, "the page's own"
    assert not finder.asked


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("frequency", np.full(60, np.inf), r"frequency\[0\] is inf"),
        ("lifetime", np.full(60, np.nan), r"lifetime\[0\] is nan; a page holds finite numbers"),
        ("kind", np.full(60, 4), "kind holds 4 to 4; it must lie within 0 and 3"),
        ("peak", np.full(60, 5), "peak holds 5 to 5; it must lie within -1 and 4"),
        ("neighbours", np.full((60, 2), 60), "neighbours holds 60 to 60"),
    ],
)
def test_what_would_draw_a_wrong_page_is_refused(explorer, change, field, value, message):
    with pytest.raises(ValueError, match=message):
        change(explorer, **{field: value})


def test_contexts_are_checked(explorer, change):
    import dataclasses

    contexts = explorer.features.contexts
    beyond = dataclasses.replace(contexts, tokens=contexts.tokens + 3)
    with pytest.raises(ValueError, match="tokens holds 2 to 17; it must lie within -1 and 14"):
        change(explorer, contexts=beyond)
    negative = dataclasses.replace(contexts, activation=contexts.activation - 1)
    with pytest.raises(ValueError, match="a silent token has 0"):
        change(explorer, contexts=negative)
