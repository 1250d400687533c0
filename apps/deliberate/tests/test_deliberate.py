"""The command as a user runs it: real servers, a real model, bad files, kills."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import meristem_testtime as tt
from meristem_core.command import run_command
from meristem_deliberate.__main__ import main


def run(capsys, *words):
    code = run_command(main, [str(word) for word in words], name="meristem deliberate")
    said = capsys.readouterr()
    return code, said.out, said.err


def options(adder, out, *more):
    return ("--engine", adder.url, "--model", "adder", "--out", out, "--n", 6, *more)


def test_a_run_and_the_replay_of_its_table_agree(capsys, adder, sums, tmp_path):
    code, out, _ = run(capsys, sums, *options(adder, tmp_path / "run", "--json"))
    assert code == 0
    result = json.loads(out)
    assert result["schema"] == "meristem-deliberate/1"
    assert result["config"]["cost"]["samples"] == 72 == adder.asked
    code, out, _ = run(
        capsys, "replay", tmp_path / "run/traces.csv", "--out", tmp_path / "again", "--json"
    )
    assert code == 0
    again = json.loads(out)["strata"][""]
    first = result["strata"][""]
    assert again["curve"]["accuracy"] == first["curve"]["accuracy"]
    assert again["smv"] == first["smv"]
    assert again["profile"] == first["profile"]


def test_what_is_reported_is_what_the_package_says(capsys, adder, sums, tmp_path):
    code, out, _ = run(capsys, sums, *options(adder, tmp_path / "run", "--json"))
    traces = tt.read_traces(tmp_path / "run/traces.csv")[""]
    found = json.loads(out)["strata"][""]
    assert code == 0
    assert found["questions"] == 12
    assert found["samples"] == 72
    assert [each["mean"] for each in found["curve"]["accuracy"]["majority"]] == pytest.approx(
        tt.maj_at_k(traces, found["curve"]["ks"]).mean(0)
    )
    assert [each["mean"] for each in found["coverage"]] == pytest.approx(
        tt.pass_at_k(traces, found["curve"]["ks"]).mean(0)
    )


def test_the_same_command_asks_nothing_twice(capsys, adder, sums, tmp_path):
    words = (sums, *options(adder, tmp_path / "run"))
    assert run(capsys, *words)[0] == 0
    first, asked = (tmp_path / "run/result.json").read_bytes(), adder.asked
    assert run(capsys, *words)[0] == 0
    assert adder.asked == asked
    assert (tmp_path / "run/result.json").read_bytes() == first


def test_a_failing_engine_keeps_every_sample(capsys, adder, sums, tmp_path):
    adder.until = 40
    words = (sums, *options(adder, tmp_path / "run"))
    code, _, said = run(capsys, *words)
    assert code == 3
    assert "HTTP 400: the quota is spent" in said
    assert "keeps every sample" in said
    kept = (tmp_path / "run/samples.jsonl").read_bytes().count(b"\n")
    adder.until = 10**9
    adder.seen.clear()
    assert run(capsys, *words)[0] == 0
    assert len(adder.seen) == (12 - kept) * 6


def test_a_budget_names_what_is_left_and_a_larger_one_goes_on(capsys, adder, sums, tmp_path):
    assert run(capsys, sums, *options(adder, tmp_path / "whole"))[0] == 0
    adder.seen.clear()
    words = (sums, *options(adder, tmp_path / "run"))
    code, _, said = run(capsys, *words, "--budget", 1)
    assert code == 3
    assert "2 questions are not done: s10, s11. " in said
    assert "raise --budget and the same command goes on" in said
    part = json.loads((tmp_path / "run/result.json").read_text())
    assert part["config"]["left"] == ["s10", "s11"]
    assert part["strata"][""]["questions"] == 10
    assert run(capsys, *words, "--budget", 10**6)[0] == 0
    assert len(adder.seen) == 72 == adder.asked - 72
    resumed, whole = ((tmp_path / name / "result.json").read_bytes() for name in ("run", "whole"))
    assert resumed == whole


def test_a_budget_that_leaves_one_question_measures_nothing(capsys, adder, sums, tmp_path):
    words = ("--engine", adder.url, "--model", "adder", "--out", tmp_path / "run", "--n", 64)
    code, _, said = run(capsys, sums, *words, "--budget", 1)
    assert code == 3
    assert "11 questions are not done: s1, s2, " in said
    assert not (tmp_path / "run/result.json").exists()


def test_a_killed_run_resumes_to_the_same_bytes(capsys, adder, sums, tmp_path):
    journal = tmp_path / "run/samples.jsonl"

    def lines():
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    adder.delay = 0.05
    command = [sys.executable, "-m", "meristem_deliberate", str(sums),
               *map(str, options(adder, tmp_path / "run"))]  # fmt: skip
    with subprocess.Popen(command) as process:
        while lines() < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = journal.read_bytes().splitlines(keepends=True)
    adder.delay = 0.0
    assert run(capsys, sums, *options(adder, tmp_path / "run"))[0] == 0
    assert run(capsys, sums, *options(adder, tmp_path / "whole"))[0] == 0
    resumed, whole = ((tmp_path / name / "result.json").read_bytes() for name in ("run", "whole"))
    assert resumed == whole
    assert journal.read_bytes().startswith(b"".join(kept[:2]))
    assert sorted(journal.read_text().splitlines()) == sorted(
        (tmp_path / "whole/samples.jsonl").read_text().splitlines()
    )


def test_the_contents_lead_to_every_section_by_keyboard(capsys, tmp_path, open_page):
    path, out = tmp_path / "two.csv", tmp_path / "out"
    rows = ["model,question,sample,tokens,answer,correct"]
    rows += [
        f"a: {m},q{q},{s},{5 + s},{s % 2},{1 - s % 2}"
        for m in "xy" for q in range(3) for s in range(4)
    ]  # fmt: skip
    path.write_text("\n".join(rows))
    assert run(capsys, "replay", path, "--out", out)[0] == 0
    with open_page(out / "report.html", height=300) as page:
        links = page.locator("nav a")
        titles = page.locator("main h2").all_text_contents()
        assert titles[:3] == ["All strata", "a: x: votes", "a: x: length"]
        assert page.locator("nav li span").all_text_contents() == ["a: x", "a: y"]
        assert links.count() == len(titles) == 6
        for title in titles:
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            place = page.evaluate("location.hash.slice(1)")
            assert page.locator(f"#{place} h2").text_content() == title
            links.nth(titles.index(title)).focus()


GOOD = '{"id": 1, "question": "1+1", "answer": "2"}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f'{GOOD}\n{{"id": 2, "question": 3}}', r":2:1: Expected `str`, got `int`"),
        (f'{GOOD}\n{{"id": 2, "answer"', r":2:19: Expecting ':' delimiter; mend the line"),
        (f"{GOOD}\n[1]", r":2:1: Expected `object`, got `array`; mend the line"),
        (f"{GOOD}\n\n{GOOD}", r":3:3: id '1' is also on line 1; give every question an id"),
        (f'{GOOD}\n{{"id": 2, "question": " ", "answer": 1}}', r":2:12: question is empty"),
        (f'{GOOD}\n{{"id": 2, "question": "q"}}', r":2:1: Object missing required field `answer`"),
        (f'{GOOD}\n{{"id": "", "question": "q", "answer": 1}}', r":2:3: id is empty"),
        (f'{GOOD}\n{{"id": 2, "question": "q", "answer": NaN}}', r":2:38: NaN is no JSON; mend"),
        (GOOD, "holds 1 questions; an interval needs 2 or more"),
        ("", "holds 0 questions"),
        (b"\xff\xfe", r":1:1: not UTF-8"),
    ],
)
def test_a_bad_file_is_named_by_line_and_column(capsys, tmp_path, content, said):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, error = run(capsys, path, "--engine", "hf:none", "--out", tmp_path / "run")
    assert code == 2
    assert said in error
    assert str(path) in error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--engine", "gpt"), "--engine is 'gpt'; write hf:PATH, vllm:PATH or openai:URL"),
        (("--engine", "hf:nowhere"), "--engine: nowhere is no folder"),
        (("--engine", "openai:http://x/v1"), "needs --model"),
        (("--engine", "openai:x", "--model", "m"), "it starts with http"),
        (("--engine", "hf:.", "--n", 0), "--n 0: it must be at least 1"),
        (("--engine", "hf:.", "--temperature", -1), "--temperature -1.0: it must be finite"),
        (("--engine", "hf:.", "--top-p", 0), "--top-p 0.0: it must lie in (0, 1]"),
        (("--engine", "hf:.", "--top-k", 0), "--top-k 0: it must be at least 1"),
        (("--engine", "hf:.", "--chains", 0), "--chains 0: it must be at least 1"),
        (("--engine", "hf:.", "--chains", 2), "--chains 2: chains are revised; give --revise 1"),
        (("--engine", "hf:.", "--cue", ""), "--cue '': give one text or more"),
        (("--engine", "hf:.", "--prompt", "x"), "lacks {question}"),
        (("--engine", "hf:.", "--limit", 1), "--limit 1: an interval needs 2"),
    ],
)
def test_a_bad_option_is_named(capsys, sums, tmp_path, more, said):
    code, _, error = run(capsys, sums, "--out", tmp_path / "run", *more)
    assert code == 2
    assert said in error


def test_a_chat_cannot_revise(capsys, adder, sums, tmp_path):
    code, _, error = run(capsys, sums, *options(adder, tmp_path / "run", "--revise", 1))
    assert code == 2
    assert "chat:adder lacks the capability 'continue'" in error


def test_a_chat_has_no_top_k(capsys, adder, sums, tmp_path):
    code, _, error = run(capsys, sums, *options(adder, tmp_path / "run", "--top-k", 3))
    assert code == 2
    assert "chat:adder lacks the capability 'top_k'; use top_p, or an engine" in error


def test_another_configuration_is_refused(capsys, adder, sums, tmp_path):
    assert run(capsys, sums, *options(adder, tmp_path / "run"))[0] == 0
    code, _, error = run(capsys, sums, *options(adder, tmp_path / "run", "--seed", 1))
    assert code == 2
    assert "seed" in error


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        (
            "question,sample,tokens,answer\nq,0,1,0\n",
            (),
            "columns are question, sample, tokens, answer; a sample needs question",
        ),
        ("question,sample,tokens,answer,correct\nq,0,1,0,1\nq,0,1,0,1\n", (), "is also on line 2"),
        ("question,sample,tokens,answer,correct\nq,0,1,0,1\n", (), "an interval needs 2"),
        (
            "question,sample,tokens,answer,correct\nq,0,1e17,0,1\n",
            (),
            ":2: tokens is '1e17'; it must be a whole number of at most 2**53",
        ),
        ("", (), "holds no sample"),
        ("question,sample,tokens,answer,correct\na,0,1,0,1\nb,0,1,0,1\n", ("--ks", "1,2"), "2"),
        ("question,sample,tokens,answer,correct\na,0,1,0,1\nb,0,1,0,1\n", ("--ks", "x"), "--ks is"),
    ],
)
def test_a_bad_table_is_named(capsys, tmp_path, content, words, said):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    code, _, error = run(capsys, "replay", path, "--out", tmp_path / "out", *words)
    assert code == 2
    assert said in error


def test_steps_of_a_table_are_revisions(capsys, tmp_path):
    path = tmp_path / "steps.csv"
    rows = ["question,sample,tokens,answer,correct,step"]
    for q in range(4):  # the first two are mended by the first revision, the others never right
        rows += [f"q{q},{s},10,1,0,0" for s in range(2)]
        rows += [f"q{q},0,5,{int(q > 1)},{int(q < 2)},{step}" for step in (1, 2)]
    path.write_text("\n".join(rows))
    code, out, _ = run(capsys, "replay", path, "--out", tmp_path / "out", "--json")
    found = json.loads(out)["strata"][""]
    assert code == 0
    assert found["samples"] == 8
    assert found["revision"]["accuracy"] == [0.0, 0.5, 0.5]
    assert found["revision"]["mended_rate"] == pytest.approx(2 / 6)
    assert found["budget"]["sequential"][-1] == 0.5
    assert [
        (each["chains"], each["rounds"], each["tokens"], each["accuracy"]["mean"])
        for each in found["shapes"]
    ] == [(1, 0, 10.0, 0.0), (1, 1, 15.0, 0.5), (1, 2, 20.0, 0.5)]
    assert found["shapes"][1]["minus_sampling"]["mean"] == 0.5
    assert found["shapes"][2]["minus_sampling"] is None  # three answers, two samples
    assert "minus as many samples" in (tmp_path / "out/report.html").read_text()
    path.write_text("\n".join(rows[:-2]))
    code, _, error = run(capsys, "replay", path, "--out", tmp_path / "out")
    assert code == 2
    assert "every question needs both" in error


def test_a_negative_reward_is_no_weight_and_the_result_says_so(capsys, tmp_path):
    path = tmp_path / "negative.csv"
    rows = ["question,sample,tokens,answer,correct,score:reward"]
    rows += [f"q{q},{s},{5 + s},{s % 2},{1 - s % 2},{s - 1}" for q in range(3) for s in range(4)]
    path.write_text("\n".join(rows))
    code, out, _ = run(capsys, "replay", path, "--out", tmp_path / "out", "--json")
    found = json.loads(out)["strata"][""]
    assert code == 0
    assert "best of n by reward" in found["full_vote"]
    assert "weighted by reward" not in found["full_vote"]
    note = "reward has values below 0, the least -1, so no vote is weighted by it"
    assert any(note in each for each in found["notes"])
    assert note in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("scores", [(), ("reward",)])
def test_strata_stay_apart(capsys, tmp_path, scores):
    rng = np.random.default_rng(0)
    rows = ["model,question,sample,tokens,answer,correct" + "".join(f",score:{s}" for s in scores)]
    for model in ("a", "b"):
        for q in range(5):
            for s in range(4):
                answer = int(rng.integers(2))
                cells = [model, q, s, rng.integers(1, 99), answer, int(answer == 0)]
                rows.append(",".join(map(str, [*cells, *(rng.random() for _ in scores)])))
    path = tmp_path / "two.csv"
    path.write_text("\n".join(rows))
    code, out, _ = run(capsys, "replay", path, "--out", tmp_path / "out", "--json")
    strata = json.loads(out)["strata"]
    assert code == 0
    assert set(strata) == {"a", "b"}
    assert ("weighted by reward" in strata["a"]["full_vote"]) == bool(scores)
