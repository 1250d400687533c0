import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from meristem_core import Journal

RECORDS = [{"step": n, "loss": 1.0 / (n + 1), "text": "β\n\u2028"} for n in range(5)]


@pytest.fixture
def path(tmp_path):
    with Journal(tmp_path / "a.jsonl") as journal:
        for record in RECORDS:
            journal.append(record, sync=False)
    return tmp_path / "a.jsonl"


def test_records_come_back_in_order_one_per_line(path):
    with Journal(path) as journal:
        assert list(journal) == RECORDS
        assert journal.repaired_bytes == 0
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == RECORDS


def test_a_reopened_journal_continues(path):
    with Journal(path) as journal:
        journal.append({"last": np.float32(0.5)})
        assert list(journal)[-1] == {"last": 0.5}


def test_a_journal_cut_at_any_byte_keeps_every_whole_record(path):
    data = path.read_bytes()
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + 1
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        with Journal(path) as journal:
            whole = int((ends <= cut).sum())
            assert list(journal) == RECORDS[:whole], f"cut at byte {cut}"
            assert journal.repaired_bytes == cut - (ends[whole - 1] if whole else 0)
            journal.append({"next": True}, sync=False)
            assert list(journal) == [*RECORDS[:whole], {"next": True}]


@pytest.mark.parametrize(
    "tail", [b'{"step": 9\0\0\0', b"\0\0\0\0", b'{"a": \n', b'{"a": "\xff"}\n']
)
def test_a_last_line_that_lost_its_content_is_cut_away(path, tail):
    with path.open("ab") as file:
        file.write(tail)
    with Journal(path) as journal:
        assert journal.repaired_bytes == len(tail)
        assert list(journal) == RECORDS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}\n{"a" 1}\n{"a": 1}\n', r"a\.jsonl:2:6: Expecting ':' delimiter; mend the"),
        (b'{"a": 1}\n\n{"a": 1}\n', r"a\.jsonl:2:1: Expecting value"),
        (b'{"a": 1}\n[1]\n', r"a\.jsonl:2:1: a list, not a JSON object; mend the file or delete"),
        (b'{"a": NaN}\n{"a": 1}\n', r"a\.jsonl:1:7: NaN is not JSON"),
        (b"a letter to a friend", r"a\.jsonl:1:1: Expecting value"),
        (b"a letter to a friend\n", r"a\.jsonl:1:1: Expecting value"),
    ],
)
def test_a_file_with_other_content_is_refused_untouched(tmp_path, data, message):
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        Journal(tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == data


def test_a_record_that_is_not_finite_is_refused_and_nothing_is_written(path):
    before = path.read_bytes()
    with Journal(path) as journal, pytest.raises(ValueError, match=r"rows\[0\]\.loss is nan"):
        journal.append({"rows": [{"loss": float("nan")}]})
    assert path.read_bytes() == before


def test_a_write_cut_by_a_limit_is_taken_back(path):
    size = path.stat().st_size
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, old[1]))
        try:
            with pytest.raises(OSError, match=r"a record of .*a\.jsonl was not written"):
                journal.append({"much": "x" * 100})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert path.stat().st_size == size, "the torn line is still there"
        journal.append({"step": 5})
        assert list(journal) == [*RECORDS, {"step": 5}]


def test_rewind_drops_records_and_the_journal_continues(path):
    kept_lines = path.read_bytes().splitlines(keepends=True)[:3]
    with Journal(path) as journal:
        assert journal.rewind(lambda record: record["step"] < 3) == 2
        assert path.read_bytes() == b"".join(kept_lines)
        journal.append({"step": 3})
        assert [record["step"] for record in journal] == [0, 1, 2, 3]
        assert journal.rewind(lambda record: True) == 0
        assert journal.rewind(lambda record: False) == 4
        assert list(journal) == []
    assert list(path.parent.iterdir()) == [path]


def test_an_error_in_keep_leaves_the_journal(path):
    before = path.read_bytes()
    with Journal(path) as journal:
        with pytest.raises(KeyError):
            journal.rewind(lambda record: record["no such field"])
        journal.append({"step": 5})
    assert path.read_bytes().startswith(before)
    assert list(path.parent.iterdir()) == [path]


WRITER = """
import sys
from meristem_core import Journal
journal = Journal(sys.argv[1])
print("ready", flush=True)
for n in range(10**9):
    journal.append({"n": n, "pad": "x" * 5000}, sync=False)
    if n % 50 == 49:
        journal.rewind(lambda record: record["n"] % 50 == 49)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_a_drawn_moment_leaves_whole_records_in_order(tmp_path, seed):
    path = tmp_path / "a.jsonl"
    delay = np.random.default_rng(seed).uniform(0.0, 0.1)
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.kill()
    with Journal(path) as journal:
        numbers = [record["n"] for record in journal]
    kept = [n for n in numbers if n % 50 == 49]
    fresh = [n for n in numbers if n % 50 != 49]
    assert kept == list(range(49, 50 * len(kept), 50)), f"kept records {kept} after {delay:.4f} s"
    start = 50 * len(kept) if not fresh or fresh[0] >= 50 * len(kept) else 50 * (len(kept) - 1)
    assert fresh == list(range(start, start + len(fresh))), f"new records after {delay:.4f} s"
