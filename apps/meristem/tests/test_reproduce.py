"""The frame of the reproductions: the list, the JSON, the errors, a quick paper."""

import json

import pytest

from meristem.reproduce._papers import PAPERS

TEN = [
    "2509.17196", "2508.15763", "2507.05197", "2506.13216", "2507.00018",
    "2502.17151", "2502.16497", "2502.12215", "2412.14135", "2412.10056",
]  # fmt: skip
FIELDS = [
    "claim", "source", "claimed", "measured", "low", "high", "n", "verdict", "note", "seconds",
    "seed",
]  # fmt: skip
VERDICTS = {"reproduced", "partly", "refuted", "not testable here"}


def test_the_list_names_the_ten_papers_and_their_state(meristem):
    listed = meristem("reproduce", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == TEN
    found = json.loads(meristem("reproduce", "--list", "--json").stdout)
    assert [paper["id"] for paper in found["papers"]] == TEN
    assert {paper["state"] for paper in found["papers"]} <= {"not yet", "partly", "complete"}


def test_a_paper_has_a_module_exactly_when_it_has_a_state():
    for paper in PAPERS.values():
        assert (paper.module is None) == (paper.state == "not yet"), paper.id
        if paper.module:
            assert callable(paper.load())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "reproduce needs an arXiv id"),
        (["1706.03762"], "1706.03762 is none of our papers"),
        (["2507.05197"], "2507.05197 is not reproduced yet: it waits for polar"),
    ],
)
def test_what_cannot_be_reproduced_is_said(meristem, words, message):
    done = meristem("reproduce", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout


@pytest.mark.slow
@pytest.mark.paper
def test_the_statistical_phase_is_reproduced_quickly(tmp_path, meristem):
    words = ["reproduce", "2509.17196", "--quick", "--json", "--out", tmp_path]
    done = meristem(*words)
    found = json.loads(done.stdout)
    assert (found["schema"], found["paper"]) == ("meristem-reproduce/1", "2509.17196")
    for row in found["rows"]:
        assert list(row) == FIELDS
        assert row["verdict"] in VERDICTS
        if row["measured"] is not None:
            assert row["low"] <= row["measured"] <= row["high"], row
    assert {row["verdict"] for row in found["rows"][:4]} == {"reproduced"}, "statistical phase"
    assert (tmp_path / "2509.17196" / "reproduction.html").exists()
    explorers = sorted(path.parent.name for path in tmp_path.glob("2509.17196/*/explorer.html"))
    assert explorers == [f"crosscoder-micro-0-{seed}" for seed in range(3)]
    for row in found["rows"][4:]:
        if row["measured"] is None:
            assert row["verdict"] == "not testable here"
            assert row["note"].startswith(("no value", "not judged")), row
        else:
            assert row["n"] == 3 or "; without " in row["note"], row


@pytest.mark.data
@pytest.mark.paper
def test_what_gaokao_eval_claims_is_judged_beside_its_controls(tmp_path, meristem, data_dir):
    words = ["reproduce", "2412.10056", "--quick", "--json", "--out", tmp_path]
    done = meristem(*words, MERISTEM_DATA=str(data_dir))
    assert done.returncode == 1, done.stderr  # not every claim survives
    rows = {row["claim"]: row for row in json.loads(done.stdout)["rows"]}
    for row in rows.values():
        assert list(row) == FIELDS
        if row["verdict"] == "not testable here":
            assert row["measured"] is None
        else:
            assert row["low"] <= row["measured"] <= row["high"]
    verdicts = {claim: row["verdict"] for claim, row in rows.items()}
    assert verdicts["The same in mathematics and sciences"] == "refuted"
    assert verdicts["Human difficulty labels do not predict scores of language models"] == "refuted"
    assert verdicts["Graders are inconsistent on more than 32 % of the answers"] == "refuted"
    found = rows["Difficulty as language models meet it restores a Rasch fit"]
    assert found["verdict"] == "reproduced"
    assert sorted(verdicts.values()).count("not testable here") == 3


def test_gaokao_without_its_data_is_a_usage_error(tmp_path, meristem):
    done = meristem("reproduce", "2412.10056", MERISTEM_DATA=str(tmp_path))
    assert done.returncode == 2
    assert "name in MERISTEM_DATA a folder" in done.stderr
