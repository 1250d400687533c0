"""Laws of files, digests, states and splits."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meristem_core import digest, read_json, write_json
from meristem_core._bytes import CHUNK
from meristem_core._documents import _split
from meristem_core._json import canonical, parse
from meristem_core.corpus import Document, assign_splits, deduplicate, read_documents
from meristem_core.testing import seeds, simplices

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    leaves | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
words = st.text("ab", min_size=1, max_size=2)
spaces = st.text(" \t\n\r\u00a0\u2003", min_size=1, max_size=3)


@given(value=values)
def test_what_is_written_is_read(value):
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", value)
        found = read_json(Path(folder) / "a.json")
    assert canonical(found) == canonical(value), f"{value!r} came back as {found!r}"
    assert parse(canonical(value).encode(), "canonical") == value


@given(value=st.dictionaries(texts, values, min_size=2, max_size=6), seed=seeds())
def test_the_order_of_keys_is_irrelevant_to_the_digest(value, seed):
    keys = list(value)
    random.Random(seed).shuffle(keys)
    assert digest({key: value[key] for key in keys}) == digest(value), f"order {keys}"


@given(left=values, right=values)
@example(left=[1], right=[1.0])
@example(left=0.0, right=-0.0)
@example(left=True, right=1)
def test_digests_are_equal_exactly_if_the_json_texts_are(left, right):
    same = canonical(left) == canonical(right)
    assert (digest(left) == digest(right)) == same, f"{left!r} and {right!r}"


@given(value=values, data=st.data())
def test_json_cut_short_is_never_read_as_another_value(value, data):
    text = canonical([value]).encode()
    cut = data.draw(st.integers(0, len(text) - 1), label="cut")
    with pytest.raises(ValueError, match=r"^cut:1:\d+: "):
        parse(text[:cut], "cut")


@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(1, 60)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(data, cuts):
    chunks = [data[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True)]
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert list(_split(iter(chunks))) == expected, f"chunks {chunks}"


@given(texts=st.lists(texts, min_size=1, max_size=5), blanks=st.lists(st.integers(0, 4)))
def test_records_come_back_with_their_line_number(texts, blanks):
    lines = [canonical({"text": f"x{text}"}) for text in texts]
    for place in sorted(blanks, reverse=True):
        lines.insert(min(place, len(lines)), " ")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.jsonl").write_text("\n".join(lines))
        found = list(read_documents(folder))
    assert [document.text for document in found] == [f"x{text}" for text in texts]
    for document in found:
        line = lines[int(document.id.removeprefix("a.jsonl:")) - 1]
        assert canonical({"text": document.text}) == line, f"{document.id} is not that line"


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_text_file_keeps_every_character(text):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.txt").write_bytes(b"!" * (CHUNK - 1) + text.encode())
        (document,) = read_documents(folder)
    assert document.text[CHUNK - 1 :] == text


names = st.lists(texts, unique=True, min_size=1, max_size=30)
fractions = simplices(3).map(lambda p: dict(zip("abc", (p + 0.01) / 1.03, strict=True)))


@given(ids=names, fractions=fractions, seed=seeds(), data=st.data())
def test_a_split_depends_on_the_own_id_alone(ids, fractions, seed, data):
    whole = assign_splits(ids, fractions=fractions, seed=seed)
    part = data.draw(st.lists(st.sampled_from(ids), unique=True), label="part")
    assert assign_splits(part, fractions=fractions, seed=seed) == {id: whole[id] for id in part}
    assert list(whole) == ids


@given(seed=seeds(), fractions=fractions)
def test_shares_are_near_their_fractions(seed, fractions):
    n = 2000
    splits = list(assign_splits(map(str, range(n)), fractions=fractions, seed=seed).values())
    for name, fraction in fractions.items():
        count, spread = splits.count(name), (n * fraction * (1 - fraction)) ** 0.5
        assert abs(count - n * fraction) <= 6 * spread + 1, (
            f"{name}: {count}, wanted {n * fraction}"
        )


@given(seed=seeds(), share=st.floats(0.1, 0.5))
def test_a_growing_first_split_only_gains(seed, share):
    def first(fraction):
        fractions = {"first": fraction, "rest": 1 - fraction}
        splits = assign_splits(map(str, range(200)), fractions=fractions, seed=seed)
        return {id for id, split in splits.items() if split == "first"}

    assert first(share) <= first(share + 0.25)


@given(parts=st.lists(st.lists(words, max_size=3), max_size=12), data=st.data())
def test_deduplication_leaves_each_text_once_and_the_first(parts, data):
    written = [
        data.draw(spaces).join(part) + (data.draw(spaces) if data.draw(st.booleans()) else "")
        for part in parts
    ]
    documents = [Document(id=str(n), text=text) for n, text in enumerate(written)]
    kept = list(deduplicate(documents))
    keys = [tuple(part) for part in parts]
    assert [int(d.id) for d in kept] == sorted(keys.index(key) for key in set(keys))
    assert list(deduplicate(kept)) == kept, "deduplicating twice changes something"
