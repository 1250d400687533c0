import gzip
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from meristem_core.corpus import Document, assign_splits, deduplicate, read_documents

zstandard = pytest.importorskip("zstandard")
NOBODY = 65534  # a user who owns nothing


def pairs(source, **options):
    return [(document.id, document.text) for document in read_documents(source, **options)]


@pytest.fixture
def folder(tmp_path):
    """One file of each kind, in two levels, with hidden ones."""
    corpus = tmp_path / "corpus"
    (corpus / "sub" / ".git").mkdir(parents=True)
    (corpus / "b.txt").write_bytes("bé\r\n".encode())
    (corpus / "a.md").write_text("a")
    (corpus / "sub" / "c.py").write_text("c")
    (corpus / "sub" / "d.odd").write_text("d")
    (corpus / "sub" / ".git" / "x").write_text("hidden")
    (corpus / ".hidden").write_text("hidden")
    (corpus / "e.jsonl").write_text('{"text": "e1", "n": NaN}\n\n  \n{"text": "e4"}')
    (corpus / "f.txt.gz").write_bytes(gzip.compress(b"f"))
    (corpus / "g.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "g"}\n'))
    return corpus


EXPECTED = [
    ("a.md", "a"),
    ("b.txt", "bé\r\n"),
    ("e.jsonl:1", "e1"),
    ("e.jsonl:4", "e4"),
    ("f.txt.gz", "f"),
    ("g.jsonl.zst:1", "g"),
    ("sub/c.py", "c"),
    ("sub/d.odd", "d"),
]


def test_a_folder_is_read_in_order_of_names_without_hidden_entries(folder):
    assert pairs(folder) == EXPECTED
    assert pairs(str(folder) + "/") == EXPECTED


def test_ids_do_not_depend_on_where_the_folder_lies(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "else" / "where")
    assert pairs(tmp_path / "else" / "where") == EXPECTED
    monkeypatch.chdir(tmp_path)
    assert pairs("corpus") == EXPECTED


def test_a_glob_takes_what_it_matches(folder):
    assert pairs(f"{folder}/*.txt") == [("b.txt", "bé\r\n")]
    assert pairs(f"{folder}/**/*.[mp][dy]") == [("a.md", "a"), ("sub/c.py", "c")]
    assert pairs(f"{folder}/s?b/*.py") == [("sub/c.py", "c")]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert pairs(tmp_path / "a[1].txt") == [("a[1].txt", "x")]


def test_a_single_file_has_its_name_as_id(folder):
    assert pairs(folder / "sub" / "c.py") == [("c.py", "c")]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_several_frames_and_many_chunks_are_read_through(tmp_path, compress):
    suffix = ".gz" if compress is gzip.compress else ".zst"
    lines = [json.dumps({"text": f"line {n} " + "x" * (n % 977)}) for n in range(3000)]
    data = "\n".join(lines).encode()
    (tmp_path / f"a.jsonl{suffix}").write_bytes(compress(data[:700_000]) + compress(data[700_000:]))
    found = list(read_documents(tmp_path / f"a.jsonl{suffix}"))
    assert [document.text for document in found] == [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_data_cut_anywhere_is_an_error(tmp_path, suffix):
    compress = gzip.compress if suffix == ".gz" else zstandard.compress
    path = tmp_path / f"a.txt{suffix}"
    data = compress(np.random.default_rng(0).integers(33, 126, 300, dtype=np.uint8).tobytes())
    for cut in [0, 5, 20, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"a\.txt\..* ends before its compressed data does"):
            pairs(path, encoding="latin-1")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_compressed_data_is_an_error(tmp_path, suffix):
    (tmp_path / f"a.txt{suffix}").write_bytes(b"this was never compressed, in no way at all")
    with pytest.raises(ValueError, match=r"a\.txt\..* is not whole compressed data"):
        pairs(tmp_path)


def test_a_missing_source_is_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none not found; give an existing file, folder"):
        read_documents(tmp_path / "none")
    with pytest.raises(ValueError, match=r"\*\.txt matches no file; check the pattern"):
        read_documents(tmp_path / "*.txt")
    with pytest.raises(ValueError, match=r"holds no files; give a folder with text"):
        read_documents(tmp_path)


def test_a_source_without_visible_text_is_refused_at_its_end(tmp_path):
    (tmp_path / "a.txt").write_text(" \n\t")
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no text; give documents with visible characters"):
        pairs(tmp_path)


def test_an_unknown_encoding_is_refused_at_once(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    for name in ("utf-9", "base64", "rot13"):
        with pytest.raises(
            ValueError, match=rf"encoding \('{name}'\) is not a text encoding; give"
        ):
            read_documents(tmp_path, encoding=name)


def test_bytes_that_do_not_decode_are_named_with_their_offset(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(ValueError, match=r"a\.txt: byte 3 \(0xe9\) is not utf-8 .*; give its enc"):
        pairs(tmp_path)
    assert pairs(tmp_path, encoding="latin-1") == [("a.txt", "café au lait")]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(ValueError, match=r"a\.txt: byte 5 \(0xff\)"):
        pairs(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"ab\xc3")
    with pytest.raises(ValueError, match=r"a\.txt: byte 2 \(0xc3\) is not utf-8 \(unexpected end"):
        pairs(tmp_path)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl: byte 24 \(0xff\)"):
        pairs(tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "b"}\r\n')
    assert pairs(tmp_path) == [("a.txt", "a"), ("b.jsonl:1", "b")]


def test_wide_encodings_hold_zero_bytes_and_are_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("aé".encode("utf-16"))
    assert pairs(tmp_path, encoding="utf-16") == [("a.txt", "aé")]
    (tmp_path / "a.txt").rename(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=r"a\.jsonl cannot be split into lines in utf-16; convert"):
        pairs(tmp_path, encoding="utf-16")


def test_a_single_binary_file_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(ValueError, match=r"a\.png is a binary file \(it holds zero bytes\); give"):
        pairs(tmp_path / "a.png")


def test_binary_files_of_a_folder_are_counted_in_a_warning(folder):
    for n in range(4):
        (folder / f"z{n}.bin").write_bytes(b"\0")
    with pytest.warns(UserWarning, match=r"4 binary files of .* skipped: z0\.bin, z1\.bin, z2\.bi"):
        assert pairs(folder) == EXPECTED


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": }', r"a\.jsonl:2:10: Expecting value; mend the line"),
        ('["x"]', r"a\.jsonl:2:1: a list, not an object; write \{\"text\": \.\.\.\} per line"),
        ('{"body": "x"}', r"a\.jsonl:2:1: no field \"text\" but \['body'\]; rename the field"),
        ('{"text": 3}', r"a\.jsonl:2:1: \"text\" is of type int, not a string; convert it"),
        ('{"text": "\\ud800"}', r"a\.jsonl:2:1: \"text\" holds half a surrogate pair; mend"),
        ('{"text": "\0"}', r"a\.jsonl:2:11: a zero byte is not text; mend the line"),
        ("[" * 100_000, r"a\.jsonl:2:1: JSON too large to read"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        pairs(tmp_path)


def test_names_that_would_break_ids_are_refused(tmp_path):
    (tmp_path / "a.jsonl:3").write_text("x")
    with pytest.raises(ValueError, match=r"a\.jsonl:3 ends like the id of a line .*; rename it"):
        read_documents(tmp_path)
    (tmp_path / "a.jsonl:3").unlink()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    with pytest.raises(ValueError, match=r"the name of file .*udcff\.txt' is not UTF-8; rename it"):
        read_documents(tmp_path)


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe cannot be read \(not a regular file\)"):
        pairs(tmp_path)


def test_a_broken_link_is_refused(tmp_path):
    (tmp_path / "a.txt").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"a\.txt cannot be read"):
        pairs(tmp_path)


@pytest.fixture
def forbidden():
    """A folder with a file and a subfolder that this process may not read."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "a.txt").write_text("x")
    (folder / "a.txt").chmod(0)
    (folder / "sub").mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


def test_unreadable_files_and_folders_are_refused(forbidden):
    with pytest.raises(PermissionError, match=r"a\.txt cannot be read .*; mend its permissions"):
        pairs(forbidden / "a.txt")
    with pytest.raises(PermissionError, match=r"sub cannot be read .*; mend its permissions"):
        pairs(forbidden)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5, "test": 0.4}, r"fractions sum to 0\.9, not to 1; add a split for the rest"),
        ({"train": 1.0, "test": 0.0}, r"fractions\['test'\] is 0\.0; fractions are positive"),
        ({"train": float("nan")}, r"fractions\['train'\] is nan"),
        ({}, "fractions sum to 0"),
    ],
)
def test_bad_fractions_are_refused(fractions, message):
    with pytest.raises(ValueError, match=message):
        assign_splits(["a"], fractions=fractions, seed=0)


def test_an_id_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="id 'a' comes twice; ids must be unique"):
        assign_splits(["a", "b", "a"], fractions={"train": 1.0}, seed=0)


def test_decimal_fractions_that_miss_one_by_rounding_are_fine():
    fractions = {str(n): 0.1 for n in range(10)}
    assert set(assign_splits(map(str, range(300)), fractions=fractions, seed=0).values()) == set(
        fractions
    )


def test_duplicates_are_dropped_and_told(caplog):
    texts = ["a b", "c", " a\n\tb ", "ab", "", " ", "c"]
    documents = [Document(id=str(n), text=text) for n, text in enumerate(texts)]
    told: list[tuple[str, str]] = []
    with caplog.at_level("INFO", logger="meristem_core"):
        kept = deduplicate(documents, dropped=lambda d, first: told.append((d.id, first)))
        assert [document.id for document in kept] == ["0", "1", "3", "4"]
    assert told == [("2", "0"), ("5", "4"), ("6", "1")]
    assert "3 of 7 documents repeat an earlier text" in caplog.text


def unpacked(path):
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
        return reader.read()


@pytest.mark.data
def test_real_texts_are_read_whole(data_dir):
    paths = data_dir.glob("text/gutenberg_[mps]*.txt.zst")
    novels = {path.name: unpacked(path).decode() for path in paths}
    assert len(novels) == 3
    assert dict(pairs(data_dir / "text" / "gutenberg_[mps]*.txt.zst")) == novels
    name = "gutenberg_war_and_peace.latin1.txt.zst"
    with pytest.raises(ValueError, match=r"latin1\.txt\.zst: byte \d+ \(0x.*\) is not utf-8"):
        pairs(data_dir / "text" / name)
    ((_, text),) = pairs(data_dir / "text" / name, encoding="latin-1")
    assert text.encode("latin-1") == unpacked(data_dir / "text" / name)


@pytest.mark.data
def test_real_records_agree_with_json_of_the_standard_library(data_dir):
    path = data_dir / "text" / "c4_demo.jsonl.zst"
    lines = unpacked(path).decode().splitlines()
    assert [text for _, text in pairs(path)] == [json.loads(line)["text"] for line in lines]
