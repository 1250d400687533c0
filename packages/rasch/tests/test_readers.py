"""Files in, score matrices out: every format alike, and every fault named."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meristem_core.testing import rngs
from meristem_rasch import DataError, read_lm_eval, read_responses, read_scores, read_table

few = settings(max_examples=max(6, settings().max_examples // 12))


def write(folder, values, *, layout, kind):
    rows = [
        {"model": f"m{v}", "item": f"q{i}", "score": x}
        for v, row in enumerate(values)
        for i, x in enumerate(row)
        if not np.isnan(x)
    ]
    if layout == "wide":
        rows = [
            {"model": f"m{v}"} | {f"q{i}": None if np.isnan(x) else x for i, x in enumerate(row)}
            for v, row in enumerate(values)
        ]
    path = folder / f"{layout}.{kind}"
    if kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        names = list(rows[0])
        lines = [",".join("" if r[n] is None else str(r[n]) for n in names) for r in rows]
        text = "\n".join([",".join(names), *lines]) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if kind == "csv.gz" else text.encode())
    return path


@few
@given(rng=rngs(), layout=st.sampled_from(["wide", "long"]))
def test_every_format_reads_the_same(rng, layout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("read")
    values = rng.integers(0, 3, size=(4, 5)).astype(float)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[0], values[:, 0] = 1, 1
    for kind in ("csv", "csv.gz", "jsonl", "parquet"):
        found = read_scores(write(folder, values, layout=layout, kind=kind))
        assert found.persons == tuple(f"m{v}" for v in range(4))
        assert found.items == tuple(f"q{i}" for i in range(5))
        np.testing.assert_array_equal(found.values, values)
    assert read_responses(folder / f"{layout}.csv").raw.tolist() == np.nansum(values, 1).tolist()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "model,q1,q2\na,1,0\nb,x,1\n", "row 2, column q1: 'x' is not a number"),
        ("a.csv", "model,q1,q2\na,1\n", "line 2 has 2 cells, the header 3"),
        ("a.csv", "model,q1,q1\na,1,0\n", "'q1' names two rows"),
        ("a.csv", "model,q1\na,1\na,0\n", "'a' names two rows"),
        ("a.csv", "model,q1\na,inf\n", "infinite"),
        ("a.csv", "", "no rows"),
        ("a.csv", "model,item,score\na,q1,1\na,q1,0\n", "a answers q1 2 times"),
        ("a.jsonl", '{"model": "a"\n', "line 1"),
        ("a.jsonl", "[1]\n", "no object"),
        ("a.xlsx", "x", "give a .csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_a_fault_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_scores(path)


def test_a_missing_file_is_named_with_what_can_be_read(tmp_path):
    with pytest.raises(DataError, match=r"lost.csv not found; give a .csv, .tsv, .jsonl or"):
        read_scores(tmp_path / "lost.csv")


def test_a_fraction_is_no_response(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("model,q1,q2\na,0.5,1\nb,0,1\n")
    assert read_scores(path).values[0, 0] == 0.5
    with pytest.raises(DataError, match=r"person a, item q1: score 0\.5"):
        read_responses(path)
    with pytest.raises(DataError, match="no column for item"):
        read_scores(path, layout="long", score="q1")


def log(folder, system, task, rows, **more):
    (folder / system).mkdir(parents=True, exist_ok=True)
    path = folder / system / f"samples_{task}_2026-01-02T03-04-05.678901.jsonl"
    with path.open("a") as file:
        for doc, value in rows:
            record = {"doc_id": doc, "filter": "none", "metrics": ["acc"], "acc": value}
            file.write(json.dumps(record | {"doc_hash": f"h{task}{doc}"} | more) + "\n")
    return path


def test_logs_of_the_harness_become_a_matrix(tmp_path):
    log(tmp_path, "one", "arc_easy", [(0, 1.0), (1, 0.0)])
    log(tmp_path, "two", "arc_easy", [(1, 1.0), (0, 0.0)])
    log(tmp_path, "two", "mmlu", [(0, 1.0)])
    found = read_lm_eval([tmp_path])
    assert found.persons == ("one", "two")
    assert found.items == ("arc_easy/0", "arc_easy/1", "mmlu/0")
    np.testing.assert_array_equal(found.values, [[1, 0, np.nan], [0, 1, 1]])


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([(0, 1.0), (0, 1.0)], {}, "document arc/0 repeats in system one"),
        ([(0, float("nan"))], {}, "not a finite number"),
        ([(0, 1.0)], {"metrics": ["acc", "acc_norm"], "acc_norm": 0}, "choose one with metric="),
        ([(1, 1.0)], {"filter": "strict"}, "choose one with filter="),
        ([(1, 1.0)], {"doc_id": 0, "doc_hash": "other"}, "repeats"),
    ],
)
def test_logs_that_are_not_one_run_are_refused(tmp_path, rows, more, message):
    if "filter" in more or "doc_hash" in more:
        log(tmp_path, "one", "arc", [(0, 1.0)])
    log(tmp_path, "one", "arc", rows, **more)
    with pytest.raises(DataError, match=message):
        read_lm_eval([tmp_path])


def test_documents_that_differ_between_systems_are_refused(tmp_path):
    log(tmp_path, "one", "arc", [(0, 1.0)])
    log(tmp_path, "two", "arc", [(0, 1.0)], doc_hash="other")
    with pytest.raises(DataError, match="differs between"):
        read_lm_eval([tmp_path])
    with pytest.raises(DataError, match="not found"):
        read_lm_eval([tmp_path / "none"])


def test_a_table_is_columns(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("x\ty\n1\tNA\n2\t3\n")
    table = read_table(path)
    assert len(table) == 2
    np.testing.assert_array_equal(table.numbers("y"), [np.nan, 3])
    with pytest.raises(DataError, match="no column 'z'"):
        table.numbers("z")
