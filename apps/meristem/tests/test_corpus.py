"""The corpus stage: real Python text, splits, leaks, and every bad source by name."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem.grow._corpus import (
    BLOCK,
    PARAGRAPH,
    SPLITS,
    build_corpus,
    parse_source,
    read_split,
)
from meristem.grow._python_text import python_text
from meristem_core.command import UsageError

EVERYTHING = 10**9


def build(folder, *sources, encoding="utf-8", seed=0, limit=EVERYTHING):
    folder.mkdir(exist_ok=True)
    return build_corpus(
        folder, sources=tuple(map(str, sources)), encoding=encoding, seed=seed, max_characters=limit
    )


def texts(folder, domain, split):
    return [document.text for document in read_split(folder, domain, split)]


@pytest.fixture(scope="module")
def spoken():
    return python_text()


def test_the_running_python_gives_two_domains(spoken):
    sizes = {name: sum(len(doc.text) for doc in docs) for name, docs in spoken.items()}
    assert sizes["english"] > 1_000_000, f"{sizes}"
    assert sizes["python"] > 4_000_000, f"{sizes}"
    ids = [document.id for documents in spoken.values() for document in documents]
    assert len(ids) == len(set(ids)), "ids must be unique"


def test_docstrings_stand_in_one_domain_only(spoken):
    source = {document.id: document.text for document in spoken["python"]}["source/argparse.py"]
    english = {document.id: document.text for document in spoken["english"]}
    sentence = "Object for parsing command line strings into Python objects."
    assert sentence in english["docstrings/argparse.py"]
    assert sentence not in source
    assert "class ArgumentParser" in source


def test_every_document_is_in_one_split_and_held_out_text_is_unseen(tmp_path, corpus):
    found = build(tmp_path / "c", corpus)
    (domain,) = found.domains
    assert domain.documents == {"train": 72, "validation": 4, "probe": 4}
    parts = {split: texts(tmp_path / "c", "words", split) for split in SPLITS}
    held_out = [*parts["validation"], *parts["probe"]]
    assert not set(parts["train"]) & set(held_out)
    assert domain.characters["train"] == sum(map(len, parts["train"]))


def test_a_leaking_paragraph_is_taken_out_and_counted(tmp_path, write_corpus):
    folder = write_corpus(tmp_path / "words")
    shared = "\n\n" + "the same licence stands in every file of this project, " * 3
    for path in folder.iterdir():
        path.write_text(path.read_text() + shared + path.stem)
    common = "\n\n" + "this paragraph is longer than the limit and stands in all of them " * 2
    for path in folder.iterdir():
        path.write_text(path.read_text() + common)
    (domain,) = build(tmp_path / "c", folder).domains
    assert domain.leaks == 8, "one paragraph of each held-out document stands in training text"
    for split in ("validation", "probe"):
        assert all(common.strip() not in text for text in texts(tmp_path / "c", "words", split))
    assert len(common) > PARAGRAPH


def test_duplicates_are_dropped_and_counted(tmp_path, write_corpus):
    folder = write_corpus(tmp_path / "words")
    first = (folder / "000.txt").read_text()
    (folder / "zzz.txt").write_text(first.replace(" ", "  "))
    (domain,) = build(tmp_path / "c", folder).domains
    assert domain.duplicates == 1


def test_one_long_file_is_cut_into_sections(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(f"{n} " + "word " * 100 for n in range(400)))
    (domain,) = build(tmp_path / "c", book).domains
    assert domain.sectioned
    assert sum(domain.documents.values()) >= BLOCK
    assert min(domain.documents.values()) >= 1


def test_compressed_and_json_lines_are_read(tmp_path, corpus):
    path = tmp_path / "docs.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for each in sorted(corpus.iterdir()):
            file.write(json.dumps({"text": each.read_text()}) + "\n")
    (packed,) = build(tmp_path / "a", path).domains
    (plain,) = build(tmp_path / "b", corpus).domains
    assert packed.characters == plain.characters


def test_a_hub_data_set_is_streamed(tmp_path, corpus):
    pytest.importorskip("datasets")
    folder = tmp_path / "hub-data"
    folder.mkdir()
    with (folder / "train.jsonl").open("w") as file:
        for each in sorted(corpus.iterdir()):
            file.write(json.dumps({"text": each.read_text()}) + "\n")
    (domain,) = build(tmp_path / "c", f"hub:{folder}").domains
    assert domain.documents == {"train": 72, "validation": 4, "probe": 4}


def test_weights_become_shares(tmp_path, corpus, write_corpus):
    other = write_corpus(tmp_path / "other", seed=1)
    found = build(tmp_path / "c", f"{corpus}=3", f"{other}=1")
    assert [domain.weight for domain in found.domains] == [0.75, 0.25]


def test_no_more_is_read_than_asked_for(tmp_path, corpus):
    (domain,) = build(tmp_path / "c", corpus, limit=60_000).domains
    assert 60_000 <= sum(domain.characters.values()) < 65_000


@given(
    place=st.text(st.characters(exclude_characters="=", codec="utf-8"), min_size=1),
    weight=st.floats(1e-6, 1e6),
)
def test_a_weight_is_read_back(place, weight):
    assert parse_source(f"{place}={weight!r}") == (place, weight)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp, write: [tmp / "absent"], "absent"),
        (lambda tmp, write: [write(tmp / "few", documents=1)], "give more text"),
        (lambda tmp, write: [_file(tmp / "latin.txt", b"caf\xe9 " * 9000)], "encoding"),
        (lambda tmp, write: [_file(tmp / "empty.txt", b"")], "empty"),
        (
            lambda tmp, write: [tmp / "x" / "words", tmp / "y" / "words"],
            "2 sources would be named words",
        ),
        (lambda tmp, write: ["text=0"], r"the weight \(0\) must be positive"),
        (lambda tmp, write: ["text=inf"], r"the weight \(inf\) must be positive and finite"),
    ],
)
def test_a_bad_source_is_named_in_one_line(tmp_path, make, message, write_corpus):
    with pytest.raises(UsageError, match=message) as caught:
        build(tmp_path / "c", *make(tmp_path, write_corpus))
    assert "\n" not in str(caught.value)


def test_an_unknown_encoding_is_named(tmp_path, corpus):
    with pytest.raises(UsageError, match="utf-9"):
        build(tmp_path / "c", corpus, encoding="utf-9")


def _file(path, data):
    path.write_bytes(data)
    return path
